package wire

import (
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"

	"lvstun/deploy/lab/box"
)

// Serve runs the one command that the client at the other end of conn asks for. A client that goes takes the command
// and its process group with it.
func Serve(conn io.ReadWriteCloser) error {
	defer conn.Close()
	k, p, err := readFrame(conn)
	if err != nil {
		return err
	}
	var req Request
	if err := json.Unmarshal(p, &req); err != nil || k != request || len(req.Argv) == 0 {
		return fmt.Errorf("first frame, of kind %d, is not a request", k)
	}
	f := &frames{w: conn}
	cmd := exec.Command(req.Argv[0], req.Argv[1:]...)
	cmd.Env, cmd.Dir = req.Env, req.Dir
	cmd.Stdout, cmd.Stderr = f.as(stdout), f.as(stderr)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second // what the command left in the background may hold its output open
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return f.write(failed, []byte(err.Error()))
	}
	go control(conn, in, cmd.Process.Pid)
	status, err := box.Status(cmd.Wait())
	if err != nil {
		return f.write(failed, []byte(err.Error()))
	}
	return f.write(exited, []byte{byte(status)})
}

// control feeds the command and signals its group until conn ends, which kills it.
func control(conn io.Reader, in io.WriteCloser, pid int) {
	for {
		k, p, err := readFrame(conn)
		if err != nil {
			syscall.Kill(-pid, syscall.SIGKILL) // it may have ended
			return
		}
		switch {
		case k == stdin && len(p) == 0:
			in.Close()
		case k == stdin:
			in.Write(p) // a command that does not read its input is no error
		case k == signalled && len(p) == 1:
			syscall.Kill(-pid, syscall.Signal(p[0]))
		}
	}
}
