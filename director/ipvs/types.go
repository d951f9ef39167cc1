// Package ipvs keeps the kernel's IP Virtual Server table as its caller declares it. It speaks the IPVS generic
// netlink family itself: virtual services and destinations go in with Apply, which writes only what differs, and come
// back with Services. Diff, the decision of what differs, is a pure function; Save prints a table as ipvsadm does.
//
// The rules cited here are those of include/uapi/linux/ip_vs.h and net/netfilter/ipvs/ip_vs_ctl.c.
package ipvs

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Protocol is the transport protocol of a virtual service, as its IP protocol number.
type Protocol uint8

// The protocols a virtual service of this package may have.
const (
	TCP Protocol = unix.IPPROTO_TCP
	UDP Protocol = unix.IPPROTO_UDP
)

// String returns "tcp" or "udp"; others may have made services of "sctp", or of a protocol known by number only.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case unix.IPPROTO_SCTP:
		return "sctp"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// ParseProtocol reads "tcp" or "udp" in any case.
func ParseProtocol(s string) (Protocol, error) {
	switch strings.ToLower(s) {
	case "tcp":
		return TCP, nil
	case "udp":
		return UDP, nil
	}
	return 0, fmt.Errorf("protocol %q: must be tcp or udp", s)
}

// Family is an address family as the kernel numbers it.
type Family uint8

// The two families of IPVS. The zero Family stands for the family of the address beside it.
const (
	IPv4 Family = unix.AF_INET
	IPv6 Family = unix.AF_INET6
)

// String returns "IPv4" or "IPv6".
func (f Family) String() string {
	switch f {
	case IPv4:
		return "IPv4"
	case IPv6:
		return "IPv6"
	}
	return fmt.Sprintf("family %d", uint8(f))
}

func familyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// bits is the length of an address of this family, and with it the longest persistence mask.
func (f Family) bits() int {
	if f == IPv6 {
		return 128
	}
	return 32
}

// Key names a virtual service. It is either Protocol and Addr, or FWMark and Family; the other fields stay zero.
// It is comparable, and the kernel has at most one service of a key.
type Key struct {
	Protocol Protocol
	Addr     netip.AddrPort // VIP and port; port 0 is every port and takes a persistent service
	FWMark   uint32         // the mark a firewall rule put on the packets; 0 is a service of Addr
	Family   Family         // of the marked packets, for FWMark ≠ 0 only; zero is IPv4
}

// NewKey is the key of the service at a VIP and port.
func NewKey(p Protocol, addr netip.AddrPort) Key {
	return Key{Protocol: p, Addr: addr}.canonical()
}

// FWMarkKey is the key of the service for packets that carry a firewall mark.
func FWMarkKey(mark uint32, f Family) Key {
	return Key{FWMark: mark, Family: f}.canonical()
}

