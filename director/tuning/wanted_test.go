package tuning

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// lines are settings as text: key, value, and ! where it is set, # where clients lose something.
func lines(settings []Setting) []string {
	var out []string
	for _, s := range settings {
		line := s.Key + " = " + s.Want()
		if s.Set {
			line += " !"
		}
		if s.Severity == Loss {
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
			"sync, with its own view of two settings",
			Facts{Sync: []Setting{
				{Key: "net.ipv4.vs.sync_threshold", Value: "0 1", Set: true, Severity: Loss},
				{Key: "net.ipv4.vs.sloppy_tcp", Value: "1", Set: true, Severity: Loss},
				{Key: "net.ipv4.vs.backup_only", Value: "0", Set: true},
			}},
			append([]string{
				"net/ipv4/vs/sync_threshold = 0 1 ! #",
				"net/ipv4/vs/sloppy_tcp = 1 ! #",
				"net/ipv4/vs/backup_only = 0 !",
			}, append(slices.Clone(always), "net/ipv4/vs/sync_version = 1 ! #")...),
		},
		{
			"IPv4 on two devices", Facts{IPv4: true, Devices: []string{"eth0", "eth0.100", "eth0"}},
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
			for _, s := range got {
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

func TestServes(t *testing.T) {
	t.Parallel()
	exactly := Setting{Value: "3", Or: []string{"2"}}
	pair := Setting{Value: "0 1"}
	least := Setting{Rule: AtLeast, Value: "1024"}
	for _, tt := range []struct {
		setting Setting
		have    string
		want    bool
	}{
		{exactly, "3", true}, {exactly, "2", true}, {exactly, "1", false}, {exactly, "30", false}, {exactly, "", false},
		{pair, "0 1", true}, {pair, "0", false}, {pair, "3 50", false},
		{least, "1024", true}, {least, "16384", true}, {least, "1023", false}, {least, "9", false}, {least, "x", false}, {least, "", false},
	} {
		if got := tt.setting.serves(tt.have); got != tt.want {
			t.Errorf("%s: %q serves: %v", tt.setting.Want(), tt.have, got)
		}
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, slashed, dotted string }{
		{"net.ipv4.vs.conntrack", "net/ipv4/vs/conntrack", "net.ipv4.vs.conntrack"},
		{"net/ipv4/conf/eth0.100/arp_ignore", "net/ipv4/conf/eth0.100/arp_ignore", "net.ipv4.conf.eth0/100.arp_ignore"},
		{"net.ipv4.conf.eth0/100.arp_ignore", "net/ipv4/conf/eth0.100/arp_ignore", "net.ipv4.conf.eth0/100.arp_ignore"},
		{"", "", ""},
	} {
		if got := [2]string{slashed(tt.in), dotted(tt.in)}; got != [2]string{tt.slashed, tt.dotted} {
			t.Errorf("%q: %q", tt.in, got)
		}
	}
}

func TestLarger(t *testing.T) {
	t.Parallel()
	for _, tt := range [][3]string{{"0", "1", "1"}, {"2", "1", "2"}, {"1", "1", "1"}, {"9", "10", "10"}, {"", "0", "0"}} {
		if got := larger(tt[0], tt[1]); got != tt[2] {
			t.Errorf("larger(%q, %q) = %q", tt[0], tt[1], got)
		}
	}
}

func TestFinding(t *testing.T) {
	t.Parallel()
	f := Finding{Key: "net.ipv4.vs.conntrack", Have: "1", Want: "0", Why: "it costs time", State: Audited}
	if d := cmp.Diff("net.ipv4.vs.conntrack is 1, should be 0: it costs time", f.String()); d != "" {
		t.Error(d)
	}
	f.Have, f.State = "", Missing
	if d := cmp.Diff("net.ipv4.vs.conntrack is missing, should be 0: it costs time", f.String()); d != "" {
		t.Error(d)
	}
	f.State = Refused
	if d := cmp.Diff("net.ipv4.vs.conntrack cannot be read, should be 0: it costs time", f.String()); d != "" {
		t.Error(d)
	}
	for _, tt := range []struct {
		state State
		set   bool
		want  bool
	}{{Held, true, true}, {Changed, true, true}, {Audited, false, false}, {Refused, true, false}, {Missing, true, false}, {Missing, false, true}} {
		if got := (Finding{State: tt.state, Set: tt.set}).Serves(); got != tt.want {
			t.Errorf("%s (set %v) serves: %v", tt.state, tt.set, got)
		}
	}
}
