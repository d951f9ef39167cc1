// Package director decides which table IPVS should hold and keeps it there.
//
// The decision is Plan, a pure function of the configuration, the leases of the
// real servers, the verdicts of the checks and the table as the kernel holds
// it. The loop around it only carries inputs in and the table out.
package director

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"lvstun/director/config"
	"lvstun/director/ipvs"
	"lvstun/director/registry"
	"lvstun/httpcheck"
)

// A Target is one real server inside one virtual service: what a check checks
// and what a lease speaks for.
type Target struct {
	Service string     // the virtual service's name
	Address netip.Addr // the real server's own address, its RIP
}

// Inputs is all that a plan depends on.
type Inputs struct {
	Services []config.Service
	Leases   []registry.Lease
	Verdicts map[Target]httpcheck.Update // of the director's own checks
	Kernel   []ipvs.Service              // the table as it stands
	// Adopting holds from the start until the leases had time to come back:
	// a destination that the kernel has, and that nobody has spoken for yet,
	// stays as it is. A restart of the director never empties a table.
	Adopting bool
}

// Who decided about a destination.
const (
	FromAgent  = "agent"  // the real server's own lease
	FromCheck  = "check"  // the director's health check
	FromKernel = "kernel" // adopted, until one of the others speaks
)

// What a destination is.
const (
	StateReady    = "ready"
	StateDraining = "draining"
	StateDown     = "down"
	StateUnknown  = "unknown" // no verdict yet
	StateGone     = "gone"    // its lease ended, or it left
)

// A Decision is what the plan says about one real server of one service, and
// why. It is made for every server that is known, in the table or not.
type Decision struct {
	Target
	Name   string
	Source string // FromAgent, FromCheck, FromKernel
	State  string
	Reason string // one sentence; empty when there is nothing to explain
	InUse  bool   // the table holds it, with Weight
	Weight int    // 0 quiesces: it keeps its connections and takes no new ones
}

// A Table is a plan's result: what IPVS should hold, and the decisions behind
// it, sorted by service in the order of the configuration and by address.
type Table struct {
	Services  []ipvs.Service
	Decisions []Decision
}

// Plan computes the table. It changes nothing and reads no clock.
func Plan(in Inputs) Table {
	leases := leasesByTarget(in.Leases)
	kernel := make(map[ipvs.Key][]ipvs.Destination, len(in.Kernel))
	for _, s := range in.Kernel {
		kernel[s.Key] = s.Destinations
	}
	var table Table
	for _, svc := range in.Services {
		decisions := planService(svc, leases[svc.Name], in, kernel[svc.Key()])
		slices.SortFunc(decisions, func(a, b Decision) int { return a.Address.Compare(b.Address) })
		out := virtualService(svc)
		for _, d := range decisions {
			if d.InUse {
				out.Destinations = append(out.Destinations, destination(svc, d))
			}
		}
		table.Services = append(table.Services, out)
		table.Decisions = append(table.Decisions, decisions...)
	}
	return table
}

func planService(svc config.Service, leases map[netip.Addr]claim, in Inputs, kernel []ipvs.Destination) []Decision {
	held := make(map[netip.Addr]int, len(kernel))
	for _, d := range kernel {
		held[d.Addr.Addr()] = d.Weight
	}
	var decisions []Decision
	listed := make(map[netip.Addr]bool, len(svc.Servers))
	for _, server := range svc.Servers {
		listed[server.Address] = true
		t := Target{Service: svc.Name, Address: server.Address}
		weight, inKernel := held[server.Address]
		c, registered := leases[server.Address]
		switch {
		case registered:
			decisions = append(decisions, byAgent(t, c, server.Weight, max(server.Weight, svc.Register.MaxWeight)))
		case inKernel && (in.Adopting || in.Verdicts[t].State == httpcheck.Unknown):
			decisions = append(decisions, adopted(t, server.Name, weight))
		default:
			decisions = append(decisions, byCheck(t, svc, server, in.Verdicts[t], inKernel))
		}
	}
	for addr, c := range leases {
		if !listed[addr] && MayRegister(svc, addr) {
			t := Target{Service: svc.Name, Address: addr}
			decisions = append(decisions, byAgent(t, c, 1, svc.Register.MaxWeight))
			listed[addr] = true
		}
	}
	if in.Adopting {
		for addr, weight := range held {
			if !listed[addr] {
				decisions = append(decisions, adopted(Target{Service: svc.Name, Address: addr}, "", weight))
			}
		}
	}
	return decisions
}

