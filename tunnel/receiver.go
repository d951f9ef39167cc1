package tunnel

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Type is how directors wrap the packets for a VIP.
type Type string

// The types, by the names that virtual services call them.
const (
	IPIP Type = "ipip" // one IP header more; protocol 4 around IPv4, 41 around IPv6
	GUE  Type = "gue"  // a UDP and a GUE header, then as IPIP
	GRE  Type = "gre"  // a GRE header without a checksum: the kernel's devices take none with one
)

// Receiver is one way in which packets for a VIP come in.
type Receiver struct {
	VIP  netip.Addr
	RIP  netip.Addr // the real server's own address that directors wrap the packets for; here its family counts
	Type Type
	Port uint16 // of UDP, 1–65535, for GUE; 0 for the others
}

// String is "10.0.0.50 by gue to port 6080 over IPv6" and the like.
func (r Receiver) String() string {
	s := fmt.Sprintf("%s by %s", r.VIP, r.Type)
	if r.Port != 0 {
		s += fmt.Sprintf(" to port %d", r.Port)
	}
	return s + " over " + family(r.RIP.Is6())
}

func family(ipv6 bool) string {
	if ipv6 {
		return "IPv6"
	}
	return "IPv4"
}

// A device receives the tunnels of one kind. Each is the kernel's fallback device, which takes every tunnel packet
// that no other device claims: it needs no remote address, so a new director needs no new device.
type device struct {
	name, kind     string
	module, option string // what the kernel needs for it
}

// The devices. GUE packets go, unwrapped from UDP, where IPIP packets go (net/ipv4/fou.c).
var (
	tunl0   = device{"tunl0", "ipip", "ipip", "CONFIG_NET_IPIP"}              // IPv4 in IPv4
	sit0    = device{"sit0", "sit", "sit", "CONFIG_IPV6_SIT"}                 // IPv6 in IPv4
	ip6tnl0 = device{"ip6tnl0", "ip6tnl", "ip6_tunnel", "CONFIG_IPV6_TUNNEL"} // both in IPv6
	gre0    = device{"gre0", "gre", "ip_gre", "CONFIG_NET_IPGRE"}             // GRE in IPv4
	ip6gre0 = device{"ip6gre0", "ip6gre", "ip6_gre", "CONFIG_IPV6_GRE"}       // GRE in IPv6
)

var devices = []device{tunl0, sit0, ip6tnl0, gre0, ip6gre0}

func (r Receiver) device() device {
	switch {
	case r.Type == GRE && r.RIP.Is4():
		return gre0
	case r.Type == GRE:
		return ip6gre0
	case r.RIP.Is6():
		return ip6tnl0
	case r.VIP.Is6():
		return sit0
	}
	return tunl0
}

// Device is the name of the device out of which the packets come.
func (r Receiver) Device() string { return r.canonical().device().name }

// place is where the VIP must be. It is on every device that its packets come out of: the kernel refuses IPv4 packets
// out of a device without an address if rp_filter is on for it, even if it is loose (__fib_validate_source in
// net/ipv4/fib_frontend.c).
func (r Receiver) place() place {
	return place{r.device().name, netip.PrefixFrom(r.VIP, r.VIP.BitLen())}
}

func (r Receiver) port() port { return port{r.RIP.Is6(), r.Port} }

// canonical spells a Receiver the one way in which they are compared.
func (r Receiver) canonical() Receiver {
	r.VIP, r.RIP = r.VIP.Unmap(), r.RIP.Unmap()
	return r
}

func (r Receiver) compare(other Receiver) int {
	return cmp.Or(r.VIP.Compare(other.VIP), cmp.Compare(r.Type, other.Type), cmp.Compare(r.Port, other.Port), r.RIP.Compare(other.RIP))
}

// problem is why no kernel can receive so, "" if nothing speaks against it.
func (r Receiver) problem() string {
	switch {
	case !unicast(r.VIP):
		return fmt.Sprintf("VIP %s: not an address a service can have", r.VIP)
	case !unicast(r.RIP):
		return fmt.Sprintf("VIP %s: %s is not an address a real server can have", r.VIP, r.RIP)
	case r.VIP == r.RIP:
		return fmt.Sprintf("VIP %s: is the real server's own address, to which the directors send", r.VIP)
	case r.Type != IPIP && r.Type != GUE && r.Type != GRE:
		return fmt.Sprintf("VIP %s: unknown encapsulation %q: there are %s, %s and %s", r.VIP, r.Type, IPIP, GUE, GRE)
	case r.Type == GUE && r.Port == 0:
		return fmt.Sprintf("VIP %s: gue needs a UDP port", r.VIP)
	case r.Type != GUE && r.Port != 0:
		return fmt.Sprintf("VIP %s: only gue has a port, %s has none", r.VIP, r.Type)
	}
	return ""
}

func unicast(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a.Zone() == "" &&
		!(a.Is6() && a.IsLinkLocalUnicast()) && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// wish is what becomes of a thing.
type wish int

const (
	unwanted wish = iota // what we made of it is undone
	untouched
	wanted
)

// wishes are what becomes of every device, address and port; what is not in it is unwanted.
type wishes struct {
	devices   map[device]wish
	addresses map[place]wish
	ports     map[port]wish
	nonsense  bool // among what was asked for: what else was meant is not known, so nothing is undone
}

func (w *wishes) add(r Receiver, how wish) {
	w.devices[r.device()] = max(w.devices[r.device()], how)
	w.addresses[r.place()] = max(w.addresses[r.place()], how)
	if r.Type == GUE {
		w.ports[r.port()] = max(w.ports[r.port()], how)
	}
}

// but is the wish, or untouched where nothing is to be undone.
func (w *wishes) but(how wish) wish {
	if how == unwanted && w.nonsense {
		return untouched
	}
	return how
}

// judge tells sound receivers, each once and sorted, from those that cannot be. A VIP that the host holds elsewhere is
// its own address: nothing of it is changed, neither built nor undone.
func judge(receivers []Receiver, s snapshot) (sound []Receiver, w wishes, problems []error) {
	w = wishes{devices: map[device]wish{}, addresses: map[place]wish{}, ports: map[port]wish{}}
	receivers = slices.Clone(receivers)
	for i, r := range receivers {
		receivers[i] = r.canonical()
	}
	slices.SortFunc(receivers, Receiver.compare)
	said := map[string]bool{}
	for _, r := range slices.Compact(receivers) {
		problem, where := r.problem(), s.elsewhere[r.VIP]
		switch {
		case problem != "":
			w.nonsense = true
		case where != "":
			problem = fmt.Sprintf("VIP %s: is this host's own address on %s: remove it there, or take this host out of the service", r.VIP, where)
			w.add(r, untouched)
		default:
			sound = append(sound, r)
			w.add(r, wanted)
			continue
		}
		if !said[problem] {
			said[problem] = true
			problems = append(problems, errors.New(problem))
		}
	}
	return sound, w, problems
}
