package election

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"
)

const ms = time.Millisecond

// The timings of simulated clusters: the defaults, as fast as it goes, and
// those of the lvs.cf that piranha's users have.
var (
	simDefaults = Config{Interval: 100 * ms, Dead: 300 * ms, Lease: 2 * time.Second}
	simTuned    = Config{Interval: 10 * ms, Dead: 30 * ms, Lease: time.Second}
	simLvsCf    = Config{Interval: 6 * time.Second, Dead: 18 * time.Second, Lease: 2 * time.Second}
)

// sim is two directors and the LAN between them, on a clock of its own. One
// seed makes one run.
type sim struct {
	Config
	rng   *rand.Rand
	now   time.Duration
	queue heap
	nodes [2]*node
	// Links by sender: two heartbeat paths, and the LAN the VIP is on.
	paths [2][2]link
	lan   [2]link

	world        world
	foreign      int // a third host answers for the VIP while above 0
	foreignSince time.Duration
	faults       int
	lastFault    time.Duration
	refusals     int // the kernel refuses claims while above 0
	lossAdded    []float64
	allowance    time.Duration
	check        checker
	trace        []string
	tracing      bool
	mutant       mutant
	steps        int
}

// link is one direction of a wire.
type link struct {
	cut           int // how many faults cut it now
	loss          float64
	delay, jitter time.Duration
	changed       time.Duration // when it was last cut, healed or disturbed
}

func (l *link) clean() bool { return l.cut == 0 && l.loss < 0.05 && l.jitter < 2*ms }

// packet is a heartbeat as far as the election sees it.
type packet struct {
	from             int
	message          Message
	inc, seq         uint64
	echoInc, echoSeq uint64
	role             Role
	term             uint64
}

// node is one director: its host, its kernel and its daemon.
type node struct {
	index  int
	id     ID
	mac    int
	host   bool // power and cable
	daemon bool
	frozen bool
	thawed time.Duration
	life   int // grows when the daemon starts or dies: what was queued for another life is void

	m     Machine
	timer time.Duration // the tick in the queue, to leave out others

	inc, seq         uint64
	sent             [128]time.Duration // when a sequence number was sent
	peerInc, peerSeq uint64
	echoed           uint64 // highest own sequence the peer has echoed
	answeredAt       time.Duration
	metAt            time.Duration // when the peer was proven for the first time
	unread           int           // what lies in its sockets
	starved          int           // above 0: it gets round to its sockets late
	heldAt           time.Duration // when the peer's kernel last answered for the VIP
	backlog          []item

	fault      string // what the daemon's link watcher sees
	faultSince time.Duration
	downs      int

	// kernel and keeper
	vip     bool
	knew    uint64 // the highest term this life has heard of
	vipEnd  time.Duration
	want    int // the holding the keeper renews, 0 for none
	keeping int
	offered bool // the last claim answered a release
	renewed time.Duration
}

type itemKind uint8

const (
	itemTick itemKind = iota
	itemBeat
	itemRenew
	itemPut
	itemDel
	itemPacket
	itemAsk
	itemAnswer
	itemSign
	itemWitnessed
	itemCondition
	itemExpire
	itemDo // a step of the script
)

// socket reports whether it comes from a socket, and not from a timer or the kernel.
func (k itemKind) socket() bool { return k >= itemPacket && k <= itemWitnessed }

// item is something due.
type item struct {
	at     time.Duration
	kind   itemKind
	node   int
	life   int
	gen    int
	by     time.Duration
	late   bool // it lay in a socket
	answer Answer
	packet packet
	word   Witnessed
	do     func()
}

func newSim(seed uint64, timing Config, mutant mutant) *sim {
	s := &sim{Config: timing, rng: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), mutant: mutant}
	s.check.sim = s
	macs := s.rng.Perm(2)
	for i := range s.nodes {
		s.nodes[i] = &node{
			index: i, mac: macs[i], host: true,
			id: ID{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), Name: []string{"vs", "vs_bk"}[i]},
		}
	}
	base := []float64{0, 0, 0.002, 0.01}[s.rng.IntN(4)]
	for i := range 2 {
		for p := range s.paths {
			s.paths[p][i] = link{loss: base, delay: 100 * time.Microsecond, jitter: ms}
		}
		s.lan[i] = link{loss: base, delay: 100 * time.Microsecond, jitter: ms}
	}
	if s.rng.IntN(2) == 0 { // one path only
		s.paths[1][0].cut, s.paths[1][1].cut = 1, 1
	}
	s.world.init(s.rng)
	return s
}

