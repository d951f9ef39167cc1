package tunnel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fake is a host: its devices and their addresses, rendered as text. failAt makes one call fail.
type fake struct {
	modules map[string]bool // kinds the kernel can make
	links   map[string]*fakeLink
	marks   bool // the kernel keeps IFA_PROTO
	calls   int
	failAt  int // 0: never
	writes  int
}

type fakeLink struct {
	link
	addresses []address
}

var _ kernel = (*fake)(nil)

var errInjected = errors.New("injected")

func newFake() *fake {
	return &fake{modules: map[string]bool{"ipip": true, "ip6tnl": true}, links: map[string]*fakeLink{}, marks: true}
}

func (f *fake) call() error {
	if f.calls++; f.calls == f.failAt {
		return errInjected
	}
	return nil
}

func (f *fake) find(l link) *fakeLink {
	for _, fl := range f.links {
		if fl.index == l.index {
			return fl
		}
	}
	return &fakeLink{}
}

func (f *fake) link(name string) (link, bool, error) {
	if err := f.call(); err != nil {
		return link{}, false, err
	}
	fl, ok := f.links[name]
	if !ok {
		return link{}, false, nil
	}
	return fl.link, true, nil
}

// addLink does as the kernel does while it loads a module: the device comes, the request fails.
func (f *fake) addLink(name, kind string) error {
	if err := f.call(); err != nil {
		return err
	}
	if !f.modules[kind] {
		return errNoKind
	}
	f.writes++
	f.links[name] = &fakeLink{link: link{index: len(f.links) + 1, kind: kind}}
	return errors.New("file exists")
}

func (f *fake) setUp(l link) error {
	if err := f.call(); err != nil {
		return err
	}
	f.writes++
	f.find(l).up = true
	return nil
}

func (f *fake) addresses(l link) ([]address, error) {
	return slices.Clone(f.find(l).addresses), f.call()
}

func (f *fake) addAddress(l link, p netip.Prefix) error {
	if err := f.call(); err != nil {
		return err
	}
	f.writes++
	fl := f.find(l)
	fl.addresses = append(fl.addresses, address{prefix: p, marked: f.marks})
	return nil
}

func (f *fake) removeAddress(l link, p netip.Prefix) error {
	if err := f.call(); err != nil {
		return err
	}
	f.writes++
	fl := f.find(l)
	fl.addresses = slices.DeleteFunc(fl.addresses, func(a address) bool { return a.prefix == p })
	return nil
}

