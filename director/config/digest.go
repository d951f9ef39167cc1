package config

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Part is the digest of a part of what two directors must agree on, so that a person can be told which one differs.
type Part struct {
	Name   string
	Digest [32]byte
}

// The version of the canonical texts below. Directors whose versions differ find their digests different, never equal
// by chance.
const canonicalVersion = "lvstun 1\n"

// Parts are the digests of what both directors must agree on, always the same parts in the same order.
func (c *Config) Parts() []Part {
	vips := make([]string, len(c.Services))
	services := make([]string, len(c.Services))
	checks := make([]string, len(c.Services))
	for i, s := range c.Services {
		vips[i] = s.VIP.String() + "\n"
		services[i] = canonical(s)
		checks[i] = canonicalCheck(s)
	}
	slices.Sort(vips)
	slices.Sort(services)
	slices.Sort(checks)
	timing := fmt.Sprintf("heartbeat %d %d %d\nlease %d\n",
		c.Heartbeat.Port, c.Heartbeat.Interval, c.Heartbeat.Dead, c.VIPLease)
	var parts []Part
	for _, p := range []struct{ name, text string }{
		{"heartbeat and lease", timing},
		{"sync", fmt.Sprintf("sync %d", c.Sync.ID)},
		{"VIPs", strings.Join(slices.Compact(vips), "")},
		{"services", strings.Join(services, "")},
		{"checks", strings.Join(checks, "")},
	} {
		parts = append(parts, Part{Name: p.name, Digest: sha256.Sum256([]byte(canonicalVersion + p.name + "\n" + p.text))})
	}
	return parts
}

// digest is the digest of all Parts.
func digest(c *Config) [32]byte {
	var all []byte
	for _, p := range c.Parts() {
		all = append(all, p.Digest[:]...)
	}
	return sha256.Sum256(all)
}

func canonicalCheck(s Service) string {
	check, _ := json.Marshal(s.Check) // texts and numbers, which cannot fail
	return fmt.Sprintf("check %q %t %s\n", s.Name, s.QuiesceOnFailure, check)
}

func canonical(s Service) string {
	servers := slices.Clone(s.Servers)
	slices.SortFunc(servers, func(a, b Server) int { return a.Address.Compare(b.Address) })
	from := slices.Clone(s.Register.From)
	slices.SortFunc(from, netip.Prefix.Compare)
	var b strings.Builder
	fmt.Fprintf(&b, "service %s %q %s %d\n", s.Key(), s.Name, s.VIP, s.Port)
	fmt.Fprintf(&b, "schedule %s %d %d %t\n", s.Scheduler, s.Persistent, s.PersistenceMask, s.OnePacket)
	fmt.Fprintf(&b, "tunnel %d %d %d\n", s.Encapsulation.Type, s.Encapsulation.Port, s.Encapsulation.Flags)
	fmt.Fprintf(&b, "register %d %v\n", s.Register.MaxWeight, from)
	for _, sv := range servers {
		fmt.Fprintf(&b, "server %s %d\n", sv.Address, sv.Weight)
	}
	return b.String()
}
