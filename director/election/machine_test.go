package election

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	low  = ID{Addr: netip.MustParseAddr("10.0.0.1"), Name: "vs"}
	high = ID{Addr: netip.MustParseAddr("10.0.0.2"), Name: "vs_bk"}
)

func testConfig(self ID) Config {
	return Config{Self: self, Interval: 100 * ms, Dead: 300 * ms, Lease: 2 * time.Second}
}

// at is one event at a time.
type at struct {
	when time.Duration
	ev   Event
}

// asleep marks a time through which the director gets no ticks.
type asleep struct{ Event }

// play steps a machine through events, with ticks when they are due between
// them, and writes down every step that did more than ask again.
func play(m Machine, events []at) []string {
	var lines []string
	step := func(ev Event, now time.Duration) {
		before := m
		var actions []Action
		m, actions = m.Step(ev, now)
		var line []string
		if m.role != before.role {
			line = append(line, m.role.String())
		}
		for _, a := range actions {
			switch a := a.(type) {
			case Look: // lab has them
			case Claim:
				line = append(line, fmt.Sprintf("claim %d", a.Term))
			case Send:
				line = append(line, [...]string{"beat", "goodbye", "released"}[a.Message])
			default:
				line = append(line, strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", a), "election.")))
			}
		}
		if line != nil && !slices.Equal(line, []string{"ask"}) {
			lines = append(lines, fmt.Sprintf("%v: %s", now, strings.Join(line, ", ")))
		}
	}
	for _, e := range events {
		_, frozen := e.ev.(asleep)
		for !frozen {
			due := min(m.Next(), m.stepped+m.cfg.Interval)
			if due >= e.when {
				break
			}
			step(Tick{All: true}, due)
		}
		if frozen {
			e.ev = e.ev.(asleep).Event
		}
		step(e.ev, e.when)
	}
	return lines
}

func beat(from ID, role Role, term uint64) Beat {
	return Beat{From: from, Role: role, Term: term, HearsUs: true}
}

func TestRules(t *testing.T) {
	alone := testConfig(low)
	alone.Alone = true
	// active is how a director gets there with a peer that is standby.
	active := []at{{0, Start{}}, {10 * ms, beat(high, Standby, 0)}, {85 * ms, Tick{All: true}}, {86 * ms, Renewed{Until: 2085 * ms}}}
	began := []string{"0s: beat", "10ms: confirming, ask, beat", "85ms: active, claim 1, beat"}
	for _, test := range []struct {
		name   string
		cfg    Config
		before []at
		events []at
		want   []string
	}{
		{
			name:   "alone at start: listens, asks, claims",
			cfg:    testConfig(low),
			events: []at{{0, Start{}}, {400 * ms, Tick{All: true}}},
			want:   []string{"0s: beat", "325ms: confirming, ask, beat", "400ms: active, claim 1, beat"},
		},
		{
			name:   "without a peer: asks at once",
			cfg:    alone,
			events: []at{{0, Start{}}, {75 * ms, Tick{All: true}}},
			want:   []string{"0s: confirming, beat, ask, beat", "75ms: active, claim 1, beat"},
		},
		{
			name:   "both standby: the higher address waits",
			cfg:    testConfig(high),
			events: []at{{0, Start{}}, {10 * ms, beat(low, Standby, 0)}, {200 * ms, beat(low, Confirming, 0)}},
			want:   []string{"0s: beat"},
		},
		{
			name:   "a foreign answer holds the claim until it stops",
			cfg:    alone,
			events: []at{{0, Start{}}, {70 * ms, Answer{Who: "x"}}, {150 * ms, Tick{All: true}}},
			want:   []string{"0s: confirming, beat, ask, beat", "150ms: active, claim 1, beat"},
		},
		{
			name:   "a peer in fault is taken over from",
			cfg:    testConfig(high),
			events: []at{{0, Start{}}, {10 * ms, beat(low, Active, 4)}, {50 * ms, beat(low, Fault, 4)}, {125 * ms, Tick{All: true}}},
			want:   []string{"0s: beat", "50ms: confirming, ask, beat", "125ms: active, claim 5, beat"},
		},
		{
			name:   "released: claims at once",
			cfg:    testConfig(high),
			events: []at{{0, Start{}}, {10 * ms, beat(low, Active, 4)}, {50 * ms, Released{Term: 4}}, {51 * ms, Released{Term: 4}}},
			want:   []string{"0s: beat", "50ms: active, claim 5, beat"},
		},
		{
			name:   "goodbye: asks at once",
			cfg:    testConfig(high),
			events: []at{{0, Start{}}, {10 * ms, beat(low, Active, 4)}, {50 * ms, Goodbye{Term: 4}}, {125 * ms, Tick{All: true}}},
			want:   []string{"0s: beat", "50ms: confirming, ask, beat", "125ms: active, claim 5, beat"},
		},
		{
			name:   "an offer found on waking up is asked about",
			cfg:    testConfig(high),
			events: []at{{0, Start{}}, {10 * ms, beat(low, Active, 4)}, {5 * time.Second, asleep{beat(low, Active, 4)}}, {5 * time.Second, Released{Term: 4}}},
			want:   []string{"0s: beat", "5s: confirming, ask, beat"},
		},
		{
			name: "both active: the later term wins", cfg: testConfig(low), before: active,
			events: []at{{100 * ms, beat(high, Active, 2)}},
			want:   []string{"100ms: standby, release, beat"},
		},
		{
			name: "both active in one term: the lower address wins, and announces when it met and when it won", cfg: testConfig(low), before: active,
			events: []at{{100 * ms, beat(high, Active, 1)}, {110 * ms, beat(high, Active, 1)}, {120 * ms, beat(high, Standby, 1)}},
			want:   []string{"100ms: announce", "120ms: announce"},
		},
		{
			name: "a winner the loser cannot hear yields", cfg: testConfig(low), before: active,
			events: []at{
				{100 * ms, Beat{From: high, Role: Active, Term: 1}}, {200 * ms, Beat{From: high, Role: Active, Term: 1}},
				{300 * ms, Beat{From: high, Role: Active, Term: 1}}, {400 * ms, Beat{From: high, Role: Active, Term: 1}},
				{425 * ms, Beat{From: high, Role: Active, Term: 1}},
			},
			want: []string{"100ms: announce", "425ms: standby, release, beat"},
		},
		{
			name: "a lease that ended is not renewed", cfg: testConfig(low), before: active,
			events: []at{{1000 * ms, Renewed{Until: 2990 * ms}}, {3000 * ms, Tick{All: true}}},
			want:   []string{"2.99s: confirming, release, beat, ask, beat"},
		},
		{
			name: "link down and up", cfg: testConfig(low), before: active,
			events: []at{
				{100 * ms, Condition{Fault: "eth0 has no carrier"}}, {110 * ms, Withdrawn{}},
				{200 * ms, beat(high, Active, 2)}, {210 * ms, Condition{}},
			},
			want: []string{"100ms: fault, release, beat", "210ms: standby, beat"},
		},
		{
			name: "the kernel refuses: fault, and another try", cfg: alone,
			before: []at{{0, Start{}}, {75 * ms, Tick{All: true}}},
			events: []at{{80 * ms, Refused{Why: "no such device"}}, {1080 * ms, Tick{All: true}}},
			want:   []string{"0s: confirming, beat, ask, beat", "75ms: active, claim 1, beat", "80ms: fault, release, beat", "1.08s: confirming, beat, ask, beat"},
		},
		{
			name: "a claim that came late is asked about anew", cfg: alone,
			before: []at{{0, Start{}}, {75 * ms, Tick{All: true}}},
			events: []at{{160 * ms, Refused{Why: "late", Late: true}}, {235 * ms, Tick{All: true}}},
			want:   []string{"0s: confirming, beat, ask, beat", "75ms: active, claim 1, beat", "160ms: confirming, release, ask, beat", "235ms: active, claim 2, beat"},
		},
		{
			name: "silence is none while something is unread", cfg: testConfig(high),
			before: []at{{0, Start{}}, {10 * ms, beat(low, Active, 4)}},
			events: []at{{335 * ms, asleep{Tick{}}}, {336 * ms, asleep{beat(low, Active, 4)}}, {337 * ms, Tick{All: true}}},
			want:   []string{"0s: beat"},
		},
		{
			name: "stop with a standby: released, offered until taken, goodbye", cfg: testConfig(low), before: active,
			events: []at{
				{100 * ms, Stop{}}, {101 * ms, Withdrawn{}}, {127 * ms, beat(high, Active, 2)}, {200 * ms, Tick{All: true}},
			},
			want: []string{"100ms: standby, release", "101ms: released", "126ms: released", "127ms: goodbye, done"},
		},
		{
			name: "stop, and the kernel keeps the VIP: the lease ends it", cfg: testConfig(low), before: active,
			events: []at{{100 * ms, Stop{}}, {101 * ms, Withdrawn{Err: "stuck"}}},
			want:   []string{"100ms: standby, release", "101ms: goodbye, done"},
		},
		{
			name: "stop without a standby leaves the VIP to its lease", cfg: testConfig(low), before: active,
			events: []at{{300 * ms, Renewed{Until: 2300 * ms}}, {600 * ms, Stop{}}},
			want:   []string{"600ms: goodbye, done"},
		},
		{
			name: "stop with a standby that stops too: waits for nobody", cfg: testConfig(low), before: active,
			events: []at{{100 * ms, Stop{}}, {101 * ms, Withdrawn{}}, {102 * ms, Goodbye{}}},
			want:   []string{"100ms: standby, release", "101ms: released", "102ms: goodbye, done"},
		},
		{
			name: "two actives on one LAN: the lower MAC stays, and announces", cfg: testConfig(low), before: active,
			events: []at{{1000 * ms, Answer{Peer: true}}, {1001 * ms, Answer{Peer: true}}, {1100 * ms, Answer{Peer: true}}},
			want:   []string{"1s: beat", "1.1s: announce"},
		},
		{
			name: "two actives on one LAN: the higher MAC yields", cfg: testConfig(low), before: active,
			events: []at{{500 * ms, Answer{Peer: true, First: true}}, {600 * ms, Answer{Peer: true, First: true}}, {700 * ms, Tick{All: true}}},
			want:   []string{"500ms: beat", "600ms: standby, release, beat", "675ms: confirming, ask, beat"},
		},
		{
			name: "two actives on one LAN: the heartbeat has the first word", cfg: testConfig(low), before: active,
			events: []at{{500 * ms, Answer{Peer: true, First: true}}, {502 * ms, beat(high, Active, 1)}, {900 * ms, Answer{Peer: true, First: true}}},
			want:   []string{"500ms: beat", "502ms: announce", "900ms: beat"},
		},
		{
			name: "an active director yields to no foreign host, and to no peer it hears or has just taken over from", cfg: testConfig(low), before: active,
			events: []at{
				{150 * ms, Answer{Peer: true, First: true}}, {200 * ms, beat(high, Standby, 1)}, {500 * ms, Answer{Peer: true, First: true}},
				{650 * ms, Answer{First: true}}, {651 * ms, Answer{First: true, Asks: true, Peer: true}}, {750 * ms, Answer{First: true}},
			},
		},
		{
			name: "a new timing is in force at once", cfg: testConfig(high),
			events: []at{
				{0, Start{}}, {10 * ms, beat(low, Active, 4)}, {300 * ms, Reconfigured{Config: Config{Self: high, Interval: time.Second, Dead: 3 * time.Second, Lease: time.Second}}},
				{4000 * ms, Tick{All: true}},
			},
			want: []string{"0s: beat", "3.26s: confirming, ask, beat", "3.335s: active, claim 5, beat"},
		},
		{
			name: "handover", cfg: testConfig(low), before: active,
			events: []at{{100 * ms, Handover{Why: "asked to"}}, {101 * ms, Withdrawn{}}, {103 * ms, beat(high, Active, 2)}, {203 * ms, beat(high, Active, 2)}},
			want:   []string{"100ms: standby, release", "101ms: released"},
		},
		{
			name:   "starts with its VIPs: resumes, and relearns its term",
			cfg:    testConfig(low),
			events: []at{{0, Start{Held: true}}, {10 * ms, beat(high, Standby, 7)}, {20 * ms, beat(high, Active, 7)}},
			want:   []string{"0s: active, claim 1, beat", "20ms: announce"},
		},
		{
			name:   "starts with its VIPs but not fit to hold them",
			cfg:    testConfig(low),
			events: []at{{0, Start{Held: true, Fault: "eth0 has no carrier"}}},
			want:   []string{"0s: fault, release, beat, beat"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := test.want
			if test.before != nil && test.before[1].ev == (Event)(beat(high, Standby, 0)) {
				want = append(append([]string{}, began...), test.want...)
			}
			got := play(New(test.cfg), append(append([]at{}, test.before...), test.events...))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
		})
	}
}

// TestHandoverGap measures how long nobody holds the VIP when an active
// director with a ready standby stops.
func TestHandoverGap(t *testing.T) {
	var worst time.Duration
	for seed := range uint64(1000) {
		s := newSim(seed, simDefaults, mutant{})
		s.start(s.nodes[0])
		s.start(s.nodes[1])
		s.run(2 * time.Second)
		s.check.longestGap, s.check.gapSince = 0, 0
		for _, n := range s.nodes {
			if n.m.role == Active {
				s.step(n, Stop{})
				break
			}
		}
		s.run(4 * time.Second)
		worst = max(worst, s.check.longestGap)
	}
	t.Logf("longest gap of 1000 stops: %v", worst)
	if worst > 60*ms {
		t.Errorf("longest gap %v, want at most 60ms", worst)
	}
}

// TestSlowAsk holds that a claim held for long asks once a second only.
func TestSlowAsk(t *testing.T) {
	cfg := testConfig(low)
	cfg.Alone = true
	m, _ := New(cfg).Step(Start{}, 0)
	asked := 0
	for now := time.Duration(0); now < 20*time.Second; now += ms {
		if now < m.Next() {
			continue
		}
		var actions []Action
		m, actions = m.Step(Tick{All: true}, now)
		for _, a := range actions {
			switch a.(type) {
			case Ask:
				if now > 10*time.Second {
					asked++
				}
				m, _ = m.Step(Answer{Who: "a router"}, now)
			case Claim:
				t.Fatalf("claimed at %v", now)
			}
		}
	}
	if asked < 9 || asked > 11 {
		t.Errorf("%d questions in 10 s, want 10", asked)
	}
	if m.Reason() != "held: a router" {
		t.Errorf("reason %q", m.Reason())
	}
}

// TestLeaseOfASilentPeer holds that a peer whose kernel answers is waited for until its lease can be over, though
// questions are lost, and that the VIP is claimed as soon as it is.
func TestLeaseOfASilentPeer(t *testing.T) {
	const beatAt, over = 10 * ms, 1930 * ms
	for _, lost := range []bool{false, true} {
		m, _ := New(testConfig(high)).Step(Start{}, 0)
		m, _ = m.Step(beat(low, Active, 4), beatAt)
		var claimed time.Duration
		for now := time.Duration(beatAt); claimed == 0 && now < 10*time.Second; now += ms {
			if now < m.Next() {
				continue
			}
			var actions []Action
			m, actions = m.Step(Tick{All: true}, now)
			for _, a := range actions {
				switch a.(type) {
				case Ask:
					if now < over && (!lost || now < 500*ms) {
						m, _ = m.Step(Answer{Who: "vs", Peer: true}, now)
					}
				case Claim:
					claimed = now
				}
			}
		}
		// With everything lost since, the earliest moment at which the lease can be over.
		from, to := time.Duration(over), over+15*ms
		if lost {
			from, to = beatAt+2*time.Second-leaseSlack, beatAt+2*time.Second-leaseSlack+20*ms
		}
		if claimed < from || claimed > to {
			t.Errorf("lost %v: claimed at %v, want %v to %v", lost, claimed, from, to)
		}
	}
}

func TestRoleText(t *testing.T) {
	for r := Standby; r <= Fault; r++ {
		text, _ := r.MarshalText()
		var back Role
		if err := back.UnmarshalText(text); err != nil || back != r {
			t.Errorf("%v: %v, %v", r, back, err)
		}
	}
	var r Role
	if err := r.UnmarshalText([]byte("master")); err == nil {
		t.Error("took master for a role")
	}
	if Role(9).Valid() || Role(9).String() != "role(9)" {
		t.Error("role 9 is no role")
	}
}
