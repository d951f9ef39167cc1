package witness

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// datagram is one on its way.
type datagram struct {
	from, to netip.AddrPort
	b        []byte
}

// lan carries datagrams between sockets within a bubble.
type lan struct {
	mu    sync.Mutex
	conns map[netip.AddrPort]*socket
	// pass says what becomes of a datagram: how often it arrives, and after what time. nil: once, at once.
	pass func(d datagram) (copies int, delay time.Duration)
	sent []datagram
}

// socket is one end; it is a Conn.
type socket struct {
	lan    *lan
	addr   netip.AddrPort
	inbox  chan datagram
	closed chan struct{}
	once   sync.Once
}

func newLAN() *lan { return &lan{conns: map[netip.AddrPort]*socket{}} }

func (l *lan) open(t *testing.T, addr string) *socket {
	s := &socket{lan: l, addr: netip.MustParseAddrPort(addr), inbox: make(chan datagram, 1000), closed: make(chan struct{})}
	l.mu.Lock()
	l.conns[s.addr] = s
	l.mu.Unlock()
	t.Cleanup(func() { s.Close() })
	return s
}

// wire is everything sent from an address so far.
func (l *lan) wire(from netip.AddrPort) (all []datagram) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.sent {
		if d.from == from {
			all = append(all, d)
		}
	}
	return all
}

func (s *socket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	select {
	case <-s.closed:
		return 0, net.ErrClosed
	default:
	}
	d := datagram{s.addr, to, append([]byte(nil), b...)}
	s.lan.mu.Lock()
	s.lan.sent = append(s.lan.sent, d)
	target, pass := s.lan.conns[to], s.lan.pass
	s.lan.mu.Unlock()
	if target == nil {
		return len(b), nil
	}
	copies, delay := 1, time.Duration(0)
	if pass != nil {
		copies, delay = pass(d)
	}
	for range copies {
		if delay == 0 {
			target.inbox <- d
			continue
		}
		time.AfterFunc(delay, func() { target.inbox <- d })
	}
	return len(b), nil
}

func (s *socket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case <-s.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	case d := <-s.inbox:
		return copy(b, d.b), d.from, nil
	}
}

func (s *socket) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}
