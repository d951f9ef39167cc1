package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"lvstun/deploy/bench/holders"
	"lvstun/deploy/bench/load"
)

// untilSignal is a context that ends with SIGINT or SIGTERM.
func untilSignal() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
}

// serve is `bench serve NAME`.
func serve(args []string) error {
	if len(args) != 1 {
		return errors.New("which name?")
	}
	ctx, cancel := untilSignal()
	defer cancel()
	l, err := (&net.ListenConfig{KeepAlive: -1}).Listen(ctx, "tcp", ":80")
	if err != nil {
		return err
	}
	return servePage(ctx, l, args[0])
}

// runLoad is `bench load ADDRESS:PORT`. It prints "ready" when all goes well and, after a signal, one line of JSON.
func runLoad(args []string) error {
	cfg := load.Defaults
	flags := flag.NewFlagSet("bench load", flag.ContinueOnError)
	flags.DurationVar(&cfg.Every, "every", cfg.Every, "a new connection each `interval`")
	flags.DurationVar(&cfg.Timeout, "timeout", cfg.Timeout, "a request on a new connection fails after `this`")
	flags.IntVar(&cfg.Flows, "flows", cfg.Flows, "so many long flows")
	flags.DurationVar(&cfg.Beat, "beat", cfg.Beat, "a request on each flow each `interval`")
	flags.DurationVar(&cfg.Calm, "calm", cfg.Calm, "it is ready, and it ends, when all went well for `this`")
	flags.DurationVar(&cfg.Patience, "patience", cfg.Patience, "it waits for calm no longer than `this`")
	flags.DurationVar(&cfg.Limit, "limit", cfg.Limit, "it ends after `this` without a signal")
	if err := flags.Parse(args); err != nil {
		return errUsage
	}
	addr, err := netip.ParseAddrPort(flags.Arg(0))
	if err != nil {
		return fmt.Errorf("which address and port: %w", err)
	}
	cfg.Addr = addr
	ctx, cancel := untilSignal()
	defer cancel()
	result, err := load.Run(ctx, cfg, func() { fmt.Println("ready") })
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// watchHolders is `bench holders ADDRESS`.
func watchHolders(args []string) error {
	if len(args) != 1 {
		return errors.New("which address?")
	}
	addr, err := netip.ParseAddr(args[0])
	if err != nil {
		return err
	}
	ctx, cancel := untilSignal()
	defer cancel()
	return holders.Watch(ctx, addr, os.Stdout)
}
