package election

import "time"

// fault is one kind of trouble: it begins, and after d it is healed.
type fault struct {
	name  string
	begin func(s *sim, n *node)
	heal  func(s *sim, n *node) // nil where begin is all
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
		name: "crash",
		begin: func(s *sim, n *node) {
			n.host, n.vip = false, false
			s.die(n)
		},
		heal: (*sim).boot,
	},
	{name: "kill", begin: (*sim).die, heal: (*sim).boot},
	{
		name:  "freeze",
		begin: func(_ *sim, n *node) { n.frozen = n.daemon },
		heal:  (*sim).thaw,
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
		},
		heal: func(s *sim, _ *node) {
			p := s.lossAdded[0]
			s.lossAdded = s.lossAdded[1:]
			s.disturb(func(l *link) { l.loss -= p }, s.wires(true)...)
		},
	},
	{
		name:  "jitter",
		begin: func(s *sim, _ *node) { s.disturb(func(l *link) { l.jitter += 80 * ms }, s.wires(true)...) },
		heal:  func(s *sim, _ *node) { s.disturb(func(l *link) { l.jitter -= 80 * ms }, s.wires(true)...) },
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
}

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
	first := s.rng.IntN(2)
	s.start(s.nodes[first])
	other := s.nodes[1-first]
	switch s.rng.IntN(3) {
	case 0:
		s.start(other)          // both at once
		if s.rng.IntN(4) == 0 { // who must settle it without a heartbeat
			s.faults++
			s.disturb(cut, s.wires(false)...)
			s.at(2500*ms, item{kind: itemDo, do: func() { s.disturb(heal, s.wires(false)...) }})
		}
	case 1:
		s.at(s.upTo(time.Second), item{kind: itemDo, do: func() { s.boot(other) }})
	case 2:
		s.at(2*time.Second, item{kind: itemDo, do: func() { s.boot(other) }})
	}
	begin := 3 * time.Second
	last := begin
	for range 1 + s.rng.IntN(3) {
		s.faults++
		f := faults[s.rng.IntN(len(faults))]
		n := s.nodes[s.rng.IntN(2)]
		if s.rng.IntN(4) == 0 {
			begin = max(3*time.Second, begin-s.upTo(2*time.Second)) // overlap
		}
		// Most faults last around the times that matter, some much longer.
		d := s.upTo(800 * ms)
		if s.rng.IntN(3) == 0 {
			d = s.upTo(4 * time.Second)
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
		last = max(last, end)
		begin = max(begin, end) + 50*ms + s.upTo(1500*ms)
	}
	// In some runs one host dies at the end and stays dead.
	if s.rng.IntN(5) == 0 {
		s.faults++
		n := s.nodes[s.rng.IntN(2)]
		last += s.upTo(time.Second)
		s.at(last-s.now, item{kind: itemDo, do: func() {
			s.logf("FAULT death of %s", n.id.Name)
			n.host, n.vip = false, false
			s.die(n)
			s.trouble()
		}})
	}
	return last
}

// trouble notes a fault's beginning or end, and how long the pair may take
// from here to have exactly one holder.
func (s *sim) trouble() {
	s.lastFault = s.now
	s.allowance = simDead + 200*ms
	for _, n := range s.nodes {
		// A lease that nobody renews must end first.
		if n.host && n.vip && (!n.daemon || n.m.role != Active || n.want == 0 || s.now-n.renewed >= simLease) {
			s.allowance = max(s.allowance, n.vipEnd-s.now+200*ms)
		}
		if n.daemon && n.m.role == Fault && n.m.retryAt != Never {
			s.allowance += refusalFor
		}
		if n.daemon && n.m.role == Confirming && n.m.askAt-s.now > 100*ms {
			s.allowance += slowAsk
		}
	}
}
