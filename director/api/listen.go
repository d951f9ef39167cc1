package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// socketMode lets the group of the socket ask for the status, and nobody else.
const socketMode = 0o660

// listen opens every listener of the configuration. Those that are open are
// returned with an error too, for the caller to close.
func (s *Server) listen(ctx context.Context) ([]*listener, error) {
	doors := []struct {
		what    string
		given   net.Listener
		address string
		open    func(context.Context, string) (net.Listener, error)
		handler http.Handler
		conns   int // at once and per source; 0: no bound
		tls     bool
	}{
		{"agents", s.cfg.Listeners.TLS, s.cfg.Listen, listenTCP, s.agentHandler(), connsPerSource, true},
		{"this host", s.cfg.Listeners.Local, s.cfg.Socket, listenUnix, s.localHandler(), 0, false},
		{"the page", s.cfg.Listeners.Web, s.cfg.Web, listenTCP, s.webHandler(), connsPerReader, false},
	}
	var out []*listener
	for _, d := range doors {
		l := d.given
		if l == nil && d.address == "" {
			continue
		}
		if l == nil {
			var err error
			if l, err = d.open(ctx, d.address); err != nil {
				return out, fmt.Errorf("listen for %s: %w", d.what, err)
			}
		}
		if d.conns > 0 {
			l = &bounded{Listener: l, perSource: d.conns, total: maxConns, refuse: s.refused.conn, open: make(map[netip.Addr]int)}
		}
		out = append(out, s.newListener(d.what, l, d.tls, d.handler))
	}
	return out, nil
}

func listenTCP(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", address)
}

// listenUnix listens on a socket at path. A socket that is there already goes
// only if nobody answers on it.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	// The mode of an unbound socket is that of the file it becomes, less the
	// umask: so no moment is left in which others could connect.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = syscall.Fchmod(int(fd), socketMode) }), err)
	}}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil { // what the umask took from the group
		l.Close()
		return nil, err
	}
	return l, nil
}

func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there and is no socket: move it away, or choose another path", path)
	}
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("another director answers on %s: stop it first", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("ask who listens on %s: %w", path, err)
	}
	return os.Remove(path)
}

// bounded accepts only so many connections at once, in all and from one source;
// further ones are closed before a byte is read.
type bounded struct {
	net.Listener
	perSource, total int
	refuse           func(source netip.Addr)

	mu    sync.Mutex // guards open and count
	open  map[netip.Addr]int
	count int
}

// Accept returns the next connection within the bounds.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		source := sourceOf(conn.RemoteAddr().String())
		if b.take(source) {
			return &boundedConn{Conn: conn, release: sync.OnceFunc(func() { b.release(source) })}, nil
		}
		conn.Close()
		b.refuse(source)
	}
}

func (b *bounded) take(source netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.count >= b.total || b.open[source] >= b.perSource {
		return false
	}
	b.count++
	b.open[source]++
	return true
}

func (b *bounded) release(source netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count--
	if b.open[source]--; b.open[source] == 0 {
		delete(b.open, source)
	}
}

type boundedConn struct {
	net.Conn
	release func()
}

// Close gives the connection's place back.
func (c *boundedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// sourceOf is the address of host:port as a token would claim it; zero if it
// has none.
func sourceOf(hostPort string) netip.Addr {
	ap, err := netip.ParseAddrPort(hostPort)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}
