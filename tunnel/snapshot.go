package tunnel

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// link is a device as the kernel has it.
type link struct {
	name     string
	index    int
	kind     string
	up       bool
	mtu      int
	protocol uint8 // of an ip6tnl: what it takes out of IPv6 packets, 0 for anything
	marked   bool  // made by us
}

// address is one on a device, as the kernel has it.
type address struct {
	index  int // of the device
	prefix netip.Prefix
	marked bool // put there by us; kernels before 5.18 do not keep that
	auto   bool // put there by the kernel
}

// place is an address on one of our devices.
type place struct {
	Device string       `json:"device"`
	Prefix netip.Prefix `json:"prefix"`
}

// String is "10.0.0.50/32 on tunl0".
func (p place) String() string { return fmt.Sprintf("%s on %s", p.Prefix, p.Device) }

func (p place) compare(other place) int {
	return cmp.Or(cmp.Compare(p.Device, other.Device), p.Prefix.Compare(other.Prefix))
}

// port is a UDP port on which the kernel takes GUE.
type port struct {
	IPv6   bool   `json:"ipv6,omitempty"`
	Number uint16 `json:"port"`
}

// String is "UDP port 6080 of IPv4 for GUE".
func (p port) String() string {
	return fmt.Sprintf("UDP port %d of %s for GUE", p.Number, family(p.IPv6))
}

func (p port) compare(other port) int {
	return cmp.Or(cmp.Compare(p.Number, other.Number), cmp.Compare(family(p.IPv6), family(other.IPv6)))
}

// kernel is what Apply needs of the kernel.
type kernel interface {
	// life names this life of this network namespace: what the kernel held in another one is gone.
	life() (string, error)
	// marks reports whether the kernel keeps the mark of our addresses.
	marks() bool

	link(name string) (l link, found bool, err error)
	name(index int) (name string, found bool, err error)
	addLink(name, kind string) error // marked as made by us
	removeLink(l link) error
	setUp(l link, up bool) error
	setMTU(l link, mtu int) error
	setProtocol(l link, protocol uint8) error // of an ip6tnl

	addresses() ([]address, error) // of every device
	addAddress(l link, p netip.Prefix) error
	removeAddress(l link, p netip.Prefix) error

	ports() (map[port]bool, error) // open for FOU; false: for something other than GUE
	openPort(p port) error
	closePort(p port) error
}

// snapshot is how the kernel stands.
type snapshot struct {
	links     map[string]link // our devices, by name, as far as they exist
	addresses map[place]address
	elsewhere map[netip.Addr]string // VIPs on another device than ours and lo, and on which
	ports     map[port]bool
}

// look reads the kernel. The ports are read only if asked for: kernels often have none.
func look(k kernel, vips []netip.Addr, ports bool) (snapshot, error) {
	s := snapshot{map[string]link{}, map[place]address{}, map[netip.Addr]string{}, nil}
	ours := map[int]string{}
	for _, d := range devices {
		l, found, err := k.link(d.name)
		if err != nil {
			return s, fmt.Errorf("%s: look up: %w", d.name, err)
		}
		if found {
			s.links[d.name], ours[l.index] = l, d.name
		}
	}
	all, err := k.addresses()
	if err != nil {
		return s, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range all {
		if device, ok := ours[a.index]; ok {
			s.addresses[place{device, a.prefix}] = a
		} else if slices.Contains(vips, a.prefix.Addr()) {
			device, found, err := k.name(a.index)
			if err != nil {
				return s, fmt.Errorf("look up the device of %s: %w", a.prefix, err)
			}
			if found && device != "lo" {
				s.elsewhere[a.prefix.Addr()] = device
			}
		}
	}
	if ports {
		if s.ports, err = k.ports(); err != nil {
			return s, fmt.Errorf("list the UDP ports for GUE: %w", err)
		}
	}
	return s, nil
}

// holds reports whether packets come in by r.
func (s snapshot) holds(r Receiver) bool {
	d := r.device()
	l := s.links[d.name]
	_, there := s.addresses[r.place()]
	return there && l.kind == d.kind && l.up && l.protocol == 0 && (r.Type != GUE || s.ports[r.port()])
}
