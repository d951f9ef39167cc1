package pair

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"lvstun/director/election"
	"lvstun/director/vip"
)

var (
	otherIP  = netip.MustParseAddr("10.0.0.51")
	otherVIP = vip.VIP{Addr: otherIP, Device: "eth0", Label: "eth0:2"}
	compare  = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
)

// has lists the VIPs a host's kernel has.
func (h *fakeHost) list(addrs ...netip.Addr) (list []netip.Addr) {
	h.lan.change(func() {
		for _, a := range addrs {
			if h.has(a) {
				list = append(list, a)
			}
		}
	})
	return list
}

// steady holds that nothing happens to a pair meanwhile: no role changes, and
// no beat is missed.
func steady(t *testing.T, d time.Duration, nodes ...*node) {
	t.Helper()
	before := make([]Status, len(nodes))
	for i, n := range nodes {
		before[i] = n.pair.Status()
	}
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * ms) {
		for i, n := range nodes {
			if s := n.pair.Status(); len(s.Transitions) != len(before[i].Transitions) || !s.Peer.Alive {
				t.Fatalf("%v, %q, peer %+v", s.Role, s.Reason, s.Peer)
			}
		}
	}
}

func reload(t *testing.T, n *node, cfg Config) {
	t.Helper()
	if err := n.pair.Reload(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

func TestReloadVIPs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := duo(t)
		cfgA, cfgB := configOf("vs", addrA, addrB), configOf("vs_bk", addrB, addrA)
		var before int
		l.change(func() { before = a.host.announced })
		for _, step := range []struct {
			vips []vip.VIP
			want []netip.Addr
		}{
			{[]vip.VIP{cfgA.VIPs[0], otherVIP}, []netip.Addr{theIP, otherIP}},
			{[]vip.VIP{otherVIP}, []netip.Addr{otherIP}},
			{[]vip.VIP{{Addr: otherIP, Device: "eth0"}}, []netip.Addr{otherIP}}, // another label
			{nil, nil},
			{cfgA.VIPs, []netip.Addr{theIP}},
		} {
			cfgA.VIPs, cfgB.VIPs = step.vips, step.vips
			reload(t, a, cfgA)
			synctest.Wait()
			if diff := cmp.Diff(step.want, a.host.list(theIP, otherIP), compare); diff != "" {
				t.Errorf("vs holds at once (-want +got):\n%s", diff)
			}
			steady(t, time.Second, a, b)
			reload(t, b, cfgB)
			steady(t, 3*time.Second, a, b)
			if diff := cmp.Diff(step.want, a.host.list(theIP, otherIP), compare); diff != "" {
				t.Errorf("vs holds (-want +got):\n%s", diff)
			}
			if got := b.host.list(theIP, otherIP); len(got) > 0 || len(b.pair.Status().VIPs) != len(step.vips) {
				t.Errorf("vs_bk holds %v and shows %+v", got, b.pair.Status().VIPs)
			}
			for _, v := range a.pair.Status().VIPs {
				if got := a.host.labels[v.Addr]; got != v.Label {
					t.Errorf("%v has the label %q", v.VIP, got)
				}
				if !v.Held {
					t.Errorf("vs does not show that it holds %v", v.VIP)
				}
			}
			var after int
			l.change(func() { after = a.host.announced })
			if announced := after - before; announced < len(step.vips) {
				t.Errorf("%d announcements", announced)
			}
			before = after
		}
		// One that somebody else has is put up, and that is said.
		l.change(func() { l.foreign[otherIP] = vip.MAC{2, 0xff, 0, 0, 0, 9} })
		cfgA.VIPs = append(cfgA.VIPs, otherVIP)
		reload(t, a, cfgA)
		time.Sleep(time.Second)
		if got := strings.Join(a.pair.Status().Problems, "\n"); !strings.Contains(got, "10.0.0.51 is claimed by 02:ff:00:00:00:09 as well") {
			t.Errorf("problems %q", got)
		}
		l.change(func() { delete(l.foreign, otherIP) })
		reload(t, b, Config{Name: cfgB.Name, Key: cfgB.Key, Paths: cfgB.Paths, VIPs: []vip.VIP{cfgB.VIPs[0], otherVIP}})
		a.end(t) // the standby takes over what it has learned
		synctest.Wait()
		if got := b.host.list(theIP, otherIP); len(got) != 2 {
			t.Errorf("vs_bk took over %v", got)
		}
		b.end(t)
	})
}

