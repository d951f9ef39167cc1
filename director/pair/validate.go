package pair

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"lvstun/director/election"
	"lvstun/director/heartbeat"
	"lvstun/director/vip"
)

// Defaults of Config, and its bounds.
const (
	DefaultPort     = 539
	DefaultInterval = 100 * time.Millisecond
	DefaultDead     = 300 * time.Millisecond
	DefaultLease    = 2 * time.Second

	minInterval = 5 * time.Millisecond
	maxDevice   = 15 // IFNAMSIZ less the terminating zero
)

// withDefaults is c with what is zero filled in.
func (c Config) withDefaults() Config {
	c.Port = cmp.Or(c.Port, DefaultPort)
	c.Interval = cmp.Or(c.Interval, DefaultInterval)
	c.Dead = cmp.Or(c.Dead, DefaultDead)
	c.Lease = cmp.Or(c.Lease, DefaultLease)
	return c
}

// validate returns every problem of c at once.
func (c Config) validate() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Name == "" || len(c.Name) > heartbeat.MaxName || strings.ContainsFunc(c.Name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		add("name %q: must be 1 to %d bytes without blanks", c.Name, heartbeat.MaxName)
	}
	if c.Interval < minInterval {
		add("interval %v: must be at least %v", c.Interval, minInterval)
	}
	if c.Dead < 2*c.Interval {
		add("dead %v: must be at least twice the interval, %v", c.Dead, 2*c.Interval)
	}
	if c.Lease < time.Second || c.Lease%time.Second != 0 {
		add("lease %v: must be whole seconds, at least 1s: the kernel counts in seconds", c.Lease)
	}
	seen := map[Path]bool{}
	own := map[netip.Addr]bool{}
	for _, p := range c.Paths {
		own[p.Local], own[p.Peer] = true, true
		switch {
		case !p.Local.IsValid() || !p.Peer.IsValid():
			add("path %s: needs a local and a peer address", p)
		case p.Local == p.Peer:
			add("path %s: both ends are one", p)
		case p.Local.Is4() != p.Peer.Is4():
			add("path %s: its ends are of different families", p)
		case seen[p]:
			add("path %s: is there twice", p)
		}
		seen[p] = true
	}
	vips := map[netip.Addr]bool{}
	for _, v := range c.VIPs {
		switch {
		case !v.Addr.IsValid() || v.Addr.IsUnspecified() || v.Addr.IsMulticast() || v.Addr.Zone() != "" || v.Addr.Is4In6():
			add("VIP %s: not an address a host can hold", v)
		case vips[v.Addr]:
			add("VIP %s: is there twice", v)
		case own[v.Addr]:
			add("VIP %s: is an end of a heartbeat path", v)
		}
		vips[v.Addr] = true
		if v.Device == "" || len(v.Device) > maxDevice {
			add("VIP %s: device %q must be 1 to %d bytes", v, v.Device, maxDevice)
		}
		if len(v.Label) > vip.MaxLabel {
			add("VIP %s: label %q is longer than %d bytes", v, v.Label, vip.MaxLabel)
		}
	}
	return errors.Join(errs...)
}

// self is this director's identity in the election: its lowest address.
func (c Config) self() election.ID {
	id := election.ID{Name: c.Name}
	for _, p := range c.Paths {
		if !id.Addr.IsValid() || p.Local.Less(id.Addr) {
			id.Addr = p.Local
		}
	}
	if !id.Addr.IsValid() {
		id.Addr = netip.IPv4Unspecified()
	}
	return id
}
