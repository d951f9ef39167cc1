package pair

import (
	"context"
	"crypto/sha256"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"lvstun/director/election"
	"lvstun/director/heartbeat"
	"lvstun/director/vip"
)

func TestDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := duo(t)
		stranger := netip.MustParseAddr("10.0.0.99")
		packet := heartbeat.Packet{Kind: heartbeat.Released, Role: 2, Incarnation: 77, Sequence: 5, Term: 99, Addr: addrA, Name: "vs"}
		good := heartbeat.NewCodec(sha256.Sum256([]byte("key"))).Encode(&packet)
		forged := heartbeat.NewCodec([32]byte{1}).Encode(&packet)
		packet.Name = "vs_bk"
		twin := heartbeat.NewCodec(sha256.Sum256([]byte("key"))).Encode(&packet)
		version := good
		version[4]++
		before := b.pair.Status()
		l.inject(addrA, addrB, good[:10])
		l.inject(addrA, addrB, append(good[:], 0))
		l.inject(addrA, addrB, forged[:])
		l.inject(addrA, addrB, version[:])
		l.inject(addrA, addrB, good[:])
		l.inject(addrA, addrB, good[:])
		l.inject(addrA, addrB, twin[:])
		l.inject(stranger, addrB, good[:])
		synctest.Wait()
		after := b.pair.Status()
		want := map[string]uint64{"short": 1, "long": 1, "forged": 1, "version": 1, "unproven": 2, "same_name": 1, "source": 1}
		for reason, n := range before.Paths[0].Dropped {
			want[reason] += n
		}
		if diff := cmp.Diff(want, after.Paths[0].Dropped); diff != "" {
			t.Errorf("drops (-want +got):\n%s", diff)
		}
		if after.Role != before.Role || after.Term != before.Term || after.Reason != before.Reason {
			t.Errorf("bad packets changed %v term %d to %v term %d", before.Role, before.Term, after.Role, after.Term)
		}
		if got := strings.Join(after.Problems, "\n"); !strings.Contains(got, "names must differ") || !strings.Contains(got, "wrong key") {
			t.Errorf("problems %q", after.Problems)
		}
		b.end(t)
		a.end(t)
	})
}

// TestAddressComesLate holds that a director whose heartbeat address is not
// there yet claims nothing, says why, and takes part when it is.
func TestAddressComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		l.missing[addrA] = true
		a := start(t, l, l.host("vs", 1), configOf("vs", addrA, addrB))
		time.Sleep(5 * time.Second)
		s := a.pair.Status()
		if s.Role != election.Fault || a.host.holds() || s.Paths[0].State != PathUnbound ||
			s.Reason != "listen for heartbeats: 10.0.0.1 is not an address of this host yet" {
			t.Errorf("%v: %q, path %+v", s.Role, s.Reason, s.Paths[0])
		}
		l.change(func() { l.missing[addrA] = false })
		until(t, 2*time.Second, "vs holds the VIP", a.host.holds)
		if s := a.pair.Status(); s.Paths[0].State != PathSilent || s.Paths[0].Err != "" {
			t.Errorf("path %+v", s.Paths[0])
		}
		a.end(t)
	})
}

// TestTwoPaths holds that one path of two may be cut without any effect but
// that it is said.
func TestTwoPaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		a2, b2 := netip.MustParseAddr("192.168.7.1"), netip.MustParseAddr("192.168.7.2")
		cfgA, cfgB := configOf("vs", addrA, addrB), configOf("vs_bk", addrB, addrA)
		cfgA.Paths = append(cfgA.Paths, Path{Local: a2, Peer: b2})
		cfgB.Paths = append([]Path{{Local: b2, Peer: a2}}, cfgB.Paths...) // in another order
		a := start(t, l, l.host("vs", 1), cfgA)
		b := start(t, l, l.host("vs_bk", 2), cfgB)
		time.Sleep(time.Second)
		l.change(func() { l.cut[addrA], l.cut[addrB] = true, true })
		time.Sleep(5 * time.Second)
		s := b.pair.Status()
		if !a.host.holds() || b.host.holds() || s.Role != election.Standby || len(s.Transitions) != 0 {
			t.Errorf("vs_bk: %+v", s)
		}
		if s.Paths[0].State != PathUp || s.Paths[1].State != PathSilent ||
			len(s.Problems) != 1 || !strings.Contains(s.Problems[0], "is silent, another carries on") {
			t.Errorf("paths %+v, problems %q", s.Paths, s.Problems)
		}
		l.change(func() { l.cut[a2], l.cut[b2] = true, true })
		time.Sleep(time.Second)
		if s := b.pair.Status(); s.Role != election.Confirming {
			t.Errorf("both paths cut: %v", s.Role)
		}
		a.end(t)
		b.end(t)
	})
}

