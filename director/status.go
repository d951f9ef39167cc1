package director

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"lvstun/director/client"
	"lvstun/director/config"
	"lvstun/director/ipvs"
	"lvstun/director/pair"
	"lvstun/director/registry"
)

// statusTimeout bounds the read of the kernel's counters for one status.
const statusTimeout = 2 * time.Second

// Status is the director as it stands, for people and programs. Counters come
// from the kernel at the time of the call.
func (d *Director) Status() client.Status {
	p, cfg := d.pair.Status(), d.cfg.Load()
	d.mu.Lock()
	table, failing := d.table, d.failing
	d.mu.Unlock()
	out := client.Status{
		Name:       cfg.Name,
		Version:    d.version,
		Role:       p.Role.String(),
		RoleReason: p.Reason,
		Term:       p.Term,
		RoleSince:  p.Since,
		Pair:       pairStatus(p),
		Problems:   slices.Concat(p.Problems, d.problems()),
		Drifts:     d.drifts(),
		Rule:       p.Witnesses.String(),
	}
	for _, v := range p.VIPs {
		out.VIPs = append(out.VIPs, client.VIPStatus{Addr: v.Addr, Device: v.Device, Held: v.Held, Error: vipError(v)})
	}
	if failing != "" {
		out.Problems = append(out.Problems, failing)
	}
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	kernel, err := d.kernel.Services(ctx)
	if err != nil {
		out.Problems = append(out.Problems, "connections and counters are unknown: "+err.Error())
	}
	out.Services = serviceStatus(cfg.Services, table, kernel)
	for _, l := range d.registry.Leases() {
		out.Leases = append(out.Leases, leaseStatus(l))
	}
	return out
}

func pairStatus(p pair.Status) client.PairStatus {
	var out client.PairStatus
	for _, path := range p.Paths {
		out.Paths = append(out.Paths, client.PathStatus{
			Local: path.Local, Peer: path.Peer, State: string(path.State), LastHeard: path.LastHeard,
			Sent: path.Sent, Received: path.Received, Dropped: path.Dropped, Error: path.Err,
		})
	}
	if p.Peer.Name != "" {
		out.Peer = client.PeerStatus{
			Name: p.Peer.Name, Alive: p.Peer.Alive, Role: p.Peer.Role.String(), Term: p.Peer.Term, DigestMatches: p.Peer.DigestMatches, Differs: p.Peer.Differs,
		}
	}
	for _, t := range p.Transitions {
		out.Transitions = append(out.Transitions, client.Transition{
			At: t.At, From: t.From.String(), To: t.To.String(), Reason: t.Reason,
		})
	}
	return out
}

// vipError is what hinders a VIP: somebody else who answers for it.
func vipError(v pair.VIPStatus) string {
	if v.Foreign == "" {
		return ""
	}
	return v.Foreign + " answers for it"
}

// serviceStatus joins the decisions of the last plan with the kernel's counts.
func serviceStatus(services []config.Service, table Table, kernel []ipvs.Service) []client.ServiceStatus {
	counted := make(map[ipvs.Key]ipvs.Service, len(kernel))
	for _, s := range kernel {
		counted[s.Key] = s
	}
	decided := make(map[string][]Decision)
	for _, dec := range table.Decisions {
		decided[dec.Service] = append(decided[dec.Service], dec)
	}
	var out []client.ServiceStatus
	for _, svc := range services {
		k := counted[svc.Key()]
		s := client.ServiceStatus{
			Name: svc.Name, VIP: svc.VIP, Port: svc.Port, Protocol: svc.Protocol.String(), FWMark: svc.FWMark,
			Scheduler: svc.Scheduler, Stats: stats(k.Stats),
		}
		flows := make(map[netip.Addr]ipvs.Destination, len(k.Destinations))
		for _, dest := range k.Destinations {
			flows[dest.Addr.Addr()] = dest
		}
		for _, dec := range decided[svc.Name] {
			dest := flows[dec.Address]
			s.Destinations = append(s.Destinations, client.DestinationStatus{
				Name: dec.Name, Address: dec.Address, Weight: dec.Weight, InUse: dec.InUse,
				State: dec.State, Reason: dec.Reason, Source: dec.Source,
				ActiveConns: dest.ActiveConns, InactiveConns: dest.InactiveConns, Stats: stats(dest.Stats),
			})
		}
		out = append(out, s)
	}
	return out
}

func stats(s ipvs.Stats) client.Stats {
	return client.Stats{
		Conns: s.Conns, InPackets: s.InPkts, OutPackets: s.OutPkts, InBytes: s.InBytes, OutBytes: s.OutBytes,
	}
}

func leaseStatus(l registry.Lease) client.LeaseStatus {
	out := client.LeaseStatus{
		Name: l.Name, Address: l.Address, Since: l.Since, Renewed: l.Renewed, Expires: l.Expires,
		Gone: l.Gone, GoneReason: l.GoneReason,
	}
	if report, ok := l.Report.(client.TunnelReport); ok {
		out.Tunnel = report
	}
	for _, s := range l.Services {
		out.Services = append(out.Services, client.ServiceReport{
			Name: s.Name, Weight: s.Weight, State: client.State(s.State), Reason: s.Reason,
		})
	}
	return out
}
