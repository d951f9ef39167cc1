package witness

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Conn is the socket of either side, as *net.UDPConn is one. Close ends a read
// that waits.
type Conn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	Close() error
}

var _ Conn = (*net.UDPConn)(nil)

// Listen opens the UDP socket of a real server that answers at addr. The error
// says what is in the way.
func Listen(addr netip.AddrPort) (*net.UDPConn, error) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen for witness questions: %s is not an address of this host", addr.Addr())
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fmt.Errorf("listen for witness questions on %s: another program has the UDP port: %w", addr, err)
	}
	return nil, fmt.Errorf("listen for witness questions on %s: %w", addr, err)
}

// plain is an address as it is compared: IPv4 not as IPv6, without a zone.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
