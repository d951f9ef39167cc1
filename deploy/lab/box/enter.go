package box

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Enter runs argv in the box whose process 1 is pid, in the caller's working folder and on its standard files, passes
// on the signals it gets, and returns argv's status (128 + signal where one killed it).
func Enter(pid int, argv, env []string) (int, error) {
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	// The thread is in the box for good: it is never unlocked.
	runtime.LockOSThread()
	if err := join(pid); err != nil {
		return 0, err
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env, cmd.Dir = env, dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			cmd.Process.Signal(s) // it may have ended
		}
	}()
	return Status(cmd.Wait())
}

// join moves the calling thread into the namespaces of pid.
func join(pid int) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // a thread that shares its root cannot change mount namespaces
		return fmt.Errorf("unshare: %w", err)
	}
	kinds := []string{"net", "uts", "ipc", "pid", "mnt"} // mnt last: it takes /proc away
	files := make([]*os.File, len(kinds))
	for i, kind := range kinds {
		f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
		if err != nil {
			return err
		}
		defer f.Close()
		files[i] = f
	}
	for i, f := range files {
		if err := unix.Setns(int(f.Fd()), 0); err != nil {
			return fmt.Errorf("enter %s namespace: %w", kinds[i], err)
		}
	}
	return nil
}

// Status turns what (*exec.Cmd).Wait returned into a shell's exit status; err is set where there is none.
func Status(err error) (int, error) {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		ws := exit.Sys().(syscall.WaitStatus)
		if ws.Signaled() {
			return 128 + int(ws.Signal()), nil
		}
		return ws.ExitStatus(), nil
	}
	if errors.Is(err, exec.ErrWaitDelay) { // it ended well, but left its output open
		return 0, nil
	}
	return 0, err
}
