// Package box runs a command as on a machine of its own: in new network, mount, PID, UTS and IPC namespaces, with a
// process 1 that reaps, fresh /proc, /sys and /run, and, where asked, folders of its own over the host's.
// Everything in a box ends, and everything it mounted goes, when its process 1 does.
package box

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
)

// Command is the lab's hidden command under which a box's process 1 runs; see Main.
const Command = "box"

// Spec says what a box is.
type Spec struct {
	Hostname string // "" keeps the host's
	// Own maps a folder of the host to the folder that takes what the box writes there: the box sees both, and
	// the host's stays as it is. The second outlives the box, so a box made again finds what it wrote.
	Own    map[string]string
	Sysctl []Setting // set in the box's network before its command starts, in this order
	Argv   []string  // the command; it may be empty where Stay is set
	Stay   bool      // the box lives on when its command has ended
}

// Setting is a kernel setting: its name with slashes, as net/ipv4/ip_forward, and its value.
type Setting struct{ Name, Value string }

// Box is a started box.
type Box struct {
	cmd   *exec.Cmd
	ready io.ReadCloser  // process 1 closes it when its mounts are done, after writing what went wrong, if anything
	start io.WriteCloser // closing it starts the command
	done  chan struct{}
	err   error // of cmd.Wait, valid once done is closed
}

// Start makes the box and waits until its mounts are done; its command runs only after Go, so that the caller can
// give it interfaces first. self is the lab's binary; env is the command's environment.
func Start(self string, spec Spec, env []string, stdin io.Reader, stdout, stderr io.Writer) (*Box, error) {
	encoded, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	start, startW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	readyR, ready, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, start.Close(), startW.Close())
	}
	cmd := exec.Command(self, Command, string(encoded))
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, stdin, stdout, stderr
	cmd.ExtraFiles = []*os.File{start, ready}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
		Setsid:     true,
		Pdeathsig:  syscall.SIGKILL,
	}
	err = cmd.Start()
	start.Close()
	ready.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("new namespaces: %w", err), startW.Close(), readyR.Close())
	}
	b := &Box{cmd: cmd, ready: readyR, start: startW, done: make(chan struct{})}
	go func() {
		b.err = cmd.Wait()
		close(b.done)
	}()
	said, err := io.ReadAll(readyR)
	readyR.Close()
	if err == nil && len(said) > 0 {
		err = errors.New(string(said))
	}
	if err != nil {
		b.Kill()
		return nil, err
	}
	return b, nil
}

// Go starts the box's command.
func (b *Box) Go() error { return b.start.Close() }

// Pid is the PID of the box's process 1, as its maker sees it.
func (b *Box) Pid() int { return b.cmd.Process.Pid }

// Signal passes a signal to the box's command.
func (b *Box) Signal(s os.Signal) error { return b.cmd.Process.Signal(s) }

// Wait waits until the box has ended and returns its command's status, in the form of (*exec.Cmd).Wait.
func (b *Box) Wait() error {
	<-b.done
	return b.err
}

// Done is closed when the box has ended.
func (b *Box) Done() <-chan struct{} { return b.done }

// Kill ends every process of the box at once and waits until they are gone.
func (b *Box) Kill() {
	b.cmd.Process.Kill() // fails only where it has ended already
	<-b.done
	b.start.Close()
}
