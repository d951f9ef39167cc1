package sysctl

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

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
