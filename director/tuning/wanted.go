// Package tuning knows the kernel settings that matter on a director: which value each should have and why, which of
// them a director sets itself and which it only looks at. Package sysctl keeps them so.
package tuning

import (
	"slices"
	"strconv"

	"lvstun/sysctl"
)

// Facts are what the wanted settings depend on. All but OwnServers, Neighbours4 and Neighbours6 are the same on both
// directors where their configurations are.
type Facts struct {
	Devices    []string // that carry VIPs, each once
	IPv4, IPv6 bool     // families of the VIPs
	Schedulers []string // of the virtual services, in the kernel's names
	Persistent bool     // a virtual service is persistent

	// OwnServers tells that this host may be a real server too: a destination is an address of its own.
	OwnServers bool

	// Neighbours4 and Neighbours6 are how many real servers of each family there may be: so many neighbours at most.
	Neighbours4, Neighbours6 int

	Sync []sysctl.Setting // of the connection synchronisation; none where it is off
}

// hashing are the schedulers that choose the same real server for a flow on either director, whenever they are asked.
var hashing = []string{"sh", "dh", "mh"}

// sizedNeighbours is the number of neighbours from which the kernel's own table sizes (512 and 1024) want a look.
const sizedNeighbours = 512

// Wanted are the settings of a director, each key once.
//
// It knowingly leaves alone what is often set on directors and does nothing for this one: ip_forward, for packets to
// a VIP are delivered locally and tunnelled from there; ip_nonlocal_bind, for nothing binds a VIP; accept_local, for
// no packet from the VIP is read here but by a packet socket; promote_secondaries, for a VIP is a /32 and so neither a
// secondary of an address nor has secondaries; arp_notify, for the VIPs are announced by the director; arp_filter,
// which arp_ignore covers. IPv6 has no counterpart of arp_ignore, arp_announce, rp_filter and send_redirects: it
// answers for an address only on its own device, and asks with an address of the device it asks on.
func Wanted(f Facts) []sysctl.Setting {
	return slices.Concat(f.Sync, ipvs(f), ipv4(f), ipv6(f), neighbours(f))
}

// ipvs are the settings under net/ipv4/vs, which are there while ip_vs is loaded and hold for both families.
func ipvs(f Facts) []sysctl.Setting {
	all := []sysctl.Setting{
		{Key: "net/ipv4/vs/expire_nodest_conn", Value: "1", Severity: sysctl.Loss, Set: true,
			Why: "a flow of a real server that was taken out ends at once, and its client comes anew; by default its packets vanish until the flow times out (ipvs-sysctl.rst)"},
		{Key: "net/ipv4/vs/conn_reuse_mode", Value: "3", Or: []string{"2"}, Severity: sysctl.Loss, Set: true,
			Why: "a client that uses a port again goes where the scheduler sends it: with 0 to its former real server even at weight 0, with 1 to it for two minutes, as a director that sees no answers knows the end of a flow only as FIN_WAIT (ipvs-sysctl.rst, bit 2)"},
		{Key: "net/ipv4/vs/conntrack", Value: "0", Severity: sysctl.Advice,
			Why: "connection tracking costs time, and drops the first SYN of a port that is used again, a second's delay; only firewall rules that ask for the state of IPVS's flows need it (ipvs-sysctl.rst)"},
		{Key: "net/ipv4/vs/pmtu_disc", Value: "1", Severity: sysctl.Advice,
			Why: "a client whose packets do not fit into the tunnel is told so; with 0 they go in fragments, which the real server must put together (ipvs-sysctl.rst)"},
		{Key: "net/ipv4/vs/drop_packet", Value: "0", Or: []string{"1", "2"}, Severity: sysctl.Loss,
			Why: "3 drops every am_droprate-th packet always, not only when memory is short (ipvs-sysctl.rst)"},
		{Key: "net/ipv4/vs/drop_entry", Value: "0", Or: []string{"1", "2"}, Severity: sysctl.Loss,
			Why: "3 drops handshakes under way always, not only when memory is short (ipvs-sysctl.rst)"},
	}
	sloppy := sysctl.Setting{Key: "net/ipv4/vs/sloppy_tcp", Value: "0", Severity: sysctl.Advice,
		Why: "no scheduler in use finds the real server of a flow that this director does not know, and each stray ACK of a flood would make an entry that lasts for minutes (ip_vs_proto_tcp.c)"}
	if f.Persistent || slices.ContainsFunc(f.Schedulers, func(s string) bool { return slices.Contains(hashing, s) }) {
		sloppy = sysctl.Setting{Key: sloppy.Key, Value: "1", Severity: sysctl.Loss, Set: true,
			Why: "a director that takes over schedules flows it does not know from their middle: a hashing scheduler or a persistence template finds the same real server again, and the flow goes on (ip_vs_proto_tcp.c)"}
	}
	all = append(all, sloppy)
	if f.Persistent {
		all = append(all, sysctl.Setting{Key: "net/ipv4/vs/expire_quiescent_template", Value: "1", Severity: sysctl.Loss, Set: true,
			Why: "weight 0 takes no new flows, those of known clients of a persistent service included; by default they go on to a real server that drains or has failed (ipvs-sysctl.rst)"})
	}
	if f.OwnServers {
		all = append(all, sysctl.Setting{Key: "net/ipv4/vs/ignore_tunneled", Value: "1", Severity: sysctl.Loss, Set: true,
			Why: "a director that is a real server as well must deliver what the other one tunnels to it; as both hold the table it would schedule it again, round and round (ipvs-sysctl.rst)"})
	}
	if len(f.Sync) > 0 {
		all = append(all,
			sysctl.Setting{Key: "net/ipv4/vs/backup_only", Value: "0", Severity: sysctl.Loss, Set: true,
				Why: "a director that takes over forwards from its first packet; with 1 it takes them for its own until its backup daemon has stopped (sysctl_backup_only in ip_vs.h)"},
			sysctl.Setting{Key: "net/ipv4/vs/sync_version", Value: "1", Severity: sysctl.Loss, Set: true,
				Why: "version 0 of the messages knows neither IPv6 nor firewall marks nor how long a flow lasts (ip_vs_sync.c)"})
	}
	return all
}

