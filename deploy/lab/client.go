package main

import (
	"context"
	"flag"
	"net/netip"
	"os"
	"time"

	"lvstun/deploy/lab/load"
)

// client is `lab client ADDRESS:PORT`: it asks until a signal, or for a time, and prints what came of it.
func client(_ *lab, args []string) (int, error) {
	flags := flag.NewFlagSet("lab client", flag.ContinueOnError)
	every := flags.Duration("every", 20*time.Millisecond, "a new connection each `interval`")
	timeout := flags.Duration("timeout", 200*time.Millisecond, "a request fails after `this`")
	duration := flags.Duration("for", 0, "end after `this`; 0 waits for a signal")
	if err := flags.Parse(args); err != nil {
		return 2, nil
	}
	addr, err := netip.ParseAddrPort(flags.Arg(0))
	if err != nil {
		return 2, err
	}
	ctx, cancel := untilSignal()
	defer cancel()
	if *duration > 0 {
		ctx, cancel = context.WithTimeout(ctx, *duration)
		defer cancel()
	}
	tally := load.NewTally(time.Now())
	load.Run(ctx, addr, *every, *timeout, tally)
	tally.Print(os.Stdout, time.Now())
	return 0, nil
}
