// Package script runs a lab script: bash with the lab's functions.
package script

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"lvstun/deploy/lab/box"
)

//go:embed lib.sh
var library []byte

// Names of the variables that a script and a node's processes find in their environment.
const (
	EnvLab       = "LAB"           // the lab's binary
	EnvVIP       = "LAB_VIP"       // the topology's virtual IP
	EnvLogs      = "LAB_LOGS"      // the folder of NODE.NAME.log
	EnvArtifacts = "LAB_ARTIFACTS" // a folder that is kept after success, too
	EnvTopology  = "LAB_TOPOLOGY"  // the topology's file; "" is the classic one
	EnvNode      = "LAB_NODE"      // the node that a process runs on; not set beside the nodes
)

// grace is how long a script may clean up after it was told to end.
const grace = 5 * time.Second

// Run runs a script in the given environment and returns its status. When ctx ends, the script gets SIGTERM and, after
// grace, SIGKILL.
func Run(ctx context.Context, dir, path string, args, env []string, out, errOut io.Writer) (int, error) {
	lib := filepath.Join(dir, "lib.sh")
	if err := os.WriteFile(lib, library, 0o644); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, "bash", append([]string{path}, args...)...)
	cmd.Env = append(env, "BASH_ENV="+lib)
	cmd.Stdout, cmd.Stderr = out, errOut
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	err := cmd.Wait()
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what the script left in the background
	if cmd.ProcessState != nil && ctx.Err() != nil {
		return 130, nil
	}
	return box.Status(err)
}

// tail is how many lines of each log Tails prints.
const tail = 20

// Tails prints the end of every log in the folder.
func Tails(w io.Writer, logs string) {
	files, _ := filepath.Glob(filepath.Join(logs, "*.log")) // the pattern is well formed
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			fmt.Fprintln(w, err)
			continue
		}
		lines := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
		more := ""
		if len(lines) > tail {
			more = fmt.Sprintf(" (the last %d of %d lines)", tail, len(lines))
			lines = lines[len(lines)-tail:]
		}
		fmt.Fprintf(w, "--- %s%s\n%s\n", filepath.Base(file), more, strings.Join(lines, "\n"))
	}
}
