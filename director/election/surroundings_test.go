package election

import (
	"fmt"
	"testing"
	"time"
)

// lab is a machine in surroundings that a test controls.
type lab struct {
	t       *testing.T
	m       Machine
	now     time.Duration
	gateway bool
	word    Witnessed // but for its round; nothing comes where nobody was asked
	late    bool      // the word comes after its time
	beats   *Beat     // of a peer that is heard
	looks   int
	holders int // looks for another holder of the VIPs
}

func newLab(t *testing.T, self ID) *lab {
	l := &lab{t: t, m: New(testConfig(self)), gateway: true, word: Witnessed{Asked: 3, Answered: 3}}
	l.step(Start{})
	return l
}

func (l *lab) step(ev Event) {
	var actions []Action
	l.m, actions = l.m.Step(ev, l.now)
	for _, a := range actions {
		switch a := a.(type) {
		case Look:
			l.looks++
			if a.VIP {
				l.holders++
			}
			if l.gateway {
				l.step(Sign{})
			}
			if w := l.word; w.Asked > 0 && !l.late {
				w.Round = a.Round
				l.step(w)
			}
		case Claim:
			l.step(Renewed{Until: l.now + l.m.cfg.Lease})
		}
	}
	if l.m.role == Active && l.m.leaseEnd-l.now < time.Second {
		l.step(Renewed{Until: l.now + l.m.cfg.Lease})
	}
}

// pass lets time go by, with ticks when they are due and beats of the peer.
func (l *lab) pass(d time.Duration) {
	for end := l.now + d; l.now < end; l.now += ms {
		if l.beats != nil && l.now%(100*ms) == 0 {
			l.step(*l.beats)
		}
		if l.now >= l.m.Next() || l.now%(100*ms) == 0 {
			l.step(Tick{All: true})
		}
	}
}

func (l *lab) want(role Role, reason string) {
	l.t.Helper()
	if l.m.role != role || l.m.reason != reason {
		l.t.Errorf("at %v: %v, %q; want %v, %q", l.now, l.m.role, l.m.reason, role, reason)
	}
}

const (
	silentReason = "the peer is silent for 325ms, and nobody answered for the VIPs"
	heldReason   = "held: 2 of 3 real servers reach the peer and it is active"
)

// standby is a director whose active peer was heard until now.
func standby(t *testing.T) *lab {
	l := newLab(t, high)
	l.beats = &Beat{From: low, Role: Active, Term: 1, HearsUs: true}
	l.pass(time.Second)
	l.want(Standby, "peer vs is active")
	l.beats = nil
	return l
}

// active is a director whose standby peer was heard until now.
func active(t *testing.T) *lab {
	l := newLab(t, low)
	l.beats = &Beat{From: high, Role: Standby, HearsUs: true}
	l.pass(time.Second)
	if l.m.role != Active {
		t.Fatalf("%v: %s", l.m.role, l.m.reason)
	}
	l.beats = nil
	return l
}

func TestWitnessesHold(t *testing.T) {
	l := standby(t)
	l.word.PeerActive = 2
	l.pass(time.Hour)
	l.want(Confirming, heldReason)
	before := l.looks
	l.pass(10 * time.Second)
	if asked := l.looks - before; asked < 8 || asked > 11 {
		t.Errorf("asked %d times in 10 s", asked)
	}
	l.word.PeerActive = 1
	l.pass(slowAsk + 100*ms)
	l.want(Active, silentReason)
}

// TestFewWitnesses holds that a claim is not held for long by a voice that
// may be wrong, nor by the silence of all.
func TestFewWitnesses(t *testing.T) {
	for _, test := range []struct {
		word Witnessed
		held time.Duration
	}{
		{Witnessed{}, 0},
		{Witnessed{Asked: 3}, 0},
		{Witnessed{Asked: 3, Answered: 2, PeerActive: 1}, 0},
		{Witnessed{Asked: 1, Answered: 1, PeerActive: 1}, 2 * time.Second},
		{Witnessed{Asked: 5, Answered: 2, PeerActive: 2}, 2 * time.Second},
		{Witnessed{Asked: 5, Answered: 4, PeerActive: 3}, time.Hour},
		{Witnessed{Asked: 2, Answered: 2, PeerActive: 2}, time.Hour},
	} {
		t.Run(fmt.Sprintf("%d of %d, %d asked", test.word.PeerActive, test.word.Answered, test.word.Asked), func(t *testing.T) {
			l := standby(t)
			l.word = test.word
			from := l.now - 100*ms + 325*ms + 75*ms
			for l.m.role != Active && l.now < from+time.Minute {
				l.pass(ms)
			}
			if held := l.now - from; held > test.held+200*ms || held < min(test.held, time.Minute)-20*ms {
				t.Errorf("held for %v, want %v", held, test.held)
			}
		})
	}
}

// TestLateWitnesses holds that a word that comes after its row of questions
// counts for nothing.
func TestLateWitnesses(t *testing.T) {
	l := standby(t)
	l.late = true
	l.pass(340 * ms) // confirming since 225 ms later than the last beat
	l.word.PeerActive = 3
	l.step(Witnessed{Round: l.m.around.round - 1, Asked: 3, Answered: 3, PeerActive: 3})
	l.want(Active, silentReason)
}