func (s *sim) logf(format string, args ...any) {
	if s.tracing {
		s.trace = append(s.trace, fmt.Sprintf("%9.3f  ", s.now.Seconds())+fmt.Sprintf(format, args...))
	}
}

func (s *sim) at(d time.Duration, it item) {
	it.at = s.now + d
	s.queue.push(it)
}

func (s *sim) upTo(d time.Duration) time.Duration { return time.Duration(s.rng.Int64N(int64(d) + 1)) }

// run takes what is due until the clock stands at end.
func (s *sim) run(end time.Duration) {
	for s.queue.len() > 0 && s.queue.first() <= end {
		it := s.queue.pop()
		s.now = it.at
		s.dispatch(it)
		s.check.look()
	}
	s.now = end
	s.check.look()
}

func (s *sim) dispatch(it item) {
	n := s.nodes[it.node]
	switch it.kind {
	case itemDo:
		it.do()
		return
	case itemExpire:
		if n.vip && s.now >= n.vipEnd {
			n.vip = false
			s.logf("%s: kernel: lease ended", n.id.Name)
		}
		return
	case itemAsk: // the kernel answers, whatever the daemon does
		s.asked(n)
		return
	}
	if !n.daemon || it.life != n.life {
		return
	}
	if n.frozen {
		n.backlog = append(n.backlog, it)
		return
	}
	if n.starved > 0 && it.kind.socket() && !it.late {
		it.late = true
		n.unread++
		s.at(s.upTo(100*ms), it)
		return
	}
	s.deliver(n, it)
}

// deliver gives a live daemon what is due to it.
func (s *sim) deliver(n *node, it item) {
	if it.late {
		n.unread--
	}
	switch it.kind {
	case itemTick:
		n.timer = Never
		s.step(n, Tick{All: n.unread == 0})
	case itemBeat:
		s.step(n, Tick{All: n.unread == 0}) // what it says must be true now, not when it went to sleep
		s.send(n, MessageBeat)
		s.at(s.Interval, item{kind: itemBeat, node: n.index, life: n.life})
	case itemPacket:
		s.receive(n, it.packet)
	case itemAnswer:
		it.answer.Peer = it.answer.Peer && n.peerInc != 0 // it must have told its MAC
		if it.answer.Peer && !it.answer.Asks && n.m.role == Confirming {
			n.heldAt = s.now
		}
		s.step(n, it.answer)
	case itemSign:
		s.step(n, Sign{})
	case itemWitnessed:
		s.step(n, it.word)
	case itemCondition:
		s.step(n, Condition{Fault: n.fault})
	case itemPut:
		s.put(n, it)
	case itemRenew:
		s.renew(n, it)
	case itemDel:
		if it.gen == n.want {
			n.want = 0
		}
		if n.vip {
			s.logf("%s: kernel: VIP off", n.id.Name)
		}
		n.vip = false
		s.step(n, Withdrawn{})
	}
}

// step runs the machine and does what it says.
func (s *sim) step(n *node, ev Event) {
	if !n.daemon {
		return
	}
	s.steps++
	before := n.m
	next, actions := n.m.Step(ev, s.now)
	if s.mutant.step != nil {
		next, actions = s.mutant.step(before, ev, s.now, next, actions)
	}
	n.m = next
	if s.tracing && (before.role != next.role || before.reason != next.reason) {
		s.logf("%s: %v → %v term %d: %s (%T)", n.id.Name, before.role, next.role, next.term, next.reason, ev)
	}
	for _, a := range actions {
		s.act(n, a, ev)
	}
	if at := n.m.Next(); n.daemon && at != Never && (n.timer == Never || at < n.timer || n.timer <= s.now) {
		n.timer = max(at, s.now+50*time.Microsecond)
		if n.unread > 0 {
			n.timer = max(at, s.now+ms) // it catches up
		}
		s.at(n.timer-s.now, item{kind: itemTick, node: n.index, life: n.life})
	}
}

