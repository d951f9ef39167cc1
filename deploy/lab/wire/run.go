package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Run has the server at the other end of conn run a command on the given standard files, sends it the signals that
// arrive, and returns its exit status. A nil stdin is empty. The error is set where there is no status.
func Run(conn io.ReadWriteCloser, req Request, in io.Reader, out, errOut io.Writer, signals <-chan os.Signal) (int, error) {
	return run(conn, req, in, out, errOut, signals, func(f *frames, s os.Signal) {
		if number, ok := s.(syscall.Signal); ok {
			f.write(signalled, []byte{byte(number)})
		}
	})
}

// run is Run with onSignal saying what to do about a signal.
func run(conn io.ReadWriteCloser, req Request, in io.Reader, out, errOut io.Writer, signals <-chan os.Signal, onSignal func(*frames, os.Signal)) (int, error) {
	defer conn.Close()
	encoded, err := json.Marshal(req)
	if err != nil {
		return 0, err
	}
	f := &frames{w: conn}
	if err := f.write(request, encoded); err != nil {
		return 0, err
	}
	go func() { // ends with its input, or when conn does
		if in != nil {
			io.Copy(f.as(stdin), in) // a failure shows on the reading side
		}
		f.write(stdin, nil)
	}()
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case s := <-signals:
				onSignal(f, s)
			case <-done:
				return
			}
		}
	}()
	for {
		k, p, err := readFrame(conn)
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the machine is gone")
			}
			return 0, err
		}
		switch k {
		case stdout:
			out.Write(p) // as with a closed terminal, the command runs on
		case stderr:
			errOut.Write(p)
		case failed:
			return 0, errors.New(string(p))
		case exited:
			if len(p) != 1 {
				return 0, fmt.Errorf("exit status of %d bytes", len(p))
			}
			return int(p[0]), nil
		default:
			return 0, fmt.Errorf("unexpected frame of kind %d", k)
		}
	}
}
