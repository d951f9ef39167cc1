package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"lvstun/deploy/bench/holders"
	"lvstun/deploy/bench/load"
	"lvstun/deploy/bench/result"
)

// record is `bench record`: it joins what the client and the two directors' watchers printed.
func record(args []string) error {
	var m result.Measurement
	var one, other string
	flags := flag.NewFlagSet("bench record", flag.ContinueOnError)
	flags.StringVar(&m.System, "system", "", "the system's `name`")
	flags.StringVar(&m.Event, "event", "", "the event's `name`")
	flags.IntVar(&m.Round, "round", 0, "the `number` of the repetition")
	flags.StringVar(&m.Trouble, "trouble", "", "`what` did not go as it should")
	client := flags.String("load", "", "the `file` that bench load printed")
	flags.StringVar(&one, "one", "", "the `file` that bench holders printed on one director")
	flags.StringVar(&other, "other", "", "the same of the other")
	to := flags.String("to", "", "the `file` of measurements, which grows")
	if err := flags.Parse(args); err != nil {
		return errUsage
	}
	said, err := os.ReadFile(*client)
	if err != nil {
		return err
	}
	if m.Client, err = clientResult(said); err != nil {
		return fmt.Errorf("%s: %w", *client, err)
	}
	a, errA := readHolders(one)
	b, errB := readHolders(other)
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	m.TwoHoldersMS = float64(holders.Both(a, b, m.Client.From, m.Client.To).Microseconds()) / 1000
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(*to, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	c := m.Client
	fmt.Printf("%-20s %-9s gap %6.0f ms, %4d of %d requests failed, flows: %d reset, %d lost, two holders %.0f ms%s\n",
		m.System, m.Event, c.GapMS, c.Failed, c.Requests, c.Resets, c.Lost, m.TwoHoldersMS, prefixed("; ", m.Trouble))
	return errors.Join(err, f.Close())
}

// clientResult is the last line of what bench load printed.
func clientResult(said []byte) (load.Result, error) {
	lines := bytes.Split(bytes.TrimSpace(said), []byte("\n"))
	var r load.Result
	if err := json.Unmarshal(lines[len(lines)-1], &r); err != nil {
		return r, fmt.Errorf("no result in its last line, %q: %w", lines[len(lines)-1], err)
	}
	return r, nil
}

func readHolders(file string) ([]holders.Span, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	spans, err := holders.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return spans, nil
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// versions collects flags of the form PROGRAM=VERSION.
type versions map[string]string

func (v versions) String() string { return "" }

func (v versions) Set(s string) error {
	name, version, ok := strings.Cut(s, "=")
	if !ok || name == "" || version == "" {
		return fmt.Errorf("%q: want PROGRAM=VERSION", s)
	}
	v[name] = version
	return nil
}

// report is `bench report`.
func report(args []string) error {
	run := result.Run{Versions: map[string]string{}}
	flags := flag.NewFlagSet("bench report", flag.ContinueOnError)
	out := flags.String("out", ".", "the `folder` for failover.json and failover.svg")
	flags.Var(versions(run.Versions), "version", "a `PROGRAM=VERSION` of the run; may be repeated")
	if err := flags.Parse(args); err != nil {
		return errUsage
	}
	f, err := os.Open(flags.Arg(0))
	if err != nil {
		return err
	}
	defer f.Close()
	if run.Measurements, err = result.ReadMeasurements(f); err != nil {
		return fmt.Errorf("%s: %w", flags.Arg(0), err)
	}
	if len(run.Measurements) == 0 {
		return fmt.Errorf("%s: nothing was measured", flags.Arg(0))
	}
	run.Began = run.Measurements[0].Client.From.UTC().Format(time.RFC3339)
	if run.Kernel, err = kernelRelease(); err != nil {
		return err
	}
	if run.Processor, err = processor(); err != nil {
		return err
	}
	run.Summary = result.Summarize(run.Measurements)
	for name, write := range map[string]func(io.Writer) error{"failover.json": run.JSON, "failover.svg": run.Chart} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(*out, name), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return run.Table(os.Stdout)
}

func kernelRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", err
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

// processor is the count and model of the processors, which tells an emulated one.
func processor() (string, error) {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if key, model, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return fmt.Sprintf("%d × %s", runtime.NumCPU(), strings.TrimSpace(model)), nil
		}
	}
	return fmt.Sprintf("%d processors", runtime.NumCPU()), lines.Err()
}

// markdown is `bench markdown FAILOVER.JSON`.
func markdown(args []string) error {
	if len(args) != 1 {
		return errors.New("which failover.json?")
	}
	data, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var run result.Run
	if err := json.Unmarshal(data, &run); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	return run.Markdown(os.Stdout)
}
