package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"lvstun/deploy/lab/box"
	"lvstun/deploy/lab/machine"
)

// test is `lab test`.
func test(l *lab, args []string) (int, error) {
	flags := flag.NewFlagSet("lab test", flag.ContinueOnError)
	pattern := flags.String("run", "", "only the tests and scenarios whose name matches the `regexp`")
	if err := flags.Parse(args); err != nil {
		return 2, nil
	}
	if _, err := regexp.Compile(*pattern); err != nil {
		return 2, err
	}
	out := l.out("test")
	return l.inMachine(func(m *machine.Machine, signals <-chan os.Signal) (int, error) {
		return l.inside(m, signals, out, "inside-test", *pattern, out)
	})
}

// testLimit ends a kernel test binary's own -test.timeout; scenarioLimit ends a scenario.
const (
	testLimit     = "240s"
	scenarioLimit = 5 * time.Minute
)

// insideTest runs every test and every scenario in a box of its own.
func insideTest(l *lab, args []string) (int, error) {
	matches, err := regexp.Compile(args[0])
	if err != nil {
		return 2, err
	}
	out := args[1]
	ctx, cancel := untilSignal()
	defer cancel()
	binaries, err := filepath.Glob(filepath.Join(filepath.Dir(l.self), "kernel-tests", "*.test"))
	if err != nil {
		return 1, err
	}
	scenarios, err := filepath.Glob(filepath.Join(l.root, "deploy", "lab", "scenarios", "*.sh"))
	if err != nil {
		return 1, err
	}
	passed, failed := 0, 0
	one := func(name string, argv []string) {
		if ctx.Err() != nil || !matches.MatchString(name) {
			return
		}
		began := time.Now()
		output, err := l.boxed(ctx, argv)
		elapsed := time.Since(began).Seconds()
		if err == nil {
			passed++
			fmt.Printf("ok   %s %.1fs\n", name, elapsed)
			return
		}
		failed++
		fmt.Printf("%s\nFAIL %s %.1fs: %v\n", bytes.TrimRight(output, "\n"), name, elapsed, err)
	}
	for _, binary := range binaries {
		one(strings.TrimSuffix(filepath.Base(binary), ".test"), []string{binary, "-test.v", "-test.timeout", testLimit})
	}
	for _, scenario := range scenarios {
		name := strings.TrimSuffix(filepath.Base(scenario), ".sh")
		topologyFile, err := topologyOf(scenario)
		if err != nil {
			return 1, err
		}
		one(name, []string{l.self, "inside-run", "--topology", topologyFile, "--out", filepath.Join(out, name), scenario})
		os.Remove(filepath.Join(out, name)) // fails where something is left in it
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	switch {
	case ctx.Err() != nil:
		return interrupted, nil
	case passed+failed == 0:
		return 1, errors.New("there is nothing to test: no bin/kernel-tests/*.test and no deploy/lab/scenarios/*.sh matches")
	case failed > 0:
		return 1, nil
	}
	return 0, nil
}

// boxed runs a command in a box of its own and returns what it printed.
func (l *lab) boxed(ctx context.Context, argv []string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, scenarioLimit, fmt.Errorf("not done after %s", scenarioLimit))
	defer cancel()
	var output bytes.Buffer
	env := append(os.Environ(), "PATH="+l.path())
	b, err := box.Start(l.self, box.Spec{Hostname: "test", Argv: argv}, env, nil, &output, &output)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, b.Kill)()
	if err := b.Go(); err != nil {
		return nil, err
	}
	err = b.Wait()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return output.Bytes(), err
}

// topologyOf returns the file that a scenario's comment `# topology: FILE` names, relative to the scenario; "" where
// none does.
func topologyOf(scenario string) (string, error) {
	f, err := os.Open(scenario)
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() && (lines.Text() == "" || strings.HasPrefix(lines.Text(), "#")) {
		if file, ok := strings.CutPrefix(lines.Text(), "# topology: "); ok {
			return filepath.Join(filepath.Dir(scenario), strings.TrimSpace(file)), nil
		}
	}
	return "", lines.Err()
}
