package director

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"lvstun/director/election"
	"lvstun/director/ipvs"
	"lvstun/director/pair"
)

// SyncKernel runs the kernel's connection sync daemons of this host, and tells
// their group of flows itself.
type SyncKernel interface {
	ApplySync(ctx context.Context, desired []ipvs.SyncDaemon) (ipvs.SyncReport, error)
	SendFlows(ctx context.Context, to ipvs.SyncDaemon, pace int, want func(ipvs.Flow) bool) (sent int, err error)
}

var _ SyncKernel = (*ipvs.Handle)(nil)

// How many flows are told in a second: at a handover, while clients wait, and
// to a standby that has come, where nobody does.
const (
	flushPace   = 128_000
	arrivalPace = 20_000
)

// recently is how long Flush remembers what it told, and that this director
// was the active one.
const recently = 5 * time.Second

// arrivals are the pauses after which a standby that arrived is told of every
// flow: its daemon must listen by then, and the second time the real servers
// have registered with it, for it drops the packets of a flow whose real server
// it did not have when it learned of it.
var arrivals = []time.Duration{time.Second, 14 * time.Second}

// ConnSync keeps the kernel's connection sync daemon in step with the role:
// master on the active director, backup on any other. So an established flow
// outlives the move of its VIP. What the master does not tell the standby,
// Flush and PeerArrived do: flows that are only being opened, those of the last
// moments, and those that were idle since the standby started.
type ConnSync struct {
	kernel  SyncKernel
	device  string
	id      int
	log     *slog.Logger
	wake    chan struct{} // a signal: the role has changed
	arrived chan struct{} // a signal: a standby has arrived

	mu      sync.Mutex // guards what follows
	role    pair.Role
	left    time.Time // when this director ceased to be the active one; zero if it never was
	problem string    // why the daemon does not run as it should; empty when it does
	untold  string    // why a standby that arrived does not know every flow; empty when it does

	flushing sync.Mutex             // guards what follows
	flushed  time.Time              // the last time
	told     map[ipvs.Flow]struct{} // by the flushes until then; nil when that is long ago
}

// NewConnSync prepares the daemon on a device, with the cluster's sync ID.
func NewConnSync(kernel SyncKernel, device string, id int, log *slog.Logger) *ConnSync {
	return &ConnSync{kernel: kernel, device: device, id: id, log: log,
		wake: make(chan struct{}, 1), arrived: make(chan struct{}, 1)}
}

// Follow tells the role this director has now. It never blocks.
func (c *ConnSync) Follow(role pair.Role) {
	c.mu.Lock()
	if c.role == election.Active && role != election.Active {
		c.left = time.Now()
	}
	c.role = role
	c.mu.Unlock()
	signal(c.wake)
}

// PeerArrived says that the other director is there, again or for the first
// time. An active director then tells it of every flow, without haste. It never
// blocks.
func (c *ConnSync) PeerArrived() { signal(c.arrived) }

func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// Problems are why flows are not synchronised, none when they are.
func (c *ConnSync) Problems() (problems []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range []string{c.problem, c.untold} {
		if p != "" {
			problems = append(problems, p)
		}
	}
	return problems
}

// Flush tells the standby of every flow, in as long as ctx lasts. It is for a
// director that gives the VIPs away: once before they are taken off their
// device, which may take its time, and once after, when no packet comes any
// more and clients wait. The second time, within recently, only what has come
// up or changed its state since goes out. Flush works before and after Run too,
// and does nothing on a director that is not, and has not just been, the active
// one. What goes wrong is logged.
func (c *ConnSync) Flush(ctx context.Context) {
	c.mu.Lock()
	active := c.role == election.Active || time.Since(c.left) < recently
	c.mu.Unlock()
	if !active {
		return
	}
	c.flushing.Lock()
	defer c.flushing.Unlock()
	if c.told == nil {
		c.told = make(map[ipvs.Flow]struct{})
	}
	began := time.Now()
	sent, err := c.kernel.SendFlows(ctx, c.daemon(election.Active), flushPace, func(f ipvs.Flow) bool {
		f.Expires = 0
		_, known := c.told[f]
		c.told[f] = struct{}{}
		return !known
	})
	if err != nil {
		if ctx.Err() == nil { // else what was asked for has gone out
			clear(c.told)
		}
		c.log.Error("the standby was not told of every flow", "sent", sent, "err", err)
	} else {
		c.log.Info("the standby was told of the flows", "sent", sent, "took", time.Since(began))
	}
	c.flushed = time.Now()
	time.AfterFunc(recently, c.forget)
}

