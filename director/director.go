package director

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"lvstun/director/config"
	"lvstun/director/ipvs"
	"lvstun/director/pair"
	"lvstun/director/registry"
	"lvstun/director/witness"
)

const (
	// LeaseTime is how long a registration counts without a renewal. Agents
	// renew every third of it.
	LeaseTime = 3 * time.Second
	// grace is how long an adopted table waits for its agents after a start:
	// time for every agent to notice the director and to register, at the
	// slowest step of its backoff, and a lease more.
	grace = 3 * LeaseTime
	// verifyEvery is how often the kernel's table is read again although
	// nothing is known to have changed it.
	verifyEvery = 10 * time.Second
	// retryAfter is the pause after a failed Apply.
	retryAfter = time.Second
	// coalesce lets changes that come together become one Apply.
	coalesce = 5 * time.Millisecond
)

// Kernel is the IPVS table of this host.
type Kernel interface {
	Services(ctx context.Context) ([]ipvs.Service, error)
	Apply(ctx context.Context, desired []ipvs.Service, ours map[ipvs.Key]bool) (ipvs.Report, error)
}

var _ Kernel = (*ipvs.Handle)(nil)

// Pair is this director's half of the pair.
type Pair interface {
	Status() pair.Status
	Handover(context.Context) error
}

var _ Pair = (*pair.Pair)(nil)

// Options are the parts a Director stands on.
type Options struct {
	Config   *config.Config
	Kernel   Kernel
	Pair     Pair
	Problems func() []string // of the parts beside the core, one sentence each; for status
	Drifts   func() uint64   // kernel settings that were repaired; for status
	// WitnessKey is the key that a real server of this name answers questions with.
	WitnessKey func(name string) [32]byte
	// Source is the address that this host's packets to another one come from.
	Source    func(to netip.Addr) (netip.Addr, error)
	OwnedFile string // where the record of own services is kept; empty: nowhere
	Version   string
	Log       *slog.Logger
}

// A Director holds the leases and the checks and keeps the kernel's table as
// Plan wants it. Both directors of a pair do this all the time: the table of
// the standby is warm.
type Director struct {
	cfg        atomic.Pointer[config.Config] // replaced whole by Reload
	kernel     Kernel
	pair       Pair
	problems   func() []string
	drifts     func() uint64
	witnessKey func(name string) [32]byte
	source     func(netip.Addr) (netip.Addr, error)
	asker      witness.Asker
	version    string
	log        *slog.Logger
	registry   *registry.Registry
	checks     *checks
	owned      *owned
	wake       chan struct{} // a signal, not a queue: one waiting wake-up is enough
	ready      chan struct{}

	mu      sync.Mutex // guards what status reads
	table   Table
	failing string    // why the last Apply failed; empty when it did not
	turned  time.Time // when the loop last came round
}

// New prepares a director; Run starts it.
func New(o Options) *Director {
	d := &Director{
		kernel:     o.Kernel,
		pair:       o.Pair,
		problems:   o.Problems,
		drifts:     o.Drifts,
		witnessKey: o.WitnessKey,
		source:     o.Source,
		asker:      witness.Asker{Name: o.Config.Name},
		version:    o.Version,
		log:        o.Log,
		wake:       make(chan struct{}, 1),
		ready:      make(chan struct{}),
	}
	d.cfg.Store(o.Config)
	d.registry = registry.New(LeaseTime, d.changed)
	d.checks = newChecks(d.changed)
	owned, err := loadOwned(o.OwnedFile)
	if err != nil {
		o.Log.Warn("services of an earlier run that left the configuration stay in the kernel", "err", err)
	}
	d.owned = owned
	return d
}

// Ready is closed when the kernel's table has been brought in line once.
func (d *Director) Ready() <-chan struct{} { return d.ready }

// Turned is when the reconcile loop last came round; a watchdog is fed by it.
func (d *Director) Turned() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.turned
}

// Reload goes over to another configuration: what differs changes, and nothing
// else. Leases, verdicts and connections stay.
func (d *Director) Reload(cfg *config.Config) {
	d.cfg.Store(cfg)
	d.changed()
}

// Handover gives the VIPs to the other director, or asks it for them.
func (d *Director) Handover(ctx context.Context) error { return d.pair.Handover(ctx) }

