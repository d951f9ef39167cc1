package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"lvstun/director/client"
	"lvstun/director/trust"
	"lvstun/httpcheck"
	"lvstun/tunnel"
)

var errDead = errors.New("connection refused")

// fakeDirector answers as told and keeps what it heard, as text with the time since its making.
type fakeDirector struct {
	begin time.Time

	mu     sync.Mutex
	answer *client.Answer // nil: dead
	err    error          // of a dead one; default errDead
	takes  time.Duration  // for an answer
	heard  []string
}

func newDirector(a *client.Answer) *fakeDirector {
	return &fakeDirector{begin: time.Now(), answer: a}
}

func (d *fakeDirector) set(change func(*fakeDirector)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func (d *fakeDirector) Register(ctx context.Context, r client.Registration) (client.Answer, error) {
	d.mu.Lock()
	answer, err, takes := d.answer, d.err, d.takes
	d.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		err, answer = ctx.Err(), nil
	}
	text := time.Since(d.begin).String()
	for _, s := range r.Services {
		text += fmt.Sprintf(" %s %s %q", s.Name, s.State, s.Reason)
	}
	d.set(func(d *fakeDirector) { d.heard = append(d.heard, text) })
	if answer == nil {
		if err == nil {
			err = errDead
		}
		return client.Answer{}, err
	}
	return *answer, nil
}

func (d *fakeDirector) Leave(ctx context.Context, _ uint64) error {
	d.set(func(d *fakeDirector) { d.heard = append(d.heard, time.Since(d.begin).String()+" left") })
	return ctx.Err()
}

func (d *fakeDirector) Close() {}

// take returns what was heard since the last call.
func (d *fakeDirector) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	heard := d.heard
	d.heard = nil
	return heard
}

// states are the different things heard, without their times.
func (d *fakeDirector) states() []string {
	var all []string
	for _, h := range d.take() {
		_, text, _ := strings.Cut(h, " ")
		all = append(all, text)
	}
	return slices.Compact(all)
}

// fakeHost holds whatever receivers it is asked for, unless it is broken.
type fakeHost struct {
	mu        sync.Mutex
	broken    string // a problem, or ""
	held      []tunnel.Receiver
	directors []netip.Addr // that the guard was told of
	guard     guardSide
	applies   int
	changed   func()
	watchErr  error
}

func (h *fakeHost) apply(_ context.Context, receivers []tunnel.Receiver, directors []netip.Addr, _ netip.Addr) (side, []change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.applies++
	h.directors = slices.Clone(directors)
	s := side{applied: true, guard: h.guard}
	if h.broken != "" {
		s.problems = []string{h.broken}
		return s, nil
	}
	var changes []change
	for _, r := range receivers {
		if !slices.Contains(h.held, r) {
			changes = append(changes, change{r.VIP.String(), "absent", "present"})
		}
	}
	h.held = slices.Clone(receivers)
	s.held = h.held
	if h.guard.problem != "" {
		s.problems = []string{h.guard.problem}
	}
	return s, changes
}

func (h *fakeHost) watchers() []watcher { return []watcher{h.watch} }

func (h *fakeHost) watch(ctx context.Context, changed func()) error {
	h.mu.Lock()
	h.changed = changed
	h.mu.Unlock()
	if h.watchErr != nil {
		return h.watchErr
	}
	<-ctx.Done()
	return nil
}

func (h *fakeHost) set(change func(*fakeHost)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h)
}

func (h *fakeHost) read() (held string, applies int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return fmt.Sprint(side{held: h.held}.vips()), h.applies
}

// web is the service that the agent checks; down says why it is, if it is.
type web struct {
	mu   sync.Mutex
	down string
	slow time.Duration // until a check's first result
	runs int
}

func (w *web) run(ctx context.Context, t target, report func(httpcheck.Update)) error {
	w.mu.Lock()
	w.runs++
	slow := w.slow
	w.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(slow):
	}
	tracker := httpcheck.NewTracker(1, 1)
	for ctx.Err() == nil {
		w.mu.Lock()
		r := httpcheck.Result{OK: w.down == "", Reason: w.down}
		w.mu.Unlock()
		state, changed := tracker.Observe(r)
		report(httpcheck.Update{State: state, Changed: changed, Result: r})
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	return nil
}

func (w *web) started() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.runs
}

func (w *web) set(down string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
}

// bench is an agent among fakes, in a bubble.
type bench struct {
	agent     *Agent
	host      *fakeHost
	web       *web
	directors []*fakeDirector
	notified  []string // to the service manager, without the watchdog's
	pings     int
	mu        sync.Mutex // guards notified and pings
	log       *strings.Builder
}

// start runs an agent with these directors; the returned function stops it and waits.
func start(t *testing.T, directors ...*fakeDirector) (*bench, func()) {
	return startOn(t, &fakeHost{}, directors...)
}

func startOn(t *testing.T, h *fakeHost, directors ...*fakeDirector) (*bench, func()) {
	b := newBench(h, directors...)
	return b, b.run(t)
}

// newBench makes an agent that does not run yet.
func newBench(h *fakeHost, directors ...*fakeDirector) *bench {
	b := &bench{host: h, web: &web{}, directors: directors, log: &strings.Builder{}}
	opts := Options{
		Token: trust.Token{Claims: trust.Claims{Name: "rs1", Addresses: []netip.Addr{rip}, Services: []string{"HTTP"}}},
		Log:   slog.New(slog.NewTextHandler(b.log, nil)),
		Notify: func(s string) {
			b.mu.Lock()
			defer b.mu.Unlock()
			if s == "WATCHDOG=1" {
				b.pings++
				return
			}
			b.notified = append(b.notified, s)
		},
	}
	var ds []director
	for i, d := range directors {
		opts.Config.Directors = append(opts.Config.Directors, fmt.Sprintf("10.0.0.%d:3637", i+1))
		ds = append(ds, d)
	}
	b.agent = assemble(opts, rip, b.host, ds, b.web.run)
	return b
}

// run runs the agent; the returned function stops it and waits.
func (b *bench) run(t *testing.T) func() {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { b.agent.work(ctx) })
	return func() { cancel(); wg.Wait() }
}

func (b *bench) told() (notified []string, pings int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.notified), b.pings
}