func (s *sim) act(n *node, a Action, ev Event) {
	switch a := a.(type) {
	case Ask:
		s.ask(n)
	case Look:
		s.look(n, a)
	case Claim:
		s.check.claimed(n, a.Term, ev)
		n.keeping++
		n.want = n.keeping
		s.at(s.upTo(ms), item{kind: itemPut, node: n.index, life: n.life, gen: n.want, by: a.Before})
	case Release:
		s.at(s.upTo(ms), item{kind: itemDel, node: n.index, life: n.life, gen: n.want})
		n.want = 0
	case Send:
		for range map[bool]int{true: 1, false: 3}[a.Message == MessageBeat] {
			s.send(n, a.Message)
		}
	case Done:
		s.die(n)
	}
}

// put is the first kernel call of a claim.
func (s *sim) put(n *node, it item) {
	switch {
	case it.gen != n.want:
		return
	case s.now >= it.by:
		n.want = 0
		s.step(n, Refused{Why: "the claim came too late", Late: true})
		return
	case s.refusals > 0:
		n.want = 0
		s.step(n, Refused{Why: "the kernel said no"})
		return
	}
	s.check.taking(n)
	s.hold(n)
	s.at(s.renewal(), item{kind: itemRenew, node: n.index, life: n.life, gen: it.gen})
}

// renewal is the time between two, as package pair has it.
func (s *sim) renewal() time.Duration { return max(min(s.Interval, s.Lease/4), 100*ms) }

func (s *sim) renew(n *node, it item) {
	if it.gen != n.want || (s.now-n.renewed >= s.Lease && !s.mutant.renewsLate) {
		return
	}
	s.check.taking(n)
	s.hold(n)
	s.at(s.renewal(), item{kind: itemRenew, node: n.index, life: n.life, gen: it.gen})
}

// hold makes the kernel hold the VIP for a lease; it ends late, never early.
func (s *sim) hold(n *node) {
	if !n.vip {
		s.logf("%s: kernel: VIP on", n.id.Name)
	}
	n.vip, n.renewed = true, s.now
	n.vipEnd = s.now + s.Lease + s.upTo(100*ms)
	s.at(n.vipEnd-s.now, item{kind: itemExpire, node: n.index})
	s.step(n, Renewed{Until: s.now + s.Lease})
}

// transit puts one item on a wire.
func (s *sim) transit(l *link, it item) {
	if l.cut > 0 || s.rng.Float64() < l.loss {
		return
	}
	s.at(l.delay+s.upTo(l.jitter), it)
	if s.rng.IntN(100) == 0 {
		s.at(l.delay+s.upTo(l.jitter), it)
	}
}

func (s *sim) send(n *node, message Message) {
	peer := s.nodes[1-n.index]
	n.seq++
	n.sent[n.seq%uint64(len(n.sent))] = s.now
	if !n.host {
		return
	}
	p := packet{
		from: n.index, message: message, inc: n.inc, seq: n.seq,
		echoInc: n.peerInc, echoSeq: n.peerSeq, role: n.m.role, term: n.m.term,
	}
	for i := range s.paths {
		s.transit(&s.paths[i][n.index], item{kind: itemPacket, node: peer.index, life: peer.life, packet: p})
	}
}

