package director

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"lvstun/director/config"
	"lvstun/director/ipvs"
	"lvstun/director/registry"
	"lvstun/httpcheck"
)

var (
	rs1 = netip.MustParseAddr("192.168.1.100")
	rs2 = netip.MustParseAddr("192.168.1.200")
	rs3 = netip.MustParseAddr("192.168.1.201")
	out = netip.MustParseAddr("172.16.0.1") // covered by nothing
)

// web is the service of most tests: two servers listed, their network may register.
func web() config.Service {
	return config.Service{
		Name: "HTTP", VIP: netip.MustParseAddr("10.0.0.50"), Device: "eth0", Port: 80, Protocol: ipvs.TCP, Scheduler: "wlc",
		Register: config.Register{From: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}, MaxWeight: 10},
		Servers:  []config.Server{{Name: "rs1", Address: rs1, Port: 80, Weight: 1}, {Name: "rs2", Address: rs2, Port: 80, Weight: 3}},
	}
}

func lease(addr netip.Addr, state registry.State, weight int) registry.Lease {
	return registry.Lease{Claim: registry.Claim{Name: "agent", Address: addr, Services: []registry.ServiceClaim{
		{Name: "HTTP", Weight: weight, State: state, Reason: "because"},
	}}}
}

func gone(l registry.Lease, reason string) registry.Lease {
	l.Gone, l.GoneReason = true, reason
	return l
}

func verdict(s httpcheck.State) httpcheck.Update {
	return httpcheck.Update{State: s, Result: httpcheck.Result{OK: s == httpcheck.Up, Reason: "refused"}}
}

func target(addr netip.Addr) Target { return Target{Service: "HTTP", Address: addr} }

func holding(addr netip.Addr, weight int) ipvs.Destination {
	return ipvs.Destination{Addr: netip.AddrPortFrom(addr, 80), Method: ipvs.MethodTunnel, Weight: weight}
}

