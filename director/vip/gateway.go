package vip

import (
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Two hosts of the wide world that nobody has (RFC 5737, RFC 3849): the way
// to them is the way to everywhere.
var (
	elsewhere4 = netip.MustParseAddr("192.0.2.1")
	elsewhere6 = netip.MustParseAddr("2001:db8::1")
)

// findGateway asks the kernel for the default gateway on the wire's device,
// of the wire's family. It is the zero Addr where there is none.
func (w *wire) findGateway() netip.Addr {
	far := elsewhere4
	if w.protocol == etherIPv6 {
		far = elsewhere6
	}
	routes, err := netlink.RouteGetWithOptions(far.AsSlice(), &netlink.RouteGetOptions{Oif: w.device})
	if err != nil || len(routes) == 0 {
		return netip.Addr{} // no route is no gateway
	}
	gateway, _ := netip.AddrFromSlice(routes[0].Gw)
	return gateway.Unmap()
}

// AskGateway asks the default gateway on each VIP's link for a sign of life,
// and reports whether there is one to ask. Signs come through Run.
func (n *Neighbours) AskGateway() bool {
	any := false
	for _, w := range n.wires {
		gateway := w.findGateway()
		w.mu.Lock()
		w.gateway = gateway
		w.mu.Unlock()
		if gateway.IsValid() {
			any = true
			_ = w.send(func(mac MAC) [][]byte { return [][]byte{probe(mac, gateway)} }) // unsent is unanswered
		}
	}
	return any
}

// isGateway reports whether the sender of s is the gateway last asked.
func (w *wire) isGateway(s Sighting) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !s.Asks && w.gateway.IsValid() && s.Addr == w.gateway
}
