package tunnel

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What the host that states are applied to is like without us, and with each state. A device that came with a module
// stays, down.
const (
	tunl0Down   = "tunl0 ipip down mtu 1480\n"
	sit0Down    = "sit0 sit down mtu 1480\n"
	ip6tnl0Down = "ip6tnl0 ip6tnl down mtu 1452 ip6ip6\n"
	gre0Up      = "gre0 gre up mtu 1476 10.9.9.9/32\n"
	ip6gre0Bad  = "ip6gre0 ip6gre down mtu 1000\n"
)

var states = []struct{ name, desired, want string }{
	{"one", "10.0.0.50", gre0Up + ip6gre0Bad + ip6tnl0Down + sit0Down + "tunl0 ipip up mtu 1480 10.0.0.50/32*\n"},
	{"two and one twice", "10.0.0.51 10.0.0.50 10.0.0.51", gre0Up + ip6gre0Bad + ip6tnl0Down + sit0Down + "tunl0 ipip up mtu 1480 10.0.0.50/32* 10.0.0.51/32*\n"},
	{"another", "10.0.0.52", gre0Up + ip6gre0Bad + ip6tnl0Down + sit0Down + "tunl0 ipip up mtu 1480 10.0.0.52/32*\n"},
	{
		"every pair of families", "10.0.0.50 2001:db8::50 10.0.0.50/6 2001:db8::50/6",
		gre0Up + ip6gre0Bad + "ip6tnl0 ip6tnl up mtu 1452 any 10.0.0.50/32* 2001:db8::50/128*\n" +
			"sit0 sit up mtu 1480 2001:db8::50/128*\n" + "tunl0 ipip up mtu 1480 10.0.0.50/32*\n",
	},
	{
		"GUE", "10.0.0.50/gue:6080 2001:db8::50/6/gue:6080",
		gre0Up + ip6gre0Bad + "ip6tnl0 ip6tnl up mtu 1452 any 2001:db8::50/128*\n" + sit0Down + "tunl0 ipip up mtu 1480 10.0.0.50/32*\n" +
			"UDP port 6080 of IPv4 for GUE: true\nUDP port 6080 of IPv6 for GUE: true\n",
	},
	{
		"GRE", "10.0.0.50/gre 2001:db8::50/gre 10.0.0.50/6/gre",
		"gre0 gre up mtu 1476 10.0.0.50/32* 10.9.9.9/32 2001:db8::50/128*\n" + "ip6gre0 ip6gre up mtu 1280 10.0.0.50/32*\n" + ip6tnl0Down + sit0Down + tunl0Down,
	},
	{"IPv6 written as IPv4", "::ffff:10.0.0.50", gre0Up + ip6gre0Bad + ip6tnl0Down + sit0Down + "tunl0 ipip up mtu 1480 10.0.0.50/32*\n"},
	{"none", "", gre0Up + ip6gre0Bad + ip6tnl0Down + sit0Down + tunl0Down},
}

// stateHost has all devices, one of them in use and one that cannot do IPv6.
func stateHost() *fake {
	host := newFake()
	for _, d := range devices {
		host.have(d.name, d.kind, false)
	}
	host.links["gre0"].up = true
	host.links["gre0"].addresses = []address{{index: host.links["gre0"].index, prefix: netip.MustParsePrefix("10.9.9.9/32")}}
	host.links["ip6gre0"].mtu = 1000
	return host
}

// One host goes through the states in order, then in random order, with restarts of the program between them; each
// ends in the same text whatever was before it, and a second Apply makes no change.
func TestStates(t *testing.T) {
	t.Parallel()
	for _, keeps := range []bool{true, false} {
		t.Run(fmt.Sprintf("marks=%v", keeps), func(t *testing.T) {
			t.Parallel()
			host := stateHost()
			host.keeps = keeps
			tunnel := newTunnel(host, host)
			for _, s := range states {
				reach(t, tunnel, host, s.name, s.desired, s.want)
			}
			for range 100 {
				if rand.IntN(3) == 0 {
					tunnel = newTunnel(host, host)
				}
				s := states[rand.IntN(len(states))]
				reach(t, tunnel, host, s.name, s.desired, s.want)
			}
		})
	}
}

