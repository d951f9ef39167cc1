package election

import (
	"math/rand/v2"
	"time"
)

// world is what surrounds the two directors: a gateway on the VIP's LAN, and
// agents on real servers.
type world struct {
	gateway bool
	gwCut   [2]int // from a director
	agents  []agent
}

// agent answers what a director asks of its peer.
type agent struct {
	down    int
	cut     [2]int           // from a director
	lost    [2]time.Duration // since when; its registration ends later
	liar    bool             // says always that the peer is active
	changed time.Duration
}

// agentLease is how long a director remembers an agent it does not hear.
const agentLease = 3 * time.Second

// init draws a world: with or without a gateway, and with no agents, one,
// three or five of whom fewer than half may lie.
func (w *world) init(rng *rand.Rand) {
	w.gateway = rng.IntN(3) > 0
	w.agents = make([]agent, []int{0, 1, 3, 5}[rng.IntN(4)])
	for i := range (len(w.agents) - 1) / 2 {
		w.agents[i].liar = rng.IntN(4) == 0
	}
}

// reaches reports whether a director and an agent hear each other.
func (a *agent) reaches(i int) bool { return a.down == 0 && a.cut[i] == 0 }

// change alters agents and notes when.
func (s *sim) changeAgents(change func(*agent)) {
	for i := range s.world.agents {
		a := &s.world.agents[i]
		before := [2]bool{a.reaches(0), a.reaches(1)}
		change(a)
		a.changed = s.now
		for n := range before {
			if before[n] && !a.reaches(n) {
				a.lost[n] = s.now
			}
		}
	}
}

// look asks the gateway and the agents.
func (s *sim) look(n *node, l Look) {
	if !n.host {
		return
	}
	if l.VIP {
		s.ask(n)
	}
	if s.world.gateway && s.world.gwCut[n.index] == 0 && n.fault == "" && s.rng.Float64() >= 2*s.lan[n.index].loss {
		s.at(s.upTo(2*ms), item{kind: itemSign, node: n.index, life: n.life})
	}
	peer := s.nodes[1-n.index]
	word := Witnessed{Round: l.Round}
	for i := range s.world.agents {
		a := &s.world.agents[i]
		if !a.reaches(n.index) {
			if s.now-a.lost[n.index] < agentLease {
				word.Asked++
			}
			continue
		}
		word.Asked++
		word.Answered++
		if a.liar || a.reaches(peer.index) && peer.awake() && peer.m.role == Active {
			word.PeerActive++
		}
	}
	after := s.upTo(2 * ms)
	if word.Answered < word.Asked {
		after = l.Within
	}
	s.at(after, item{kind: itemWitnessed, node: n.index, life: n.life, word: word})
}

// seen reports whether most of the agents, and not only one, are honest and
// have seen both directors for a while.
func (s *sim) seen() bool {
	honest := 0
	for i := range s.world.agents {
		a := &s.world.agents[i]
		if a.reaches(0) && a.reaches(1) && !a.liar && s.now-a.changed > 200*ms {
			honest++
		}
	}
	return honest > 1 && 2*honest > len(s.world.agents)
}

// isolated reports whether a director has been out of reach of everybody for
// a while, and could know it.
func (s *sim) isolated(n *node) bool {
	if !n.m.around.gateway || !n.m.around.witnesses || s.world.gwCut[n.index] == 0 || s.lan[1-n.index].cut == 0 {
		return false
	}
	for i := range s.paths {
		if s.paths[i][1-n.index].cut == 0 {
			return false
		}
	}
	for i := range s.world.agents {
		if a := &s.world.agents[i]; a.reaches(n.index) || s.now-a.lost[n.index] < 100*ms {
			return false
		}
	}
	return true
}

// misled reports whether those who lie may be most of those who answer.
func (s *sim) misled(n *node) bool {
	liars, others := 0, 0
	for i := range s.world.agents {
		switch a := &s.world.agents[i]; {
		case !a.reaches(n.index):
		case a.liar:
			liars++
		default:
			others++
		}
	}
	return liars > others
}