// receive is the session of package heartbeat in small.
func (s *sim) receive(n *node, p packet) {
	if !n.host {
		return
	}
	known := p.inc == n.peerInc
	if known && p.seq <= n.peerSeq {
		return
	}
	if !known || p.echoInc != n.inc {
		if p.echoInc != n.inc || p.echoSeq <= n.echoed {
			s.unproven(n, p)
			return
		}
	}
	n.peerInc, n.peerSeq = p.inc, p.seq
	n.knew = max(n.knew, p.term)
	n.echoed = max(n.echoed, p.echoSeq)
	if !known {
		n.metAt = s.now
		s.send(n, MessageBeat)
	}
	hears := n.seq-p.echoSeq < uint64(len(n.sent)) &&
		s.now-n.sent[p.echoSeq%uint64(len(n.sent))] < s.Dead+s.Interval/4
	switch p.message {
	case MessageBeat:
		s.step(n, Beat{From: s.nodes[p.from].id, Role: p.role, Term: p.term, HearsUs: hears})
	case MessageGoodbye:
		s.step(n, Goodbye{Term: p.term})
	case MessageReleased:
		s.step(n, Released{Term: p.term})
	}
}

// unproven answers an authentic packet that proves nothing, so that the next
// one can. The answer echoes the new incarnation.
func (s *sim) unproven(n *node, p packet) {
	if s.now-n.answeredAt < s.Interval/4 {
		return
	}
	n.answeredAt = s.now
	s.step(n, Tick{}) // as before every beat
	inc, seq := n.peerInc, n.peerSeq
	n.peerInc, n.peerSeq = p.inc, p.seq
	s.send(n, MessageBeat)
	n.peerInc, n.peerSeq = inc, seq
}

// ask puts a question on the LAN: the other kernel answers if it holds the
// VIP, and the other daemon sees a rival if it asks too.
func (s *sim) ask(n *node) {
	if !n.host || n.fault != "" {
		return
	}
	peer := s.nodes[1-n.index]
	s.transit(&s.lan[n.index], item{kind: itemAsk, node: peer.index})
	s.transit(&s.lan[n.index], item{
		kind: itemAnswer, node: peer.index, life: peer.life, answer: Answer{Who: "asked for", Asks: true, First: n.mac < peer.mac},
	})
	if s.foreign > 0 && s.lan[n.index].cut == 0 {
		s.at(ms, item{kind: itemAnswer, node: n.index, life: n.life, answer: Answer{Who: "a foreign host", First: true}})
	}
}

func (s *sim) asked(n *node) {
	asker := s.nodes[1-n.index]
	if n.host && n.vip {
		s.transit(&s.lan[n.index], item{
			kind: itemAnswer, node: asker.index, life: asker.life, answer: Answer{Who: n.id.Name, Peer: true, First: n.mac < asker.mac},
		})
	}
}

// start begins a daemon.
func (s *sim) start(n *node) {
	n.life++
	n.daemon, n.frozen = true, false
	n.inc, n.seq, n.peerInc, n.peerSeq, n.echoed = s.rng.Uint64()|1, 0, 0, 0, 0
	n.knew, n.thawed = 0, s.now
	n.unread, n.heldAt = 0, 0
	n.answeredAt, n.timer, n.want, n.backlog = -s.Interval, Never, 0, nil
	n.sent = [128]time.Duration{}
	cfg := s.Config
	cfg.Self = n.id
	n.m = New(cfg)
	s.logf("%s: daemon starts, VIP %v", n.id.Name, n.vip)
	s.step(n, Start{Held: n.vip, Fault: n.fault})
	s.at(s.Interval, item{kind: itemBeat, node: n.index, life: n.life})
}

func (s *sim) die(n *node) {
	s.logf("%s: daemon ends", n.id.Name)
	n.daemon, n.frozen, n.backlog = false, false, nil
	n.want = 0
	n.life++
}

// thaw lets a frozen daemon run on: what waited comes at once, its timers
// before or after its sockets.
func (s *sim) thaw(n *node) {
	if !n.frozen {
		return
	}
	s.logf("%s: thawed", n.id.Name)
	n.frozen, n.thawed = false, s.now
	backlog := n.backlog
	n.backlog = nil
	socketsFirst := s.rng.IntN(2) == 0
	for _, it := range backlog {
		if it.kind.socket() && !it.late {
			n.unread++
		}
	}
	for _, pass := range []bool{socketsFirst, !socketsFirst} {
		for _, it := range backlog {
			if it.kind.socket() == pass && n.daemon && it.life == n.life {
				it.late = it.late || pass
				s.deliver(n, it)
			}
		}
	}
}
