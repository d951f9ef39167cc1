// Package heartbeat carries the authenticated datagrams with which the two
// directors of a pair tell each other that they live, and what they are.
package heartbeat

import (
	"fmt"
	"net/netip"
)

// Path is one way to the peer: an address of this host and one of the peer's,
// both of one family.
type Path struct {
	Local, Peer netip.Addr
}

func (p Path) String() string { return fmt.Sprintf("%s → %s", p.Local, p.Peer) }
