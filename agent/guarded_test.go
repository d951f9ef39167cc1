package agent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"lvstun/tunnel"
	"lvstun/tunnel/guard"
)

func TestGuardOf(t *testing.T) {
	t.Parallel()
	directors := []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	vip4, vip6 := netip.MustParseAddr("10.0.0.50"), netip.MustParseAddr("2001:db8::50")
	rip6 := netip.MustParseAddr("2001:db8:1::100")
	tests := []struct {
		name      string
		receivers []tunnel.Receiver
		mtu       int
		want      guard.Desired
	}{
		{name: "nothing", mtu: 1500, want: guard.Desired{}},
		{
			name: "the classic", mtu: 1500, receivers: []tunnel.Receiver{{VIP: vip4, RIP: rip, Type: tunnel.IPIP}},
			want: guard.Desired{VIPs: []netip.Addr{vip4}, Devices: tunnelDevices[:1], MSS4: 1440},
		},
		{
			name: "a narrow network", mtu: 1400, receivers: []tunnel.Receiver{{VIP: vip6, RIP: rip, Type: tunnel.GRE}},
			want: guard.Desired{VIPs: []netip.Addr{vip6}, Devices: tunnelDevices[3:4], MSS6: 1400 - 20 - 8 - 40 - 20},
		},
		{
			name: "the narrowest way counts, each family's", mtu: 1500,
			receivers: []tunnel.Receiver{
				{VIP: vip4, RIP: rip, Type: tunnel.GUE, Port: 6080}, {VIP: vip4, RIP: rip, Type: tunnel.IPIP},
				{VIP: vip6, RIP: rip6, Type: tunnel.IPIP}, {VIP: vip6, RIP: rip, Type: tunnel.IPIP}, {VIP: vip6, RIP: rip6, Type: tunnel.GRE},
			},
			want: guard.Desired{
				VIPs: []netip.Addr{vip4, vip4, vip6, vip6, vip6}, GUEPorts: []uint16{6080},
				Devices: []guard.Device{tunnelDevices[0], tunnelDevices[1], tunnelDevices[2], tunnelDevices[4]},
				MSS4:    1500 - 20 - 20 - 20 - 20, MSS6: 1500 - 40 - 8 - 40 - 20,
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.want.Directors = directors
			if diff := cmp.Diff(tt.want, guardOf(tt.receivers, directors, tt.mtu), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Every device that package tunnel receives on is guarded: a new one must not come without.
func TestEveryTunnelDeviceIsGuarded(t *testing.T) {
	t.Parallel()
	rips := []netip.Addr{rip, netip.MustParseAddr("2001:db8:1::100")}
	for _, vip := range []netip.Addr{netip.MustParseAddr("10.0.0.50"), netip.MustParseAddr("2001:db8::50")} {
		for _, r := range rips {
			for _, kind := range []tunnel.Type{tunnel.IPIP, tunnel.GUE, tunnel.GRE} {
				in := tunnel.Receiver{VIP: vip, RIP: r, Type: kind}
				protocol := map[bool]uint8{true: guard.IPv4InIP, false: guard.IPv6InIP}[vip.Is4()]
				if kind == tunnel.GRE {
					protocol = guard.GRE
				}
				devices := guardOf([]tunnel.Receiver{in}, nil, 1500).Devices
				if len(devices) != 1 || devices[0].Name != in.Device() || devices[0].IPv6 != r.Is6() || !slices.Contains(devices[0].Protocols, protocol) {
					t.Errorf("%s: guarded are %v, want protocol %d of %s", in, devices, protocol, in.Device())
				}
			}
		}
	}
}

func TestMTUOf(t *testing.T) {
	t.Parallel()
	if got := mtuOf("lo"); got != guard.PathMTU {
		t.Errorf("of lo %d, want no more than a path takes", got)
	}
	if got := mtuOf("absent0"); got != guard.PathMTU {
		t.Errorf("of no device %d", got)
	}
}

func counted(notFromDirectors, notToVIPs uint64) []guard.Counter {
	return []guard.Counter{
		{Name: guard.Decapsulated, Count: guard.Count{Packets: 1000 + notToVIPs}},
		{Name: guard.NotFromDirectors, Refused: true, Count: guard.Count{Packets: notFromDirectors}},
		{Name: guard.NotToVIPs, Refused: true, Count: guard.Count{Packets: notToVIPs}},
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(&out, nil))
	var r refusals
	steps := []struct {
		name     string
		after    time.Duration
		counters []guard.Counter
		want     string
	}{
		{"not known yet", 0, nil, ""},
		{"what was before is no news", 0, counted(7, 1), ""},
		{"nothing new", time.Second, counted(7, 1), ""},
		{"the first is said at once", time.Second, counted(10, 1), "3 not_from_directors"},
		{"more within the minute is kept", 59 * time.Second, counted(11, 2), ""},
		{"and said after it", time.Second, counted(12, 2), "2 not_from_directors, 1 not_to_vips"},
		{"the counters are lost for a look", time.Hour, nil, ""},
		{"they begin anew", time.Hour, counted(0, 0), ""},
		{"and count", time.Second, counted(0, 1), "1 not_to_vips"},
	}
	for _, s := range steps {
		now = now.Add(s.after)
		out.Reset()
		r.look(s.counters, now, log)
		if got := out.String(); (s.want == "") != (got == "") || !strings.Contains(got, s.want) {
			t.Errorf("%s: said %q, want %q", s.name, got, s.want)
		}
	}
}

func TestGuardInTheLoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vs, bk := pair()
		vs.answer.Directors = []netip.Addr{netip.MustParseAddr("192.168.1.10"), netip.MustParseAddr("10.0.0.1")}
		h := &fakeHost{guard: guardSide{counters: counted(7, 0)}}
		b, stop := startOn(t, h, vs, bk)
		defer stop()
		settled()
		told := func() string {
			h.mu.Lock()
			defer h.mu.Unlock()
			return fmt.Sprint(h.directors)
		}
		if got, want := told(), "[10.0.0.1 10.0.0.2 192.168.1.10]"; got != want {
			t.Errorf("the guard is told of directors %s, want %s: those registered at, and those named", got, want)
		}
		moved := *vs.answer
		moved.Directors = []netip.Addr{netip.MustParseAddr("192.168.1.11")}
		vs.set(func(d *fakeDirector) { d.answer = &moved })
		time.Sleep(time.Second)
		settled()
		if got, want := told(), "[10.0.0.1 10.0.0.2 192.168.1.11]"; got != want {
			t.Errorf("after a change the guard is told of directors %s, want %s", got, want)
		}

		h.set(func(h *fakeHost) { h.guard.counters = counted(9, 1) })
		time.Sleep(time.Second)
		settled()
		if log := b.log.String(); strings.Count(log, "the guard refused packets of tunnels") != 1 || !strings.Contains(log, "2 not_from_directors, 1 not_to_vips") {
			t.Errorf("log:\n%s", log)
		}
		vs.take()
		h.set(func(h *fakeHost) { h.guard = guardSide{problem: "guard: no nftables"} })
		time.Sleep(time.Second)
		settled()
		s := b.agent.Status()
		want := GuardStatus{Refused: 10, Problem: "guard: no nftables", Counters: map[string]uint64{guard.Decapsulated: 1001, guard.NotFromDirectors: 9, guard.NotToVIPs: 1}}
		if diff := cmp.Diff(want, s.Guard); diff != "" {
			t.Errorf("status (-want +got):\n%s", diff)
		}
		if s.Tunnel.OK || !slices.Contains(s.Tunnel.Problems, "guard: no nftables") {
			t.Errorf("the tunnel side is right without a guard: %+v", s.Tunnel)
		}
		wantStates(t, vs, ready)
	})
}
