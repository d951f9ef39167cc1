package tuning

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lvstun/sysctl"
)

// lines are settings as text: key, value, and ! where it is set, # where clients lose something.
func lines(settings []sysctl.Setting) []string {
	var out []string
	for _, s := range settings {
		line := s.Key + " = " + s.Want()
		if s.Set {
			line += " !"
		}
		if s.Severity == sysctl.Loss {
			line += " #"
		}
		out = append(out, line)
	}
	return out
}

func TestWanted(t *testing.T) {
	t.Parallel()
	always := []string{
		"net/ipv4/vs/expire_nodest_conn = 1 ! #",
		"net/ipv4/vs/conn_reuse_mode = 3 or 2 ! #",
		"net/ipv4/vs/conntrack = 0",
		"net/ipv4/vs/pmtu_disc = 1",
		"net/ipv4/vs/drop_packet = 0 or 1 or 2 #",
		"net/ipv4/vs/drop_entry = 0 or 1 or 2 #",
	}
	plain := append(slices.Clone(always), "net/ipv4/vs/sloppy_tcp = 0")
	sloppy := append(slices.Clone(always), "net/ipv4/vs/sloppy_tcp = 1 ! #")
	tests := []struct {
		name  string
		facts Facts
		want  []string
	}{
		{"nothing", Facts{}, plain},
		{"schedulers that count", Facts{Schedulers: []string{"wlc", "rr", "lblc"}}, plain},
		{"one that hashes", Facts{Schedulers: []string{"wlc", "mh"}}, sloppy},
		{"another", Facts{Schedulers: []string{"sh"}}, sloppy},
		{"persistent", Facts{Persistent: true}, append(slices.Clone(sloppy), "net/ipv4/vs/expire_quiescent_template = 1 ! #")},
		{"directors that serve", Facts{OwnServers: true}, append(slices.Clone(plain), "net/ipv4/vs/ignore_tunneled = 1 ! #")},
		{
			"sync", Facts{Sync: []sysctl.Setting{{Key: "net.ipv4.vs.sync_threshold", Value: "0 1", Set: true, Severity: sysctl.Loss}}},
			slices.Concat([]string{"net.ipv4.vs.sync_threshold = 0 1 ! #"}, plain,
				[]string{"net/ipv4/vs/backup_only = 0 ! #", "net/ipv4/vs/sync_version = 1 ! #"}),
		},
		{
			"IPv4 on two devices", Facts{IPv4: true, Devices: []string{"eth0", "eth0.100"}},
			append(slices.Clone(plain),
				"net/ipv4/conf/all/arp_ignore = 1 ! #",
				"net/ipv4/conf/all/arp_announce = 2 ! #",
				"net/ipv4/conf/all/send_redirects = 0 !",
				"net/ipv4/conf/eth0/arp_ignore = 1 or 0 ! #",
				"net/ipv4/conf/eth0/send_redirects = 0 !",
				"net/ipv4/conf/eth0/proxy_arp = 0 #",
				"net/ipv4/conf/eth0/rp_filter = 0 or 2",
				"net/ipv4/conf/eth0.100/arp_ignore = 1 or 0 ! #",
				"net/ipv4/conf/eth0.100/send_redirects = 0 !",
				"net/ipv4/conf/eth0.100/proxy_arp = 0 #",
				"net/ipv4/conf/eth0.100/rp_filter = 0 or 2"),
		},
		{
			"IPv6", Facts{IPv6: true, Devices: []string{"eth0"}},
			append(slices.Clone(plain), "net/ipv6/conf/eth0/disable_ipv6 = 0 #"),
		},
		{
			"many real servers", Facts{Neighbours4: 511, Neighbours6: 2000},
			append(slices.Clone(plain),
				"net/ipv6/neigh/default/gc_thresh2 = at least 2000 #",
				"net/ipv6/neigh/default/gc_thresh3 = at least 4000 #"),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := Wanted(tt.facts)
			if d := cmp.Diff(tt.want, lines(got)); d != "" {
				t.Errorf("settings (-want +got)\n%s", d)
			}
			seen := make(map[string]bool)
			for _, s := range got {
				if seen[s.Key] {
					t.Errorf("%s is there twice", s.Key)
				}
				seen[s.Key] = true
				if len(tt.facts.Sync) == 0 && (!strings.HasSuffix(s.Why, ")") || s.Severity == "") {
					t.Errorf("%s: no reason with its source, or no severity: %q %q", s.Key, s.Why, s.Severity)
				}
				if s.Set && s.With != "" {
					t.Errorf("%s is set, but looked at together with %s", s.Key, s.With)
				}
			}
		})
	}
}
