package pair

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
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
	epoch     time.Time
	machine   election.Machine
	session   *heartbeat.Session
	codec     *heartbeat.Codec
	packet    heartbeat.Packet // the last one read, kept to allocate nothing
	peer      heartbeat.Packet // the last one believed
	paths     []*path
	holder    *holder
	roles     *roles
	linkFault string
	finished  bool
}

// path is one heartbeat path with its socket, nil while it has none.
type path struct {
	Path
	socket socket
	err    string // why it has none
}

func newLoop(p *Pair) (*loop, error) {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, fmt.Errorf("draw an incarnation: %w", err)
	}
	cfg := p.cfg
	self := cfg.self()
	l := &loop{
		p: p, epoch: time.Now(),
		machine: election.New(election.Config{
			Self: self, Alone: len(cfg.Paths) == 0,
			Interval: cfg.Interval, Dead: cfg.Dead, Lease: cfg.Lease,
		}),
		session: heartbeat.NewSession(cfg.Name, self.Addr, binary.BigEndian.Uint64(random[:])|1,
			len(cfg.Paths), cfg.Dead+cfg.Interval, cfg.Interval/4),
		codec: heartbeat.NewCodec(cfg.Key),
		roles: newRoles(cfg.OnRole),
	}
	for _, at := range cfg.Paths {
		l.paths = append(l.paths, &path{Path: at})
	}
	l.holder = &holder{
		host: p.host, vips: cfg.VIPs, lease: cfg.Lease, every: renewalEvery(cfg.Interval, cfg.Lease),
		clock: l.now, log: p.log, wake: make(chan struct{}, 1), held: p.board.held,
	}
	return l, nil
}

func (l *loop) now() time.Duration { return time.Since(l.epoch) }

// openPaths opens what can be opened. An address that may still come is no
// error.
func (l *loop) openPaths() error {
	var errs []error
	for i, at := range l.paths {
		s, err := l.p.listen(at.Path, l.p.cfg.Port)
		if err != nil && !errors.Is(err, heartbeat.ErrNoAddress) {
			errs = append(errs, err)
			continue
		}
		l.bound(i, s, err)
	}
	return errors.Join(errs...)
}

// bound notes that path i has a socket now, or why it has none.
func (l *loop) bound(i int, s socket, err error) {
	at := l.paths[i]
	at.socket, at.err = s, ""
	if err != nil {
		at.socket, at.err = nil, err.Error()
		l.p.log.Warn("heartbeat path not open, trying again", "local", at.Local, "err", err)
	}
	l.p.board.bound(i, at.err)
}

