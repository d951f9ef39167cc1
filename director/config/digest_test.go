package config

import (
	"strings"
	"testing"
)

func TestDigest(t *testing.T) {
	const base = `
name: vs
heartbeat: {paths: [{local: 10.0.0.1, peer: 10.0.0.2}]}
services:
  - {name: a, vip: 10.0.0.50, device: eth0, port: 80, register: {from: [10.0.0.0/8, 192.168.1.0/24]}, servers: [{name: x, address: 192.168.1.100}, {address: 192.168.1.101}]}
  - {name: b, vip: 10.0.0.50, device: eth0, port: 443, persistent: 5m}
`
	of := func(text string) [32]byte {
		cfg, _ := mustParse(t, "director.yaml", text)
		return cfg.Digest
	}
	want := of(base)
	lines := strings.SplitAfter(base, "\n")
	swapped := strings.Join([]string{lines[0], lines[1], lines[2], lines[3], lines[5], lines[4]}, "")
	for _, tt := range []struct {
		name, old, new string
		same           bool
	}{
		{"services in another order", base, swapped, true},
		{"servers in another order", "{name: x, address: 192.168.1.100}, {address: 192.168.1.101}", "{address: 192.168.1.101}, {address: 192.168.1.100}", true},
		{"networks in another order", "10.0.0.0/8, 192.168.1.0/24", "192.168.1.0/24, 10.0.0.0/8", true},
		{"the other director's name", "name: vs", "name: vs_bk\napi: {listen: ':1'}\nweb: {listen: ':2'}\ncluster_key_file: /k", true},
		{"the other director's addresses", "local: 10.0.0.1, peer: 10.0.0.2", "local: 10.0.0.2, peer: 10.0.0.1", true},
		{"another device", "eth0", "ens3", true},
		{"a default that is written", "port: 80,", "port: 80, scheduler: wlc, check: {interval: 2s},", true},
		{"sysctls", "name: vs", "name: vs\nsysctls: audit", true},
		{"sync's device", "name: vs", "name: vs\nsync: {device: eth0, id: 0}", true},
		{"sync's id", "name: vs", "name: vs\nsync: {device: eth0, id: 1}", false},
		{"interval", "10.0.0.2}]", "10.0.0.2}], interval: 150ms", false},
		{"dead", "10.0.0.2}]", "10.0.0.2}], dead: 400ms", false},
		{"heartbeat port", "10.0.0.2}]", "10.0.0.2}], port: 540", false},
		{"lease", "name: vs", "name: vs\nvip: {lease: 3s}", false},
		{"service name", "name: a", "name: c", false},
		{"vip", "10.0.0.50", "10.0.0.51", false},
		{"port", "port: 80", "port: 81", false},
		{"protocol", "port: 80", "port: 80, protocol: udp, check: {kind: tcp}", false},
		{"mark", "port: 80", "port: 80, fwmark: 1", false},
		{"scheduler", "port: 80", "port: 80, scheduler: rr", false},
		{"persistent", "5m", "6m", false},
		{"persistence mask", "5m", "5m, persistence_mask: 24", false},
		{"tunnel", "port: 80", "port: 80, encapsulation: {type: gre}", false},
		{"tunnel port", "port: 80", "port: 80, encapsulation: {type: gue, port: 1}", false},
		{"check", "port: 80", "port: 80, check: {rise: 3}", false},
		{"quiesce", "port: 80", "port: 80, quiesce_on_failure: true", false},
		{"networks", ", 192.168.1.0/24", "", false},
		{"max_weight", "192.168.1.0/24]", "192.168.1.0/24], max_weight: 5", false},
		{"server", "192.168.1.101", "192.168.1.102", false},
		{"weight", "192.168.1.101", "192.168.1.101, weight: 2", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.ReplaceAll(base, tt.old, tt.new)
			if text == base {
				t.Fatal("nothing was replaced")
			}
			if same := of(text) == want; same != tt.same {
				t.Errorf("the same digest: %t, want %t\n%s", same, tt.same, text)
			}
		})
	}
}

// A person is told which part differs, and no other.
func TestParts(t *testing.T) {
	const base = `
name: vs
services:
  - {name: a, vip: 10.0.0.50, device: eth0, port: 80}
`
	parts := func(text string) []Part {
		cfg, _ := mustParse(t, "director.yaml", text)
		return cfg.Parts()
	}
	for _, tt := range []struct{ old, new, want string }{
		{"name: vs", "name: vs_bk", ""},
		{"name: vs", "name: vs\nvip: {lease: 3s}", "heartbeat and lease"},
		{"name: vs", "name: vs\nsync: {device: eth0, id: 7}", "sync"},
		{"10.0.0.50", "10.0.0.51", "VIPs services"},
		{"port: 80", "port: 80, scheduler: rr", "services"},
		{"port: 80", "port: 80, check: {rise: 3}", "checks"},
	} {
		var differ []string
		have := parts(base)
		for i, p := range parts(strings.ReplaceAll(base, tt.old, tt.new)) {
			if p != have[i] {
				differ = append(differ, p.Name)
			}
		}
		if got := strings.Join(differ, " "); got != tt.want {
			t.Errorf("%s for %s: parts that differ: %q, want %q", tt.new, tt.old, got, tt.want)
		}
	}
}
