package election

import (
	"slices"
	"testing"
	"time"
)

// mutants are the rules of the election, each broken in one way.
var mutants = []mutant{
	{name: "claims without asking", step: onConfirming(func(s *step) {
		s.claim("did not ask")
	})},
	{name: "takes no answer for an answer", step: ignoring(func(_ Machine, ev Event) bool {
		answer, ok := ev.(Answer)
		return ok && !answer.Asks
	})},
	{name: "does not wait for answers", step: onConfirming(func(s *step) {
		s.asked, s.askAt = questions, s.now+100*time.Microsecond
	})},
	{name: "counts questions it did not ask", step: func(_ Machine, _ Event, now time.Duration, next Machine, actions []Action) (Machine, []Action) {
		if next.role == Confirming && next.asked == 1 {
			next.asked, next.askAt = questions, now+next.cfg.confirm()
		}
		return next, actions
	}},
	{name: "does not see its rival", step: ignoring(func(_ Machine, ev Event) bool {
		answer, ok := ev.(Answer)
		return ok && answer.Asks
	})},
	{name: "the loser keeps the VIPs", step: ignoring(activeMeets(func(m Machine, b Beat) bool {
		return b.Term > m.term || b.Term == m.term && b.From.Compare(m.cfg.Self) < 0
	}))},
	{name: "equal terms are nobody's loss", step: taking(func(m Machine, b Beat) Event {
		if m.role == Active && b.Role == Active && b.Term == m.term {
			b.Term--
		}
		return b
	})},
	{name: "every active yields to the other", step: func(_ Machine, ev Event, now time.Duration, next Machine, actions []Action) (Machine, []Action) {
		if b, ok := ev.(Beat); ok && b.Role == Active && next.role == Active {
			return with(next, now, actions, func(s *step) { s.release("yields") })
		}
		return next, actions
	}},
	{name: "the lower address takes back", step: func(_ Machine, ev Event, now time.Duration, next Machine, actions []Action) (Machine, []Action) {
		if b, ok := ev.(Beat); ok && b.Role == Active && next.role == Standby && next.lower() && !next.leaving.on {
			return with(next, now, actions, func(s *step) { s.claim("failback") })
		}
		return next, actions
	}},
	{name: "two standbys wait for each other", step: ignoring(func(m Machine, ev Event) bool {
		return m.known && m.peer.Role == Standby && m.role == Confirming && !m.silent(m.stepped)
	})},
	{name: "both standbys claim, whoever is lower", step: func(_ Machine, ev Event, now time.Duration, next Machine, actions []Action) (Machine, []Action) {
		if b, ok := ev.(Beat); ok && b.Role == Standby && next.role == Standby && !next.leaving.on {
			return with(next, now, actions, func(s *step) { s.claim("me too") })
		}
		return next, actions
	}},
	{name: "wakes up and renews", renewsLate: true, step: func(_ Machine, _ Event, _ time.Duration, next Machine, actions []Action) (Machine, []Action) {
		if next.role == Active {
			next.leaseEnd = Never
		}
		return next, actions
	}},
	{name: "claims in the same term", step: func(before Machine, _ Event, _ time.Duration, next Machine, actions []Action) (Machine, []Action) {
		if before.role != Active && next.role == Active && before.term > 0 {
			next.term = before.term
			for i := range actions {
				if c, ok := actions[i].(Claim); ok {
					actions[i] = Claim{Term: before.term, Before: c.Before}
				}
			}
		}
		return next, actions
	}},
	{name: "keeps the VIPs when the link is down", step: func(before Machine, _ Event, _ time.Duration, next Machine, actions []Action) (Machine, []Action) {
		if before.role == Active && next.role == Fault {
			return next, without[Release](actions)
		}
		return next, actions
	}},
	{name: "stays in fault", step: ignoring(func(_ Machine, ev Event) bool {
		c, ok := ev.(Condition)
		return ok && c.Fault == ""
	})},
	{name: "one lost beat is death", step: func(_ Machine, _ Event, now time.Duration, next Machine, actions []Action) (Machine, []Action) {
		if next.role == Standby && next.started && !next.leaving.on && now-next.heard > next.cfg.Interval+10*ms && next.known {
			return with(next, now, actions, func(s *step) { s.claim("impatient") })
		}
		return next, actions
	}},
	{name: "never takes the peer for dead", step: func(_ Machine, _ Event, now time.Duration, next Machine, actions []Action) (Machine, []Action) {
		next.heard = now
		return next, actions
	}},
	{name: "tells of a release that has not happened", step: func(before Machine, ev Event, now time.Duration, next Machine, actions []Action) (Machine, []Action) {
		if next.leaving.on && !before.leaving.on {
			next.leaving.released, next.leaving.resendAt = true, Never
			return next, append(without[Release](actions), Send{MessageReleased})
		}
		return next, actions
	}},
	{name: "takes what it has not read for silence", step: taking(func(_ Machine, _ Tick) Event {
		return Tick{All: true}
	})},
	{name: "does not wait for the lease of a peer that answered", step: func(_ Machine, _ Event, _ time.Duration, next Machine, actions []Action) (Machine, []Action) {
		next.answering = false
		return next, actions
	}},
	{name: "waits for the lease of a peer it hears", step: func(_ Machine, ev Event, now time.Duration, next Machine, actions []Action) (Machine, []Action) {
		if next.role == Confirming && next.answering && next.asked >= questions && now < next.heard+next.cfg.Lease {
			next.asked = 1
		}
		return next, actions
	}},
	{name: "an active nobody hears stays", step: ignoring(activeMeets(func(m Machine, b Beat) bool {
		return !b.HearsUs
	}))},
}