// TestOverlooked holds that a peer that falls silent while this director
// confirms for another reason is asked about.
func TestOverlooked(t *testing.T) {
	l := newLab(t, low)
	l.step(beat(high, Active, 1))
	l.now = 10 * ms
	l.beats = &Beat{From: high, Role: Active, Term: 1, HearsUs: true}
	l.pass(990 * ms)
	l.beats = nil
	l.pass(200 * ms)
	l.step(beat(high, Fault, 1))
	from := l.now
	l.pass(50 * ms)
	l.m.heard = l.now - 310*ms // it was a late one
	l.word.PeerActive = 3
	l.pass(500 * ms)
	if l.m.role != Confirming {
		t.Errorf("%v after %v: %s", l.m.role, l.now-from, l.m.reason)
	}
}

func TestIsolated(t *testing.T) {
	l := active(t)
	l.gateway, l.word.Answered = false, 0
	from := l.now - 100*ms
	for l.m.role == Active && l.now < from+time.Minute {
		l.pass(ms)
	}
	l.want(Fault, isolation)
	if took := l.now - from; took > 2000*ms || took < 1600*ms {
		t.Errorf("took %v", took)
	}
	l.word.Asked = 0 // the registrations end
	l.pass(time.Minute)
	l.want(Fault, isolation)
	l.gateway = true
	l.pass(lookSoon + 325*ms + 100*ms)
	l.want(Active, silentReason)
}

// TestIsolatedStandby holds that a standby that hears nobody claims nothing,
// so that its higher term takes nothing from the peer when it is back.
func TestIsolatedStandby(t *testing.T) {
	l := standby(t)
	l.gateway, l.word.Answered = false, 0
	for range 1000 {
		if l.pass(ms); l.m.role == Active {
			t.Fatal("claimed")
		}
	}
	l.want(Fault, isolation)
	l.step(beat(low, Active, 1))
	l.now += 100 * ms
	l.step(beat(low, Active, 1))
	l.want(Standby, "peer vs is active")
}

// TestNotIsolated holds that whoever lost less than everything goes on.
func TestNotIsolated(t *testing.T) {
	for _, test := range []struct {
		name         string
		before, then func(*lab)
	}{
		{"never had a gateway", func(l *lab) { l.gateway = false }, func(l *lab) { l.word.Answered = 0 }},
		{"never had real servers", func(l *lab) { l.word = Witnessed{} }, func(l *lab) { l.gateway = false }},
		{"the gateway answers", func(*lab) {}, func(l *lab) { l.word.Answered = 0 }},
		{"a real server answers", func(*lab) {}, func(l *lab) { l.gateway = false; l.word.Answered = 1 }},
		{"real servers left before the peer was lost", func(*lab) {}, func(l *lab) {
			l.word = Witnessed{Round: l.m.around.round}
			l.m.around.none = true
			l.step(beat(high, Standby, 1))
			l.gateway = false
		}},
		{"the peer said goodbye", func(*lab) {}, func(l *lab) {
			l.step(Goodbye{})
			l.gateway, l.word.Answered = false, 0
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := newLab(t, low)
			test.before(l)
			l.m = New(testConfig(low))
			l.step(Start{})
			l.beats = &Beat{From: high, Role: Standby, HearsUs: true}
			l.pass(time.Second)
			l.beats = nil
			test.then(l)
			l.pass(time.Minute)
			if l.m.role != Active {
				t.Errorf("%v: %s", l.m.role, l.m.reason)
			}
		})
	}
}

// TestLooks holds how often a director looks around, and that it looks for
// another holder of its VIPs while it misses its peer, even one that said
// goodbye.
func TestLooks(t *testing.T) {
	l := active(t)
	for _, step := range []struct {
		then           func()
		looks, holders int // in a minute, one more or less
	}{
		{func() { l.beats = &Beat{From: high, Role: Standby, HearsUs: true} }, 6, 0},
		{func() { l.beats = nil; l.pass(300 * ms) }, 300, 300},
		{func() { l.beats = &Beat{From: high, Role: Standby, HearsUs: true}; l.pass(time.Second) }, 6, 0},
		{func() { l.beats = nil; l.step(Goodbye{}) }, 300, 300},
	} {
		step.then()
		looks, holders := l.looks, l.holders
		l.pass(time.Minute)
		looks, holders = l.looks-looks, l.holders-holders
		if looks < step.looks-1 || looks > step.looks+1 || holders < step.holders-1 || holders > step.holders+1 {
			t.Errorf("%d looks, %d for another holder; want %d, %d", looks, holders, step.looks, step.holders)
		}
	}
	alone := testConfig(low)
	alone.Alone = true
	l = &lab{t: t, m: New(alone)}
	l.step(Start{})
	l.pass(time.Minute)
	if l.looks > 0 || l.m.role != Active {
		t.Errorf("without a peer: %d looks, %v", l.looks, l.m.role)
	}
}

// TestConfirmation holds how long a claim takes when nobody answers, and that
// witnesses have their say within it.
func TestConfirmation(t *testing.T) {
	for dead, want := range map[time.Duration]time.Duration{
		18 * time.Second: 75 * ms, 300 * ms: 75 * ms, 30 * ms: 10 * ms, 100 * ms: 25 * ms,
	} {
		cfg := Config{Self: high, Interval: dead / 3, Dead: dead, Lease: time.Second}
		m, _ := New(cfg).Step(Start{}, 0)
		var within time.Duration
		for m.Role() != Active {
			now := m.Next()
			var actions []Action
			m, actions = m.Step(Tick{All: true}, now)
			for _, a := range actions {
				switch a := a.(type) {
				case Look:
					within = now + a.Within
				case Claim:
					if took := now - cfg.silence(); took != want || within <= cfg.silence() || within >= now {
						t.Errorf("dead %v: %v, want %v; witnesses until %v of %v", dead, took, want, within, now)
					}
				}
			}
		}
	}
}
