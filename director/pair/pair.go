package pair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"lvstun/director/heartbeat"
	"lvstun/director/vip"
)

// kernel is what the pair needs of the host: package vip, or a fake.
type kernel interface {
	// Open opens what the VIPs need, or says what is missing.
	Open([]vip.VIP) error
	// Use goes over to other VIPs, or fails and changes nothing.
	Use([]vip.VIP) error
	Close()
	Put(v vip.VIP, lease time.Duration) error
	Remove(vip.VIP) error
	Find([]vip.VIP) ([]vip.Presence, error)
	Ask() error
	AskFor(vip.VIP) error
	AskGateway() bool
	Announce() error
	Pending() bool // something was heard that Run has not reported yet
	MAC(vip.VIP) vip.MAC
	LinkFault([]vip.VIP) string
	// Run reports what it hears of the VIPs, and every change of LinkFault
	// since known, until ctx ends.
	Run(ctx context.Context, known string, hear hearing)
}

// socket is one end of a path: a heartbeat.Socket, or a fake.
type socket interface {
	Send([]byte) error
	Receive([]byte) (n int, fromPeer bool, err error)
	Pending() bool // something came that Receive's caller has not dealt with
	Close() error
}

var _ socket = (*heartbeat.Socket)(nil)

// Pair is this director's half of the pair.
type Pair struct {
	cfg    Config // Reload's, once Run has begun
	log    *slog.Logger
	ready  chan struct{}
	host   kernel
	listen func(Path, uint16) (socket, error)
	board  board
	inbox  chan func(*loop)
	done   chan struct{} // closed when Run ends
}

// inboxSize bounds what waits for the loop; readers wait when it is full.
const inboxSize = 256

// New checks cfg and makes a Pair that does nothing until Run. The error
// names every problem of cfg at once.
func New(cfg Config, log *slog.Logger) (*Pair, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("pair: %w", err)
	}
	p := &Pair{
		cfg: cfg, log: log, ready: make(chan struct{}), inbox: make(chan func(*loop), inboxSize),
		done: make(chan struct{}),
		host: newHost(),
		listen: func(path Path, port uint16) (socket, error) {
			s, err := heartbeat.Listen(path, port)
			if err != nil {
				return nil, err // not a nil *Socket in an interface
			}
			return s, nil
		},
	}
	p.board.init(cfg)
	return p, nil
}

// Ready is closed when the sockets are open and the election has begun.
func (p *Pair) Ready() <-chan struct{} { return p.ready }

// Status is what the pair looks like now.
func (p *Pair) Status() Status { return p.board.status(time.Now()) }

// Run takes part in the pair until ctx ends, then leaves it in order: hands
// the VIPs to a ready standby or leaves them to their kernel lease, says
// goodbye on every path, and closes what it opened. It returns an error if
// the host lacks what a director needs. It may be called once.
func (p *Pair) Run(ctx context.Context) error {
	defer close(p.done)
	if err := p.host.Open(p.cfg.VIPs); err != nil {
		return err
	}
	defer p.host.Close()
	// What Run starts lives until the loop has ended, which outlives ctx.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	l, err := newLoop(p, inner, &wg)
	if err != nil {
		return err
	}
	defer l.close()
	ways := p.cfg.ways()
	opened, err := p.open(ways)
	if err != nil {
		return err
	}
	for _, w := range ways {
		l.begin(inner, w, opened[w])
	}
	fault := p.host.LinkFault(p.cfg.VIPs)
	wg.Go(func() { l.holder.run(inner) })
	wg.Go(l.roles.run)
	defer l.roles.end()
	wg.Go(func() { p.host.Run(inner, fault, p.hearing(inner)) })
	l.start(fault)
	close(p.ready)
	l.run(ctx)
	return nil
}

// errStopped says that the pair does not run.
var errStopped = errors.New("the pair does not run")

// Handover gives the VIPs to the other director: the active one hands them
// over, the standby asks for them. It returns when that is under way, or an
// error if there is nobody to hand over to or to ask.
func (p *Pair) Handover(ctx context.Context) error {
	return p.call(ctx, func(l *loop, done chan<- error) { l.handover(done) })
}

// post gives the loop something to do.
func (p *Pair) post(ctx context.Context, do func(*loop)) {
	select {
	case p.inbox <- do:
	case <-ctx.Done():
	}
}
