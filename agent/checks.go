package agent

import (
	"context"
	"sync"

	"lvstun/httpcheck"
)

// runCheck runs the check of t until ctx ends and calls report after every probe.
type runCheck func(ctx context.Context, t target, report func(httpcheck.Update)) error

// probeLocally binds the probe to the address it asks: that fails unless this host itself holds the
// VIP, where an unbound probe would wander off to the active director and be answered by another real
// server.
func probeLocally(ctx context.Context, t target, report func(httpcheck.Update)) error {
	checker, err := httpcheck.New(t.spec, httpcheck.WithDial(httpcheck.DialFrom(t.addr.Addr())))
	if err != nil {
		return err
	}
	checker.Run(ctx, t.addr, report)
	return nil
}

// checks are the running checks of the services, and what they found.
type checks struct {
	run  runCheck
	wake func() // called after a verdict changed
	wg   sync.WaitGroup

	running map[string]*check // of the main loop
}

// check is one that runs.
type check struct {
	target target
	cancel context.CancelFunc

	mu      sync.Mutex // guards verdict
	verdict verdict
}

// set starts and stops checks so that exactly those of targets run. A check whose spec changed goes on
// with the verdict of the one before it, until it has its own; one that moved to another VIP begins anew.
func (c *checks) set(ctx context.Context, targets map[string]target) {
	for name, old := range c.running {
		if t, ok := targets[name]; !ok || t != old.target {
			old.cancel()
		}
	}
	next := map[string]*check{}
	for name, t := range targets {
		old := c.running[name]
		if old != nil && old.target == t {
			next[name] = old
			continue
		}
		k := &check{target: t}
		if old != nil && old.target.addr == t.addr {
			k.verdict = old.read()
		}
		next[name] = k
		c.start(ctx, k)
	}
	c.running = next
}

func (c *checks) start(ctx context.Context, k *check) {
	ctx, k.cancel = context.WithCancel(ctx)
	c.wg.Go(func() {
		err := c.run(ctx, k.target, func(u httpcheck.Update) {
			if k.observe(u) {
				c.wake()
			}
		})
		if err != nil {
			k.fail(err)
			c.wake()
		}
	})
}

// stop ends every check and waits for it.
func (c *checks) stop() {
	for _, k := range c.running {
		k.cancel()
	}
	c.wg.Wait()
}

// verdicts are what the running checks say now.
func (c *checks) verdicts() map[string]verdict {
	all := make(map[string]verdict, len(c.running))
	for name, k := range c.running {
		all[name] = k.read()
	}
	return all
}

func (k *check) read() verdict {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.verdict
}

// observe reports whether u changed the verdict.
func (k *check) observe(u httpcheck.Update) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	next := k.verdict
	if u.State != httpcheck.Unknown {
		next.state = u.State
	}
	switch {
	case next.state == httpcheck.Up:
		next.reason = ""
	case !u.Result.OK:
		next.reason = u.Result.Reason
	}
	changed := next != k.verdict
	k.verdict = next
	return changed
}

// fail is the verdict of a check that cannot run at all.
func (k *check) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.verdict = verdict{state: httpcheck.Down, reason: err.Error()}
}
