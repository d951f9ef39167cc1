package pair

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lvstun/director/election"
	"lvstun/director/vip"
)

// agents are the witnesses of a test.
type agents struct {
	mu     sync.Mutex // guards what follows
	report WitnessReport
	stuck  bool // never answers, whatever its context says
	calls  int
	most   time.Duration // the longest a call was given
}

func (a *agents) ask(ctx context.Context) WitnessReport {
	a.mu.Lock()
	report, stuck := a.report, a.stuck
	a.calls++
	deadline, _ := ctx.Deadline()
	a.most = max(a.most, time.Until(deadline))
	a.mu.Unlock()
	if stuck {
		time.Sleep(time.Hour)
	}
	if report.Answered < report.Asked {
		<-ctx.Done() // for those who do not answer
	}
	return report
}

func (a *agents) say(asked, answered, active int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.report = WitnessReport{Asked: asked, Answered: answered, PeerActive: active}
}

// witnessed starts both directors with witnesses and a gateway.
func witnessed(t *testing.T) (l *lan, a, b *node, of *agents) {
	t.Helper()
	l, of = newLAN(), &agents{}
	of.say(3, 3, 0)
	cfgA, cfgB := configOf("vs", addrA, addrB), configOf("vs_bk", addrB, addrA)
	cfgA.AskWitnesses, cfgB.AskWitnesses = of.ask, of.ask
	hostA, hostB := l.host("vs", 1), l.host("vs_bk", 2)
	hostA.gateway, hostB.gateway = true, true
	a, b = start(t, l, hostA, cfgA), start(t, l, hostB, cfgB)
	time.Sleep(time.Second)
	if !hostA.holds() || hostB.holds() {
		t.Fatalf("vs holds %v, vs_bk holds %v", hostA.holds(), hostB.holds())
	}
	return l, a, b, of
}

// part cuts the wire between the two directors and nothing else.
func (l *lan) part(a, b *node, on bool) {
	l.change(func() { l.cut[addrA], l.cut[addrB], l.parted = on, on, on })
}

func TestWitnesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b, of := witnessed(t)
		if got := b.pair.Status().Witnesses.String(); !strings.HasPrefix(got, "witnesses: 3 asked, 3 answered, 0 reach the peer and it is active; last asked ") {
			t.Errorf("rule %q", got)
		}
		of.say(3, 2, 2)
		l.part(a, b, true)
		time.Sleep(10 * time.Second)
		s := b.pair.Status()
		if b.host.holds() || s.Role != election.Confirming || s.Reason != "held: 2 of 3 real servers reach the peer and it is active" {
			t.Errorf("%v: %q", s.Role, s.Reason)
		}
		of.say(3, 3, 0)
		took := until(t, 2*time.Second, "vs_bk holds the VIP", b.host.holds)
		t.Logf("%v after the witnesses said so", took)
		of.mu.Lock()
		if of.most > 60*ms {
			t.Errorf("witnesses were given %v", of.most)
		}
		of.mu.Unlock()
		of.say(0, 0, 0)
		time.Sleep(time.Second)
		if got := b.pair.Status().Witnesses.String(); got != "plain rules: no witnesses" {
			t.Errorf("rule %q", got)
		}
		b.end(t)
		a.end(t)
	})
}

// TestNoWitnesses holds that a takeover waits neither for witnesses that do
// not answer nor for a question that never ends.
func TestNoWitnesses(t *testing.T) {
	for _, stuck := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			l, a, b, of := witnessed(t)
			of.say(5, 0, 0)
			of.mu.Lock()
			of.stuck = stuck
			of.mu.Unlock()
			l.change(func() { // vs's host dies
				l.cut[addrA], l.cut[addrB] = true, true
				a.host.down = true
			})
			if took := until(t, time.Second, "vs_bk holds the VIP", b.host.holds); took > 500*ms {
				t.Errorf("took %v", took)
			}
			time.Sleep(10 * time.Second)
			of.mu.Lock()
			calls := of.calls
			of.mu.Unlock()
			if stuck && calls > 4+2*maxAsking {
				t.Errorf("%d questions under way", calls)
			}
			b.end(t)
			a.end(t)
		})
	}
	if got := (WitnessStatus{}).String(); got != "plain rules: no witnesses" {
		t.Errorf("rule %q", got)
	}
}

func TestIsolation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, a, b, of := witnessed(t)
		cut := func(on bool) {
			l.change(func() { l.cut[addrA], l.cut[addrB], a.host.down = on, on, on })
		}
		cut(true)
		of.say(3, 0, 0) // vs_bk has its gateway
		took := until(t, 3*time.Second, "vs is in fault", func() bool { return a.pair.Status().Role == election.Fault })
		synctest.Wait()
		s := a.pair.Status()
		t.Logf("isolated for %v: fault", took)
		if took > 2*time.Second || !strings.HasPrefix(s.Reason, "isolated: ") || len(a.host.until) != 0 || !b.host.holds() {
			t.Errorf("after %v: %q, vs_bk holds %v", took, s.Reason, b.host.holds())
		}
		time.Sleep(time.Minute)
		cut(false)
		of.say(3, 3, 0)
		time.Sleep(time.Second)
		if s := a.pair.Status(); s.Role != election.Standby || a.host.holds() || !b.host.holds() {
			t.Errorf("healed: %v, %q", s.Role, s.Reason)
		}
		b.end(t)
		a.end(t)
	})
}

