package agent

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lvstun/director/client"
	"lvstun/httpcheck"
	"lvstun/tunnel"
)

var rip = netip.MustParseAddr("192.168.1.100")

func TestDecide(t *testing.T) {
	t.Parallel()
	held := []tunnel.Receiver{{VIP: netip.MustParseAddr("10.0.0.50"), RIP: rip, Type: tunnel.IPIP}}
	built := side{applied: true, held: held}
	up := verdict{state: httpcheck.Up}
	tests := []struct {
		name   string
		change func(*client.ServiceDefinition)
		side   side
		check  verdict
		state  client.State
		reason string
	}{
		{name: "all is well", side: built, check: up, state: client.Ready},
		{name: "not checked yet", side: built, state: client.Down, reason: "checking"},
		{name: "failing, not down yet", side: built, check: verdict{reason: "refused"}, state: client.Down, reason: "checking: refused"},
		{name: "check down", side: built, check: verdict{state: httpcheck.Down, reason: "refused"}, state: client.Down, reason: "refused"},
		{name: "not built", check: up, state: client.Down, reason: "tunnel side: not built yet"},
		{name: "VIP missing", side: side{applied: true}, check: up, state: client.Down, reason: "tunnel side: 10.0.0.50 by ipip over IPv4 is not in place"},
		{
			name: "VIP missing, and why", side: side{applied: true, problems: []string{"kernel module ipip is missing"}}, check: up,
			state: client.Down, reason: "tunnel side: kernel module ipip is missing",
		},
		{
			name: "a setting cannot be set", side: side{applied: true, problems: []string{"read-only"}}, check: up,
			state: client.Down, reason: "tunnel side: read-only",
		},
		{
			name: "a problem of another VIP", side: side{applied: true, held: held, problems: []string{"ip6_tunnel is missing"}}, check: up,
			state: client.Ready,
		},
		{
			name: "a host without nftables", side: side{applied: true, held: held, guard: guardSide{problem: "no nftables"}, problems: []string{"no nftables"}}, check: up,
			state: client.Ready,
		},
		{
			name: "another encapsulation than held", change: func(d *client.ServiceDefinition) { d.Encapsulation = client.Encapsulation{Type: "gue", Port: 6080} }, side: built, check: up,
			state: client.Down, reason: "tunnel side: 10.0.0.50 by gue to port 6080 over IPv4 is not in place",
		},
		{
			name: "gue", change: func(d *client.ServiceDefinition) { d.Encapsulation = client.Encapsulation{Type: "gue", Port: 6080} },
			side: side{applied: true, held: []tunnel.Receiver{{VIP: netip.MustParseAddr("10.0.0.50"), RIP: rip, Type: tunnel.GUE, Port: 6080}}}, check: up, state: client.Ready,
		},
		{
			name: "another family", change: func(d *client.ServiceDefinition) { d.VIP = netip.MustParseAddr("2001:db8::50") },
			side: side{applied: true, held: []tunnel.Receiver{{VIP: netip.MustParseAddr("2001:db8::50"), RIP: rip, Type: tunnel.IPIP}}}, check: up, state: client.Ready,
		},
		{name: "a firewall mark without a VIP", change: func(d *client.ServiceDefinition) { d.VIP = netip.Addr{} }, check: up, state: client.Ready},
		{name: "another service", change: func(d *client.ServiceDefinition) { d.Name = "DNS" }, side: built, check: up, state: client.Down, reason: "no director has said what this service is"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := define("HTTP", "10.0.0.50", "/")
			if tt.change != nil {
				tt.change(&d)
			}
			w := wanted{services: map[string]client.ServiceDefinition{d.Name: d}}
			state, reason := decide("HTTP", w, rip, tt.side, tt.check)
			if state != tt.state || reason != tt.reason {
				t.Errorf("%s %q, want %s %q", state, reason, tt.state, tt.reason)
			}
		})
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	w := merge([]*client.Answer{answer("vs", "active", 1, define("HTTP", "10.0.0.50", "/"))}, rip)
	s := side{applied: true, held: w.receivers, problems: []string{"something small"}}
	got := report([]string{"HTTP", "DNS"}, 10, rip, 42, w, s, map[string]verdict{"HTTP": {state: httpcheck.Up}})
	want := client.Registration{
		Address: rip, Session: 42,
		Services: []client.ServiceReport{
			{Name: "HTTP", Weight: 10, State: client.Ready},
			{Name: "DNS", Weight: 10, State: client.Down, Reason: "no director has said what this service is"},
		},
		Tunnel: client.TunnelReport{Problems: []string{"something small"}},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("registration (-want +got):\n%s", diff)
	}
	if errs := got.Validate(); len(errs) > 0 {
		t.Errorf("a director would refuse it: %v", errs)
	}
}

func TestTargetOf(t *testing.T) {
	t.Parallel()
	d := define("HTTP", "10.0.0.50", "/")
	if got := targetOf(d, rip).addr.String(); got != "10.0.0.50:80" {
		t.Errorf("checks %s, want the VIP", got)
	}
	d.VIP = netip.Addr{}
	if got := targetOf(d, rip).addr.String(); got != "192.168.1.100:80" {
		t.Errorf("checks %s, want the own address of a service without a VIP", got)
	}
}
