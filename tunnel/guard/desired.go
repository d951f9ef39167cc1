package guard

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// IP protocols of encapsulated packets, for Device.Protocols.
const (
	IPv4InIP = 4
	IPv6InIP = 41
	GRE      = 47
)

// Desired is what the guard lets through. Order and repetition mean nothing.
type Desired struct {
	// Directors are the sources that encapsulated packets may have; at least one. Where the host has
	// tunnels of its own with a protocol of Devices, their far ends belong here too.
	Directors []netip.Addr
	// VIPs are the destinations that packets out of a tunnel may have.
	VIPs []netip.Addr
	// Services narrow VIPs down: a VIP that is in one takes packets out of a tunnel only to its
	// services, beside ICMP; the others take every packet. The port of a probe is a service.
	Services []Service
	// Devices are where packets come out of a tunnel; they need not exist.
	Devices []Device
	// GUEPorts are the UDP ports on which this host takes GUE.
	GUEPorts []uint16
	// MSS4 and MSS6 are the largest MSS that answers from an IPv4 or IPv6 VIP may advertise, in bytes,
	// from 88 up (the kernel's TCP_MIN_MSS); see MSS. 0 leaves it to TCP.
	MSS4, MSS6 int
}

// Service is what a VIP offers.
type Service struct {
	VIP      netip.Addr
	Protocol uint8 // of IP: 6 is TCP, 17 UDP
	Port     uint16
}

// Device takes encapsulated packets: those of its protocols over its family.
type Device struct {
	Name      string // "tunl0"
	IPv6      bool   // the outer packet's family
	Protocols []uint8
}

// What an encapsulation takes of a packet beside the outer IP header, in bytes: its worst case, since a
// director may checksum or not (net/netfilter/ipvs/ip_vs_xmit.c).
const (
	GREHeader = 4 + 4     // header, checksum
	GUEHeader = 8 + 4 + 8 // UDP, header, remote checksum offload
)

// PathMTU is the MTU of a path from a director of which nothing is known. That a real server's device has
// a larger one says nothing about the path; a smaller one is its limit.
const PathMTU = 1500

// MSS is what a client may put into one segment to a VIP: the MTU of the path from director to real
// server, in bytes, without the outer IP header of the real server's family, the header of the
// encapsulation (GREHeader, GUEHeader, or 0 for IP in IP), and the IP and TCP header of the packet
// itself. TCP's options come out of the segment and do not count (RFC 6691).
func MSS(mtu, header int, vip, server netip.Addr) int {
	return mtu - ipHeader(server) - header - ipHeader(vip) - 20
}

func ipHeader(a netip.Addr) int {
	if a.Unmap().Is4() {
		return 20
	}
	return 40
}

// largestMSS is that of a packet of 65535 bytes without its smallest headers; smallestMSS is TCP_MIN_MSS
// of net/tcp.h.
const (
	smallestMSS = 88
	largestMSS  = 65495
)

// normal returns a copy of d, its addresses, services and ports sorted, each once, and IPv4 as such; or an
// error with all that is wrong with it.
func (d Desired) normal() (Desired, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(d.Directors) == 0 {
		fail("no director is named: every packet of a tunnel would be refused")
	}
	addresses := func(what string, list []netip.Addr) []netip.Addr {
		out := make([]netip.Addr, 0, len(list))
		for _, a := range list {
			if a = a.Unmap(); !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.Zone() != "" {
				fail("%s %s: not an address packets can have", what, a)
			}
			out = append(out, a)
		}
		slices.SortFunc(out, netip.Addr.Compare)
		return slices.Compact(out)
	}
	d.Directors, d.VIPs = addresses("director", d.Directors), addresses("VIP", d.VIPs)
	d.Services = slices.Clone(d.Services)
	for i := range d.Services {
		s := &d.Services[i]
		s.VIP = s.VIP.Unmap()
		if _, found := slices.BinarySearchFunc(d.VIPs, s.VIP, netip.Addr.Compare); !found {
			fail("service %s, protocol %d, port %d: its address is not a VIP", s.VIP, s.Protocol, s.Port)
		}
		if s.Port == 0 || s.Protocol == 0 {
			fail("service %s, protocol %d, port %d: protocol and port begin with 1", s.VIP, s.Protocol, s.Port)
		}
	}
	slices.SortFunc(d.Services, func(a, b Service) int {
		return cmp.Or(a.VIP.Compare(b.VIP), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	d.Services = slices.Compact(d.Services)
	d.Devices = slices.Clone(d.Devices)
	for i, device := range d.Devices {
		d.Devices[i].Protocols = slices.Clone(device.Protocols)
		// As the kernel's dev_valid_name.
		if n := len(device.Name); n == 0 || n > 15 || strings.ContainsAny(device.Name, "/: \t\n\v\f\r\x00\"") || device.Name == "." || device.Name == ".." {
			fail("device %q: not the name of a device", device.Name)
		}
		if len(device.Protocols) == 0 {
			fail("device %s: it takes no protocol", device.Name)
		}
	}
	d.GUEPorts = slices.Sorted(slices.Values(d.GUEPorts))
	d.GUEPorts = slices.Compact(d.GUEPorts)
	if slices.Contains(d.GUEPorts, 0) {
		fail("GUE port 0: ports begin with 1")
	}
	for _, mss := range []int{d.MSS4, d.MSS6} {
		if mss != 0 && (mss < smallestMSS || mss > largestMSS) {
			fail("MSS %d: must be 0 or from %d to %d", mss, smallestMSS, largestMSS)
		}
	}
	return d, errors.Join(errs...)
}