// TestOneLAN holds that two directors that both claimed while they were apart
// settle it where the LAN heals and the heartbeat does not.
func TestOneLAN(t *testing.T) {
	for _, first := range []byte{1, 3} { // the MAC of vs; that of vs_bk is 2
		synctest.Test(t, func(t *testing.T) {
			l := newLAN()
			a := start(t, l, l.host("vs", first), configOf("vs", addrA, addrB))
			b := start(t, l, l.host("vs_bk", 2), configOf("vs_bk", addrB, addrA))
			time.Sleep(time.Second)
			l.part(a, b, true)
			time.Sleep(3 * time.Second)
			if !a.host.holds() || !b.host.holds() {
				t.Fatal("each side of a partition should serve its side")
			}
			l.change(func() { l.foreign[theIP] = vip.MAC{} }) // the lowest of all, and not the peer
			time.Sleep(time.Second)
			if !a.host.holds() || !b.host.holds() {
				t.Fatal("yielded to a foreign host")
			}
			l.change(func() { delete(l.foreign, theIP); l.parted = false })
			winner, loser := a, b
			if first == 3 {
				winner, loser = b, a
			}
			var before int
			l.change(func() { before = winner.host.announced })
			took := until(t, time.Second, "the higher MAC has let go", func() bool { return !loser.host.holds() })
			t.Logf("settled after %v", took)
			time.Sleep(5 * time.Second)
			if s := loser.pair.Status(); !winner.host.holds() || loser.host.holds() || s.Role != election.Confirming {
				t.Errorf("the loser is %v: %q", s.Role, s.Reason)
			}
			last := loser.pair.Status().Transitions
			if got := last[len(last)-2].Reason + last[len(last)-1].Reason; !strings.Contains(got, "the peer whose MAC is the lower") {
				t.Errorf("reasons %q", got)
			}
			l.change(func() {
				if winner.host.announced == before {
					t.Error("the winner did not announce")
				}
			})
			b.end(t)
			a.end(t)
		})
	}
}

// TestAnnouncedAgain holds that an announcement that failed is tried again at
// once, and not for ever at that pace.
func TestAnnouncedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		h := l.host("vs", 1)
		h.mute = 3
		cfg := configOf("vs", addrA, addrB)
		cfg.Paths = nil
		a := start(t, l, h, cfg)
		until(t, time.Second, "vs holds the VIP", h.holds)
		took := until(t, time.Second, "it is announced", func() (ok bool) {
			l.change(func() { ok = h.announced > 0 })
			return ok
		})
		if took > 40*ms {
			t.Errorf("announced after %v", took)
		}
		l.change(func() { h.mute = 1000 })
		time.Sleep(time.Minute)
		l.change(func() {
			if tried := 1000 - h.mute; tried > 70 {
				t.Errorf("tried %d times in a minute", tried)
			}
			h.mute = 0
		})
		a.end(t)
	})
}

// TestBothStop holds that two directors that stop in the same instant do not
// wait for each other.
func TestBothStop(t *testing.T) {
	for _, activeFirst := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			_, a, b := duo(t)
			began := time.Now()
			first, second := a, b
			if !activeFirst {
				first, second = b, a
			}
			first.stop()
			second.stop()
			for _, n := range []*node{a, b} {
				if err := <-n.done; err != nil {
					t.Error(err)
				}
			}
			if took := time.Since(began); took > 20*ms {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestParts holds that a person is told in what two configurations differ.
func TestParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		cfgA, cfgB := configOf("vs", addrA, addrB), configOf("vs_bk", addrB, addrA)
		for _, name := range []string{"timing", "VIPs", "services", "checks"} {
			cfgA.Parts = append(cfgA.Parts, Part{Name: name, Digest: [32]byte{1, 2, 3}})
			cfgB.Parts = append(cfgB.Parts, Part{Name: name, Digest: [32]byte{1, 2, 3}})
		}
		cfgB.Parts[2].Digest[0], cfgB.Parts[3].Digest[1] = 9, 9
		a, b := start(t, l, l.host("vs", 1), cfgA), start(t, l, l.host("vs_bk", 2), cfgB)
		time.Sleep(time.Second)
		const want = "director vs_bk runs another configuration (differs in: services, checks): bring the two files in line"
		if s := a.pair.Status(); s.Peer.DigestMatches || len(s.Problems) != 1 || s.Problems[0] != want {
			t.Errorf("peer %+v, problems %q", s.Peer, s.Problems)
		}
		cfgB.Parts = cfgA.Parts
		reload(t, b, cfgB)
		time.Sleep(time.Second)
		if s := a.pair.Status(); !s.Peer.DigestMatches || len(s.Problems) != 0 || s.Peer.Differs != nil {
			t.Errorf("peer %+v, problems %q", s.Peer, s.Problems)
		}
		b.end(t)
		a.end(t)
		cfgA.Parts = append(cfgA.Parts, make([]Part, MaxParts)...)
		if _, err := New(cfgA, quiet()); err == nil {
			t.Error("took more parts than a heartbeat carries")
		}
	})
}

// TestKernelRefusesOne holds that a VIP that the kernel refuses keeps the
// director from a claim of the others.
func TestKernelRefusesOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		h := l.host("vs", 1)
		h.putErrOf, h.removeErr = otherIP, errors.New("not there")
		cfg := configOf("vs", addrA, addrB)
		cfg.Paths, cfg.VIPs = nil, append(cfg.VIPs, otherVIP)
		a := start(t, l, h, cfg)
		time.Sleep(500 * ms)
		if s := a.pair.Status(); s.Role != election.Fault || s.Reason != "no" {
			t.Errorf("%v: %q", s.Role, s.Reason)
		}
		l.change(func() { h.removeErr = nil })
		a.end(t)
	})
}