func TestReloadTiming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := duo(t)
		cfgA, cfgB := configOf("vs", addrA, addrB), configOf("vs_bk", addrB, addrA)
		sent := func(n *node) uint64 { return n.pair.Status().Paths[0].Sent }
		for i, want := range []timing{{time.Second, 3 * time.Second}, {10 * ms, 30 * ms}, {100 * ms, 300 * ms}} {
			for _, cfg := range []*Config{&cfgA, &cfgB} {
				cfg.Interval, cfg.Dead, cfg.Digest = want.interval, want.dead, [32]byte{byte(i + 1)}
			}
			first, second, firstCfg, secondCfg := a, b, cfgA, cfgB
			if i%2 == 1 {
				first, second, firstCfg, secondCfg = b, a, cfgB, cfgA
			}
			reload(t, first, firstCfg)
			steady(t, 5*time.Second, a, b)
			reload(t, second, secondCfg)
			steady(t, 5*time.Second, a, b)
			beats := [2]uint64{sent(a), sent(b)}
			steady(t, 10*time.Second, a, b)
			for i, n := range []*node{a, b} {
				wanted := uint64(10 * time.Second / want.interval)
				if got := sent(n) - beats[i]; got < wanted-1 || got > wanted+1 {
					t.Errorf("%d beats in 10 s, want %d", got, wanted)
				}
			}
		}
		b.end(t)
		a.end(t)
	})
}

func TestReloadLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		cfg := configOf("vs", addrA, addrB)
		cfg.Paths, cfg.Interval, cfg.Dead, cfg.Lease = nil, time.Second, 3*time.Second, 20*time.Second
		a := start(t, l, l.host("vs", 1), cfg)
		time.Sleep(time.Second)
		for _, lease := range []time.Duration{20 * time.Second, time.Second, 10 * time.Second} {
			cfg.Lease = lease
			reload(t, a, cfg)
			for range 500 {
				time.Sleep(10 * ms)
				left, every := time.Until(a.pair.Status().VIPs[0].Until), holdingsOf(cfg).every
				if left > lease || left < lease-every-ms || !a.host.holds() {
					t.Fatalf("the lease ends in %v, want %v; holds %v", left, lease, a.host.holds())
				}
			}
		}
		a.end(t)
	})
}

func TestReloadPaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := duo(t)
		a2, b2 := netip.MustParseAddr("192.168.7.1"), netip.MustParseAddr("192.168.7.2")
		cfgA, cfgB := configOf("vs", addrA, addrB), configOf("vs_bk", addrB, addrA)
		both := func(paths ...Path) {
			t.Helper()
			cfgA.Paths, cfgB.Paths = nil, nil
			for _, p := range paths {
				cfgA.Paths = append(cfgA.Paths, p)
				cfgB.Paths = append(cfgB.Paths, Path{Local: p.Peer, Peer: p.Local})
			}
			reload(t, a, cfgA)
			steady(t, time.Second, a)
			reload(t, b, cfgB)
			steady(t, time.Second, a, b)
			if s := a.pair.Status(); len(s.Paths) != len(paths) || slices.ContainsFunc(s.Paths, func(p PathStatus) bool { return p.State != PathUp }) {
				t.Errorf("paths %+v", s.Paths)
			}
		}
		both(Path{Local: addrA, Peer: addrB}, Path{Local: a2, Peer: b2}) // one more
		both(Path{Local: a2, Peer: b2}, Path{Local: addrA, Peer: addrB}) // in another order
		both(Path{Local: a2, Peer: b2})                                  // one less
		l.mu.Lock()
		if s := l.sockets[addrA]; s != nil {
			select {
			case <-s.ended:
			default:
				t.Error("the socket of a path that is gone is open")
			}
		}
		l.mu.Unlock()
		// The same local address and another peer: the socket is opened anew.
		// Nobody is heard until the peer has moved too, but the VIPs stay.
		cfgA.Paths[0].Peer = addrB
		reload(t, a, cfgA)
		cfgB.Paths[0] = Path{Local: addrB, Peer: a2}
		reload(t, b, cfgB)
		steady(t, time.Second, a, b)
		// A path whose address is not there yet.
		cfgA.Paths = append(cfgA.Paths, Path{Local: addrA, Peer: b2})
		l.change(func() { l.missing[addrA] = true })
		reload(t, a, cfgA)
		steady(t, time.Second, a, b)
		if s := a.pair.Status(); s.Paths[1].State != PathUnbound || s.Paths[1].Err == "" {
			t.Errorf("paths %+v", s.Paths)
		}
		b.end(t)
		a.end(t)
	})
}

