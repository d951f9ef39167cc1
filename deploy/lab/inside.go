package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"lvstun/deploy/lab/fabric"
	"lvstun/deploy/lab/script"
	"lvstun/deploy/lab/topology"
)

// envInside says that this process is in the machine, beside or on the nodes.
const envInside = script.EnvLab

// Folders in a run's out folder.
const (
	logs      = "logs"
	artifacts = "artifacts"
)

// built is a topology that is up in this machine.
type built struct {
	fabric *fabric.Fabric
	ops    net.Listener
	env    []string
	out    string
}

// build builds a topology. Its files go to the folder out.
func (l *lab) build(topologyFile, out string) (*built, error) {
	top, err := topology.Load(topologyFile)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(fabric.State, 0o755); err != nil {
		return nil, err
	}
	for _, dir := range []string{logs, artifacts} {
		if err := os.MkdirAll(filepath.Join(out, dir), 0o755); err != nil {
			return nil, err
		}
	}
	b := &built{env: append(os.Environ(), l.environ(top, topologyFile, out)...), out: out}
	bootLog, err := os.OpenFile(filepath.Join(out, logs, "boot.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	b.fabric, err = fabric.Build(l.self, top, func(node string) []string { return nodeEnv(b.env, node) }, bootLog)
	if err != nil {
		return nil, err
	}
	if b.ops, err = b.fabric.Serve(); err != nil {
		return nil, errors.Join(err, b.fabric.Close())
	}
	say("the topology is up: %d nodes", len(top.Nodes))
	return b, nil
}

func (b *built) close() error { return errors.Join(b.ops.Close(), b.fabric.Close()) }

// environ is what scripts and the lab's verbs find in their environment.
func (l *lab) environ(top *topology.Topology, topologyFile, out string) []string {
	if topologyFile != "" {
		if abs, err := filepath.Abs(topologyFile); err == nil {
			topologyFile = abs
		}
	}
	env := []string{
		script.EnvLab + "=" + l.self,
		script.EnvTopology + "=" + topologyFile,
		script.EnvLogs + "=" + filepath.Join(out, logs),
		script.EnvArtifacts + "=" + filepath.Join(out, artifacts),
		"PATH=" + l.path(),
	}
	if top.VIP.IsValid() {
		env = append(env, script.EnvVIP+"="+top.VIP.String())
	}
	return env
}

// nodeEnv is the environment on a node, where bash knows `start NAME CMD…`.
func nodeEnv(env []string, node string) []string {
	return append(env[:len(env):len(env)], script.EnvNode+"="+node, `BASH_FUNC_start%%=() { "$LAB" spawn "$@"; }`)
}

// untilSignal is a context that ends with SIGINT and its kin.
func untilSignal() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
}

// insideRun builds a topology and runs a script on it.
func insideRun(l *lab, args []string) (int, error) {
	flags := flag.NewFlagSet("lab inside-run", flag.ContinueOnError)
	topologyFile := flags.String("topology", "", "")
	out := flags.String("out", "", "")
	if err := flags.Parse(args); err != nil {
		return 2, nil
	}
	ctx, cancel := untilSignal()
	defer cancel()
	b, err := l.build(*topologyFile, *out)
	if err != nil {
		return 1, err
	}
	status, err := script.Run(ctx, fabric.State, flags.Arg(0), flags.Args()[1:], b.env, os.Stdout, os.Stderr)
	if status != 0 && ctx.Err() == nil {
		script.Tails(os.Stderr, filepath.Join(*out, logs))
	}
	err = errors.Join(err, b.close())
	if status == 0 && err == nil {
		err = tidy(*out)
	}
	return status, err
}

// tidy removes from a run's out folder what a success does not need.
func tidy(out string) error {
	err := os.RemoveAll(filepath.Join(out, logs))
	left, readErr := os.ReadDir(filepath.Join(out, artifacts))
	if readErr == nil && len(left) == 0 {
		err = errors.Join(err, os.Remove(filepath.Join(out, artifacts)))
	}
	return err
}

// insideUp builds a topology, starts the cluster on it, says that it is ready, and keeps it up until its input ends.
func insideUp(l *lab, args []string) (int, error) {
	topologyFile, out := args[0], args[1]
	ctx, cancel := untilSignal()
	defer cancel()
	b, err := l.build(topologyFile, out)
	if err != nil {
		return 1, err
	}
	fmt.Println(ready)
	input := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(input)
	}()
	select {
	case <-ctx.Done():
	case <-input:
	}
	return 0, b.close()
}

// ready is what insideUp says.
const ready = "ready"

// onNode runs a command on a node and returns what it printed.
func (l *lab) onNode(ctx context.Context, node string, stdin string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, l.self, append([]string{"on", node}, argv...)...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewBufferString(stdin), &out, &errOut
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s on %s: %w\n%s", argv[0], node, err, bytes.TrimSpace(errOut.Bytes()))
	}
	return out.String(), nil
}
