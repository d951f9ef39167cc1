package ipvs

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// maxPersistent is the longest persistence ipvsadm takes; the kernel's clock wraps some way above.
const maxPersistent = 31 * 24 * time.Hour

// Validate returns what the kernel would refuse about the service and its destinations, or take and never serve: each
// a sentence of its own. Those of a destination begin with "real server ADDR: ".
func (s Service) Validate() []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	switch {
	case s.FWMark != 0:
		if s.Addr != (netip.AddrPort{}) || s.Protocol != 0 {
			bad("a virtual service has either a fwmark or an address with a protocol, not both")
		}
		if s.Family != 0 && s.Family != IPv4 && s.Family != IPv6 {
			bad("%s: must be IPv4 or IPv6", s.Family)
		}
	default:
		if s.Family != 0 {
			bad("a family goes with a fwmark only, an address has its own")
		}
		if s.Protocol != TCP && s.Protocol != UDP {
			bad("protocol %q: must be tcp or udp", s.Protocol)
		}
		if why := badAddr(s.Addr.Addr()); why != "" {
			bad("address %q %s", s.Addr.Addr(), why)
		}
		if s.Addr.Port() == 0 && s.Persistent == 0 {
			bad("port 0, which means every port, is served for persistent services only")
		}
	}
	if !slices.Contains(Schedulers, s.Scheduler) {
		bad("scheduler %q is unknown: must be one of %s", s.Scheduler, strings.Join(Schedulers, ", "))
	}
	if s.SchedFlags != 0 && s.Scheduler != "sh" && s.Scheduler != "mh" {
		bad("scheduler %q has no flags: only sh and mh have", s.Scheduler)
	}
	if s.SchedFlags &^= SchedFallback | SchedPort; s.SchedFlags != 0 {
		bad("scheduler flags %#x: there are fallback and port only", uint8(s.SchedFlags))
	}
	if s.OnePacket && s.FWMark == 0 && s.Protocol != UDP {
		bad("one-packet scheduling is for UDP and fwmark services, not for %s", s.Protocol)
	}
	s.validatePersistence(bad)

	seen := make(map[netip.AddrPort]bool, len(s.Destinations))
	for _, d := range s.Destinations {
		bad := func(format string, args ...any) { bad("real server %s: "+format, append([]any{d.Addr}, args...)...) }
		if seen[d.Addr] {
			bad("listed more than once")
		}
		seen[d.Addr] = true
		d.validate(s.Key, bad)
	}
	return errs
}

func (s Service) validatePersistence(bad func(string, ...any)) {
	switch p := s.Persistent; {
	case p == 0 && s.PersistenceMask != 0:
		bad("persistence mask %d without persistence", s.PersistenceMask)
	case p == 0 && s.PEName != "":
		bad("persistence engine %q without persistence", s.PEName)
	case p == 0:
		return
	case p%time.Second != 0 || p < time.Second || p > maxPersistent:
		bad("persistence %s: must be whole seconds, from 1s to %s", p, maxPersistent)
	}
	if most := s.family().bits(); s.PersistenceMask < 0 || s.PersistenceMask > most {
		bad("persistence mask %d: must be a prefix length of 1 to %d, or 0 for all of the address", s.PersistenceMask, most)
	}
	switch {
	case s.PEName == "":
	case s.PEName != "sip":
		bad("persistence engine %q is unknown: the kernel has sip only", s.PEName)
	case s.FWMark == 0 && s.Protocol != UDP:
		bad("persistence engine %q is for UDP, not for %s", s.PEName, s.Protocol)
	}
}

func (d Destination) validate(k Key, bad func(string, ...any)) {
	if why := badAddr(d.Addr.Addr()); why != "" {
		bad("the address %s", why)
	} else if familyOf(d.Addr.Addr()) != k.family() && d.Method != MethodTunnel {
		bad("%s behind %s needs a tunnel, not %s", familyOf(d.Addr.Addr()), k.family(), d.Method)
	}
	if d.Method > MethodDirect {
		bad("%s is unknown", d.Method)
	}
	if k.FWMark == 0 && d.Addr.Port() != k.Addr.Port() && (d.Method == MethodTunnel || d.Method == MethodDirect) {
		bad("the port must be the virtual service's %d, because %s leaves the packet's port as it is", k.Addr.Port(), d.Method)
	}
	if d.Weight < 0 || d.Weight > math.MaxInt32 {
		bad("weight %d: must be from 0 to %d", d.Weight, math.MaxInt32)
	}
	if d.Lower > d.Upper {
		bad("lower threshold %d is above upper %d", d.Lower, d.Upper)
	}
	t := d.Tunnel
	switch {
	case t == Tunnel{}:
	case d.Method != MethodTunnel:
		bad("%s is for the method tunnel, not for %s", t, d.Method)
	case t.Type > GRE:
		bad("%s is unknown", t.Type)
	case t.Type == GUE && t.Port == 0:
		bad("gue needs a port from 1 to 65535")
	case t.Type != GUE && t.Port != 0:
		bad("%s has no port, only gue has", t.Type)
	case t.Type == IPIP && t.Flags != NoCsum:
		bad("ipip has no checksum")
	case t.Type == GRE && t.Flags&RemCsum != 0:
		bad("remcsum is for gue, not for gre")
	case t.Flags > RemCsum:
		bad("csum and remcsum exclude each other")
	}
}

// badAddr says what is wrong with an address that packets shall reach, in the words "address X …".
func badAddr(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return "is missing"
	case a.Is4In6():
		return fmt.Sprintf("is IPv4 written as IPv6: say %s", a.Unmap())
	case a.Zone() != "":
		return "has a zone, which IPVS knows nothing of"
	case a.IsUnspecified(), a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "is not a unicast address"
	case a.Is6() && a.IsLinkLocalUnicast():
		return "is link-local"
	}
	return ""
}
