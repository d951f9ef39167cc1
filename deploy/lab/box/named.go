package box

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// named is where a box keeps the PIDs of its named processes; as all of /run it is empty in a new box.
const named = "/run/lab"

// Spawn starts argv in the background under a name, with its output appended to log. It runs inside the box and must be
// the last act of its process, whose end hands the child to process 1.
func Spawn(name string, argv, env []string, log string) error {
	if pid, err := pidOf(name); err == nil && alive(pid) {
		return fmt.Errorf("start %s: it runs already as PID %d", name, pid)
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	if err := os.MkdirAll(named, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(named, name), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644)
}

// Stop sends a signal to the named process and its group and waits until it is gone, which it must be within patience.
func Stop(name string, sig syscall.Signal, patience time.Duration) error {
	pid, err := pidOf(name)
	if err != nil {
		return err
	}
	if !alive(pid) {
		return fmt.Errorf("stop %s: it has ended already", name)
	}
	if err := unix.Kill(-pid, sig); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	for end := time.Now().Add(patience); alive(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("stop %s: PID %d still runs %s after %s", name, pid, patience, unix.SignalName(sig))
		}
	}
	return os.Remove(filepath.Join(named, name))
}

// Signal parses a signal's name, with or without SIG, or its number.
func Signal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n < 65 {
		return syscall.Signal(n), nil
	}
	if sig := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("%q is not a signal", s)
}

func pidOf(name string) (int, error) {
	data, err := os.ReadFile(filepath.Join(named, name))
	if errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("no process named %s was started here", name)
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(data))
}

// alive tells a running process from one that has ended, whether or not it is reaped.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The state follows the command's name, which stands in parentheses and may hold any character (proc(5)).
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	return rest != "" && rest[0] != 'Z' && rest[0] != 'X'
}
