package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"lvstun/director/client"
	"lvstun/director/trust"
	"lvstun/director/witness"
	"lvstun/tunnel"
)

const (
	look    = time.Second            // between two looks at the kernel
	settle  = 100 * time.Millisecond // after a look, in which the kernel's notifications are mostly our own
	history = 20                     // changes that Status keeps
)

// Options is what an Agent is made of.
type Options struct {
	Config  Config
	Token   trust.Token
	Version string
	Socket  string // of the status; default DefaultSocket
	Log     *slog.Logger
	// Notify is told the service manager's words (sd_notify(3)): READY=1 once the tunnel side was tried
	// and every director asked, STATUS= when it changes, WATCHDOG=1 once a second while the loop turns.
	Notify func(state string)
}

// Agent is one real server's.
type Agent struct {
	opts       Options
	address    netip.Addr
	session    uint64
	host       host
	registrars []*registrar
	checks     *checks
	board      *board
	responder  *witness.Responder
	listen     func() (witness.Conn, error) // for the responder; nil: it is not run
	turns      chan struct{}                // something new to look at
	drifts     chan struct{}                // the kernel says something changed

	// Of the main loop.
	wanted  wanted
	side    side
	looked  time.Time // at the host
	ready   bool      // the service manager was told
	told    string    // the last STATUS
	since   map[string]time.Time
	changes uint64
	recent  []Change
	refused refusals

	mu      sync.Mutex // guards what follows
	status  Status
	muteWhy string // why no witness question can be answered
}

// New makes an agent; nothing runs and nothing changes before Run.
func New(opts Options) (*Agent, error) {
	address, err := ownAddress(opts.Token.Addresses)
	if err != nil {
		return nil, err
	}
	var directors []director
	for _, d := range opts.Config.Directors {
		c, err := client.New(d, opts.Token, client.Options{LocalAddr: address, Timeout: requestTimeout})
		if err != nil {
			return nil, err
		}
		directors = append(directors, c)
	}
	a := assemble(opts, address, newKernelHost(folder), directors, probeLocally)
	a.listen = func() (witness.Conn, error) { return witness.Listen(netip.AddrPortFrom(address, witness.Port)) }
	return a, nil
}

// ownAddress is the first of a token's addresses that this host holds. Where it holds none, the first:
// it may come later, and the tunnel side's problems say that it is missing.
func ownAddress(claimed []netip.Addr) (netip.Addr, error) {
	for _, a := range claimed {
		_, found, err := tunnel.DeviceOf(a)
		if err != nil {
			return netip.Addr{}, err
		}
		if found {
			return a, nil
		}
	}
	if len(claimed) == 0 {
		return netip.Addr{}, fmt.Errorf("the token claims no address")
	}
	return claimed[0], nil
}

func assemble(opts Options, address netip.Addr, h host, directors []director, run runCheck) *Agent {
	a := &Agent{
		opts: opts, address: address, host: h,
		session: uint64(time.Now().UnixNano()),
		board:   &board{},
		turns:   make(chan struct{}, 1),
		drifts:  make(chan struct{}, 1),
		since:   map[string]time.Time{},
	}
	if a.opts.Socket == "" {
		a.opts.Socket = DefaultSocket
	}
	if a.opts.Notify == nil {
		a.opts.Notify = func(string) {}
	}
	a.checks = &checks{run: run, wake: a.wake}
	for i, d := range directors {
		a.registrars = append(a.registrars, &registrar{
			address: opts.Config.Directors[i], director: d, board: a.board, wake: a.wake,
			renew: make(chan struct{}, 1), log: opts.Log,
		})
	}
	a.responder = &witness.Responder{Keys: a.witnessKeys, Directors: a.directorAddresses, Reach: a.reachAnother}
	a.status = Status{Name: opts.Token.Name, Version: opts.Version, Address: address, Session: a.session, Since: time.Now()}
	return a
}

func (a *Agent) wake() { nudge(a.turns) }

// nudge never blocks: one that nobody took yet stands for all that follow.
func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run serves the real server until ctx ends. Then it leaves every director, within a few seconds, and
// the tunnel side stays as it is: what is on its way still arrives.
func (a *Agent) Run(ctx context.Context) error {
	l, err := listen(a.opts.Socket)
	if err != nil {
		return err
	}
	// The status outlives the loop, so that a person can watch the agent leave.
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	var server errgroup.Group
	server.Go(func() error { return serve(serving, l, a.Status) })
	a.work(ctx)
	stopServing()
	return server.Wait()
}

// work is Run without the status socket.
func (a *Agent) work(ctx context.Context) {
	a.turn(ctx, false)
	var tasks sync.WaitGroup
	for _, watch := range a.host.watchers() {
		tasks.Go(func() {
			if err := watch(ctx, func() { nudge(a.drifts) }); err != nil {
				a.opts.Log.Warn("the kernel's notifications are lost: changes are seen within a second instead", "err", err)
			}
		})
	}
	for _, r := range a.registrars {
		tasks.Go(func() { r.run(ctx) })
	}
	if a.listen != nil {
		tasks.Go(func() { a.witness(ctx) })
	}
	a.loop(ctx)
	tasks.Wait()
}

// loop is the main loop.
func (a *Agent) loop(ctx context.Context) {
	defer a.checks.stop()
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for {
		examine := false
		select {
		case <-ctx.Done():
			a.opts.Notify("STOPPING=1")
			return
		case <-ticker.C:
			examine = true
		case <-a.drifts:
			// What is overlooked while things settle is seen by the next look.
			if time.Since(a.looked) < settle {
				continue
			}
			examine = true
		case <-a.turns:
		}
		a.turn(ctx, examine)
		a.opts.Notify("WATCHDOG=1")
	}
}

