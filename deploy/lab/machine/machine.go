// Package machine gives the lab a Linux whose kernel has IPVS and IPIP and whose network is nobody else's: namespaces of
// this host where its kernel serves, else a QEMU guest over the host's own files.
package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"lvstun/deploy/lab/wire"
)

// Machine is a running machine that runs commands. The host's files are at the same paths in it.
type Machine struct {
	Shared    bool // what it writes to the host's files stays; false: it writes into an overlay that goes with it
	session   *yamux.Session
	stopping  sync.Once
	stop      func() error
	gone      <-chan struct{} // closed when it has ended by itself or by stop
	lastWords func() string   // what there is to say when it has ended by itself
}

// Start picks and starts the machine. self is the lab's binary; say reports progress.
func Start(ctx context.Context, self string, say func(format string, args ...any)) (*Machine, error) {
	exec.CommandContext(ctx, "modprobe", "-qa", "ip_vs", "ipip").Run() // what it could do shows in /proc
	reason := lacking("/proc")
	if reason == "" {
		say("this kernel has IPVS and IPIP: the lab runs on it, in namespaces")
		return startNative(self)
	}
	say("%s: the lab runs in a guest", reason)
	return startGuest(ctx, self, say)
}

// Run runs a command in the machine and returns its exit status.
func (m *Machine) Run(req wire.Request, in io.Reader, out, errOut io.Writer, signals <-chan os.Signal) (int, error) {
	stream, err := m.Open()
	if err != nil {
		return 0, err
	}
	status, err := wire.Run(stream, req, in, out, errOut, signals)
	select {
	case <-m.gone:
		if err != nil {
			err = fmt.Errorf("%w%s", err, m.lastWords())
		}
	default:
	}
	return status, err
}

// Open returns a stream at whose other end a wire.Serve listens.
func (m *Machine) Open() (net.Conn, error) {
	stream, err := m.session.Open()
	if err != nil {
		return nil, fmt.Errorf("the machine does not answer: %w", err)
	}
	return stream, nil
}

// Stop ends the machine and waits until nothing of it is left. It may be called twice, from any goroutine.
func (m *Machine) Stop() (err error) {
	m.stopping.Do(func() { err = errors.Join(m.session.Close(), m.stop()) })
	return err
}

// multiplex is the yamux setting of both ends. Liveness is told by the machine's process, not by pings, which a busy
// emulated processor would answer late.
func multiplex() *yamux.Config {
	cfg := yamux.DefaultConfig()
	cfg.EnableKeepAlive = false
	cfg.ConnectionWriteTimeout = 2 * time.Minute
	cfg.StreamOpenTimeout = 0
	cfg.StreamCloseTimeout = 2 * time.Minute
	cfg.LogOutput = io.Discard
	return cfg
}

// hello is what a machine says on its channel when it is up.
const hello = "up\n"

// greet waits for the machine's hello on its channel and makes the session.
func greet(conn io.ReadWriteCloser) (*yamux.Session, error) {
	said := make([]byte, len(hello))
	if _, err := io.ReadFull(conn, said); err != nil {
		return nil, err
	}
	return yamux.Client(conn, multiplex())
}

// Serve is the machine's end: it runs the commands that arrive on the channel until that closes.
func Serve(channel io.ReadWriteCloser) error {
	if _, err := io.WriteString(channel, hello); err != nil {
		return err
	}
	session, err := yamux.Server(channel, multiplex())
	if err != nil {
		return err
	}
	for {
		stream, err := session.Accept()
		if err != nil {
			return nil // the channel is closed
		}
		go func() {
			if err := wire.Serve(stream); err != nil {
				fmt.Fprintln(os.Stderr, "lab:", err)
			}
		}()
	}
}
