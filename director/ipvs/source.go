package ipvs

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Source is the address that IPVS gives the packets it wraps for the real server at to: the one of the
// route, as for this host's own packets (net/netfilter/ipvs/ip_vs_xmit.c, __ip_vs_get_out_rt).
func Source(to netip.Addr) (netip.Addr, error) {
	routes, err := netlink.RouteGet(to.Unmap().AsSlice())
	if err != nil {
		return netip.Addr{}, fmt.Errorf("look up the route to %s: %w", to, err)
	}
	for _, r := range routes {
		if source, ok := netip.AddrFromSlice(r.Src); ok {
			return source.Unmap(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("the route to %s names no source address", to)
}