func (l *loop) close() {
	for _, at := range l.paths {
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
	presence, err := l.p.host.Find(l.p.cfg.VIPs)
	if err != nil {
		l.p.log.Error("VIPs not looked for", "err", err)
	}
	held := false
	for i, at := range presence {
		switch v := l.p.cfg.VIPs[i]; at {
		case vip.Leased:
			held = true
		case vip.Permanent:
			l.p.log.Warn("VIP is on this host without a lease: somebody else put it there; a claim will turn it into a lease", "vip", v.Addr, "device", v.Device)
			l.p.board.problem("permanent "+v.Addr.String(),
				fmt.Sprintf("%s was there before this director started, without a lease: take it out of the host's network configuration", v))
		}
	}
	l.roles.add(l.machine.Role())
	l.step(election.Start{Held: held, Fault: l.fault()})
}

// run turns until the election is done.
func (l *loop) run(ctx context.Context) {
	beat := time.NewTicker(l.p.cfg.Interval)
	defer beat.Stop()
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
			l.step(election.Stop{})
		case do := <-l.p.inbox:
			do(l)
		case <-timer.C:
			l.step(election.Tick{})
		case <-beat.C:
			l.beat()
		}
	}
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
		l.p.log.Info("role", "state", next.Role(), "from", before.Role(), "term", next.Term(), "reason", next.Reason())
		l.roles.add(next.Role())
	} else if before.Reason() != next.Reason() {
		l.p.log.Info("reason", "state", next.Role(), "term", next.Term(), "reason", next.Reason())
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
	case election.Claim:
		l.holder.order(order{kind: orderClaim, before: action.Before})
	case election.Release:
		l.holder.order(order{kind: orderRelease})
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
	p.Role, p.Term, p.Digest = uint8(l.machine.Role()), l.machine.Term(), l.p.cfg.Digest
	b := l.codec.Encode(&p)
	for i, at := range l.paths {
		if at.socket != nil {
			l.p.board.sent(i, at.socket.Send(b[:]))
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
func (l *loop) received(i int, d *datagram) {
	drop := heartbeat.Source
	if d.fromPeer {
		drop = l.codec.Decode(d.b[:d.n], &l.packet)
	}
	if drop == heartbeat.Kept && !election.Role(l.packet.Role).Valid() {
		drop = heartbeat.Malformed
	}
	var v heartbeat.Verdict
	if drop == heartbeat.Kept {
		v = l.session.Receive(&l.packet, i, l.now())
		drop = v.Drop
	}
	if l.p.board.dropped(i, drop) {
		l.p.log.Warn("heartbeat dropped, the first for this reason on this path", "peer", l.paths[i].Peer, "reason", drop)
	}
	if drop == heartbeat.Kept {
		l.believed(i, v)
	}
	if v.Answer && !l.finished {
		l.beat()
	}
}

// believed lets the election hear a proven packet.
func (l *loop) believed(i int, v heartbeat.Verdict) {
	p := &l.packet
	l.p.board.heard(i, p, v.HearsUs)
	if !v.Newest {
		return
	}
	if p.Digest != l.p.cfg.Digest && (l.peer.Name == "" || l.peer.Digest == l.p.cfg.Digest) {
		l.p.log.Warn("the peer runs another configuration", "peer", p.Name)
	}
	l.peer = *p
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
		l.step(election.Handover{Why: fmt.Sprintf("%s asked for the VIPs", p.Name)})
	}
}

// handover gives the VIPs away, or asks for them.
func (l *loop) handover() error {
	if l.machine.Role() != election.Active {
		if !l.p.board.status(time.Now()).Peer.Alive || election.Role(l.peer.Role) != election.Active {
			return errors.New("hand over: neither director is active")
		}
		for range farewells {
			l.send(heartbeat.Handover)
		}
		return nil
	}
	l.step(election.Handover{Why: "the operator asked to hand over"})
	if l.machine.Role() == election.Active {
		return errors.New("hand over: no standby is ready to take the VIPs")
	}
	return nil
}

// sighted hears what neighbours say of the VIPs.
func (p *Pair) sighted(ctx context.Context) func(vip.VIP, vip.Sighting) {
	return func(v vip.VIP, s vip.Sighting) {
		if s.Asks {
			if own := p.host.MAC(v); string(s.MAC[:]) >= string(own[:]) {
				return // it sees this director's questions and waits
			}
			p.post(ctx, func(l *loop) {
				l.step(election.Answer{Who: fmt.Sprintf("%s is asked for by %s too", v.Addr, s.MAC), Rival: true})
			})
			return
		}
		p.board.foreign(v, s.MAC.String(), time.Now())
		p.post(ctx, func(l *loop) {
			l.step(election.Answer{Who: fmt.Sprintf("%s is held by %s", v.Addr, s.MAC)})
		})
	}
}

// rebindEvery is the time between two attempts to open a path.
const rebindEvery = 500 * time.Millisecond

// receive reads path i until ctx ends, and opens it again when it must.
func (p *Pair) receive(ctx context.Context, i int, s socket) {
	at := p.cfg.Paths[i]
	for {
		if s != nil {
			stop := context.AfterFunc(ctx, func() { _ = s.Close() })
			err := p.read(ctx, i, s)
			stop()
			_ = s.Close()
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			s = nil
			p.post(ctx, func(l *loop) { l.bound(i, nil, err); l.condition() })
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rebindEvery):
		}
		opened, err := p.listen(at, p.cfg.Port)
		if err != nil {
			p.board.bound(i, err.Error())
			continue
		}
		s = opened
		p.post(ctx, func(l *loop) { l.bound(i, opened, nil); l.condition() })
	}
}

// read hands datagrams to the loop until the socket fails.
func (p *Pair) read(ctx context.Context, i int, s socket) error {
	for {
		d := new(datagram)
		n, fromPeer, err := s.Receive(d.b[:])
		if err != nil {
			return err
		}
		d.n, d.fromPeer = n, fromPeer
		p.post(ctx, func(l *loop) { l.received(i, d) })
	}
}
