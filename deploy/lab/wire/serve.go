package wire

import (
	"encoding/binary"
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
	cmd.WaitDelay = time.Second // what the command left in the background may hold its output open
	var status int
	if req.Terminal {
		status, err = onTerminal(conn, f, cmd)
	} else {
		status, err = onPipes(conn, f, cmd)
	}
	if err != nil {
		return f.write(failed, []byte(err.Error()))
	}
	return f.write(exited, []byte{byte(status)})
}

func onPipes(conn io.Reader, f *frames, cmd *exec.Cmd) (int, error) {
	cmd.Stdout, cmd.Stderr = f.as(stdout), f.as(stderr)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go control(conn, in, cmd.Process.Pid, nil)
	return box.Status(cmd.Wait())
}

// control feeds the command and signals its group until conn ends, which kills it.
func control(conn io.Reader, in io.WriteCloser, pid int, resize func(rows, columns uint16)) {
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
		case k == resized && len(p) == 4 && resize != nil:
			resize(binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:]))
		}
	}
}
