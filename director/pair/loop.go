package pair

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"lvstun/director/election"
	"lvstun/director/heartbeat"
	"lvstun/director/vip"
)

// farewells is how many copies of a packet go out that may be the last: a
// beat that is lost comes again, a goodbye does not.
const farewells = 3

// loop is the pair's one goroutine that decides: packets, the kernel's
// reports and time come in, it steps the election and does what it says.
type loop struct {
	p         *Pair
	inner     context.Context // of what lives until the loop has ended
	work      *sync.WaitGroup // the same
	epoch     time.Time
	cfg       Config // as of the last Reload
	digest    [heartbeat.DigestSize]byte
	timing    timing // in force
	machine   election.Machine
	session   *heartbeat.Session
	codec     *heartbeat.Codec
	packet    heartbeat.Packet // the last one read, kept to allocate nothing
	peer      heartbeat.Packet // the last one believed
	heardAt   time.Duration    // when it came
	same      bool             // its configuration is this director's, or not known
	differs   []string         // the parts in which it is not
	paths     []*path
	lastPath  int
	beats     *time.Ticker
	holder    *holder
	roles     *roles
	asking    int // questions to witnesses that are under way
	preparing bool
	linkFault string
	finished  bool
}

func newLoop(p *Pair, inner context.Context, work *sync.WaitGroup) (*loop, error) {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, fmt.Errorf("draw an incarnation: %w", err)
	}
	cfg := p.cfg
	l := &loop{
		p: p, inner: inner, work: work, epoch: time.Now(), cfg: cfg, digest: cfg.digest(), timing: timingOf(cfg),
		session: heartbeat.NewSession(cfg.Name, binary.BigEndian.Uint64(random[:])|1),
		codec:   heartbeat.NewCodec(cfg.Key), roles: newRoles(cfg.OnRole),
		beats: time.NewTicker(cfg.Interval), same: true,
	}
	l.machine = election.New(cfg.election(l.timing))
	l.tune()
	l.holder = &holder{
		host: p.host, holdings: holdingsOf(cfg), clock: l.now, log: p.log, wake: make(chan struct{}, 1),
		held:   p.board.held,
		report: func(ev election.Event) { p.post(inner, func(l *loop) { l.step(ev) }) },
	}
	return l, nil
}

func (l *loop) now() time.Duration { return time.Since(l.epoch) }

func (l *loop) close() {
	l.beats.Stop()
	for _, at := range l.paths {
		at.end()
		if at.socket != nil {
			_ = at.socket.Close()
		}
	}
}

// fault says what keeps this director from holding the VIPs.
func (l *loop) fault() string {
	if l.linkFault != "" {
		return l.linkFault
	}
	var closed []string
	for _, at := range l.paths {
		if at.socket != nil {
			return ""
		}
		closed = append(closed, at.err)
	}
	return strings.Join(closed, "; ") // every path is closed, or there are none
}

// condition tells the election of the fault as it is now.
func (l *loop) condition() { l.step(election.Condition{Fault: l.fault()}) }

// start begins the election.
func (l *loop) start(linkFault string) {
	l.linkFault = linkFault
	l.step(election.Start{Held: l.find(), Fault: l.fault()})
	if l.machine.Role() == election.Standby { // any other was told as a change
		l.roles.add(election.Standby)
	}
}

// find reports whether VIPs are here under a lease, and says which are here
// without one.
func (l *loop) find() (held bool) {
	presence, err := l.p.host.Find(l.cfg.VIPs)
	if err != nil {
		l.p.log.Error("VIPs not looked for", "err", err)
	}
	var permanent []vip.VIP
	for i, at := range presence {
		switch v := l.cfg.VIPs[i]; at {
		case vip.Leased:
			held = true
		case vip.Permanent:
			l.p.log.Warn("VIP is on this host without a lease: somebody else put it there; a claim will turn it into a lease", "vip", v.Addr, "device", v.Device)
			permanent = append(permanent, v)
		}
	}
	l.p.board.permanent(permanent)
	return held
}

// run turns until the election is done.
func (l *loop) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	stop := ctx.Done()
	for !l.finished {
		if next := l.machine.Next(); next == election.Never {
			timer.Stop()
		} else {
			timer.Reset(max(next-l.now(), 0))
		}
		select {
		case <-stop:
			stop = nil
			l.prepare(func(l *loop) { l.step(election.Stop{}) })
		case do := <-l.p.inbox:
			do(l)
		case <-timer.C:
			l.tick()
		case <-l.beats.C:
			l.tick()
			l.beat()
		}
	}
}

