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

// SyncKernel runs the kernel's connection sync daemons of this host.
type SyncKernel interface {
	ApplySync(ctx context.Context, desired []ipvs.SyncDaemon) (ipvs.SyncReport, error)
}

var _ SyncKernel = (*ipvs.Handle)(nil)

// ConnSync keeps the kernel's connection sync daemon in step with the role:
// master on the active director, backup on any other. So an established flow
// outlives the move of its VIP.
type ConnSync struct {
	kernel SyncKernel
	device string
	id     int
	log    *slog.Logger
	wake   chan struct{} // a signal: the role has changed

	mu      sync.Mutex // guards what follows
	role    pair.Role
	problem string // why the daemon does not run as it should; empty when it does
}

// NewConnSync prepares the daemon on a device, with the cluster's sync ID.
func NewConnSync(kernel SyncKernel, device string, id int, log *slog.Logger) *ConnSync {
	return &ConnSync{kernel: kernel, device: device, id: id, log: log, wake: make(chan struct{}, 1)}
}

// Follow tells the role this director has now. It never blocks.
func (c *ConnSync) Follow(role pair.Role) {
	c.mu.Lock()
	c.role = role
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Problems are why flows are not synchronised, none when they are.
func (c *ConnSync) Problems() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.problem == "" {
		return nil
	}
	return []string{c.problem}
}

// Run keeps the daemon until ctx is done, and then leaves it running: what the
// kernel knows of flows is of use to the director that starts next.
func (c *ConnSync) Run(ctx context.Context) error {
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
		case <-again.C:
		}
		if c.apply(ctx) {
			again.Reset(verifyEvery)
		} else {
			again.Reset(retryAfter)
		}
	}
}

func (c *ConnSync) apply(ctx context.Context) (ok bool) {
	c.mu.Lock()
	role, before := c.role, c.problem
	c.mu.Unlock()
	daemon := ipvs.SyncDaemon{State: ipvs.Backup, Device: c.device, ID: c.id}
	if role == election.Active {
		daemon.State, daemon.MaxLen = ipvs.Master, ipvs.PromptMaxLen
	}
	report, err := c.kernel.ApplySync(ctx, []ipvs.SyncDaemon{daemon})
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
