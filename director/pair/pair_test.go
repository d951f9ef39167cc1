package pair

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"lvstun/director/election"
	"lvstun/director/vip"
)

const ms = time.Millisecond

var (
	addrA = netip.MustParseAddr("10.0.0.1")
	addrB = netip.MustParseAddr("10.0.0.2")
	theIP = netip.MustParseAddr("10.0.0.50")
)

// node is one director of a test.
type node struct {
	pair *Pair
	host *fakeHost
	stop context.CancelFunc
	done chan error

	mu    sync.Mutex // guards roles
	roles []string
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func configOf(name string, local, peer netip.Addr) Config {
	return Config{
		Name: name, Key: sha256.Sum256([]byte("key")), Paths: []Path{{Local: local, Peer: peer}},
		VIPs: []vip.VIP{{Addr: theIP, Device: "eth0", Label: "eth0:1"}},
	}
}

// host adds a host to the LAN; the last byte of its MAC is given.
func (l *lan) host(name string, mac byte) *fakeHost {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := &fakeHost{
		lan: l, mac: vip.MAC{2, 0, 0, 0, 0, mac},
		until: map[netip.Addr]time.Time{}, labels: map[netip.Addr]string{}, permanent: map[netip.Addr]bool{},
	}
	l.hosts[name] = h
	return h
}

// start runs a director on a host.
func start(t *testing.T, l *lan, h *fakeHost, cfg Config) *node {
	t.Helper()
	n := &node{host: h, done: make(chan error, 1)}
	cfg.OnRole = func(r Role) {
		n.mu.Lock()
		n.roles = append(n.roles, r.String())
		n.mu.Unlock()
	}
	p, err := New(cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	p.host, p.listen = h, l.listen
	n.pair = p
	ctx, cancel := context.WithCancel(t.Context())
	n.stop = cancel
	go func() { n.done <- p.Run(ctx) }()
	<-p.Ready()
	return n
}

// end stops a director and waits for it.
func (n *node) end(t *testing.T) {
	t.Helper()
	n.stop()
	if err := <-n.done; err != nil {
		t.Errorf("run: %v", err)
	}
}

// holds reports whether the host's kernel has the VIP.
func (h *fakeHost) holds() bool {
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	return h.has(theIP)
}

// change alters the LAN.
func (l *lan) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// duo starts both directors and waits until vs is active.
func duo(t *testing.T) (l *lan, a, b *node) {
	t.Helper()
	l = newLAN()
	a = start(t, l, l.host("vs", 1), configOf("vs", addrA, addrB))
	b = start(t, l, l.host("vs_bk", 2), configOf("vs_bk", addrB, addrA))
	time.Sleep(time.Second)
	if !a.host.holds() || b.host.holds() {
		t.Fatalf("vs holds %v, vs_bk holds %v", a.host.holds(), b.host.holds())
	}
	return l, a, b
}

// until waits for a condition and returns how long it took.
func until(t *testing.T, most time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > most {
			t.Fatalf("not within %v: %s", most, what)
		}
		time.Sleep(ms)
	}
	return time.Since(began)
}

func TestStartTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := duo(t)
		sa, sb := a.pair.Status(), b.pair.Status()
		if sa.Role != election.Active || sb.Role != election.Standby || sa.Term != 1 || sb.Term != 1 {
			t.Errorf("vs %v term %d, vs_bk %v term %d", sa.Role, sa.Term, sb.Role, sb.Term)
		}
		if sb.Reason != "peer vs is active" || !sb.Peer.Alive || !sb.Peer.HearsUs || sb.Peer.Name != "vs" || !sb.Peer.DigestMatches {
			t.Errorf("vs_bk: %q, peer %+v", sb.Reason, sb.Peer)
		}
		if sb.Paths[0].State != PathUp || len(sa.Problems) != 0 || !sa.VIPs[0].Held || sb.VIPs[0].Held {
			t.Errorf("vs %+v\nvs_bk %+v", sa, sb)
		}
		b.end(t)
		synctest.Wait() // vs has heard the goodbye
		a.end(t)
		if diff := cmp.Diff([]string{"standby", "confirming", "active"}, a.roles); diff != "" {
			t.Errorf("roles of vs (-want +got):\n%s", diff)
		}
	})
}

func TestStopHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := duo(t)
		a.stop()
		took := until(t, time.Second, "vs_bk holds the VIP", b.host.holds)
		if took > 20*ms || a.host.holds() {
			t.Errorf("took %v, vs still holds: %v", took, a.host.holds())
		}
		a.end(t)
		if s := b.pair.Status(); s.Reason != "the peer released the VIPs to this director" || s.Term != 2 {
			t.Errorf("vs_bk: %q term %d", s.Reason, s.Term)
		}
		b.end(t)
		if !b.host.holds() {
			t.Error("without a standby the VIP was not left to its lease")
		}
		time.Sleep(DefaultLease)
		if b.host.holds() {
			t.Error("somebody renewed after the end")
		}
	})
}

func TestHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := duo(t)
		for range 2 { // by the active, and back by the same, now standby
			was := b.host.holds()
			if err := a.pair.Handover(t.Context()); err != nil {
				t.Fatal(err)
			}
			took := until(t, time.Second, "handed over", func() bool { return b.host.holds() != was && a.host.holds() == was })
			if took > 20*ms {
				t.Errorf("took %v", took)
			}
			time.Sleep(time.Second)
		}
		l.change(func() { l.cut[addrB] = true })
		time.Sleep(time.Second)
		if err := a.pair.Handover(t.Context()); err == nil || !a.host.holds() {
			t.Errorf("handed over to nobody: %v", err)
		}
		b.end(t)
		a.end(t)
		if err := a.pair.Handover(t.Context()); !errors.Is(err, errStopped) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestCalls holds that the arrival of a peer is told once, and that what a handover needs is done while the VIPs are here, and again between the two.
func TestCalls(t *testing.T) {
	for name, leave := range map[string]func(context.Context, *node){
		"handover": func(ctx context.Context, a *node) { _ = a.pair.Handover(ctx) },
		"stop":     func(_ context.Context, a *node) { a.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLAN()
				var a, b *node
				var told []string
				cfg := configOf("vs", addrA, addrB)
				cfg.OnHandover = func(ctx context.Context) {
					told = append(told, fmt.Sprintf("here %v there %v", a.host.holds(), b.host.holds()))
					if !a.host.holds() {
						<-ctx.Done() // as slow as it may be
					}
				}
				hostA, hostB := l.host("vs", 1), l.host("vs_bk", 2)
				var arrivals atomic.Int32
				cfg.OnPeer = func() { arrivals.Add(1) }
				a = start(t, l, hostA, cfg)
				for range 2 {
					if b != nil {
						b.end(t)
					}
					b = start(t, l, hostB, configOf("vs_bk", addrB, addrA))
					until(t, time.Second, "vs holds the VIP", a.host.holds)
					time.Sleep(time.Second)
				}
				if arrivals.Load() != 2 {
					t.Errorf("told of %d arrivals of the peer, want 2", arrivals.Load())
				}
				leave(t.Context(), a)
				until(t, 2*time.Second, "handed over", func() bool { return b.host.holds() && !a.host.holds() })
				if diff := cmp.Diff([]string{"here true there false", "here true there false", "here false there false"}, told); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				b.end(t)
				a.end(t)
			})
		})
	}
}

// TestUnread holds that a director that is held up reads what has come before it takes the peer for dead.
func TestUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := duo(t)
		for range 10 {
			until(t, time.Second, "a beat", func() bool { return time.Since(b.pair.Status().Peer.LastHeard) < 2*ms })
			stall := make(chan struct{})
			l.change(func() { l.sockets[addrB].stall = stall })
			time.Sleep(335 * ms) // longer than silence may last
			l.change(func() { l.sockets[addrB].stall = nil })
			close(stall)
			time.Sleep(time.Second)
		}
		for _, was := range b.pair.Status().Transitions {
			t.Errorf("vs_bk went to %s: %s", was.To, was.Reason)
		}
		a.end(t)
		b.end(t)
	})
}

func TestPeerSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := duo(t)
		l.change(func() { // vs's host dies
			l.cut[addrA], l.cut[addrB] = true, true
			a.host.down = true
		})
		took := until(t, time.Second, "vs_bk holds the VIP", b.host.holds)
		if took > 500*ms {
			t.Errorf("took %v", took)
		}
		// It comes back: nobody fails back, and exactly one holds it.
		l.change(func() {
			l.cut[addrA], l.cut[addrB] = false, false
			a.host.down = false
		})
		took = until(t, time.Second, "vs has let go", func() bool { return !a.host.holds() })
		if took > 150*ms || !b.host.holds() {
			t.Errorf("took %v", took)
		}
		time.Sleep(3 * time.Second)
		if a.host.holds() || !b.host.holds() {
			t.Error("it did not stay where it was")
		}
		last := a.pair.Status().Transitions
		if got := last[len(last)-1].Reason; got != "peer vs_bk is active in the later term 2" {
			t.Errorf("reason %q", got)
		}
		a.end(t)
		b.end(t)
	})
}

func TestHeartbeatCutOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := duo(t)
		l.change(func() { l.cut[addrA], l.cut[addrB] = true, true })
		time.Sleep(10 * time.Second)
		s := b.pair.Status()
		if b.host.holds() || s.Role != election.Confirming || s.Reason != "held: 10.0.0.50 is held by 02:00:00:00:00:01" {
			t.Errorf("%v: %q", s.Role, s.Reason)
		}
		l.change(func() { l.cut[addrA], l.cut[addrB] = false, false })
		time.Sleep(time.Second)
		if s := b.pair.Status(); s.Role != election.Standby || !a.host.holds() {
			t.Errorf("healed: %v, vs holds %v", s.Role, a.host.holds())
		}
		a.end(t)
		b.end(t)
	})
}

func TestForeignHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		l.foreign[theIP] = vip.MAC{2, 0xff, 0, 0, 0, 9}
		cfg := configOf("vs", addrA, addrB)
		cfg.Paths = nil
		a := start(t, l, l.host("vs", 1), cfg)
		time.Sleep(10 * time.Second)
		s := a.pair.Status()
		if a.host.holds() || s.Reason != "held: 10.0.0.50 is held by 02:ff:00:00:00:09" || s.VIPs[0].Foreign != "02:ff:00:00:00:09" {
			t.Errorf("holds %v: %+v", a.host.holds(), s)
		}
		var before, after int
		l.change(func() { before = a.host.asked })
		time.Sleep(10 * time.Second)
		l.change(func() { after = a.host.asked })
		if more := after - before; more < 5 || more > 15 {
			t.Errorf("asked %d times in 10 s", more)
		}
		l.change(func() { delete(l.foreign, theIP) })
		until(t, 2*time.Second, "vs holds the VIP", a.host.holds)
		a.end(t)
	})
}

func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := duo(t)
		// vs is killed: no goodbye, no release. It starts again within its lease.
		l.change(func() { l.cut[addrA] = true; a.host.removeErr = errors.New("dead") })
		a.stop()
		<-a.done
		time.Sleep(500 * ms)
		l.change(func() { l.cut[addrA] = false; a.host.removeErr = nil })
		a = start(t, l, a.host, configOf("vs", addrA, addrB))
		for range 400 {
			if !a.host.holds() || b.host.holds() {
				t.Fatalf("vs holds %v, vs_bk holds %v", a.host.holds(), b.host.holds())
			}
			time.Sleep(10 * ms)
		}
		if s := b.pair.Status(); s.Reason != "peer vs is active" {
			t.Errorf("vs_bk: %q", s.Reason)
		}
		a.end(t)
		b.end(t)
	})
}

func TestVIPTakenOffByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := duo(t)
		var before, after int
		l.change(func() { before = a.host.announced; clear(a.host.until) })
		took := until(t, time.Second, "it is back", a.host.holds)
		if took > 150*ms {
			t.Errorf("took %v", took)
		}
		time.Sleep(10 * ms)
		l.change(func() { after = a.host.announced })
		if after == before {
			t.Error("it came back unannounced")
		}
		b.end(t)
		a.end(t)
	})
}

func TestLinkDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := duo(t)
		a.host.fault("device eth0 has no carrier")
		took := until(t, time.Second, "vs_bk holds the VIP", func() bool { return b.host.holds() && !a.host.holds() })
		if took > 150*ms {
			t.Errorf("took %v", took)
		}
		if s := a.pair.Status(); s.Role != election.Fault || !strings.Contains(strings.Join(s.Problems, "\n"), "no carrier") {
			t.Errorf("vs: %v, %q", s.Role, s.Problems)
		}
		a.host.fault("")
		time.Sleep(time.Second)
		if s := a.pair.Status(); s.Role != election.Standby {
			t.Errorf("healed: %v", s.Role)
		}
		_ = l
		a.end(t)
		b.end(t)
	})
}

// TestSlowKernel holds that a kernel call that hangs delays no heartbeat, and
// that a renewal that failed is not taken for one that was made.
func TestSlowKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b := duo(t)
		l.change(func() { a.host.slow = time.Second })
		for range 15 {
			time.Sleep(100 * ms)
			if s := b.pair.Status(); s.Role != election.Standby || !s.Peer.Alive {
				t.Fatalf("vs_bk: %v, peer alive %v", s.Role, s.Peer.Alive)
			}
		}
		l.change(func() { a.host.slow, a.host.putErr = 0, errors.New("no") })
		until(t, 3*time.Second, "vs_bk holds the VIP", b.host.holds)
		if a.host.holds() {
			t.Error("two holders")
		}
		l.change(func() { a.host.putErr = nil })
		a.end(t)
		b.end(t)
	})
}

func TestKernelRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		h := l.host("vs", 1)
		h.putErr = errors.New("put 10.0.0.50 on eth0: no such device")
		cfg := configOf("vs", addrA, addrB)
		cfg.Paths = nil
		a := start(t, l, h, cfg)
		time.Sleep(500 * ms)
		if s := a.pair.Status(); s.Role != election.Fault || s.Reason != h.putErr.Error() {
			t.Errorf("%v: %q", s.Role, s.Reason)
		}
		l.change(func() { h.putErr = nil })
		until(t, 2*time.Second, "it tried again", h.holds)
		a.end(t)
	})
}