// forget drops what was told when it is of no use any more.
func (c *ConnSync) forget() {
	c.flushing.Lock()
	defer c.flushing.Unlock()
	if time.Since(c.flushed) >= recently {
		c.told = nil
	}
}

// Run keeps the daemon, from the first role it is told of, until ctx is done,
// and then leaves it running: what the kernel knows of flows is of use to the
// director that starts next.
func (c *ConnSync) Run(ctx context.Context) error {
	var greeter sync.WaitGroup
	greeter.Go(func() { c.greet(ctx) })
	defer greeter.Wait()
	var again <-chan time.Time // never before the role is known: a daemon for the wrong one would have to stop
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		case <-again:
		}
		if c.apply(ctx) {
			again = time.After(verifyEvery)
		} else {
			again = time.After(retryAfter)
		}
	}
}

// daemon is the one that belongs to a role.
func (c *ConnSync) daemon(role pair.Role) ipvs.SyncDaemon {
	if role == election.Active {
		return ipvs.SyncDaemon{State: ipvs.Master, Device: c.device, ID: c.id, MaxLen: ipvs.PromptMaxLen}
	}
	return ipvs.SyncDaemon{State: ipvs.Backup, Device: c.device, ID: c.id}
}

func (c *ConnSync) apply(ctx context.Context) (ok bool) {
	c.mu.Lock()
	role, before := c.role, c.problem
	c.mu.Unlock()
	report, err := c.kernel.ApplySync(ctx, []ipvs.SyncDaemon{c.daemon(role)})
	if ctx.Err() != nil {
		return true
	}
	for _, op := range report.Ops {
		c.log.Info("ipvs", "op", op)
	}
	problem := ""
	if err != nil {
		problem = "connections are not synchronised: " + err.Error()
	}
	if problem != "" && problem != before {
		c.log.Error("connections are not synchronised", "err", err)
	}
	c.mu.Lock()
	c.problem = problem
	c.mu.Unlock()
	return err == nil
}

// greet tells each standby that arrives of every flow. One that arrives anew
// meanwhile starts over.
func (c *ConnSync) greet(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.arrived:
		}
		for pauses := arrivals; len(pauses) > 0; {
			select {
			case <-ctx.Done():
				return
			case <-c.arrived:
				pauses = arrivals
			case <-time.After(pauses[0]):
				if c.tellAll(ctx) {
					pauses = pauses[1:]
				}
			}
		}
	}
}

// tellAll tells a standby of every flow, for as long as this director is the
// active one.
func (c *ConnSync) tellAll(ctx context.Context) (ok bool) {
	if !c.active() {
		return true
	}
	sent, err := c.kernel.SendFlows(ctx, c.daemon(election.Active), arrivalPace, func(ipvs.Flow) bool { return c.active() })
	if ctx.Err() != nil {
		return true
	}
	untold := ""
	if err != nil {
		untold = "a standby that has come does not know every connection: " + err.Error()
		c.log.Error("a standby that has come was not told of every flow", "sent", sent, "err", err)
	} else {
		c.log.Info("a standby that has come was told of the flows", "sent", sent)
	}
	c.mu.Lock()
	c.untold = untold
	c.mu.Unlock()
	return err == nil
}

func (c *ConnSync) active() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.role == election.Active
}
