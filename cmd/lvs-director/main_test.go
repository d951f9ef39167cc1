package main

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"lvstun/director/client"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"lvs-director": func() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script"})
}

func TestPrintStatus(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	status := client.Status{
		Name: "vs", Role: "active", RoleReason: "the peer is silent", Term: 4, Rule: "plain rules: no witnesses", RoleSince: now.Add(-90 * time.Second),
		Pair: client.PairStatus{
			Peer: client.PeerStatus{Name: "vs_bk", Role: "standby", Term: 3, Differs: []string{"services"}},
			Paths: []client.PathStatus{{
				Local: addr("10.0.0.1"), Peer: addr("10.0.0.2"), State: "up", LastHeard: now.Add(-time.Second),
				Sent: 10, Received: 9, Dropped: map[string]uint64{"forged": 2, "replay": 1},
			}},
			Transitions: []client.Transition{{At: now, From: "standby", To: "active", Reason: "the peer is silent"}},
		},
		VIPs: []client.VIPStatus{{Addr: addr("10.0.0.50"), Device: "eth0", Held: true}},
		Services: []client.ServiceStatus{{
			Name: "HTTP", VIP: addr("10.0.0.50"), Port: 80, Protocol: "tcp", Scheduler: "wlc",
			Stats: client.Stats{Conns: 5, InPackets: 30, InBytes: 2000},
			Destinations: []client.DestinationStatus{
				{Name: "rs1", Address: addr("192.168.1.100"), Weight: 3, InUse: true, State: "ready", Source: "agent", ActiveConns: 2},
				{Address: addr("192.168.1.200"), State: "down", Source: "check", Reason: "connection refused"},
			},
		}},
		Problems: []string{"something is wrong"},
	}
	const want = `director  vs                 active for 2m, term 4: the peer is silent
peer      vs_bk              standby, term 3, ITS CONFIGURATION DIFFERS: services
path      10.0.0.1–10.0.0.2  up, heard 1s ago, 10 sent, 9 received, 3 dropped
rule                         plain rules: no witnesses
vip       10.0.0.50          here on eth0

HTTP  10.0.0.50:80/tcp  wlc  5 connections, 30 packets, 2000 bytes in
  REAL SERVER  ADDRESS        WEIGHT  STATE  BY     ACTIVE  INACTIVE  WHY
  rs1          192.168.1.100  3       ready  agent  2       0         
  -            192.168.1.200  -       down   check  0       0         connection refused

last transitions
  2026-03-01 12:00:00  standby → active: the peer is silent

PROBLEM something is wrong
`
	var got strings.Builder
	if err := printStatus(&got, status, now); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
