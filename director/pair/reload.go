package pair

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lvstun/director/election"
)

// Reload goes over to cfg without a failover and without missing a beat. VIPs
// that are new are put up and announced at once by the active director, those
// that are gone are taken off. An error names every problem of cfg, and
// nothing has changed then. The name and the key cannot change; what is to
// be called stays what it was.
//
// A new timing is in force as soon as the peer has it too. Until then this
// director beats as often, and waits as long, as either asks for.
//
// Reload waits until Run has begun. It must not be called again before it has
// returned.
func (p *Pair) Reload(ctx context.Context, cfg Config) error {
	select {
	case <-p.ready:
	case <-p.done:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	old := p.cfg
	cfg = cfg.withDefaults()
	cfg.OnRole, cfg.OnHandover, cfg.OnPeer, cfg.AskWitnesses = old.OnRole, old.OnHandover, old.OnPeer, old.AskWitnesses
	if err := errors.Join(p.unchangeable(cfg), cfg.validate(), p.linkFault(old, cfg)); err != nil {
		return fmt.Errorf("reload the pair: %w", err)
	}
	opened, err := p.open(newWays(old, cfg))
	if err != nil {
		return fmt.Errorf("reload the pair: %w", err)
	}
	if err := p.swap(ctx, old, cfg, opened); err != nil {
		closeAll(opened)
		return fmt.Errorf("reload the pair: %w", err)
	}
	p.cfg = cfg
	return nil
}

// unchangeable says what of cfg needs a restart.
func (p *Pair) unchangeable(cfg Config) error {
	var errs []error
	if cfg.Name != p.cfg.Name {
		errs = append(errs, fmt.Errorf("name %q: a director keeps its name %q until it is restarted", cfg.Name, p.cfg.Name))
	}
	if cfg.Key != p.cfg.Key {
		errs = append(errs, errors.New("key: a new cluster key needs a restart of both directors"))
	}
	return errors.Join(errs...)
}

// linkFault refuses VIPs that would put a healthy director in fault.
func (p *Pair) linkFault(old, cfg Config) error {
	if fault := p.host.LinkFault(cfg.VIPs); fault != "" && p.host.LinkFault(old.VIPs) == "" {
		return fmt.Errorf("VIPs: %s", fault)
	}
	return nil
}

// newWays lists the ways of cfg that can be opened beside those of old.
func newWays(old, cfg Config) []way {
	before := old.ways()
	return slices.DeleteFunc(cfg.ways(), func(w way) bool {
		return slices.ContainsFunc(before, func(o way) bool { return o.Local == w.Local && o.port == w.port })
	})
}

// swap brings cfg into force: first what the kernel may refuse, then the rest.
func (p *Pair) swap(ctx context.Context, old, cfg Config, opened map[way]socket) error {
	if err := p.host.Use(cfg.VIPs); err != nil {
		return err
	}
	err := p.call(ctx, func(l *loop, done chan<- error) {
		l.holder.order(order{kind: orderChange, to: holdingsOf(cfg), done: done})
	})
	if err != nil {
		return errors.Join(err, p.host.Use(old.VIPs))
	}
	return p.call(context.WithoutCancel(ctx), func(l *loop, done chan<- error) {
		l.reload(cfg, opened)
		done <- nil
	})
}

// call gives the loop something to do and waits for its result.
func (p *Pair) call(ctx context.Context, do func(l *loop, done chan<- error)) error {
	done := make(chan error, 1)
	select {
	case p.inbox <- func(l *loop) { do(l, done) }:
	case <-p.done:
		return errStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	select { // what has begun ends soon
	case err := <-done:
		return err
	case <-p.done:
		return errStopped
	}
}

// reload brings into force what the kernel has no say in.
func (l *loop) reload(cfg Config, opened map[way]socket) {
	l.p.log.Info("configuration of the pair reloaded", "vips", len(cfg.VIPs), "paths", len(cfg.Paths), "interval", cfg.Interval, "dead", cfg.Dead)
	old := l.cfg
	l.cfg, l.digest = cfg, cfg.digest()
	l.p.board.reload(cfg)
	ways := cfg.ways()
	l.paths = slices.DeleteFunc(l.paths, func(at *path) bool {
		gone := !slices.Contains(ways, at.way)
		if gone {
			l.finish(at)
		}
		return gone
	})
	for _, w := range ways {
		if !slices.ContainsFunc(l.paths, func(at *path) bool { return at.way == w }) {
			l.begin(l.inner, w, opened[w])
		}
	}
	if !slices.Equal(old.VIPs, cfg.VIPs) {
		l.find()
	}
	if l.machine.Role() == election.Active {
		for _, v := range without(cfg.VIPs, old.VIPs) { // up already: who else has it is shown
			l.holder.order(order{kind: orderAskFor, vip: v})
		}
	}
	l.compare()
	l.retime()
	l.condition()
	l.beat()
}

// timing is how often this director beats and how long it waits for a beat.
type timing struct {
	interval, dead time.Duration
}

func timingOf(c Config) timing { return timing{c.Interval, c.Dead} }

// retime brings the configured timing into force where the peer has it too,
// and else one that suits both.
func (l *loop) retime() {
	want := timingOf(l.cfg)
	if !l.agreed() {
		want = timing{min(want.interval, l.timing.interval), max(want.dead, l.timing.dead)}
	}
	if l.timing.interval != want.interval {
		l.beats.Reset(want.interval)
	}
	l.timing = want
	l.tune()
	l.step(election.Reconfigured{Config: l.cfg.election(want)})
}

// agreed reports whether the peer has this director's configuration, or
// cannot be asked.
func (l *loop) agreed() bool {
	return l.peer.Digest == l.digest || !l.p.board.alive(time.Now())
}

// tune tells the session and the board the timing.
func (l *loop) tune() {
	t := l.timing
	l.session.Tune(l.cfg.self().Addr, t.dead+t.interval, t.interval/4)
	l.p.board.tune(t)
}

// compare notes in what the peer's configuration differs, and takes up the
// timing that waited for it.
func (l *loop) compare() {
	same := l.peer.Name == "" || l.peer.Digest == l.digest
	var differs []string
	if !same {
		differs = l.cfg.differing(l.peer.Digest)
	}
	if !same && (l.same || !slices.Equal(differs, l.differs)) {
		l.p.log.Warn("the peer runs another configuration", "peer", l.peer.Name, "differs", strings.Join(differs, ", "))
	}
	if same != l.same || !slices.Equal(differs, l.differs) {
		l.same, l.differs = same, differs
		l.p.board.compared(same, differs)
	}
	if same && l.timing != timingOf(l.cfg) {
		l.retime()
	}
}