func ipv4(f Facts) []sysctl.Setting {
	if !f.IPv4 {
		return nil
	}
	const conf = "net/ipv4/conf/"
	redirects := func(dev string) sysctl.Setting {
		return sysctl.Setting{Key: conf + dev + "/send_redirects", Value: "0", Severity: sysctl.Advice, Set: true,
			Why: "a director that routes would tell neighbours that still send it a VIP's packets, after the VIP has moved, another way to it, and they remember it; either of all and the device suffices for that (ip-sysctl.rst)"}
	}
	all := []sysctl.Setting{
		{Key: conf + "all/arp_ignore", Value: "1", Severity: sysctl.Loss, Set: true,
			Why: "ARP for a VIP is answered on the VIP's device only; by default every device of the host answers with its own MAC, and neighbours of two of them learn either (ip-sysctl.rst)"},
		{Key: conf + "all/arp_announce", Value: "2", Severity: sysctl.Loss, Set: true,
			Why: "this host asks ARP in its own name, not in a VIP's: on another network than the VIP's nobody need answer that, and who hears it learns where the VIP is from a question (ip-sysctl.rst)"},
		redirects("all"),
	}
	for _, dev := range f.Devices {
		all = append(all,
			sysctl.Setting{Key: conf + dev + "/arp_ignore", Value: "1", Or: []string{"0"}, Severity: sysctl.Loss, Set: true,
				Why: "the larger of this and all counts: 2 does not answer for a VIP outside the asker's network, 8 not at all, and the VIP is not found (ip-sysctl.rst)"},
			redirects(dev),
			sysctl.Setting{Key: conf + dev + "/proxy_arp", With: conf + "all/proxy_arp", Value: "0", Severity: sysctl.Loss,
				Why: "a host that answers ARP for others may answer for a VIP that it does not hold: traffic goes astray, and the other director takes the VIP for held (ip-sysctl.rst)"},
			sysctl.Setting{Key: conf + dev + "/rp_filter", With: conf + "all/rp_filter", Value: "0", Or: []string{"2"}, Severity: sysctl.Advice,
				Why: "the larger of this and all counts: 1 drops packets of clients that the way back leads to through another device (ip-sysctl.rst)"})
	}
	return all
}

func ipv6(f Facts) []sysctl.Setting {
	if !f.IPv6 {
		return nil
	}
	var all []sysctl.Setting
	for _, dev := range f.Devices {
		all = append(all, sysctl.Setting{Key: "net/ipv6/conf/" + dev + "/disable_ipv6", Value: "0", Severity: sysctl.Loss,
			Why: "a device with IPv6 switched off takes no IPv6 VIP (ip-sysctl.rst)"})
	}
	return all
}

// neighbours are the sizes of the neighbour tables, which the whole host shares: the kernel shows them only in its
// initial network namespace.
func neighbours(f Facts) []sysctl.Setting {
	var all []sysctl.Setting
	for _, table := range []struct {
		family string
		n      int
	}{{"ipv4", f.Neighbours4}, {"ipv6", f.Neighbours6}} {
		if table.n < sizedNeighbours {
			continue
		}
		threshold := func(which string, least int, why string) sysctl.Setting {
			return sysctl.Setting{Key: "net/" + table.family + "/neigh/default/" + which, Rule: sysctl.AtLeast, Value: strconv.Itoa(least),
				Severity: sysctl.Loss, Why: why}
		}
		all = append(all,
			threshold("gc_thresh2", table.n, "with more neighbours than this the kernel throws out those older than 5 seconds, and asks for real servers again and again (ip-sysctl.rst)"),
			threshold("gc_thresh3", 2*table.n, "the kernel refuses more neighbours than this, and packets to a real server that has no place are lost (ip-sysctl.rst)"))
	}
	return all
}
