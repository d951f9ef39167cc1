package election

import "time"

// fault is one kind of trouble: it begins, and after d it is healed.
type fault struct {
	name  string
	begin func(s *sim, n *node)
	heal  func(s *sim, n *node) // nil where begin is all
	tail  time.Duration         // what heal leaves for later takes this long
}

// disturb applies change to links and notes when.
func (s *sim) disturb(change func(*link), links ...*link) {
	for _, l := range links {
		change(l)
		l.changed = s.now
	}
}

func cut(l *link)  { l.cut++ }
func heal(l *link) { l.cut-- }

// from lists every wire by which n sends, with or without the LAN.
func (s *sim) from(n *node, lan bool) []*link {
	links := []*link{&s.paths[0][n.index], &s.paths[1][n.index]}
	if lan {
		links = append(links, &s.lan[n.index])
	}
	return links
}

func (s *sim) wires(lan bool) []*link {
	return append(s.from(s.nodes[0], lan), s.from(s.nodes[1], lan)...)
}

func (s *sim) boot(n *node) {
	n.host = true
	switch {
	case !n.daemon:
		s.start(n)
	case n.m.leaving.on: // its supervisor waits for it to end
		s.at(10*ms, item{kind: itemDo, do: func() { s.boot(n) }})
	}
}

var faults = []fault{
	{
		name:  "crash",
		begin: (*sim).kill,
		heal:  (*sim).boot,
	},
	{name: "kill", begin: (*sim).die, heal: (*sim).boot},
	{
		name:  "freeze",
		begin: func(_ *sim, n *node) { n.frozen = n.daemon },
		heal:  (*sim).thaw,
	},
	{
		name:  "starved",
		begin: func(_ *sim, n *node) { n.starved++ },
		heal:  func(_ *sim, n *node) { n.starved-- },
		tail:  100 * ms,
	},
	{
		name: "freeze, and the LAN out for a moment",
		begin: func(s *sim, n *node) {
			n.frozen = n.daemon
			s.faults++
			after := s.silence() + s.upTo(s.Lease)
			s.at(after, item{kind: itemDo, do: func() { s.disturb(cut, &s.lan[0], &s.lan[1]) }})
			s.at(after+s.upTo(lanBlip), item{kind: itemDo, do: func() {
				s.disturb(heal, &s.lan[0], &s.lan[1])
				s.trouble()
			}})
		},
		heal: (*sim).thaw,
		tail: simDefaults.silence() + simDefaults.Lease + lanBlip,
	},
	{
		name:  "partition",
		begin: func(s *sim, _ *node) { s.disturb(cut, s.wires(true)...) },
		heal:  func(s *sim, _ *node) { s.disturb(heal, s.wires(true)...) },
	},
	{
		name:  "one-way cut",
		begin: func(s *sim, n *node) { s.disturb(cut, s.from(n, true)...) },
		heal:  func(s *sim, n *node) { s.disturb(heal, s.from(n, true)...) },
	},
	{
		name:  "one-way cut of the heartbeat",
		begin: func(s *sim, n *node) { s.disturb(cut, s.from(n, false)...) },
		heal:  func(s *sim, n *node) { s.disturb(heal, s.from(n, false)...) },
	},
	{
		name:  "heartbeat cut",
		begin: func(s *sim, _ *node) { s.disturb(cut, s.wires(false)...) },
		heal:  func(s *sim, _ *node) { s.disturb(heal, s.wires(false)...) },
	},
	{
		name:  "path cut",
		begin: func(s *sim, _ *node) { s.disturb(cut, &s.paths[0][0], &s.paths[0][1]) },
		heal:  func(s *sim, _ *node) { s.disturb(heal, &s.paths[0][0], &s.paths[0][1]) },
	},
	{
		name: "link down",
		begin: func(s *sim, n *node) {
			if n.downs++; n.downs == 1 {
				n.fault, n.faultSince = "eth0 has no carrier", s.now
			}
			s.disturb(cut, &s.lan[0], &s.lan[1])
			s.tell(n)
		},
		heal: func(s *sim, n *node) {
			if n.downs--; n.downs == 0 {
				n.fault = ""
			}
			s.disturb(heal, &s.lan[0], &s.lan[1])
			s.tell(n)
		},
	},
	{
		name: "loss",
		begin: func(s *sim, _ *node) {
			p := 0.05 + 0.25*s.rng.Float64()
			s.disturb(func(l *link) { l.loss += p }, s.wires(true)...)
			s.lossAdded = append(s.lossAdded, p)
			s.faults++ // where the heartbeat is cut, five answers in a row may be lost
		},
		heal: func(s *sim, _ *node) {
			p := s.lossAdded[0]
			s.lossAdded = s.lossAdded[1:]
			s.disturb(func(l *link) { l.loss -= p }, s.wires(true)...)
		},
	},
	{
		name:  "jitter",
		begin: func(s *sim, _ *node) { s.disturb(func(l *link) { l.jitter += s.shake() }, s.wires(true)...) },
		heal:  func(s *sim, _ *node) { s.disturb(func(l *link) { l.jitter -= s.shake() }, s.wires(true)...) },
	},
	{
		name: "stop",
		begin: func(s *sim, n *node) {
			if n.daemon && !n.frozen {
				s.step(n, Stop{})
			}
		},
		heal: (*sim).boot,
	},
	{
		name: "handover",
		begin: func(s *sim, n *node) {
			if n.daemon && !n.frozen {
				s.step(n, Handover{Why: "asked to"})
			}
		},
	},
	{
		name:  "kernel refuses",
		begin: func(s *sim, _ *node) { s.refusals++ },
		heal:  func(s *sim, _ *node) { s.refusals-- },
	},
	{
		name: "foreign holder",
		begin: func(s *sim, _ *node) {
			if s.foreign++; s.foreign == 1 {
				s.foreignSince = s.now
			}
		},
		heal: func(s *sim, _ *node) { s.foreign-- },
	},
	{
		name:  "partition whose LAN heals before the heartbeat",
		begin: func(s *sim, _ *node) { s.disturb(cut, s.wires(true)...) },
		heal: func(s *sim, _ *node) {
			s.disturb(heal, &s.lan[0], &s.lan[1])
			s.at(lanOnly, item{kind: itemDo, do: func() {
				s.disturb(heal, s.wires(false)...)
				s.trouble()
			}})
		},
		tail: lanOnly,
	},
	{
		name:  "isolation",
		begin: func(s *sim, n *node) { s.isolate(n, 1) },
		heal:  func(s *sim, n *node) { s.isolate(n, -1) },
	},
	{
		name:  "gateway dies",
		begin: func(s *sim, _ *node) { s.world.gwCut[0]++; s.world.gwCut[1]++ },
		heal:  func(s *sim, _ *node) { s.world.gwCut[0]--; s.world.gwCut[1]-- },
	},
	{
		name:  "agents die",
		begin: func(s *sim, _ *node) { s.changeAgents(func(a *agent) { a.down++ }) },
		heal:  func(s *sim, _ *node) { s.changeAgents(func(a *agent) { a.down-- }) },
	},
	{
		name:  "agents but one liar die",
		begin: func(s *sim, _ *node) { s.killAgents(1) },
		heal:  func(s *sim, _ *node) { s.killAgents(-1) },
	},
	{
		name:  "agents cut off one director",
		begin: func(s *sim, n *node) { s.changeAgents(func(a *agent) { a.cut[n.index]++ }) },
		heal:  func(s *sim, n *node) { s.changeAgents(func(a *agent) { a.cut[n.index]-- }) },
	},
}

