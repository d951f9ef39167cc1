package config

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lvstun/director/ipvs"
	"lvstun/httpcheck"
)

// Each service of a file, written as YAML, and what becomes of it.
func TestServices(t *testing.T) {
	tcp := httpcheck.Spec{Kind: httpcheck.TCP, Interval: httpcheck.Duration(2 * time.Second),
		Timeout: httpcheck.Duration(time.Second), Rise: 2, Fall: 2}
	base := Service{Name: "a", VIP: addr("10.0.0.50"), Device: "eth0", Port: 80, Protocol: ipvs.TCP, Scheduler: "wlc", Check: tcp}
	for _, tt := range []struct {
		name, yaml string
		want       func(*Service)
		key        string
	}{
		{"defaults", "port: 80", func(*Service) {}, "10.0.0.50:80/tcp"},
		{"label", "port: 80, device: 'eth0.7:1'", func(s *Service) { s.Device, s.Label = "eth0.7", "eth0.7:1" }, "10.0.0.50:80/tcp"},
		{"no label on IPv6", "port: 80, vip: '2001:db8::50', device: 'eth0:1'", func(s *Service) { s.VIP = addr("2001:db8::50") }, "[2001:db8::50]:80/tcp"},
		{"udp is checked by udp", "port: 53, protocol: udp, one_packet: true", func(s *Service) {
			s.Port, s.Protocol, s.OnePacket, s.Check.Kind = 53, ipvs.UDP, true, httpcheck.UDP
		}, "10.0.0.50:53/udp"},
		{"a mark without a port is not checked", "fwmark: 4294967295", func(s *Service) {
			s.Port, s.FWMark, s.Check = 0, 1<<32-1, httpcheck.Spec{Kind: httpcheck.None}
		}, "fwmark 4294967295"},
		{"a mark of IPv6 with a check's port", "fwmark: 7, vip: '2001:db8::50', check: {port: 22}", func(s *Service) {
			s.VIP, s.Port, s.FWMark, s.Check.Port = addr("2001:db8::50"), 0, 7, 22
		}, "fwmark 7 of IPv6"},
		{"persistent", "port: 80, persistent: 5m, persistence_mask: 24", func(s *Service) {
			s.Persistent, s.PersistenceMask = 5*time.Minute, 24
		}, "10.0.0.50:80/tcp"},
		{"a full mask is none", "port: 80, persistent: 5m, persistence_mask: 32", func(s *Service) { s.Persistent = 5 * time.Minute }, "10.0.0.50:80/tcp"},
		{"a mask without persistence", "port: 80, persistence_mask: 24", func(*Service) {}, "10.0.0.50:80/tcp"},
		{"gre", "port: 80, encapsulation: {type: gre, checksum: full}", func(s *Service) {
			s.Encapsulation = ipvs.Tunnel{Type: ipvs.GRE, Flags: ipvs.Csum}
		}, "10.0.0.50:80/tcp"},
		{"gue", "port: 80, encapsulation: {type: gue, port: 6080, checksum: remote}", func(s *Service) {
			s.Encapsulation = ipvs.Tunnel{Type: ipvs.GUE, Port: 6080, Flags: ipvs.RemCsum}
		}, "10.0.0.50:80/tcp"},
		{"http", "port: 80, check: {kind: http, host: h, expect_body: ok}", func(s *Service) {
			s.Check.Kind, s.Check.Path, s.Check.ExpectStatus, s.Check.Host, s.Check.ExpectBody = httpcheck.HTTP, "/", 200, "h", "ok"
		}, "10.0.0.50:80/tcp"},
		{"https", "port: 80, check: {kind: https, path: /x, expect_status: 204}", func(s *Service) {
			s.Check.Kind, s.Check.Path, s.Check.ExpectStatus = httpcheck.HTTPS, "/x", 204
		}, "10.0.0.50:80/tcp"},
		{"send_expect asks over the service's protocol", `port: 80, protocol: udp, check: {kind: send_expect, send: "a\r\n", expect: b, regex: true}`, func(s *Service) {
			s.Protocol, s.Check.Kind, s.Check.Network = ipvs.UDP, httpcheck.SendExpect, "udp"
			s.Check.Send, s.Check.Expect, s.Check.Regex = "a\r\n", "b", true
		}, "10.0.0.50:80/udp"},
		{"none", "port: 80, check: {kind: none}", func(s *Service) { s.Check = httpcheck.Spec{Kind: httpcheck.None} }, "10.0.0.50:80/tcp"},
		{"register", "port: 80, register: {from: [192.168.1.0/24]}", func(s *Service) {
			s.Register = Register{From: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")}, MaxWeight: 100}
		}, "10.0.0.50:80/tcp"},
		{"servers", "port: 80, quiesce_on_failure: true, servers: [{address: 192.168.1.100}, {name: x, address: '2001:db8::1', port: 80, weight: 0}]", func(s *Service) {
			s.QuiesceOnFailure = true
			s.Servers = []Server{{"192.168.1.100", addr("192.168.1.100"), 80, 1}, {"x", addr("2001:db8::1"), 80, 0}}
		}, "10.0.0.50:80/tcp"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, _ := mustParse(t, "director.yaml", "services:\n  - {<<: {name: a, vip: 10.0.0.50, device: eth0}, "+tt.yaml+"}\n")
			want := base
			tt.want(&want)
			if diff := cmp.Diff([]Service{want}, cfg.Services, addresses); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got := cfg.Services[0].Key().String(); got != tt.key {
				t.Errorf("key %s, want %s", got, tt.key)
			}
			mustBeServable(t, cfg)
		})
	}
}

// A VIP has one label: that of the first service on it.
func TestOneLabel(t *testing.T) {
	cfg, _ := mustParse(t, "director.yaml", `
services:
  - {name: a, vip: 10.0.0.50, device: "eth0:1", port: 1}
  - {name: b, vip: 10.0.0.50, device: "eth0:2", port: 2}
  - {name: c, vip: 10.0.0.51, device: "eth0", port: 3}
  - {name: d, vip: 10.0.0.51, device: "eth0:3", port: 4}
`)
	var got []string
	for _, s := range cfg.Services {
		got = append(got, s.Device+" "+s.Label)
	}
	if diff := cmp.Diff([]string{"eth0 eth0:1", "eth0 eth0:1", "eth0 ", "eth0 "}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
