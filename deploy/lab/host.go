package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"lvstun/deploy/lab/machine"
	"lvstun/deploy/lab/topology"
	"lvstun/deploy/lab/wire"
)

// envElapsed tells a command in the machine how many seconds the lab has run already, so that progress counts on.
const envElapsed = "LAB_ELAPSED"

var began = func() time.Time {
	seconds, _ := strconv.ParseFloat(os.Getenv(envElapsed), 64) // 0 where it is not set
	return time.Now().Add(-time.Duration(seconds * float64(time.Second)))
}()

// say reports progress.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "[%5.1fs] %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}

// errInterrupted is why a context ended after Ctrl-C and its kin.
var errInterrupted = errors.New("interrupted")

// interrupted is the exit status after Ctrl-C.
const interrupted = 130

// inMachine starts a machine, gives it to do, and takes it away whatever happens. The signals that do gets are for what
// runs in the machine; a second one ends the machine at once.
func (l *lab) inMachine(do func(m *machine.Machine, signals <-chan os.Signal) (int, error)) (int, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	hard, kill := context.WithCancel(context.Background())
	defer kill()
	caught, pass := make(chan os.Signal, 2), make(chan os.Signal, 2)
	signal.Notify(caught, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		s := <-caught
		say("%s: cleaning up; once more to do it at once", s)
		cancel(errInterrupted)
		pass <- s
		<-caught
		kill()
	}()
	m, err := machine.Start(ctx, l.self, say)
	if errors.Is(err, errInterrupted) {
		return interrupted, nil
	}
	if err != nil {
		return 0, err
	}
	defer context.AfterFunc(hard, func() { m.Stop() })()
	status, err := do(m, pass)
	err = errors.Join(err, m.Stop())
	if ctx.Err() != nil {
		return interrupted, nil
	}
	return status, err
}

// request is a command of the lab's own to be run in the machine.
func (l *lab) request(args ...string) (wire.Request, error) {
	dir, err := os.Getwd()
	elapsed := fmt.Sprintf("%s=%.3f", envElapsed, time.Since(began).Seconds())
	env := append(os.Environ(), "PATH="+l.path(), elapsed)
	return wire.Request{Argv: append([]string{l.self}, args...), Env: env, Dir: dir}, err
}

// run is `lab run`.
func run(l *lab, args []string) (int, error) {
	flags := flag.NewFlagSet("lab run", flag.ContinueOnError)
	topologyFile := flags.String("topology", "", "the topology's YAML `file`; the classic experiment's without it")
	if err := flags.Parse(args); err != nil {
		return 2, nil // flag has said it
	}
	if flags.NArg() == 0 {
		return 2, errors.New("run: which script?")
	}
	script := flags.Arg(0)
	if _, err := os.Stat(script); err != nil {
		return 1, err
	}
	return l.runScript(*topologyFile, strings.TrimSuffix(filepath.Base(script), ".sh"), flags.Args())
}

// runScript runs a script with its arguments in a machine; what it leaves goes to a folder of that name.
func (l *lab) runScript(topologyFile, name string, script []string) (int, error) {
	if _, err := topology.Load(topologyFile); err != nil {
		return 1, err
	}
	out := l.out(name)
	return l.inMachine(func(m *machine.Machine, signals <-chan os.Signal) (int, error) {
		return l.inside(m, signals, out, append([]string{"inside-run", "--topology", topologyFile, "--out", out}, script...)...)
	})
}

// out is the folder for what a run leaves.
func (l *lab) out(name string) string { return filepath.Join(filepath.Dir(l.self), "lab.out", name) }

// inside runs one of the lab's own commands in the machine, which leaves its files in out.
func (l *lab) inside(m *machine.Machine, signals <-chan os.Signal, out string, args ...string) (int, error) {
	if err := errors.Join(os.RemoveAll(out), os.MkdirAll(out, 0o755)); err != nil {
		return 0, err
	}
	req, err := l.request(args...)
	if err != nil {
		return 0, err
	}
	status, err := m.Run(req, nil, os.Stdout, os.Stderr, signals)
	if err != nil {
		return 0, err
	}
	if err := fetch(m, out); err != nil {
		return 0, err
	}
	if err := l.give(out); err != nil {
		return 0, err
	}
	left, err := os.ReadDir(out)
	if err == nil && len(left) == 0 {
		return status, os.Remove(out)
	}
	if status != 0 && err == nil {
		say("logs and artifacts are in %s", out)
	}
	return status, nil
}

// give gives a folder that root has made to the owner of the checkout, who ran the lab through sudo.
func (l *lab) give(out string) error {
	bin, err := os.Stat(filepath.Dir(l.self))
	if err != nil {
		return err
	}
	owner := bin.Sys().(*syscall.Stat_t)
	chown := func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, int(owner.Uid), int(owner.Gid)))
	}
	return errors.Join(os.Chown(filepath.Dir(out), int(owner.Uid), int(owner.Gid)), filepath.WalkDir(out, chown))
}

// fetch copies a folder out of the machine, where it exists and the host does not share it.
func fetch(m *machine.Machine, dir string) error {
	if m.Shared {
		return nil
	}
	unpack := exec.Command("tar", "-xf", "-", "--no-same-owner", "-C", dir)
	unpack.Stderr = os.Stderr
	w, err := unpack.StdinPipe()
	if err != nil {
		return err
	}
	if err := unpack.Start(); err != nil {
		return err
	}
	pack := wire.Request{Argv: []string{"sh", "-c", `mkdir -p "$0" && exec tar -cf - -C "$0" .`, dir}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/"}
	status, err := m.Run(pack, nil, w, os.Stderr, nil)
	if err == nil && status != 0 {
		err = fmt.Errorf("tar ended with status %d", status)
	}
	if err := errors.Join(err, w.Close(), unpack.Wait()); err != nil {
		return fmt.Errorf("copy %s from the guest: %w", dir, err)
	}
	return nil
}