func (f *fake) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f.links)) {
		l := f.links[name]
		fmt.Fprintf(&b, "%s %s %s", name, l.kind, state(l.link))
		addresses := slices.SortedFunc(slices.Values(l.addresses), func(a, b address) int { return strings.Compare(a.prefix.String(), b.prefix.String()) })
		for _, a := range addresses {
			fmt.Fprintf(&b, " %s", a.prefix)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func vips(text string) (d Desired) {
	for _, s := range strings.Fields(text) {
		d.VIPs = append(d.VIPs, netip.MustParseAddr(s))
	}
	return d
}

var states = []struct {
	name, vips, want string
}{
	{"one", "10.0.0.50", "tunl0 ipip up 10.0.0.50/32\n"},
	{"two and one twice", "10.0.0.51 10.0.0.50 10.0.0.51", "tunl0 ipip up 10.0.0.50/32 10.0.0.51/32\n"},
	{"another", "10.0.0.52", "tunl0 ipip up 10.0.0.52/32\n"},
	{"both families", "10.0.0.50 2001:db8::50", "ip6tnl0 ip6tnl up 2001:db8::50/128\ntunl0 ipip up 10.0.0.50/32\n"},
	{"IPv6 written as IPv4", "::ffff:10.0.0.50", "ip6tnl0 ip6tnl up\ntunl0 ipip up 10.0.0.50/32\n"},
	{"none", "", "ip6tnl0 ip6tnl up\ntunl0 ipip up\n"},
}

// One host goes through the states in order, then in random order; each ends in the same text whatever
// was before it, and a second Apply makes no change.
func TestStates(t *testing.T) {
	t.Parallel()
	for _, marks := range []bool{true, false} {
		t.Run(fmt.Sprintf("marks=%v", marks), func(t *testing.T) {
			t.Parallel()
			host := newFake()
			host.marks = marks
			tunnel := newTunnel(host)
			for _, s := range states {
				step(t, tunnel, host, s.name, s.vips, s.want)
			}
			everything := func(text string) string { // devices stay once they were made
				for _, l := range []string{"ip6tnl0 ip6tnl up", "tunl0 ipip up"} {
					if !strings.Contains(text, l) {
						text = l + "\n" + text
					}
				}
				return text
			}
			for range 50 {
				s := states[rand.IntN(len(states))]
				step(t, tunnel, host, s.name, s.vips, everything(s.want))
			}
		})
	}
}

func step(t *testing.T, tunnel *Tunnel, host *fake, name, desired, want string) {
	t.Helper()
	if _, err := tunnel.Apply(t.Context(), vips(desired)); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if diff := cmp.Diff(want, host.String()); diff != "" {
		t.Fatalf("%s: host (-want +got):\n%s", name, diff)
	}
	writes := host.writes
	report, err := tunnel.Apply(t.Context(), vips(desired))
	if err != nil || len(report.Changes) != 0 || host.writes != writes {
		t.Fatalf("%s: a second Apply: %v, %v, %d writes", name, report.Changes, err, host.writes-writes)
	}
}

// Whichever call fails, Apply says so, and the next one ends in the wanted state all the same.
func TestFailureAtEveryCall(t *testing.T) {
	t.Parallel()
	for k := 1; ; k++ {
		host := newFake()
		tunnel := newTunnel(host)
		host.failAt = k
		var failed error
		for _, s := range states {
			_, err := tunnel.Apply(t.Context(), vips(s.vips))
			failed = errors.Join(failed, err)
			if err != nil {
				if _, err := tunnel.Apply(t.Context(), vips(s.vips)); err != nil {
					t.Fatalf("call %d, %s: the Apply after the failure: %v", k, s.name, err)
				}
			}
			if diff := cmp.Diff(s.want, host.String()); diff != "" {
				t.Fatalf("call %d, %s: host (-want +got):\n%s", k, s.name, diff)
			}
		}
		if host.calls < k {
			return // past the last call
		}
		if !errors.Is(failed, errInjected) {
			t.Fatalf("call %d failed and nobody was told", k)
		}
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	vip := netip.MustParsePrefix("10.0.0.50/32")
	tunl0 := func(up bool, addresses ...address) map[string]*fakeLink {
		return map[string]*fakeLink{"tunl0": {link: link{index: 1, kind: "ipip", up: up}, addresses: addresses}}
	}
	tests := []struct {
		name    string
		links   map[string]*fakeLink
		kinds   []string // missing from the kernel
		vips    string
		held    string
		changes []Change
		host    string
		err     string
	}{
		{
			name: "from nothing", links: map[string]*fakeLink{}, vips: "10.0.0.50", held: "[10.0.0.50]",
			changes: []Change{{"tunl0", "missing", "down"}, {"tunl0", "down", "up"}, {"10.0.0.50/32 on tunl0", "absent", "present"}},
			host:    "tunl0 ipip up 10.0.0.50/32\n",
		},
		{
			name: "down", links: tunl0(false, address{prefix: vip}), vips: "10.0.0.50", held: "[10.0.0.50]",
			changes: []Change{{"tunl0", "down", "up"}}, host: "tunl0 ipip up 10.0.0.50/32\n",
		},
		{
			name: "foreign addresses stay", links: tunl0(true, address{prefix: netip.MustParsePrefix("10.9.9.9/32")}, address{prefix: vip}),
			held: "[]", host: "tunl0 ipip up 10.0.0.50/32 10.9.9.9/32\n",
		},
		{
			name: "ours from an earlier run goes", links: tunl0(true, address{prefix: vip, marked: true}), held: "[]",
			changes: []Change{{"10.0.0.50/32 on tunl0", "present", "absent"}}, host: "tunl0 ipip up\n",
		},
		{
			name: "a wider prefix is not the VIP", links: tunl0(true, address{prefix: netip.MustParsePrefix("10.0.0.50/24")}), vips: "10.0.0.50", held: "[10.0.0.50]",
			changes: []Change{{"10.0.0.50/32 on tunl0", "absent", "present"}}, host: "tunl0 ipip up 10.0.0.50/24 10.0.0.50/32\n",
		},
		{name: "no VIP, a device that is down stays down", links: tunl0(false), held: "[]", host: "tunl0 ipip down\n"},
		{
			name: "no module for one family", links: tunl0(true), kinds: []string{"ip6tnl"}, vips: "2001:db8::50 10.0.0.50", held: "[10.0.0.50]",
			changes: []Change{{"10.0.0.50/32 on tunl0", "absent", "present"}}, host: "tunl0 ipip up 10.0.0.50/32\n",
			err: "ip6tnl0: kernel module ip6_tunnel is missing: modprobe ip6_tunnel",
		},
		{
			name:  "a stranger by that name",
			links: map[string]*fakeLink{"tunl0": {link: link{index: 1, kind: "dummy"}}}, vips: "10.0.0.50", held: "[]", host: "tunl0 dummy down\n",
			err: `tunl0: is a device of kind "dummy", not ipip: rename or remove it`,
		},
		{
			name: "nonsense among the VIPs", links: tunl0(true), vips: "224.0.0.1 127.0.0.1 :: fe80::1%eth0 10.0.0.50", held: "[10.0.0.50]",
			changes: []Change{{"10.0.0.50/32 on tunl0", "absent", "present"}}, host: "tunl0 ipip up 10.0.0.50/32\n",
			err: "VIP 224.0.0.1: not an address a service can have\nVIP 127.0.0.1: not an address a service can have\nVIP ::: not an address a service can have\nVIP fe80::1%eth0: not an address a service can have",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host := newFake()
			host.links = tt.links
			for _, k := range tt.kinds {
				host.modules[k] = false
			}
			report, err := newTunnel(host).Apply(t.Context(), vips(tt.vips))
			text := ""
			if err != nil {
				text = err.Error()
			}
			if diff := cmp.Diff(tt.err, text); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.changes, report.Changes); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			if got := fmt.Sprint(report.Held); got != tt.held {
				t.Errorf("held %s, want %s", got, tt.held)
			}
			if diff := cmp.Diff(tt.host, host.String()); diff != "" {
				t.Errorf("host (-want +got):\n%s", diff)
			}
		})
	}
}

func TestApplyEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	host := newFake()
	if _, err := newTunnel(host).Apply(ctx, vips("10.0.0.50")); err == nil || host.calls != 0 {
		t.Errorf("error %v after %d calls", err, host.calls)
	}
}