// byAgent follows the real server's own word, within the operator's bounds.
// base is the weight of a server that claims none, limit the largest allowed.
func byAgent(t Target, c claim, base, limit int) Decision {
	d := Decision{Target: t, Name: c.lease.Name, Source: FromAgent, Reason: c.service.Reason}
	switch {
	case c.lease.Gone:
		d.State, d.Reason = StateGone, c.lease.GoneReason
	case c.service.State == registry.Ready:
		d.State, d.InUse, d.Weight = StateReady, true, cmp.Or(c.service.Weight, base)
		if d.Weight > limit {
			d.Reason = fmt.Sprintf("claims weight %d, the operator allows %d", d.Weight, limit)
			d.Weight = limit
		}
	case c.service.State == registry.Draining:
		d.State, d.InUse = StateDraining, true
	default:
		d.State, d.InUse = StateDown, true
	}
	return d
}

// byCheck follows the director's own check of a server without an agent. A
// server enters the table with its first good check.
func byCheck(t Target, svc config.Service, server config.Server, v httpcheck.Update, inKernel bool) Decision {
	d := Decision{Target: t, Name: server.Name, Source: FromCheck, Reason: v.Result.Reason}
	switch v.State {
	case httpcheck.Up:
		d.State, d.InUse, d.Weight, d.Reason = StateReady, true, server.Weight, ""
	case httpcheck.Down:
		d.State, d.InUse = StateDown, svc.QuiesceOnFailure && inKernel
	default:
		d.State, d.Reason = StateUnknown, "waits for its first good check"
	}
	return d
}

func adopted(t Target, name string, weight int) Decision {
	return Decision{
		Target: t, Name: name, Source: FromKernel, State: StateUnknown, InUse: true, Weight: weight,
		Reason: "kept from before the start, until its agent or its first check speaks",
	}
}

// MayRegister tells whether the operator lets a real server with this address
// register into the service: it is listed there, or register.from covers it.
func MayRegister(svc config.Service, addr netip.Addr) bool {
	return slices.ContainsFunc(svc.Servers, func(s config.Server) bool { return s.Address == addr }) ||
		slices.ContainsFunc(svc.Register.From, func(p netip.Prefix) bool { return p.Contains(addr) })
}

func virtualService(svc config.Service) ipvs.Service {
	return ipvs.Service{
		Key:             svc.Key(),
		Scheduler:       svc.Scheduler,
		Persistent:      svc.Persistent,
		PersistenceMask: svc.PersistenceMask,
		OnePacket:       svc.OnePacket,
	}
}

// destination gives the real server the service's own port: a tunnel cannot
// change it, as the inner packet is forwarded untouched. A service by firewall
// mark has none.
func destination(svc config.Service, d Decision) ipvs.Destination {
	return ipvs.Destination{
		Addr:   netip.AddrPortFrom(d.Address, svc.Key().Addr.Port()),
		Method: ipvs.MethodTunnel,
		Weight: d.Weight,
		Tunnel: svc.Encapsulation,
	}
}

// A claim is what one lease says about one service.
type claim struct {
	lease   registry.Lease
	service registry.ServiceClaim
}

// leasesByTarget indexes the leases by service and address. Of two leases that
// speak for the same address, the one that still runs counts.
func leasesByTarget(leases []registry.Lease) map[string]map[netip.Addr]claim {
	out := make(map[string]map[netip.Addr]claim)
	for _, l := range leases {
		for _, s := range l.Services {
			byAddr := out[s.Name]
			if byAddr == nil {
				byAddr = make(map[netip.Addr]claim)
				out[s.Name] = byAddr
			}
			if old, ok := byAddr[l.Address]; !ok || old.lease.Gone {
				byAddr[l.Address] = claim{lease: l, service: s}
			}
		}
	}
	return out
}
