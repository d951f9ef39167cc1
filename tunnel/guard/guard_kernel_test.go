//go:build kernel

package guard

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// nft runs commands of nft(8) and returns what it printed.
func nft(t *testing.T, commands string, flags ...string) string {
	t.Helper()
	cmd := exec.Command("nft", append(flags, "-f", "-")...)
	cmd.Stdin = strings.NewReader(commands)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("nft %s: %v\n%s", commands, err, out)
	}
	return string(out)
}

// words are a text without its line breaks and indentation, and with the elements of sets sorted: nft has
// an order of its own.
func words(text string) []string {
	text = elementList.ReplaceAllStringFunc(text, func(list string) string {
		inner := strings.TrimSuffix(strings.TrimPrefix(list, "elements = {"), "}")
		var all []string
		for e := range strings.SplitSeq(inner, ",") {
			all = append(all, strings.TrimSpace(e))
		}
		slices.Sort(all)
		return "elements = { " + strings.Join(all, ", ") + " }"
	})
	return strings.Fields(text)
}

var elementList = regexp.MustCompile(`elements = \{[^}]*\}`)

func apply(t *testing.T, g *Guard, d Desired, want ...string) Report {
	t.Helper()
	report, err := g.Apply(t.Context(), d)
	must(t, err)
	var got []string
	for _, c := range report.Changes {
		got = append(got, fmt.Sprintf("%s: %s -> %s", c.What, c.Old, c.New))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	again, err := g.Apply(t.Context(), d)
	if err != nil || len(again.Changes) != 0 {
		t.Errorf("a second Apply: %v, %v", again.Changes, err)
	}
	if fresh, err := New().Apply(t.Context(), d); err != nil || len(fresh.Changes) != 0 {
		t.Errorf("an Apply after a restart: %v, %v", fresh.Changes, err)
	}
	return report
}

func remove(t *testing.T, g *Guard, want bool) {
	t.Helper()
	removed, err := g.Remove(t.Context())
	if must(t, err); removed != want {
		t.Errorf("Remove: there was a table: %t, want %t", removed, want)
	}
}

func TestTheKernelHasWhatTheTextSays(t *testing.T) {
	g := New()
	for name, d := range map[string]Desired{
		"everything": everything(),
		"least":      {Directors: addrs("10.0.0.1")},
	} {
		normal, err := d.normal()
		must(t, err)
		if _, err := g.Apply(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		got := nft(t, "list table inet lvstun", "-s", "-n")
		if diff := cmp.Diff(words(build(normal).String()), words(got)); diff != "" {
			t.Errorf("%s (-text +kernel):\n%s\n%s", name, diff, got)
		}
	}
	remove(t, g, true)
	remove(t, g, false)
	if left := nft(t, "list ruleset"); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

func TestWhatSomebodyChangesIsRepaired(t *testing.T) {
	g := New()
	apply(t, g, everything(), "nftables table lvstun: missing -> present")
	more := everything()
	more.Directors = append(more.Directors, netip.MustParseAddr("10.0.0.3"))
	more.MSS4 = 1300
	apply(t, g, more,
		`nftables rules of chain answers: oifname != "lo" ip saddr @vips4 tcp flags 0x2 tcp option maxseg size > 1440 counter name "mss_lowered" tcp option maxseg size set 1440`+
			` -> oifname != "lo" ip saddr @vips4 tcp flags 0x2 tcp option maxseg size > 1300 counter name "mss_lowered" tcp option maxseg size set 1300`,
		"nftables set directors4: 10.0.0.1, 10.0.0.2 -> 10.0.0.1, 10.0.0.2, 10.0.0.3")
	apply(t, g, everything(),
		`nftables rules of chain answers: oifname != "lo" ip saddr @vips4 tcp flags 0x2 tcp option maxseg size > 1300 counter name "mss_lowered" tcp option maxseg size set 1300`+
			` -> oifname != "lo" ip saddr @vips4 tcp flags 0x2 tcp option maxseg size > 1440 counter name "mss_lowered" tcp option maxseg size set 1440`,
		"nftables set directors4: 10.0.0.1, 10.0.0.2, 10.0.0.3 -> 10.0.0.1, 10.0.0.2")
	for _, test := range []struct{ what, want string }{
		{"flush ruleset", "nftables table lvstun: missing -> present"},
		{"delete table inet lvstun", "nftables table lvstun: missing -> present"},
		{"flush chain inet lvstun decapsulated; delete chain inet lvstun decapsulated", "nftables chain decapsulated: missing -> type filter hook prerouting priority -300; policy accept;"},
		{"add element inet lvstun directors4 { 192.0.2.66 }", "nftables set directors4: 10.0.0.1, 10.0.0.2, 192.0.2.66 -> 10.0.0.1, 10.0.0.2"},
		{"delete element inet lvstun vips6 { 2001:db8::50 }", "nftables set vips6: empty -> 2001:db8::50"},
		{"insert rule inet lvstun encapsulated accept", "nftables rules of chain encapsulated: a rule of somebody else -> "},
		{"add chain inet lvstun mine", "nftables chain mine: without a hook -> missing"},
		{"add counter inet lvstun mine", "nftables counter mine: present -> missing"},
		{"add set inet lvstun mine { type ipv4_addr; elements = { 192.0.2.7 }; }", "nftables set mine: 192.0.2.7 -> missing"},
		{"chain inet lvstun answers { policy drop; }", "nftables chain answers: type filter hook 4 priority 150; policy 0; -> type filter hook postrouting priority 150; policy accept;"},
	} {
		nft(t, test.what)
		report, err := g.Apply(t.Context(), everything())
		must(t, err)
		var got []string
		for _, c := range report.Changes {
			got = append(got, fmt.Sprintf("%s: %s -> %s", c.What, c.Old, c.New))
		}
		if !strings.Contains(strings.Join(got, "\n"), test.want) {
			t.Errorf("%s: changes\n%s\nwant one of\n%s", test.what, strings.Join(got, "\n"), test.want)
		}
		apply(t, g, everything())
	}
	remove(t, g, true)
}

func TestAForeignTableStaysAsItIs(t *testing.T) {
	// What iptables-nft and firewalld make.
	nft(t, `table ip filter {
		chain INPUT { type filter hook input priority 0; policy accept; ip protocol 4 counter accept; }
	}
	table inet firewalld {
		chain filter_INPUT { type filter hook input priority 10; policy accept; ct state established,related accept; }
	}
	table ip lvstun {
		chain c {
		}
	}`)
	before := nft(t, "list ruleset")
	g := New()
	apply(t, g, everything(), "nftables table lvstun: missing -> present")
	if !strings.Contains(nft(t, "list ruleset"), strings.TrimSpace(before)) {
		t.Errorf("other tables changed:\n%s\nbefore:\n%s", nft(t, "list ruleset"), before)
	}
	remove(t, g, true)
	if diff := cmp.Diff(before, nft(t, "list ruleset")); diff != "" {
		t.Errorf("not as before (-before +after):\n%s", diff)
	}
	nft(t, "flush ruleset")
}

func TestThousandsOfServices(t *testing.T) {
	d := everything()
	d.Services, d.VIPs = nil, nil
	for i := range 3000 {
		vip := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		if i%2 == 0 {
			vip = netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i))
		}
		d.VIPs = append(d.VIPs, vip)
		d.Services = append(d.Services, Service{vip, 6, 80}, Service{vip, 17, uint16(i + 1)})
	}
	g := New()
	apply(t, g, d, "nftables table lvstun: missing -> present")
	remove(t, g, true)
}

func TestWatchSeesOursAndOnlyOurs(t *testing.T) {
	g := New()
	apply(t, g, everything(), "nftables table lvstun: missing -> present")
	ctx, cancel := context.WithCancel(t.Context())
	seen, done := make(chan struct{}, 1000), make(chan error, 1)
	go func() { done <- Watch(ctx, func() { seen <- struct{}{} }) }()
	heard := func(within time.Duration) bool {
		select {
		case <-seen:
			return true
		case <-time.After(within):
			return false
		}
	}
	quiet := func() {
		for heard(300 * time.Millisecond) {
		}
	}
	for i := 0; !heard(100 * time.Millisecond); i++ { // until it listens
		if i == 100 {
			t.Fatal("Watch says nothing")
		}
		nft(t, "add element inet lvstun directors4 { 192.0.2.1 }; delete element inet lvstun directors4 { 192.0.2.1 }")
	}
	quiet()
	nft(t, "add table inet other; add chain inet other c; add rule inet other c accept; add table ip lvstun; delete table inet other; delete table ip lvstun")
	if heard(500 * time.Millisecond) {
		t.Error("Watch told of a table that is not ours")
	}
	for _, what := range []string{"add element inet lvstun directors4 { 192.0.2.1 }", "flush chain inet lvstun decapsulated", "flush ruleset"} {
		nft(t, what)
		if !heard(5 * time.Second) {
			t.Errorf("%s: no word within 5 s", what)
		}
		quiet()
	}
	cancel()
	must(t, <-done)
	remove(t, g, false)
}

func TestWithoutTheCapability(t *testing.T) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			t.Error(err)
			return
		}
		g := New()
		_, applyErr := g.Apply(t.Context(), everything())
		_, removeErr := g.Remove(t.Context())
		for _, err := range []error{applyErr, removeErr, Watch(t.Context(), func() {})} {
			if err == nil || !strings.Contains(err.Error(), "CAP_NET_ADMIN is missing") {
				t.Errorf("error %v does not name the capability", err)
			}
		}
	}()
	<-done
}