// How long a tick waits for what has come before it, and looks again.
const (
	catchUpFor   = 20 * time.Millisecond
	catchUpEvery = time.Millisecond
)

// tick lets time pass for the election, once all that has come before is
// heard: a director that was held up must not take for silence what it has
// not read. A flood of packets holds it up no longer than catchUpFor.
func (l *loop) tick() {
	end := l.now() + catchUpFor
	for !l.finished {
		pending := l.pending() // first: what is pending no more is in the inbox
		select {
		case do := <-l.p.inbox:
			do(l)
			if l.now() < end {
				continue
			}
		default:
			if pending && l.now() < end {
				l.wait(catchUpEvery)
				continue
			}
		}
		break
	}
	l.step(election.Tick{All: true})
}

// wait does what comes into the inbox next, or nothing for a while.
func (l *loop) wait(d time.Duration) {
	select {
	case do := <-l.p.inbox:
		do(l)
	case <-time.After(d):
	}
}

// pending reports whether something has come that is not in the inbox yet.
func (l *loop) pending() bool {
	return l.p.host.Pending() || slices.ContainsFunc(l.paths, func(at *path) bool {
		return at.socket != nil && at.socket.Pending()
	})
}

// beat says what this director is now, not what it was before it was held up.
func (l *loop) beat() {
	l.step(election.Tick{})
	if !l.finished {
		l.send(heartbeat.Beat)
	}
}

// step runs the election and does what it says.
func (l *loop) step(ev election.Event) {
	if l.finished {
		return
	}
	before := l.machine
	next, actions := l.machine.Step(ev, l.now())
	l.machine = next
	if before.Role() != next.Role() {
		l.p.log.Info("now "+next.Role().String(), "state", next.Role(), "from", before.Role(), "term", next.Term(), "reason", next.Reason())
		l.roles.add(next.Role())
	} else if before.Reason() != next.Reason() {
		l.p.log.Info("still "+next.Role().String(), "state", next.Role(), "term", next.Term(), "reason", next.Reason())
	}
	l.p.board.stepped(before, next)
	for _, action := range actions {
		l.act(action)
	}
}

func (l *loop) act(action election.Action) {
	switch action := action.(type) {
	case election.Ask:
		l.holder.order(order{kind: orderAsk})
	case election.Look:
		l.look(action)
	case election.Claim:
		l.holder.order(order{kind: orderClaim, before: action.Before})
	case election.Release:
		o := order{kind: orderRelease}
		if action.Handover && l.cfg.OnHandover != nil {
			o.handover, o.within = l.cfg.OnHandover, lastWords
		}
		l.holder.order(o)
	case election.Announce:
		l.holder.order(order{kind: orderAnnounce})
	case election.Send:
		switch action.Message {
		case election.MessageBeat:
			l.send(heartbeat.Beat)
		case election.MessageReleased:
			l.send(heartbeat.Released)
		case election.MessageGoodbye:
			for range farewells {
				l.send(heartbeat.Goodbye)
			}
		}
	case election.Done:
		l.finished = true
	}
}

// send sends one packet on every path.
func (l *loop) send(kind heartbeat.Kind) {
	p := l.session.Next(kind, l.now())
	p.Role, p.Term, p.Digest = uint8(l.machine.Role()), l.machine.Term(), l.digest
	if v, ok := lowest(l.cfg.VIPs); ok {
		p.MAC = l.p.host.MAC(v)
	}
	b := l.codec.Encode(&p)
	for _, at := range l.paths {
		if at.socket != nil {
			l.p.board.sent(at.id, at.socket.Send(b[:]))
		}
	}
}

// datagram is what a reader hands over.
type datagram struct {
	b        [heartbeat.Size + 1]byte // one more, to see that it is too long
	n        int
	fromPeer bool
}