func reach(t *testing.T, tunnel *Tunnel, host *fake, name, what, want string) {
	t.Helper()
	_, err := tunnel.Apply(t.Context(), desired(what))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if !host.keeps {
		want = strings.ReplaceAll(want, "*", "")
	}
	if diff := cmp.Diff(want, host.String()); diff != "" {
		t.Fatalf("%s: host (-want +got):\n%s", name, diff)
	}
	writes, saves := host.writes, host.saves
	report, err := tunnel.Apply(t.Context(), desired(what))
	if err != nil || len(report.Changes)+len(report.Notes)+len(report.Alarms) != 0 || host.writes != writes || host.saves != saves {
		t.Fatalf("%s: a second Apply: %+v, %v, %d writes, %d saves", name, report, err, host.writes-writes, host.saves-saves)
	}
	for _, r := range desired(what).Receivers {
		found := false
		for _, held := range report.Held {
			found = found || held == r.canonical()
		}
		if !found {
			t.Fatalf("%s: %s is not held: %v", name, r, report.Held)
		}
	}
}

// Whichever call fails, with or without having taken effect, and whether or not the program ends with it: somebody is
// told, a later Apply ends in the wanted state, and in the end all is undone.
func TestFailureAtEveryCall(t *testing.T) {
	t.Parallel()
	for _, mode := range []struct{ keeps, fallbacks, after, crash bool }{
		{keeps: true, fallbacks: true}, {keeps: true, after: true}, {fallbacks: true, after: true},
		{keeps: true, crash: true}, {fallbacks: true, crash: true, after: true}, {crash: true, after: true},
	} {
		t.Run(fmt.Sprintf("%+v", mode), func(t *testing.T) {
			t.Parallel()
			for k := 1; ; k++ {
				host := stateHost()
				host.keeps, host.after = mode.keeps, mode.after
				if host.fallbacks = mode.fallbacks; !host.fallbacks {
					delete(host.links, "sit0")
					delete(host.links, "ip6tnl0")
				}
				before := host.String()
				tunnel := newTunnel(host, host)
				host.failAt = k
				var failed error
				for _, s := range []int{0, 3, 4, 5, 7} {
					s := states[s]
					_, err := tunnel.Apply(t.Context(), desired(s.desired))
					failed = errors.Join(failed, err)
					if err == nil {
						continue
					}
					if mode.crash {
						tunnel = newTunnel(host, host)
					}
					if report, err := tunnel.Apply(t.Context(), desired(s.desired)); err != nil || len(report.Alarms) != 0 {
						t.Fatalf("call %d, %s: the Apply after the failure: %v, %v", k, s.name, err, report.Alarms)
					}
					if want := s.want; mode.keeps && mode.fallbacks && host.String() != want {
						t.Fatalf("call %d, %s: host (-want +got):\n%s", k, s.name, cmp.Diff(want, host.String()))
					}
				}
				// And the failure when everything is being undone.
				if _, err := tunnel.Apply(t.Context(), desired("2001:db8::50 2001:db8::50/6 10.0.0.50/gre 10.0.0.50/gue:6080 10.0.0.50/6/gre")); err != nil {
					failed = errors.Join(failed, err)
				}
				if mode.crash {
					tunnel = newTunnel(host, host)
				}
				for range 2 {
					if _, err := tunnel.Apply(t.Context(), Desired{}); err != nil {
						failed = errors.Join(failed, err)
						tunnel = newTunnel(host, host)
					}
				}
				if diff := cmp.Diff(before, host.String()); diff != "" || host.saved != nil {
					t.Fatalf("call %d: undone (-want +got):\n%s\nrecord: %s", k, diff, host.saved)
				}
				if host.calls < k {
					return // past the last call
				}
				if !mode.after && !errors.Is(failed, errInjected) {
					t.Fatalf("call %d failed and nobody was told", k)
				}
			}
		})
	}
}

