package pair

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
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
	if len(c.Parts) > MaxParts {
		add("%d parts of the digest: a heartbeat has room for %d", len(c.Parts), MaxParts)
	}
	seen := map[Path]bool{}
	own, locals := map[netip.Addr]bool{}, map[netip.Addr]bool{}
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
		case locals[p.Local]:
			add("path %s: its local address is another path's too", p)
		}
		seen[p], locals[p.Local] = true, true
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

// election is what the election needs to know, with a timing that may differ
// from c's for a while.
func (c Config) election(t timing) election.Config {
	return election.Config{
		Self: c.self(), Alone: len(c.Paths) == 0, Interval: t.interval, Dead: t.dead, Lease: c.Lease,
	}
}

// partSize is how many bytes of a part's digest go to the peer: enough to tell
// that two differ.
const partSize = 4

// digest is what heartbeats carry of the configuration.
func (c Config) digest() (d [heartbeat.DigestSize]byte) {
	if len(c.Parts) == 0 {
		copy(d[:], c.Digest[:])
		return d
	}
	for i, part := range c.Parts {
		copy(d[i*partSize:(i+1)*partSize], part.Digest[:])
	}
	return d
}

// differing names the parts in which the peer's digest differs from c's.
func (c Config) differing(peer [heartbeat.DigestSize]byte) []string {
	var names []string
	own := c.digest()
	for i, part := range c.Parts {
		if at := i * partSize; !bytes.Equal(own[at:at+partSize], peer[at:at+partSize]) {
			names = append(names, part.Name)
		}
	}
	return names
}

// lowest is the VIP by whose link the directors compare MACs, so that both
// compare the same two.
func lowest(vips []vip.VIP) (v vip.VIP, ok bool) {
	if len(vips) == 0 {
		return v, false
	}
	return slices.MinFunc(vips, func(a, b vip.VIP) int { return a.Addr.Compare(b.Addr) }), true
}