// surroundingMutants are the rules that look beyond the peer, each broken in
// one way.
var surroundingMutants = []mutant{
	{name: "does not listen to witnesses", step: taking(func(_ Machine, w Witnessed) Event {
		w.PeerActive = 0
		return w
	})},
	{name: "believes a single witness", step: taking(func(_ Machine, w Witnessed) Event {
		if w.PeerActive > 0 {
			w.Asked, w.Answered = w.PeerActive, w.PeerActive
		}
		return w
	})},
	{name: "believes the few who answer for ever", step: taking(func(_ Machine, w Witnessed) Event {
		if 2*w.PeerActive > w.Answered {
			w.Asked, w.Answered, w.PeerActive = 2, 2, 2
		}
		return w
	})},
	{name: "takes the silence of witnesses for their word", step: taking(func(_ Machine, w Witnessed) Event {
		if w.Answered == 0 && w.Asked > 0 {
			w.Answered, w.PeerActive = w.Asked, w.Asked
		}
		return w
	})},
	{name: "does not see that it is isolated", step: func(_ Machine, _ Event, _ time.Duration, next Machine, actions []Action) (Machine, []Action) {
		next.around.unanswered = 0
		return next, actions
	}},
	{name: "sees it only when it is active", step: func(_ Machine, _ Event, _ time.Duration, next Machine, actions []Action) (Machine, []Action) {
		if next.role == Confirming {
			next.around.unanswered = 0
		}
		return next, actions
	}},
	{name: "misses a gateway it never had", step: func(_ Machine, _ Event, _ time.Duration, next Machine, actions []Action) (Machine, []Action) {
		next.around.gateway = true
		return next, actions
	}},
	{name: "misses real servers it never had", step: func(_ Machine, _ Event, _ time.Duration, next Machine, actions []Action) (Machine, []Action) {
		next.around.witnesses = true
		return next, actions
	}},
	{name: "misses real servers that have left", step: func(before Machine, _ Event, _ time.Duration, next Machine, actions []Action) (Machine, []Action) {
		next.around.witnesses = next.around.witnesses || before.around.witnesses
		return next, actions
	}},
	{name: "two actives on one LAN do not see each other", step: ignoring(func(m Machine, ev Event) bool {
		_, ok := ev.(Answer)
		return ok && m.role == Active
	})},
	{name: "two actives on one LAN do not look for each other", step: func(_ Machine, _ Event, _ time.Duration, next Machine, actions []Action) (Machine, []Action) {
		for i, a := range actions {
			if look, ok := a.(Look); ok {
				look.VIP = false
				actions[i] = look
			}
		}
		return next, actions
	}},
	{name: "yields to whoever has the VIP", step: taking(func(_ Machine, a Answer) Event {
		a.Peer = a.Peer || !a.Asks
		return a
	})},
}

// taking changes events of a type before they are taken.
func taking[T Event](change func(Machine, T) Event) func(Machine, Event, time.Duration, Machine, []Action) (Machine, []Action) {
	return func(before Machine, ev Event, now time.Duration, next Machine, actions []Action) (Machine, []Action) {
		if e, ok := ev.(T); ok {
			return before.Step(change(before, e), now)
		}
		return next, actions
	}
}

// with runs change on next as a rule would.
func with(next Machine, now time.Duration, actions []Action, change func(*step)) (Machine, []Action) {
	s := step{Machine: next, now: now, actions: actions}
	change(&s)
	return s.Machine, s.actions
}

// onConfirming applies change at the moment a director begins to confirm.
func onConfirming(change func(*step)) func(Machine, Event, time.Duration, Machine, []Action) (Machine, []Action) {
	return func(before Machine, _ Event, now time.Duration, next Machine, actions []Action) (Machine, []Action) {
		if before.role != Confirming && next.role == Confirming {
			return with(next, now, actions, change)
		}
		return next, actions
	}
}

// ignoring turns events that match into ticks.
func ignoring(match func(Machine, Event) bool) func(Machine, Event, time.Duration, Machine, []Action) (Machine, []Action) {
	return func(before Machine, ev Event, now time.Duration, next Machine, actions []Action) (Machine, []Action) {
		if match(before, ev) {
			return before, nil
		}
		return next, actions
	}
}

func activeMeets(match func(Machine, Beat) bool) func(Machine, Event) bool {
	return func(m Machine, ev Event) bool {
		b, ok := ev.(Beat)
		return ok && m.role == Active && b.Role == Active && match(m, b)
	}
}

func without[T Action](actions []Action) []Action {
	var kept []Action
	for _, a := range actions {
		if _, ok := a.(T); !ok {
			kept = append(kept, a)
		}
	}
	return kept
}

// TestSimulationCatchesMutants shows that the simulation can fail: it finds
// every broken rule.
func TestSimulationCatchesMutants(t *testing.T) {
	for _, m := range slices.Concat(mutants, surroundingMutants) {
		t.Run(m.name, func(t *testing.T) {
			if raceEnabled {
				t.Skip("pure code on one goroutine: the race detector has nothing to see")
			}
			t.Parallel()
			most := uint64(50_000)
			for seed := uint64(1); seed <= most; seed++ {
				if violation, _, _ := simulate(seed, simDefaults, m, false); violation != "" {
					t.Logf("%s: caught in scenario %d: %s", m.name, seed, violation)
					return
				}
			}
			t.Errorf("%d scenarios and nothing noticed", most)
		})
	}
}
