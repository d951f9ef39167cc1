package tunnel

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// What somebody else has changed since is left, and said once; all the rest is put back.
func TestUndoLeavesWhatOthersChanged(t *testing.T) {
	t.Parallel()
	vip := netip.MustParsePrefix("10.0.0.50/32")
	tests := []struct {
		name    string
		host    func(*fake)
		desired string
		person  func(*fake)
		want    string
		notes   []string
	}{
		{
			name: "nothing was changed", host: func(f *fake) { f.have("tunl0", "ipip", false) }, desired: "10.0.0.50 10.0.0.50/gue:6080",
			want: tunl0Down,
		},
		{
			name: "the module was loaded for us", desired: "10.0.0.50", want: tunl0Down,
			notes: []string{"tunl0 stays: it is part of the kernel module ipip, which was loaded for it and stays loaded"},
		},
		{
			name: "a device that we made", host: func(f *fake) { f.fallbacks = false }, desired: "10.0.0.50 10.0.0.50/6",
		},
		{
			name: "up, with the VIP, already", host: func(f *fake) { f.have("tunl0", "ipip", true, "10.0.0.50/32") }, desired: "10.0.0.50",
			want: "tunl0 ipip up mtu 1480 10.0.0.50/32\n",
		},
		{
			name: "somebody else's address was there, and it was down", host: func(f *fake) { f.have("tunl0", "ipip", false, "10.9.9.9/32") },
			desired: "10.0.0.50", want: "tunl0 ipip down mtu 1480 10.9.9.9/32\n",
		},
		{
			name: "somebody uses the device since", host: func(f *fake) { f.have("ip6tnl0", "ip6tnl", false) }, desired: "10.0.0.50/6",
			person: func(f *fake) {
				f.addAddress(f.links["ip6tnl0"].link, netip.MustParsePrefix("10.9.9.9/32"))
				f.others("ip6tnl0")
			},
			want:  "ip6tnl0 ip6tnl up mtu 1452 ip6ip6 10.9.9.9/32\n",
			notes: []string{"ip6tnl0 stays up: it holds 10.9.9.9/32, which is not ours"},
		},
		{
			name: "somebody uses a device that we made", host: func(f *fake) { f.fallbacks = false }, desired: "10.0.0.50",
			person: func(f *fake) {
				f.addAddress(f.links["tunl0"].link, netip.MustParsePrefix("10.9.9.9/32"))
				f.others("tunl0")
			},
			want:  "tunl0! ipip up mtu 1480 10.9.9.9/32\n",
			notes: []string{"tunl0 stays up: it holds 10.9.9.9/32, which is not ours"},
		},
		{
			name: "somebody has put the VIP there again", host: func(f *fake) { f.have("tunl0", "ipip", true) }, desired: "10.0.0.50",
			person: func(f *fake) {
				f.removeAddress(f.links["tunl0"].link, vip)
				f.addAddress(f.links["tunl0"].link, vip)
				f.others("tunl0")
			},
			want:  "tunl0 ipip up mtu 1480 10.0.0.50/32\n",
			notes: []string{"10.0.0.50/32 on tunl0 stays: somebody else has put it there since"},
		},
		{
			name: "somebody has set MTU and mode", desired: "10.0.0.50/6",
			host: func(f *fake) { l := f.have("ip6tnl0", "ip6tnl", false); l.mtu = 1000 },
			person: func(f *fake) {
				f.setMTU(f.links["ip6tnl0"].link, 1400)
				f.setProtocol(f.links["ip6tnl0"].link, 4)
			},
			want: "ip6tnl0 ip6tnl down mtu 1400 ipip6\n",
			notes: []string{
				"mode of ip6tnl0 stays ipip6: somebody else has set it (it was ip6ip6)",
				"MTU of ip6tnl0 stays 1400: somebody else has set it (it was 1000)",
			},
		},
		{
			name: "MTU and mode are as we set them", desired: "10.0.0.50/6",
			host: func(f *fake) { l := f.have("ip6tnl0", "ip6tnl", true); l.mtu = 1000 },
			want: "ip6tnl0 ip6tnl up mtu 1000 ip6ip6\n",
		},
		{
			name: "somebody has set an MTU that we had no need to", desired: "10.0.0.50/gre",
			host:   func(f *fake) { f.have("gre0", "gre", true) },
			person: func(f *fake) { f.setMTU(f.links["gre0"].link, minIPv6) },
			want:   "gre0 gre up mtu 1280\n",
		},
		{
			name: "somebody has taken all of it away", host: func(f *fake) { f.have("tunl0", "ipip", false) }, desired: "10.0.0.50 10.0.0.50/gue:6080 10.0.0.50/6",
			person: func(f *fake) { clear(f.links); clear(f.fou) },
		},
		{
			name: "another device has come by the name", host: func(f *fake) { f.have("tunl0", "ipip", false) }, desired: "10.0.0.50",
			person: func(f *fake) { f.have("tunl0", "ipip", true, "10.0.0.50/32") },
			want:   "tunl0 ipip up mtu 1480 10.0.0.50/32\n",
			notes:  []string{"10.0.0.50/32 on tunl0 stays: somebody else has put it there since"},
		},
		{
			name: "somebody has the port for something else", host: func(f *fake) { f.have("tunl0", "ipip", true) }, desired: "10.0.0.50/gue:6080",
			person: func(f *fake) { f.fou[port{false, 6080}] = false },
			want:   "tunl0 ipip up mtu 1480\nUDP port 6080 of IPv4 for GUE: false\n",
			notes:  []string{"UDP port 6080 of IPv4 for GUE stays: somebody else has opened it for something else since"},
		},
		{
			name: "the host was booted", host: func(f *fake) { f.have("tunl0", "ipip", false) }, desired: "10.0.0.50 10.0.0.50/gue:6080",
			person: func(f *fake) {
				f.era = "tomorrow"
				f.have("tunl0", "ipip", true, "10.0.0.50/32").index = 1
				f.links["tunl0"].addresses[0].index = 1
			},
			want:  "tunl0 ipip up mtu 1480 10.0.0.50/32\nUDP port 6080 of IPv4 for GUE: true\n",
			notes: []string{"the record is of a network that is gone, by a reboot of this host or of its container: what it says is forgotten"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host := newFake()
			if tt.host != nil {
				tt.host(host)
			}
			_, err := newTunnel(host, host).Apply(t.Context(), desired(tt.desired))
			must(t, err)
			if tt.person != nil {
				tt.person(host)
			}
			report, err := newTunnel(host, host).Apply(t.Context(), Desired{})
			if err != nil || host.saved != nil {
				t.Errorf("%v, record %s", err, host.saved)
			}
			if diff := cmp.Diff(tt.want, host.String()); diff != "" {
				t.Errorf("host (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.notes, report.Notes); diff != "" {
				t.Errorf("notes (-want +got):\n%s", diff)
			}
			if report, err := newTunnel(host, host).Apply(t.Context(), Desired{}); err != nil || len(report.Changes)+len(report.Notes) != 0 || host.String() != tt.want {
				t.Errorf("a second time: %v, %+v", err, report)
			}
		})
	}
}

// others takes the mark off the address that was added last to one of the devices: somebody else did it.
func (f *fake) others(device string) {
	l := f.links[device]
	l.addresses[len(l.addresses)-1].marked = false
}

// The record is refused, and then nothing is changed; what holds is told all the same.
func TestWithoutARecordNothingIsChanged(t *testing.T) {
	t.Parallel()
	host := newFake()
	_, err := newTunnel(host, host).Apply(t.Context(), desired("10.0.0.50"))
	must(t, err)
	host.saved = host.saved[:len(host.saved)/2]
	host.links["tunl0"].addresses = append(host.links["tunl0"].addresses, address{index: 1, prefix: netip.MustParsePrefix("10.0.0.51/32")})
	before := host.String()
	for _, what := range []string{"", "10.0.0.50 10.0.0.51 10.0.0.52"} {
		tunnel := newTunnel(host, host)
		for range 2 {
			report, err := tunnel.Apply(t.Context(), desired(what))
			if err == nil || !strings.Contains(err.Error(), "cut short or damaged") || host.String() != before || len(report.Changes) != 0 {
				t.Errorf("%q: %v, %+v; host (-want +got):\n%s", what, err, report, cmp.Diff(before, host.String()))
			}
			if want := min(2, len(strings.Fields(what))); len(report.Held) != want {
				t.Errorf("%q: held %v", what, report.Held)
			}
		}
		if what == "" {
			continue
		}
		host.saved = nil // a person has removed the file
		if report, err := tunnel.Apply(t.Context(), desired(what)); err != nil || len(report.Held) != 3 {
			t.Errorf("without the file: %v, %+v", err, report)
		}
	}
}

// undo(do(host)) is the host, for any host, any states, restarts of the program, failures and crashes in between.
func TestUndoRestoresAnyHost(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		host := newFake()
		host.keeps, host.fallbacks = rapid.Bool().Draw(t, "marks"), rapid.Bool().Draw(t, "fallbacks")
		foreign := rapid.SampledFrom([]string{"10.9.9.9/32", "10.0.0.50/32", "10.0.0.51/24", "192.0.2.1/32"})
		for _, d := range devices {
			switch rapid.IntRange(0, 4).Draw(t, d.name) {
			case 0, 1:
				continue
			case 2:
				host.have(d.name, "dummy", rapid.Bool().Draw(t, "up"), foreign.Draw(t, "address"))
			default:
				l := host.have(d.name, d.kind, rapid.Bool().Draw(t, "up"), rapid.SliceOfNDistinct(foreign, 0, 2, rapid.ID[string]).Draw(t, "addresses")...)
				l.mtu = rapid.SampledFrom([]int{1000, 1280, 1480, 1500}).Draw(t, "MTU")
				if d == ip6tnl0 {
					l.protocol = rapid.SampledFrom([]uint8{0, 4, 41}).Draw(t, "mode")
				}
			}
		}
		if rapid.Bool().Draw(t, "elsewhere") {
			host.have("eth0", "veth", true, "10.0.0.51/24")
		}
		for _, p := range []port{{false, 6080}, {true, 6080}} {
			if rapid.Bool().Draw(t, p.String()) {
				host.fou[p] = rapid.Bool().Draw(t, "GUE")
			}
		}
		before := host.String()
		wish := rapid.SampledFrom([]string{
			"10.0.0.50", "10.0.0.51", "2001:db8::50", "10.0.0.50/6", "2001:db8::51/6", "10.0.0.50/gre", "2001:db8::50/gre",
			"2001:db8::50/6/gre", "10.0.0.50/gue:6080", "10.0.0.50/6/gue:6080", "10.0.0.50/vxlan", "127.0.0.1",
		})
		tunnel := newTunnel(host, host)
		for range rapid.IntRange(1, 6).Draw(t, "states") {
			host.failAt = host.calls + rapid.IntRange(0, 60).Draw(t, "fails")
			host.after = rapid.Bool().Draw(t, "after")
			tunnel.Apply(t.Context(), desired(strings.Join(rapid.SliceOfN(wish, 0, 5).Draw(t, "wishes"), " ")))
			if rapid.Bool().Draw(t, "restart") {
				tunnel = newTunnel(host, host)
			}
		}
		host.failAt = 0
		for n := range 2 {
			report, err := newTunnel(host, host).Apply(t.Context(), Desired{})
			if err != nil || n > 0 && len(report.Changes) != 0 || host.saved != nil {
				t.Fatalf("undo %d: %v, %+v, record %s", n, err, report, host.saved)
			}
			if diff := cmp.Diff(before, host.without(before)); diff != "" {
				t.Fatalf("undo %d: host (-want +got):\n%s", n, diff)
			}
		}
	})
}

// without renders the host without the devices that came with modules since, which are as they came.
func (f *fake) without(before string) string {
	text := f.String()
	for _, d := range devices {
		fresh := newFake()
		fresh.have(d.name, d.kind, false)
		if !strings.Contains("\n"+before, fmt.Sprintf("\n%s ", d.name)) {
			text = strings.Replace(text, fresh.String(), "", 1)
		}
	}
	return text
}
