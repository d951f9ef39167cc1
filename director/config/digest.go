package config

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// digest is SHA-256 over a canonical text of what two directors must agree on. Its first line is the version of
// that text: directors whose versions differ find their digests different, never equal by chance.
func digest(c *Config) [32]byte {
	services := make([]string, len(c.Services))
	for i, s := range c.Services {
		services[i] = canonical(s)
	}
	slices.Sort(services)
	return sha256.Sum256(fmt.Appendf(nil, "lvstun 1\nheartbeat %d %d %d\nlease %d\nsync %d\n%s",
		c.Heartbeat.Port, c.Heartbeat.Interval, c.Heartbeat.Dead, c.VIPLease, c.Sync.ID, strings.Join(services, "")))
}

func canonical(s Service) string {
	servers := slices.Clone(s.Servers)
	slices.SortFunc(servers, func(a, b Server) int { return a.Address.Compare(b.Address) })
	from := slices.Clone(s.Register.From)
	slices.SortFunc(from, netip.Prefix.Compare)
	check, _ := json.Marshal(s.Check) // texts and numbers, which cannot fail
	var b strings.Builder
	fmt.Fprintf(&b, "service %s %q %s %d\n", s.Key(), s.Name, s.VIP, s.Port)
	fmt.Fprintf(&b, "schedule %s %d %d %t\n", s.Scheduler, s.Persistent, s.PersistenceMask, s.OnePacket)
	fmt.Fprintf(&b, "tunnel %d %d %d\n", s.Encapsulation.Type, s.Encapsulation.Port, s.Encapsulation.Flags)
	fmt.Fprintf(&b, "check %t %s\n", s.QuiesceOnFailure, check)
	fmt.Fprintf(&b, "register %d %v\n", s.Register.MaxWeight, from)
	for _, sv := range servers {
		fmt.Fprintf(&b, "server %s %d\n", sv.Address, sv.Weight)
	}
	return b.String()
}