// TestAnnouncements holds the schedule: a burst, then a slow refresh, and
// nothing once the VIP is gone.
func TestAnnouncements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := duo(t)
		count := func() (n int) {
			l.change(func() { n = a.host.announced })
			return n
		}
		time.Sleep(9 * time.Second)
		if got := count(); got != 1+announceBurst {
			t.Errorf("%d announcements in 10 s, want %d", got, 1+announceBurst)
		}
		time.Sleep(2 * time.Minute)
		if got := count(); got != 3+announceBurst {
			t.Errorf("%d announcements in 130 s, want %d", got, 3+announceBurst)
		}
		if err := a.pair.Handover(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := count()
		time.Sleep(2 * time.Minute)
		if got := count(); got != before {
			t.Errorf("%d announcements of a VIP that is gone", got-before)
		}
		b.end(t)
		a.end(t)
	})
}

// TestLateClaim holds that a claim that was held up is not carried out.
func TestLateClaim(t *testing.T) {
	l := newLAN()
	host := l.host("vs", 1)
	var got []election.Event
	h := &holder{
		host: host, holdings: holdingsOf(configOf("vs", addrA, addrB).withDefaults()), log: quiet(),
		clock: func() time.Duration { return time.Second }, report: func(ev election.Event) { got = append(got, ev) },
	}
	h.claim(999 * ms)
	if refused, ok := got[0].(election.Refused); !ok || !refused.Late || len(got) != 1 || host.holds() {
		t.Errorf("events %v, holds %v", got, host.holds())
	}
}

func TestDigestDiffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		a := start(t, l, l.host("vs", 1), configOf("vs", addrA, addrB))
		cfg := configOf("vs_bk", addrB, addrA)
		cfg.Digest[0] = 1
		b := start(t, l, l.host("vs_bk", 2), cfg)
		time.Sleep(time.Second)
		if s := b.pair.Status(); s.Peer.DigestMatches || len(s.Problems) != 1 || s.Role != election.Standby {
			t.Errorf("%v, peer %+v, problems %q", s.Role, s.Peer, s.Problems)
		}
		b.end(t)
		a.end(t)
	})
}

// TestBlockedOnRole holds that a director that is slow to follow its role
// neither loses roles nor delays the pair.
func TestBlockedOnRole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		cfg := configOf("vs", addrA, addrB)
		cfg.Paths = nil
		h := l.host("vs", 1)
		var got []Role
		cfg.OnRole = func(r Role) { time.Sleep(time.Second); got = append(got, r) }
		p, err := New(cfg, quiet())
		if err != nil {
			t.Fatal(err)
		}
		p.host, p.listen = h, l.listen
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		time.Sleep(100 * ms)
		if !h.holds() {
			t.Error("the pair waited for OnRole")
		}
		cancel()
		<-done
		if diff := cmp.Diff([]Role{election.Confirming, election.Active}, got); diff != "" {
			t.Errorf("roles (-want +got):\n%s", diff)
		}
	})
}

func TestValidate(t *testing.T) {
	addr := netip.MustParseAddr
	bad := Config{
		Name: "a b", Interval: time.Millisecond, Dead: time.Millisecond, Lease: 1500 * ms,
		Paths: []Path{{}, {Local: addrA, Peer: addrA}, {Local: addrA, Peer: addr("2001:db8::1")}, {Local: addrA, Peer: addrB}, {Local: addrA, Peer: addrB}},
		VIPs: []vip.VIP{
			{Addr: addrA, Device: "eth0"}, {Device: "eth0"}, {Addr: theIP, Device: "a-device-with-16"},
			{Addr: theIP, Device: "eth0", Label: "eth0:12345678910"}, {Addr: addr("224.0.0.1"), Device: "eth0"},
		},
	}
	_, err := New(bad, quiet())
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{
		`name "a b"`, "interval 1ms", "dead 1ms", "lease 1.5s", "needs a local and a peer", "both ends are one",
		"different families", "10.0.0.1 → 10.0.0.2: is there twice", "is an end of a heartbeat path",
		"invalid IP on eth0: not an address", "a-device-with-16", "longer than 15 bytes", "10.0.0.50 on eth0:12345678910: is there twice",
		"224.0.0.1 on eth0: not an address",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %q in:\n%v", want, err)
		}
	}
	if _, err := New(configOf("vs", addrA, addrB), quiet()); err != nil {
		t.Errorf("good: %v", err)
	}
}
