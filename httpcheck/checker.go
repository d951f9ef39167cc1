package httpcheck

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"time"
)

// Update is what a Checker says after every probe.
type Update struct {
	State   State  // after this probe
	Changed bool   // by this probe
	Result  Result // of this probe
}

// Checker runs one Spec on its interval.
type Checker struct {
	spec  Spec
	probe func(context.Context, netip.AddrPort) Result
}

// New prepares a checker. The error holds every problem that Spec.Validate found.
func New(spec Spec, opts ...Option) (*Checker, error) {
	p, err := newProber(spec, opts)
	if err != nil {
		return nil, err
	}
	return &Checker{spec: spec, probe: p.probe}, nil
}

// Run probes target until ctx ends, and calls report after every probe, from this goroutine. The first
// probe is made at once; the second after a random part of the interval, so that checks that began
// together spread out; from then on they keep the interval exactly. A probe never overlaps itself: a
// beat that falls into a running probe is left out. Kind none reports Up once.
func (c *Checker) Run(ctx context.Context, target netip.AddrPort, report func(Update)) {
	tracker := NewTracker(c.spec.Rise, c.spec.Fall)
	next := time.Now()
	if interval := time.Duration(c.spec.Interval); interval > 0 {
		next = next.Add(-rand.N(interval)) // the beat the first probe stands for
	}
	for {
		result := c.probe(ctx, target)
		if ctx.Err() != nil {
			return // the probe was cut short: its result says nothing about the target
		}
		state, changed := tracker.Observe(result)
		report(Update{State: state, Changed: changed, Result: result})
		if c.spec.Kind == None {
			<-ctx.Done()
			return
		}
		next = following(next, time.Now(), time.Duration(c.spec.Interval))
		timer := time.NewTimer(time.Until(next))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// following is the first beat after now on the grid that last lies on.
func following(last, now time.Time, interval time.Duration) time.Time {
	missed := max(now.Sub(last)/interval, 0)
	return last.Add((missed + 1) * interval)
}