// canonical spells a key the one way in which keys are compared.
func (k Key) canonical() Key {
	switch {
	case k.FWMark == 0:
		return Key{Protocol: k.Protocol, Addr: unmap(k.Addr)}
	case k.Family == 0:
		return Key{FWMark: k.FWMark, Family: IPv4}
	}
	return Key{FWMark: k.FWMark, Family: k.Family}
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// family is the address family of the service.
func (k Key) family() Family {
	switch {
	case k.FWMark == 0:
		return familyOf(k.Addr.Addr())
	case k.Family == 0:
		return IPv4
	}
	return k.Family
}

// String returns "10.0.0.50:80/tcp", "[2001:db8::1]:80/tcp", "fwmark 7" or "fwmark 7 of IPv6".
func (k Key) String() string {
	switch {
	case k.FWMark == 0:
		return k.Addr.String() + "/" + k.Protocol.String()
	case k.Family == IPv6:
		return fmt.Sprintf("fwmark %d of IPv6", k.FWMark)
	}
	return fmt.Sprintf("fwmark %d", k.FWMark)
}

// SchedFlags are the flags of a scheduler. Only sh and mh know any; the bits mean the same for both.
type SchedFlags uint8

// The scheduler flags, IP_VS_SVC_F_SCHED1 to 3.
const (
	SchedFallback SchedFlags = 1 << iota // sh-fallback, mh-fallback: another destination where the chosen one has weight 0
	SchedPort                            // sh-port, mh-port: hash the source port as well
	SchedFlag3                           // no scheduler of the kernel uses it
)

// Service is a virtual service and the destinations behind it.
type Service struct {
	Key

	Scheduler string // a name of Schedulers

	// Persistent is how long a client stays with its destination: whole seconds up to 31 days; 0 is off.
	Persistent time.Duration

	// PersistenceMask is the prefix length that groups clients for Persistent: 1–32, for IPv6 1–128; 0 is every
	// address for itself. It reads negative where someone gave an IPv4 service a mask that is no such prefix, as
	// the complement ^mask: −1 is 0.0.0.0.
	PersistenceMask int

	OnePacket  bool       // every datagram is scheduled on its own; UDP only
	SchedFlags SchedFlags // for sh and mh
	PEName     string     // the persistence engine, "sip" or none

	Destinations []Destination
	Stats        Stats // read only
}

// Destination is a real server inside a virtual service.
type Destination struct {
	Addr   netip.AddrPort // RIP and port; the port is the service's own under Tunnel and Direct
	Method Method

	// Weight is the share of new connections; 0 is quiesced. The kernel takes 0 to 2³¹−1, ipvsadm 0–65535.
	Weight int

	// Upper is the number of connections at which no new ones come; 0 is no limit. They come again below Lower, or
	// where Lower is 0 below three quarters of Upper. Lower ≤ Upper.
	Upper, Lower uint32

	Tunnel Tunnel // for Method Tunnel

	ActiveConns, InactiveConns, PersistConns uint32 // read only
	Stats                                    Stats  // read only
}

// Method is how a packet reaches the destination.
type Method uint8

// The methods, in the kernel's numbers (IP_VS_CONN_F_MASQ to IP_VS_CONN_F_DROUTE).
const (
	MethodMasq      Method = 0 // NAT; the answer comes back through the director
	MethodLocalNode Method = 1 // the director itself
	MethodTunnel    Method = 2 // encapsulated, as Tunnel says
	MethodDirect    Method = 3 // to the destination's MAC address, in the director's own network
)

// String returns "masq", "localnode", "tunnel" or "direct".
func (m Method) String() string {
	switch m {
	case MethodMasq:
		return "masq"
	case MethodLocalNode:
		return "localnode"
	case MethodTunnel:
		return "tunnel"
	case MethodDirect:
		return "direct"
	}
	return fmt.Sprintf("method %d", uint8(m))
}

// Tunnel is the encapsulation of MethodTunnel. The zero Tunnel is plain IPIP.
type Tunnel struct {
	Type  TunnelType
	Port  uint16      // GUE: the UDP port of the real server, 1–65535; zero for the others
	Flags TunnelFlags // GUE: any; GRE: NoCsum or Csum; IPIP: none
}

// String returns "ipip", "gue port 6080 csum" and the like.
func (t Tunnel) String() string {
	s := t.Type.String()
	if t.Port != 0 {
		s += fmt.Sprintf(" port %d", t.Port)
	}
	if t.Flags&Csum != 0 {
		s += " csum"
	}
	if t.Flags&RemCsum != 0 {
		s += " remcsum"
	}
	return s
}

// TunnelType is the kind of encapsulation.
type TunnelType uint8

// The tunnel types, in the kernel's numbers (IP_VS_CONN_F_TUNNEL_TYPE_IPIP and on).
const (
	IPIP TunnelType = 0
	GUE  TunnelType = 1 // UDP, since Linux 5.3
	GRE  TunnelType = 2 // since Linux 5.3
)

// String returns "ipip", "gue" or "gre".
func (t TunnelType) String() string {
	switch t {
	case IPIP:
		return "ipip"
	case GUE:
		return "gue"
	case GRE:
		return "gre"
	}
	return fmt.Sprintf("tunnel type %d", uint8(t))
}

// TunnelFlags say what the encapsulation does about checksums.
type TunnelFlags uint16

// The tunnel flags, IP_VS_TUNNEL_ENCAP_FLAG_NOCSUM to REMCSUM.
const (
	NoCsum  TunnelFlags = 0
	Csum    TunnelFlags = 1 << 0
	RemCsum TunnelFlags = 1 << 1 // remote checksum offload; GUE only
)

// Stats are the counters of a service or destination since it was made, and its rates over the last seconds.
type Stats struct {
	Conns, InPkts, OutPkts, InBytes, OutBytes uint64
	CPS, InPPS, OutPPS, InBPS, OutBPS         uint64 // connections, packets and bytes a second
}

// Schedulers are the names of the kernel's schedulers; each is in the module ip_vs_NAME.
var Schedulers = []string{"rr", "wrr", "lc", "wlc", "fo", "ovf", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "twos"}