// lanBlip is how long a LAN may be out and mean nothing.
const lanBlip = 200 * ms

// lanOnly is how long the heartbeat stays cut when the LAN has healed.
const lanOnly = 3 * time.Second

// killAgents kills all agents but a liar, or with -1 revives them.
func (s *sim) killAgents(by int) {
	spared := false
	s.changeAgents(func(a *agent) {
		if a.liar && !spared {
			spared = true
			return
		}
		a.down += by
	})
}

// isolate takes every wire from a director, or with -1 gives them back.
func (s *sim) isolate(n *node, by int) {
	s.disturb(func(l *link) { l.cut += by }, s.wires(true)...)
	s.world.gwCut[n.index] += by
	s.changeAgents(func(a *agent) { a.cut[n.index] += by })
}

// shake is a jitter that may reorder beats and hold up answers.
func (s *sim) shake() time.Duration { return min(80*ms, s.Dead/4) }

// oneWay reports whether one of the two cannot be heard and the other can.
func (s *sim) oneWay() bool {
	heard := func(i int) bool { return s.paths[0][i].cut == 0 || s.paths[1][i].cut == 0 }
	return heard(0) != heard(1)
}

// tell gives a daemon its condition, as its link watcher would; a frozen one
// hears of it when it thaws.
func (s *sim) tell(n *node) {
	s.at(s.upTo(ms), item{kind: itemCondition, node: n.index, life: n.life})
}