func TestPlan(t *testing.T) {
	noServers := func() config.Service { s := web(); s.Servers = nil; return s }
	tests := []struct {
		name string
		in   Inputs
		want map[netip.Addr]int // destination → weight
	}{
		{
			name: "a listed server enters with its first good check",
			in:   Inputs{Verdicts: map[Target]httpcheck.Update{target(rs2): verdict(httpcheck.Up)}},
			want: map[netip.Addr]int{rs2: 3},
		},
		{
			name: "a failed check takes it out",
			in: Inputs{
				Verdicts: map[Target]httpcheck.Update{target(rs1): verdict(httpcheck.Down), target(rs2): verdict(httpcheck.Up)},
				Kernel:   []ipvs.Service{{Key: web().Key(), Destinations: []ipvs.Destination{holding(rs1, 1), holding(rs2, 3)}}},
			},
			want: map[netip.Addr]int{rs2: 3},
		},
		{
			name: "or quiesces it where the operator wants that",
			in: Inputs{
				Services: []config.Service{func() config.Service { s := web(); s.QuiesceOnFailure = true; return s }()},
				Verdicts: map[Target]httpcheck.Update{target(rs1): verdict(httpcheck.Down), target(rs2): verdict(httpcheck.Down)},
				Kernel:   []ipvs.Service{{Key: web().Key(), Destinations: []ipvs.Destination{holding(rs1, 1)}}},
			},
			want: map[netip.Addr]int{rs1: 0}, // rs2 never was in the table
		},
		{
			name: "what the kernel holds waits for its first check, also after the grace",
			in:   Inputs{Kernel: []ipvs.Service{{Key: web().Key(), Destinations: []ipvs.Destination{holding(rs1, 7)}}}},
			want: map[netip.Addr]int{rs1: 7},
		},
		{
			name: "within the grace a bad check does not take out what the kernel holds: its agent may yet speak",
			in: Inputs{
				Adopting: true,
				Verdicts: map[Target]httpcheck.Update{target(rs1): verdict(httpcheck.Down)},
				Kernel:   []ipvs.Service{{Key: web().Key(), Destinations: []ipvs.Destination{holding(rs1, 7)}}},
			},
			want: map[netip.Addr]int{rs1: 7},
		},
		{
			name: "an unlisted destination is adopted within the grace",
			in: Inputs{
				Adopting: true,
				Kernel:   []ipvs.Service{{Key: web().Key(), Destinations: []ipvs.Destination{holding(rs3, 4)}}},
			},
			want: map[netip.Addr]int{rs3: 4},
		},
		{
			name: "and goes after it",
			in:   Inputs{Kernel: []ipvs.Service{{Key: web().Key(), Destinations: []ipvs.Destination{holding(rs3, 4)}}}},
			want: map[netip.Addr]int{},
		},
		{
			name: "an agent's word beats the check, in both directions",
			in: Inputs{
				Leases:   []registry.Lease{lease(rs1, registry.Ready, 0), lease(rs2, registry.Down, 0)},
				Verdicts: map[Target]httpcheck.Update{target(rs1): verdict(httpcheck.Down), target(rs2): verdict(httpcheck.Up)},
			},
			want: map[netip.Addr]int{rs1: 1, rs2: 0},
		},
		{
			name: "an agent claims a weight within the bound",
			in:   Inputs{Leases: []registry.Lease{lease(rs1, registry.Ready, 10), lease(rs3, registry.Ready, 5)}},
			want: map[netip.Addr]int{rs1: 10, rs3: 5},
		},
		{
			name: "and no more than that",
			in:   Inputs{Leases: []registry.Lease{lease(rs1, registry.Ready, 11), lease(rs3, registry.Ready, 65535)}},
			want: map[netip.Addr]int{rs1: 10, rs3: 10},
		},
		{
			name: "a registered server that claims nothing has weight 1, a listed one its own",
			in:   Inputs{Leases: []registry.Lease{lease(rs2, registry.Ready, 0), lease(rs3, registry.Ready, 0)}},
			want: map[netip.Addr]int{rs2: 3, rs3: 1},
		},
		{
			name: "without register a listed server may claim what the file gives it",
			in: Inputs{
				Services: []config.Service{func() config.Service { s := web(); s.Register = config.Register{}; return s }()},
				Leases:   []registry.Lease{lease(rs1, registry.Ready, 9), lease(rs2, registry.Ready, 2)},
			},
			want: map[netip.Addr]int{rs1: 1, rs2: 2},
		},
		{
			name: "draining quiesces",
			in:   Inputs{Leases: []registry.Lease{lease(rs3, registry.Draining, 5)}},
			want: map[netip.Addr]int{rs3: 0},
		},
		{
			name: "a lease that ended takes the server out, whatever the check says, listed or not",
			in: Inputs{
				Leases:   []registry.Lease{gone(lease(rs1, registry.Ready, 1), registry.LeaseEnded), gone(lease(rs3, registry.Ready, 1), registry.LeaseEnded)},
				Verdicts: map[Target]httpcheck.Update{target(rs1): verdict(httpcheck.Up)},
				Kernel:   []ipvs.Service{{Key: web().Key(), Destinations: []ipvs.Destination{holding(rs1, 1), holding(rs3, 1)}}},
			},
			want: map[netip.Addr]int{},
		},
		{
			name: "of two leases for one address the running one counts",
			in:   Inputs{Leases: []registry.Lease{gone(lease(rs1, registry.Ready, 9), registry.Left), lease(rs1, registry.Ready, 2)}},
			want: map[netip.Addr]int{rs1: 2},
		},
		{
			name: "an address that the operator no longer allows has no place",
			in:   Inputs{Leases: []registry.Lease{lease(out, registry.Ready, 1)}},
			want: map[netip.Addr]int{},
		},
		{
			name: "a service without any server is kept, empty",
			in:   Inputs{Services: []config.Service{noServers()}},
			want: map[netip.Addr]int{},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.in.Services == nil {
				tt.in.Services = []config.Service{web()}
			}
			table := Plan(tt.in)
			if len(table.Services) != 1 || table.Services[0].Key != web().Key() {
				t.Fatalf("planned services %v, want HTTP alone", table.Services)
			}
			got := make(map[netip.Addr]int)
			for _, d := range table.Services[0].Destinations {
				if d.Addr.Port() != 80 || d.Method != ipvs.MethodTunnel {
					t.Errorf("destination %v by %v, want port 80 by tunnel", d.Addr, d.Method)
				}
				got[d.Addr.Addr()] = d.Weight
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("destinations (-want +got):\n%s", diff)
			}
			for _, d := range table.Decisions {
				if weight, ok := got[d.Address]; ok != d.InUse || weight != d.Weight {
					t.Errorf("the decision on %s says in use %v with weight %d, the table %v with %d", d.Address, d.InUse, d.Weight, ok, weight)
				}
				if d.State != StateReady && d.Reason == "" {
					t.Errorf("%s is %s without a reason", d.Address, d.State)
				}
			}
		})
	}
}

func TestPlanOfFirewallMark(t *testing.T) {
	svc := web()
	svc.FWMark = 7
	table := Plan(Inputs{Services: []config.Service{svc}, Leases: []registry.Lease{lease(rs1, registry.Ready, 1)}})
	if got := table.Services[0].Key; got != ipvs.FWMarkKey(7, ipvs.IPv4) {
		t.Errorf("key %v, want fwmark 7", got)
	}
	if got := table.Services[0].Destinations[0].Addr; got != netip.AddrPortFrom(rs1, 0) {
		t.Errorf("destination %v, want port 0: packets keep theirs", got)
	}
}

// A plan is a function: equal inputs, equal tables, and planning again over its own result changes nothing.
func TestPlanIsStable(t *testing.T) {
	in := Inputs{
		Services: []config.Service{web()},
		Leases:   []registry.Lease{lease(rs3, registry.Ready, 2), lease(rs1, registry.Down, 0)},
		Verdicts: map[Target]httpcheck.Update{target(rs2): verdict(httpcheck.Up)},
	}
	first := Plan(in)
	in.Kernel = first.Services
	if diff := cmp.Diff(first, Plan(in), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, ipvs.Key{})); diff != "" {
		t.Errorf("the second plan differs (-first +second):\n%s", diff)
	}
}