// TestReloadRefused holds that what is wrong changes nothing, and is said.
func TestReloadRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := duo(t)
		good := configOf("vs", addrA, addrB)
		more := append(slices.Clone(good.VIPs), vip.VIP{Addr: otherIP.Next(), Device: "eth0"}, otherVIP)
		l.change(func() { a.host.missing, a.host.putErrOf = "eth7", otherIP })
		l.busy = netip.MustParseAddr("10.0.0.3")
		want := a.pair.Status()
		for _, test := range []struct {
			change func(*Config)
			words  []string
		}{
			{func(c *Config) { c.Name, c.Key = "x", [32]byte{1} }, []string{`name "x": a director keeps its name "vs" until it is restarted`, "key: a new cluster key needs a restart of both directors"}},
			{func(c *Config) { c.Interval = 1; c.Lease = 1 }, []string{"interval 1ns", "lease 1ns"}},
			{func(c *Config) { c.VIPs = append(more, vip.VIP{Addr: addrB.Next(), Device: "eth7"}) }, []string{"device eth7 is missing"}},
			{func(c *Config) { c.Paths = append(slices.Clone(c.Paths), Path{Local: l.busy, Peer: addrB}) }, []string{"10.0.0.3: another program has the port"}},
			{func(c *Config) { c.VIPs = more }, []string{"no"}},
		} {
			cfg := good
			test.change(&cfg)
			err := a.pair.Reload(t.Context(), cfg)
			if err == nil {
				t.Fatalf("took %+v", cfg)
			}
			if got := a.host.list(otherIP, otherIP.Next()); len(got) > 0 {
				t.Errorf("left behind: %v", got)
			}
			for _, word := range test.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("no word of %q in: %v", word, err)
				}
			}
			steady(t, 3*time.Second, a, b)
			got := a.pair.Status()
			if len(got.VIPs) != len(want.VIPs) || len(got.Paths) != len(want.Paths) || !a.host.holds() || len(a.host.vips) != 1 {
				t.Errorf("after %v:\n%+v\nwas\n%+v", err, got, want)
			}
		}
		b.end(t)
		a.end(t)
		if err := a.pair.Reload(t.Context(), good); !errors.Is(err, errStopped) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestReloadAlone holds that a peer may be added to a director that had none,
// and taken away.
func TestReloadAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		cfg := configOf("vs", addrA, addrB)
		alone := cfg
		alone.Paths = nil
		a := start(t, l, l.host("vs", 1), alone)
		time.Sleep(time.Second)
		reload(t, a, cfg)
		b := start(t, l, l.host("vs_bk", 2), configOf("vs_bk", addrB, addrA))
		time.Sleep(time.Second)
		if s := b.pair.Status(); s.Role != election.Standby || !a.host.holds() {
			t.Errorf("vs_bk %v: %s", s.Role, s.Reason)
		}
		b.end(t)
		reload(t, a, alone)
		time.Sleep(time.Second)
		if s := a.pair.Status(); s.Role != election.Active || len(s.Paths) != 0 || !a.host.holds() {
			t.Errorf("vs %v: %s", s.Role, s.Reason)
		}
		a.end(t)
	})
}