// script puts one scenario into the queue and returns when it ends.
func (s *sim) script() time.Duration {
	// Times that matter: around the dead time and the lease, and longer.
	short, long := 2*s.Dead+s.Lease/10, max(2*s.Lease, 4*s.Dead)
	first := s.rng.IntN(2)
	s.start(s.nodes[first])
	other := s.nodes[1-first]
	switch s.rng.IntN(3) {
	case 0:
		s.start(other)          // both at once
		if s.rng.IntN(4) == 0 { // who must settle it without a heartbeat
			s.faults++
			wires := s.wires(s.rng.IntN(2) == 0) // with the LAN, both will claim
			s.disturb(cut, wires...)
			s.at(max(2500*ms, 4*s.Dead), item{kind: itemDo, do: func() { s.disturb(heal, wires...) }})
		}
	case 1:
		s.at(s.upTo(max(time.Second, 3*s.Dead)), item{kind: itemDo, do: func() { s.boot(other) }})
	case 2:
		s.at(max(2*time.Second, 3*s.Dead), item{kind: itemDo, do: func() { s.boot(other) }})
	}
	calm := max(3*time.Second, 6*s.Dead)
	begin := calm
	last := begin
	for range 1 + s.rng.IntN(3) {
		s.faults++
		f := faults[s.rng.IntN(len(faults))]
		n := s.nodes[s.rng.IntN(2)]
		if s.rng.IntN(4) == 0 {
			begin = max(calm, begin-s.upTo(long/2)) // overlap
		}
		// Most faults last around the times that matter, some much longer.
		d := s.upTo(short)
		if s.rng.IntN(3) == 0 {
			d = s.upTo(long)
		}
		s.at(begin-s.now, item{kind: itemDo, do: func() {
			s.logf("FAULT %s at %s for %v", f.name, n.id.Name, d)
			if s.oneWay() { // the deaf one may claim after each fault anew
				s.faults++
			}
			f.begin(s, n)
			s.trouble()
		}})
		end := begin
		if f.heal != nil {
			end = begin + d
			s.at(end-s.now, item{kind: itemDo, do: func() {
				s.logf("HEAL %s at %s", f.name, n.id.Name)
				if s.oneWay() { // healed just as the active is about to yield
					s.faults++
				}
				f.heal(s, n)
				s.trouble()
			}})
		}
		end += f.tail
		last = max(last, end)
		begin = max(begin, end) + 50*ms + s.upTo(5*s.Dead)
	}
	// Some runs end with a trouble that stays.
	if s.rng.IntN(5) == 0 {
		last = endings[s.rng.IntN(len(endings))](s, s.nodes[s.rng.IntN(2)], last+s.upTo(time.Second))
	}
	return last
}

// endings begin a trouble that stays, at a time, and return when the last of
// it has begun.
var endings = []func(s *sim, n *node, at time.Duration) time.Duration{
	func(s *sim, n *node, at time.Duration) time.Duration {
		s.then(at, "death", func() { s.kill(n) })
		return at
	},
	func(s *sim, n *node, at time.Duration) time.Duration {
		s.then(at, "isolation", func() {
			if n.m.around.gateway && n.m.around.witnesses && !n.m.gone { // else it cannot know
				s.isolate(n, 1)
			} else {
				s.kill(n)
			}
		})
		s.at(at-s.now, item{kind: itemDo, do: func() { s.allowance += (blindness + 1) * min(s.Dead, lookSoon) }})
		return at
	},
	// A director that is alone and misses something besides its peer, but not
	// everything, must go on.
	func(s *sim, n *node, at time.Duration) time.Duration {
		s.then(at, "death, and that of all agents", func() {
			s.kill(n)
			s.changeAgents(func(a *agent) { a.down++ })
		})
		return at
	},
	func(s *sim, n *node, at time.Duration) time.Duration {
		s.then(at, "death, and that of all agents but a liar", func() {
			s.kill(n)
			s.killAgents(1)
		})
		return at
	},
	func(s *sim, n *node, at time.Duration) time.Duration {
		if len(s.world.agents) > 0 { // they leave, and that is noticed
			s.then(at, "agents leave", func() { s.world.agents = nil })
			at += lookLater + time.Second + s.Interval
		}
		s.then(at, "death, and that of the gateway", func() {
			s.kill(n)
			s.world.gwCut = [2]int{1, 1}
		})
		return at
	},
	// Somebody else takes the VIP of the last director.
	func(s *sim, n *node, at time.Duration) time.Duration {
		s.then(at, "death", func() { s.kill(n) })
		at += s.Lease + 2*s.Dead + 4*time.Second
		s.then(at, "foreign holder", func() {
			if s.foreign++; s.foreign == 1 {
				s.foreignSince = s.now
			}
		})
		return at
	},
}

// then lets something happen at a time, as one fault.
func (s *sim) then(at time.Duration, what string, do func()) {
	s.at(at-s.now, item{kind: itemDo, do: func() {
		s.logf("FAULT %s, for good", what)
		s.faults++
		do()
		s.trouble()
	}})
}

// kill lets a host die.
func (s *sim) kill(n *node) {
	n.host, n.vip = false, false
	s.die(n)
}

// trouble notes a fault's beginning or end, and how long the pair may take
// from here to have exactly one holder.
func (s *sim) trouble() {
	s.lastFault = s.now
	s.allowance = s.silence() + 175*ms
	for _, n := range s.nodes {
		// A lease that nobody renews must end first.
		if n.host && n.vip && (!n.daemon || n.m.role != Active || n.want == 0 || s.now-n.renewed >= s.Lease) {
			s.allowance = max(s.allowance, n.vipEnd-s.now+200*ms)
		}
		if n.daemon && n.m.role == Fault && n.m.retryAt != Never {
			s.allowance += refusalFor
		}
		// Whoever asks a peer whose kernel answers waits for the end of its lease, even if the peer dies then.
		if n.daemon && n.m.role == Confirming && n.m.known {
			s.allowance = max(s.allowance, n.m.beatAt+s.Lease-s.now+200*ms)
		}
		if n.daemon && n.m.role == Confirming && n.m.askAt-s.now > 100*ms {
			s.allowance += slowAsk
		}
		if n.daemon && s.misled(n) {
			s.allowance += s.Lease + 2*slowAsk
		}
	}
}