// received judges one datagram and lets the election hear of it.
func (l *loop) received(at *path, d *datagram) {
	drop := heartbeat.Source
	if d.fromPeer {
		drop = l.codec.Decode(d.b[:d.n], &l.packet)
	}
	if drop == heartbeat.Kept && !election.Role(l.packet.Role).Valid() {
		drop = heartbeat.Malformed
	}
	var v heartbeat.Verdict
	if drop == heartbeat.Kept {
		v = l.session.Receive(&l.packet, at.id, l.now())
		drop = v.Drop
	}
	if l.p.board.dropped(at.id, drop) {
		l.p.log.Warn("heartbeat dropped, the first for this reason on this path", "peer", at.Peer, "reason", drop)
	}
	if drop == heartbeat.Kept {
		l.believed(at, v)
	}
	if v.Answer && !l.finished {
		l.beat()
	}
}

// missed is how long a peer may not have been heard and know every flow.
const missed = time.Second

// believed lets the election hear a proven packet.
func (l *loop) believed(at *path, v heartbeat.Verdict) {
	p := &l.packet
	l.p.board.heard(at.id, p, v.HearsUs)
	if !v.Newest {
		return
	}
	if (p.Incarnation != l.peer.Incarnation || l.now()-l.heardAt > max(l.timing.dead, missed)) && l.cfg.OnPeer != nil {
		l.cfg.OnPeer()
	}
	l.peer, l.heardAt = *p, l.now()
	l.compare()
	switch p.Kind {
	case heartbeat.Beat:
		l.step(election.Beat{
			From: election.ID{Addr: p.Addr, Name: p.Name}, Role: election.Role(p.Role), Term: p.Term, HearsUs: v.HearsUs,
		})
	case heartbeat.Goodbye:
		l.step(election.Goodbye{Term: p.Term})
	case heartbeat.Released:
		l.step(election.Released{Term: p.Term})
	case heartbeat.Handover:
		why := fmt.Sprintf("%s asked for the VIPs", p.Name)
		if !l.preparing { // it asks more than once
			l.prepare(func(l *loop) { l.step(election.Handover{Why: why}) })
		}
	}
}

// What the calls of OnHandover may take: those before the VIPs go, together,
// and the last, while nobody has them.
const (
	prepareFor = time.Second
	lastWords  = 20 * time.Millisecond
)

// prepare lets an active director do what a handover needs, and do then.
func (l *loop) prepare(do func(*loop)) {
	told := l.cfg.OnHandover
	if told == nil || l.machine.Role() != election.Active {
		do(l)
		return
	}
	l.preparing = true
	l.work.Go(func() {
		ctx, cancel := context.WithTimeout(l.inner, prepareFor)
		defer cancel()
		told(ctx)
		told(ctx)
		l.p.post(l.inner, func(l *loop) {
			l.preparing = false
			do(l)
		})
	})
}

// handover gives the VIPs away, or asks for them, and says so.
func (l *loop) handover(done chan<- error) {
	switch {
	case l.machine.Role() == election.Active:
		l.prepare(func(l *loop) {
			l.step(election.Handover{Why: "the operator asked to hand over"})
			if l.machine.Role() == election.Active {
				done <- errors.New("hand over: no standby is ready to take the VIPs")
			} else {
				done <- nil
			}
		})
	case !l.p.board.alive(time.Now()) || election.Role(l.peer.Role) != election.Active:
		done <- errors.New("hand over: neither director is active")
	default:
		for range farewells {
			l.send(heartbeat.Handover)
		}
		done <- nil
	}
}

// sighted hears what a neighbour says of a VIP.
func (l *loop) sighted(v vip.VIP, s vip.Sighting) {
	first, ok := lowest(l.cfg.VIPs)
	own := l.p.host.MAC(first)
	switch {
	case !ok:
		return
	case s.Asks && v.Addr != first.Addr: // it asks for the lowest as well
		return
	case s.Asks:
		l.step(election.Answer{
			Who: fmt.Sprintf("%s is asked for by %s too", v.Addr, s.MAC), Asks: true, First: lower(s.MAC, own),
		})
		return
	}
	if l.p.board.foreign(v, s.MAC.String(), time.Now()) && l.machine.Role() == election.Active {
		l.p.log.Warn("another host has the VIP as well", "vip", v.Addr, "mac", s.MAC)
	}
	l.step(election.Answer{
		Who:  fmt.Sprintf("%s is held by %s", v.Addr, s.MAC),
		Peer: l.peer.Name != "" && vip.MAC(l.peer.MAC) == s.MAC, First: lower(s.MAC, own),
	})
}

func lower(a, b vip.MAC) bool { return bytes.Compare(a[:], b[:]) < 0 }
