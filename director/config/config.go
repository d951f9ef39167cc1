// Package config reads what an operator wrote, director.yaml or piranha's lvs.cf, and turns it into one validated
// Config. It reports every problem of a file at once, each with its line, its value and what to do about it; a file
// with a problem yields no Config at all.
package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"lvstun/director/ipvs"
	"lvstun/httpcheck"
)

// Config is one validated configuration.
type Config struct {
	Path           string        // the file it came from
	Name           string        // this director's name; default: the host name
	ClusterKeyFile string        // default /etc/lvstun/cluster.key
	Heartbeat      Heartbeat     // to the other director
	VIPLease       time.Duration // kernel lifetime of the VIP: whole seconds, 1s–1h; default 2s
	API            string        // listen address of the HTTPS API; default ":3637"
	Web            string        // listen address of the read-only page; default "127.0.0.1:3636"
	Sync           Sync          // of connections to the standby
	Sysctls        Sysctls       // what is done about kernel settings; default KeepSysctls
	Services       []Service     // in the order of the file, active ones only

	// Digest is SHA-256 over what both directors must agree on: heartbeat timing, lease and services, in no
	// particular order. The director's own name, addresses, devices, files and sysctls are left out, for they may differ.
	Digest [32]byte
}

// Heartbeat says over which paths and how often the directors hear each other.
type Heartbeat struct {
	Paths    []Path        // none: a director without a peer
	Port     uint16        // UDP, on both ends; default 539
	Interval time.Duration // 5ms–1m; default 100ms
	Dead     time.Duration // silence after which the peer counts as dead: 2 × Interval–10m; default 300ms
}

// Path is one way between the two directors: two addresses of one family.
type Path struct{ Local, Peer netip.Addr }

// Sync is the kernel's connection synchronisation; the zero Sync is none.
type Sync struct {
	Device string // where the multicast goes out
	ID     int    // 0–255, the same on both directors
}

// Sysctls says what is done about the kernel settings that matter on a director.
type Sysctls string

// What can be done about them.
const (
	KeepSysctls  Sysctls = "keep"  // set, keep, and put back at the end
	AuditSysctls Sysctls = "audit" // look, and say which do not serve
)

// Service is one virtual service with what the operator said about its real servers.
type Service struct {
	Name            string // unique; agents register into it by this name
	VIP             netip.Addr
	Device          string // of the VIP: "eth0"
	Label           string // of the VIP, an alias such as "eth0:1", or ""; IPv4 only
	Port            uint16 // 0 only with FWMark
	Protocol        ipvs.Protocol
	FWMark          uint32 // 0: the service of VIP, Port and Protocol
	Scheduler       string // one of ipvs.Schedulers; default wlc
	Persistent      time.Duration
	PersistenceMask int // prefix length; 0: full
	OnePacket       bool
	Encapsulation   ipvs.Tunnel
	Check           httpcheck.Spec

	// QuiesceOnFailure keeps a failed server at weight 0, with its connections, instead of taking it out.
	QuiesceOnFailure bool

	Register Register
	Servers  []Server // active ones only, in the order of the file
}

// Register bounds what agents may register beyond Servers.
type Register struct {
	From      []netip.Prefix // none: only the servers listed may register
	MaxWeight int            // 0–65535; default 100
}

// Server is a real server that the operator lists.
type Server struct {
	Name    string // default: its address
	Address netip.Addr
	Port    uint16 // the service's own: a tunnel cannot change it
	Weight  int    // 0–65535; default 1
}

// Key is the service's identity in the kernel.
func (s Service) Key() ipvs.Key {
	if s.FWMark != 0 {
		family := ipvs.IPv4
		if s.VIP.Is6() {
			family = ipvs.IPv6
		}
		return ipvs.FWMarkKey(s.FWMark, family)
	}
	return ipvs.NewKey(s.Protocol, netip.AddrPortFrom(s.VIP, s.Port))
}

// Localize turns every heartbeat path so that Local is one of the host's own addresses. Piranha's guide wants the
// same lvs.cf on both directors, while many pairs run files that mirror each other: both work.
func (c *Config) Localize(own []netip.Addr) error {
	paths := slices.Clone(c.Heartbeat.Paths)
	for i, p := range paths {
		local, peer := slices.Contains(own, p.Local), slices.Contains(own, p.Peer)
		switch {
		case local && peer:
			return fmt.Errorf("%s: heartbeat path %s–%s: both are addresses of this host: one must be the other director's",
				c.Path, p.Local, p.Peer)
		case peer:
			paths[i] = Path{Local: p.Peer, Peer: p.Local}
		case !local:
			return fmt.Errorf("%s: heartbeat path %s–%s: neither is an address of this host (%s): one must be",
				c.Path, p.Local, p.Peer, join(own))
		}
	}
	c.Heartbeat.Paths = paths
	return nil
}

func join(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}
