package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNoAddress says that the local address of a path is not on this host yet.
var ErrNoAddress = errors.New("not an address of this host yet")

// Socket is one end of a path.
type Socket struct {
	conn *net.UDPConn
	raw  syscall.RawConn
	peer netip.AddrPort
	to   unix.Sockaddr // the same

	reading atomic.Bool // whoever called Receive has not come back for the next
}

// Listen opens the path's local end on port, which is the peer's port too.
// The error is ErrNoAddress if the address may still come; any other names
// what is missing.
func Listen(path Path, port uint16) (*Socket, error) {
	local := netip.AddrPortFrom(path.Local, port)
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return prioritise(c, path.Local.Is4()) }}
	conn, err := config.ListenPacket(context.Background(), "udp", local.String())
	switch {
	case err == nil:
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen for heartbeats: %s is %w", path.Local, ErrNoAddress)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("listen for heartbeats on %s: the capability CAP_NET_BIND_SERVICE is missing: %w", local, err)
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fmt.Errorf("listen for heartbeats on %s: another program has the port (a second lvs-director, or pulse?): %w", local, err)
	default:
		return nil, fmt.Errorf("listen for heartbeats on %s: %w", local, err)
	}
	s := &Socket{conn: conn.(*net.UDPConn), peer: netip.AddrPortFrom(path.Peer, port)}
	s.raw, err = s.conn.SyscallConn()
	if err == nil {
		s.to, err = sockaddr(s.peer)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("listen for heartbeats on %s: %w", local, err)
	}
	return s, nil
}

// sockaddr is to as the kernel takes it.
func sockaddr(to netip.AddrPort) (unix.Sockaddr, error) {
	if to.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if zone := to.Addr().Zone(); zone != "" {
		device, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, fmt.Errorf("find device %s: %w", zone, err)
		}
		sa.ZoneId = uint32(device.Index)
	}
	return sa, nil
}

// prioritise marks packets as network control (DSCP CS6, RFC 4594), so that
// heartbeats pass a full queue. A kernel that will not is no obstacle.
func prioritise(c syscall.RawConn, ipv4 bool) error {
	const (
		cs6             = 48 << 2
		priorityControl = 7 // TC_PRIO_CONTROL, linux/pkt_sched.h
	)
	return c.Control(func(fd uintptr) {
		if ipv4 {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, cs6)
		} else {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_TCLASS, cs6)
		}
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY, priorityControl)
	})
}

// Send sends one packet to the peer, now or not at all: a full send buffer
// must not hold up the other paths. There is no deadline, for a host that is
// held up for longer than any would lose what it has not even tried.
func (s *Socket) Send(b []byte) error {
	var sent error
	err := s.raw.Control(func(fd uintptr) { sent = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, s.to) })
	if err = errors.Join(err, sent); err != nil {
		return fmt.Errorf("send a heartbeat: %w", err)
	}
	return nil
}

// Receive waits for a datagram, from whomever, and reads as much of it as
// fits. fromPeer reports whether it came from the peer's address and port. It
// returns net.ErrClosed after Close.
func (s *Socket) Receive(b []byte) (n int, fromPeer bool, err error) {
	var from unix.Sockaddr
	waited := s.raw.Read(func(fd uintptr) bool {
		s.reading.Store(true)
		for {
			n, from, err = unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT)
			switch {
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				s.reading.Store(false)
				return false
			default:
				return true
			}
		}
	})
	if err = errors.Join(waited, err); err != nil {
		return 0, false, fmt.Errorf("receive a heartbeat: %w", err)
	}
	return n, s.isPeer(from), nil
}

func (s *Socket) isPeer(from unix.Sockaddr) bool {
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		return from.Port == int(s.peer.Port()) && netip.AddrFrom4(from.Addr) == s.peer.Addr()
	case *unix.SockaddrInet6:
		return from.Port == int(s.peer.Port()) && netip.AddrFrom16(from.Addr) == s.peer.Addr().WithZone("")
	}
	return false
}

// Pending reports whether a datagram has come that Receive's caller has not
// read, or has read and not dealt with: it has not called Receive again.
func (s *Socket) Pending() bool {
	pending := false
	_ = s.raw.Control(func(fd uintptr) {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		pending = err == nil
	})
	return pending || s.reading.Load() // in this order: who reads says so first
}

// Close ends the socket and a Receive that waits on it.
func (s *Socket) Close() error { return s.conn.Close() }