func TestApply(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		host    func(*fake)
		desired string
		held    []string
		changes []Change
		want    string
		err     string
	}{
		{
			name: "from nothing", desired: "10.0.0.50", held: []string{"10.0.0.50 by ipip over IPv4"},
			changes: []Change{{"tunl0", "missing", "present", false}, {"tunl0", "down", "up", false}, {"10.0.0.50/32 on tunl0", "absent", "present", false}},
			want:    "tunl0 ipip up mtu 1480 10.0.0.50/32*\n",
		},
		{
			name: "no fallback device in this namespace", host: func(f *fake) { f.fallbacks = false }, desired: "10.0.0.50/6",
			held:    []string{"10.0.0.50 by ipip over IPv6"},
			changes: []Change{{"ip6tnl0", "missing", "present", false}, {"ip6tnl0", "down", "up", false}, {"10.0.0.50/32 on ip6tnl0", "absent", "present", false}},
			want:    "ip6tnl0! ip6tnl up mtu 1452 any 10.0.0.50/32*\n",
		},
		{
			name: "ip6tnl0 takes only IPv6, and ip6gre0 cannot", desired: "10.0.0.50/6 2001:db8::50/6/gre",
			host: func(f *fake) { f.have("ip6tnl0", "ip6tnl", true); f.have("ip6gre0", "ip6gre", true).mtu = 1200 },
			held: []string{"10.0.0.50 by ipip over IPv6", "2001:db8::50 by gre over IPv6"},
			changes: []Change{
				{"mode of ip6tnl0", "ip6ip6", "any", false}, {"MTU of ip6gre0", "1200", "1280", false},
				{"2001:db8::50/128 on ip6gre0", "absent", "present", false}, {"10.0.0.50/32 on ip6tnl0", "absent", "present", false},
			},
			want: "ip6gre0 ip6gre up mtu 1280 2001:db8::50/128*\nip6tnl0 ip6tnl up mtu 1452 any 10.0.0.50/32*\n",
		},
		{
			name: "nothing wanted, nothing touched", host: func(f *fake) { f.have("tunl0", "ipip", false, "10.9.9.9/32"); f.fou[port{false, 99}] = true },
			want: "tunl0 ipip down mtu 1480 10.9.9.9/32\nUDP port 99 of IPv4 for GUE: true\n",
		},
		{
			name: "ours from a run whose record is lost goes",
			host: func(f *fake) {
				f.have("tunl0", "ipip", true, "10.0.0.50/32").addresses[0].marked = true
				l := f.have("sit0", "sit", true)
				l.fallback, l.marked = false, true
			},
			changes: []Change{{"10.0.0.50/32 on tunl0", "present", "absent", false}, {"sit0", "up", "removed", false}},
			want:    "tunl0 ipip up mtu 1480\n",
		},
		{
			name: "a wider prefix is not the VIP", host: func(f *fake) { f.have("tunl0", "ipip", true, "10.0.0.50/24") }, desired: "10.0.0.50",
			held:    []string{"10.0.0.50 by ipip over IPv4"},
			changes: []Change{{"10.0.0.50/32 on tunl0", "absent", "present", false}},
			want:    "tunl0 ipip up mtu 1480 10.0.0.50/24 10.0.0.50/32*\n",
		},
		{
			name: "what the kernel lacks is said at once, and the rest is done", desired: "10.0.0.50 2001:db8::50 10.0.0.50/6 10.0.0.51/gre 10.0.0.50/gue:6080",
			host:    func(f *fake) { f.modules = map[string]bool{"ipip": true}; f.hasFOU = false },
			held:    []string{"10.0.0.50 by ipip over IPv4"},
			changes: []Change{{"tunl0", "missing", "present", false}, {"tunl0", "down", "up", false}, {"10.0.0.50/32 on tunl0", "absent", "present", false}},
			want:    "tunl0 ipip up mtu 1480 10.0.0.50/32*\n",
			err: `sit0: is missing, not present: kernel module sit (CONFIG_IPV6_SIT) is missing: modprobe sit
ip6tnl0: is missing, not present: kernel module ip6_tunnel (CONFIG_IPV6_TUNNEL) is missing: modprobe ip6_tunnel
gre0: is missing, not present: kernel module ip_gre (CONFIG_NET_IPGRE) is missing: modprobe ip_gre
UDP port 6080 of IPv4 for GUE: is closed, not open: kernel module fou (CONFIG_NET_FOU) is missing, and nothing loads it by itself: modprobe fou, and name it in /etc/modules-load.d`,
		},
		{
			name: "strangers by our names", desired: "10.0.0.50/gue:6080",
			host: func(f *fake) { f.have("tunl0", "dummy", false).mtu = 1500; f.fou[port{false, 6080}] = false },
			want: "tunl0 dummy down mtu 1500\nUDP port 6080 of IPv4 for GUE: false\n",
			err: `tunl0: is a device of kind "dummy", not ipip: rename or remove it
UDP port 6080 of IPv4 for GUE: is open for FOU of another kind: close it (ip fou del), or give the service another port`,
		},
		{
			name: "the host's own addresses", desired: "10.0.0.1 10.0.0.1/gre 10.0.0.2 10.0.0.3 " + rip4,
			host: func(f *fake) {
				f.have("eth0.100", "veth", true, "10.0.0.1/24")
				f.have("lo", "loopback", true, "10.0.0.2/32")
			},
			held:    []string{"10.0.0.2 by ipip over IPv4", "10.0.0.3 by ipip over IPv4"},
			changes: []Change{{"tunl0", "missing", "present", false}, {"tunl0", "down", "up", false}, {"10.0.0.2/32 on tunl0", "absent", "present", false}, {"10.0.0.3/32 on tunl0", "absent", "present", false}},
			want:    "eth0.100 veth up mtu 0 10.0.0.1/24\nlo loopback up mtu 0 10.0.0.2/32\ntunl0 ipip up mtu 1480 10.0.0.2/32* 10.0.0.3/32*\n",
			err: `VIP 10.0.0.1: is this host's own address on eth0.100: remove it there, or take this host out of the service
VIP 192.168.1.100: is the real server's own address, to which the directors send`,
		},
		{
			name:    "nonsense",
			desired: "224.0.0.1 127.0.0.1 :: fe80::1%eth0 fe80::1 255.255.255.255 10.0.0.50/vxlan 10.0.0.50/gue 10.0.0.50/gre:7",
			err: `VIP 10.0.0.50: only gue has a port, gre has none
VIP 10.0.0.50: gue needs a UDP port
VIP 10.0.0.50: unknown encapsulation "vxlan": there are ipip, gue and gre
VIP 127.0.0.1: not an address a service can have
VIP 224.0.0.1: not an address a service can have
VIP 255.255.255.255: not an address a service can have
VIP ::: not an address a service can have
VIP fe80::1: not an address a service can have
VIP fe80::1%eth0: not an address a service can have`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host := newFake()
			if tt.host != nil {
				tt.host(host)
			}
			report, err := newTunnel(host, host).Apply(t.Context(), desired(tt.desired))
			if diff := cmp.Diff(tt.err, text(err)); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.changes, report.Changes); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			var held []string
			for _, r := range report.Held {
				held = append(held, r.String())
			}
			if diff := cmp.Diff(tt.held, held); diff != "" {
				t.Errorf("held (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.want, host.String()); diff != "" {
				t.Errorf("host (-want +got):\n%s", diff)
			}
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Where something that is asked for cannot be meant, what was built before stays, also what is not asked for now; the
// same for a VIP that the host itself has since.
func TestBadInputUndoesNothing(t *testing.T) {
	t.Parallel()
	host := newFake()
	tunnel := newTunnel(host, host)
	apply := func(what string) error {
		_, err := tunnel.Apply(t.Context(), desired(what))
		return err
	}
	must(t, apply("10.0.0.50 2001:db8::50/6 10.0.0.50/gue:6080"))
	built := host.String()
	if err := apply("10.0.0.50/vxlan"); err == nil || host.String() != built {
		t.Errorf("nonsense: %v, host (-want +got):\n%s", err, cmp.Diff(built, host.String()))
	}
	host.have("eth0", "veth", true, "10.0.0.50/24")
	if err := apply("10.0.0.50 10.0.0.50/gue:6080 2001:db8::50/6"); err == nil || !strings.HasPrefix(host.String(), "eth0 ") ||
		!strings.HasSuffix(host.String(), built) {
		t.Errorf("the host's own: %v, host (-want +got):\n%s", err, cmp.Diff(built, host.String()))
	}
	if err := apply("10.0.0.50"); err == nil || !strings.HasSuffix(host.String(), "tunl0 ipip up mtu 1480 10.0.0.50/32*\n") {
		t.Errorf("the host's own, the rest unwanted: %v, host:\n%s", err, host)
	}
}

func TestWithoutThePrivilegeNothingIsChanged(t *testing.T) {
	t.Parallel()
	host := stateHost()
	host.locked = true
	before := host.String()
	report, err := newTunnel(host, host).Apply(t.Context(), desired("10.0.0.50 10.0.0.51/gre"))
	want := "tunl0: is down, not up: operation not permitted: the capability CAP_NET_ADMIN is missing: run as root or by the systemd unit"
	if text(err) != want || len(report.Changes) != 0 || host.String() != before {
		t.Errorf("error %v, want %s; %+v; host:\n%s", err, want, report, host)
	}
}

func TestApplyEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	host := newFake()
	if _, err := newTunnel(host, host).Apply(ctx, desired("10.0.0.50")); !errors.Is(err, context.Canceled) || host.writes != 0 {
		t.Errorf("error %v after %d writes", err, host.writes)
	}
}

func TestDevice(t *testing.T) {
	t.Parallel()
	for what, want := range map[string]string{
		"10.0.0.50": "tunl0", "10.0.0.50/gue:1": "tunl0", "2001:db8::50": "sit0", "2001:db8::50/gue:1": "sit0",
		"10.0.0.50/6": "ip6tnl0", "2001:db8::50/6/gue:1": "ip6tnl0", "::ffff:10.0.0.50": "tunl0",
		"10.0.0.50/gre": "gre0", "2001:db8::50/gre": "gre0", "10.0.0.50/6/gre": "ip6gre0", "2001:db8::50/6/gre": "ip6gre0",
	} {
		if got := desired(what).Receivers[0].Device(); got != want {
			t.Errorf("%s comes out of %s, want %s", what, got, want)
		}
	}
}