// changed wakes the reconcile loop. It never blocks.
func (d *Director) changed() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Run keeps the table until ctx is done. It then leaves it as it is: the
// kernel goes on forwarding.
func (d *Director) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	defer background.Wait()
	defer d.checks.stop()
	defer cancel()
	registryErr := make(chan error, 1)
	background.Go(func() { registryErr <- d.registry.Run(ctx) })

	adoptUntil := time.Now().Add(grace)
	endOfGrace := time.NewTimer(grace)
	defer endOfGrace.Stop()
	pause := time.NewTimer(0) // due at once: the first round
	defer pause.Stop()
	first, woken := true, false
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-registryErr:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("registry: %w", err)
		case <-d.wake:
			if !woken { // the first change sets the date; those that follow share it
				woken = true
				pause.Reset(coalesce)
			}
			continue
		case <-endOfGrace.C:
		case <-pause.C:
		}
		woken = false
		err := d.reconcile(ctx, time.Now().Before(adoptUntil))
		pause.Reset(verifyEvery)
		if err != nil {
			pause.Reset(retryAfter)
		} else if first {
			first = false
			close(d.ready)
		}
	}
}

// reconcile is one round: read, plan, apply.
func (d *Director) reconcile(ctx context.Context, adopting bool) error {
	kernel, err := d.kernel.Services(ctx)
	if err != nil {
		return d.finish(ctx, Table{}, err)
	}
	leases := d.registry.Leases()
	services := d.cfg.Load().Services
	d.checks.keep(ctx, assignments(services, leases))
	table := Plan(Inputs{
		Services: services,
		Leases:   leases,
		Verdicts: d.checks.snapshot(),
		Kernel:   kernel,
		Adopting: adopting,
	})
	if err := d.owned.add(table.Services); err != nil {
		return d.finish(ctx, table, err)
	}
	report, err := d.kernel.Apply(ctx, table.Services, d.owned.keys)
	for _, op := range report.Ops {
		d.log.Info("ipvs", "op", op)
	}
	if err == nil {
		err = d.owned.settle(table.Services)
	}
	return d.finish(ctx, table, err)
}

// finish records a round for status, and logs what changed since the last one.
func (d *Director) finish(ctx context.Context, table Table, err error) error {
	if ctx.Err() != nil {
		return nil // the director stops; a call cut short is no failure
	}
	d.mu.Lock()
	before, failing := d.table.Decisions, d.failing
	d.turned = time.Now()
	if table.Services != nil {
		d.table = table
	}
	d.failing = ""
	if err != nil {
		d.failing = err.Error()
	}
	after, now := d.table.Decisions, d.failing
	d.mu.Unlock()

	logDecisions(d.log, before, after)
	if now != failing && now != "" {
		d.log.Error("the kernel's table could not be brought in line", "err", now)
	} else if now != failing {
		d.log.Info("the kernel's table is in line again")
	}
	return err
}

func logDecisions(log *slog.Logger, before, after []Decision) {
	old := make(map[Target]Decision, len(before))
	for _, d := range before {
		old[d.Target] = d
	}
	for _, d := range after {
		if was := old[d.Target]; was.State != d.State || was.InUse != d.InUse || was.Weight != d.Weight {
			log.Info("real server", "service", d.Service, "rs", d.Address, "name", d.Name,
				"state", d.State, "weight", d.Weight, "in_use", d.InUse, "source", d.Source, "reason", d.Reason)
		}
	}
}

// assignments are the checks the director runs itself: of the listed servers
// for which no agent has ever spoken.
func assignments(services []config.Service, leases []registry.Lease) map[Target]assignment {
	spoken := leasesByTarget(leases)
	want := make(map[Target]assignment)
	for _, svc := range services {
		for _, server := range svc.Servers {
			if _, ok := spoken[svc.Name][server.Address]; ok {
				continue
			}
			port := svc.Port
			if svc.Check.Port != 0 {
				port = svc.Check.Port
			}
			want[Target{Service: svc.Name, Address: server.Address}] = assignment{
				spec: svc.Check,
				addr: netip.AddrPortFrom(server.Address, port),
			}
		}
	}
	return want
}