// turn brings everything up to what is known now. The host is looked at if examine is set or something else
// is wanted of it.
func (a *Agent) turn(ctx context.Context, examine bool) {
	standings := make([]standing, len(a.registrars))
	answers := make([]*client.Answer, len(a.registrars))
	for i, r := range a.registrars {
		standings[i] = r.read()
		answers[i] = standings[i].answer
	}
	before := a.wanted
	a.wanted = merge(answers, a.address)
	a.wanted.directors = a.directorAddresses()
	if !slices.Equal(before.differences, a.wanted.differences) {
		for _, d := range a.wanted.differences {
			a.opts.Log.Warn("the directors differ", "reason", d)
		}
	}
	known := slices.ContainsFunc(answers, func(c *client.Answer) bool { return c != nil })
	changed := !a.side.applied || !slices.Equal(before.receivers, a.wanted.receivers) || !slices.Equal(before.directors, a.wanted.directors)
	if known && (examine || changed) {
		message := "tunnel side repaired"
		if changed {
			message = "tunnel side built"
		}
		a.applySide(ctx, message)
	}
	targets := map[string]target{}
	for name, d := range a.wanted.services {
		targets[name] = targetOf(d, a.address)
	}
	a.checks.set(ctx, targets)
	a.publish(standings)
	if !a.ready && !slices.ContainsFunc(standings, func(s standing) bool { return !s.attempted }) {
		a.ready = true
		a.opts.Notify("READY=1")
	}
}

// applySide logs what it changed under the message.
func (a *Agent) applySide(ctx context.Context, message string) {
	before := a.side
	s, changes := a.host.apply(ctx, a.wanted.receivers, a.wanted.directors, a.address)
	if ctx.Err() != nil {
		return // it was cut short
	}
	if s.guard.counters == nil {
		s.guard.counters = before.guard.counters
	}
	a.side, a.looked = s, time.Now()
	a.refused.look(s.guard.counters, a.looked, a.opts.Log)
	for _, c := range changes {
		a.opts.Log.Info(message, "what", c.what, "old", c.old, "new", c.new)
		a.changes++
		a.recent = slices.Insert(a.recent, 0, Change{At: a.looked, What: c.what, Old: c.old, New: c.new})
	}
	a.recent = a.recent[:min(len(a.recent), history)]
	for _, p := range s.problems {
		if !slices.Contains(before.problems, p) {
			a.opts.Log.Error("tunnel side is not right", "reason", p)
		}
	}
	if before.applied && !before.ok() && s.ok() {
		a.opts.Log.Info("tunnel side is right again")
	}
}

// publish puts what there is to say on the board, into the status and to the service manager.
func (a *Agent) publish(standings []standing) {
	reg := report(a.opts.Token.Services, a.opts.Config.Weight, a.address, a.session, a.wanted, a.side, a.checks.verdicts())
	if old, _ := a.board.read(); !reflect.DeepEqual(old, reg) {
		a.logServices(old, reg)
		a.board.write(reg)
	}
	s := a.status // only this goroutine writes it
	s.Tunnel = TunnelStatus{OK: a.side.ok(), VIPs: a.side.vips(), Problems: a.side.problems, Changes: a.changes, Recent: slices.Clone(a.recent)}
	s.Guard = a.side.guard.status()
	s.Directors, s.Services, s.Differences = nil, nil, a.wanted.differences
	registered, ready := 0, 0
	for i, r := range a.registrars {
		d := directorStatus(r.address, standings[i])
		if d.Registered {
			registered++
		}
		s.Directors = append(s.Directors, d)
	}
	for _, r := range reg.Services {
		if r.State == client.Ready {
			ready++
		}
		d := a.wanted.services[r.Name]
		s.Services = append(s.Services, ServiceStatus{
			Name: r.Name, VIP: d.VIP, Port: d.Port, Protocol: d.Protocol,
			State: r.State, Reason: r.Reason, Weight: r.Weight, Since: a.since[r.Name],
		})
	}
	a.mu.Lock()
	a.status = s
	a.mu.Unlock()
	text := fmt.Sprintf("STATUS=%d of %d directors, %d of %d services ready", registered, len(s.Directors), ready, len(s.Services))
	if text != a.told {
		a.told = text
		a.opts.Notify(text)
	}
}

// logServices says which services changed their state, and why.
func (a *Agent) logServices(old, reg client.Registration) {
	states := map[string]client.State{}
	for _, s := range old.Services {
		states[s.Name] = s.State
	}
	for _, s := range reg.Services {
		if states[s.Name] != s.State {
			a.since[s.Name] = time.Now()
			a.opts.Log.Info("service", "service", s.Name, "state", s.State, "reason", s.Reason)
		}
	}
}

func directorStatus(address string, s standing) DirectorStatus {
	d := DirectorStatus{Address: address, Registered: s.attempted && s.err == nil, LastSuccess: s.success}
	if s.err != nil {
		d.Error = s.err.Error()
	}
	if s.answer != nil {
		d.Name, d.Role, d.Term, d.Lease = s.answer.Director, s.answer.Role, s.answer.Term, s.answer.Lease
	}
	return d
}

// Status is how everything stood after the last turn of the main loop.
func (a *Agent) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.status
	s.Witness = WitnessStatus{Answered: a.responder.Tally.Kept(), Dropped: a.responder.Tally.Dropped(), Problem: a.muteWhy}
	return s
}
