package director

import (
	"context"
	"maps"
	"net/netip"
	"sync"

	"lvstun/httpcheck"
)

// checks runs one health check for every target that asks for one and
// remembers the last verdict of each.
type checks struct {
	changed func() // called when a verdict changed; never under the lock

	mu       sync.Mutex // guards running and verdicts
	running  map[Target]runningCheck
	verdicts map[Target]httpcheck.Update
	wait     sync.WaitGroup
}

type runningCheck struct {
	want assignment
	stop context.CancelFunc
}

// An assignment is what to check, and where.
type assignment struct {
	spec httpcheck.Spec
	addr netip.AddrPort
}

func newChecks(changed func()) *checks {
	return &checks{
		changed:  changed,
		running:  make(map[Target]runningCheck),
		verdicts: make(map[Target]httpcheck.Update),
	}
}

// keep starts the checks that are wanted and not running, and stops the others
// and forgets their verdicts. An unchanged check goes on undisturbed.
func (c *checks) keep(ctx context.Context, want map[Target]assignment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for t, r := range c.running {
		if w, ok := want[t]; !ok || w != r.want {
			r.stop()
			delete(c.running, t)
			delete(c.verdicts, t)
		}
	}
	for t, w := range want {
		if _, ok := c.running[t]; ok {
			continue
		}
		checker, err := httpcheck.New(w.spec)
		if err != nil { // the configuration was validated with the same rules
			c.verdicts[t] = httpcheck.Update{State: httpcheck.Down, Result: httpcheck.Result{Reason: err.Error()}}
			continue
		}
		checkCtx, stop := context.WithCancel(ctx)
		c.running[t] = runningCheck{want: w, stop: stop}
		c.wait.Go(func() {
			checker.Run(checkCtx, w.addr, func(u httpcheck.Update) { c.record(checkCtx, t, u) })
		})
	}
}

// record keeps a verdict, unless its check was stopped meanwhile.
func (c *checks) record(ctx context.Context, t Target, u httpcheck.Update) {
	c.mu.Lock()
	stopped := ctx.Err() != nil
	if !stopped {
		c.verdicts[t] = u
	}
	c.mu.Unlock()
	if u.Changed && !stopped {
		c.changed()
	}
}

// snapshot returns the verdicts so far.
func (c *checks) snapshot() map[Target]httpcheck.Update {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.verdicts)
}

// stop ends every check and waits for it.
func (c *checks) stop() {
	c.keep(context.Background(), nil)
	c.wait.Wait()
}
