package agent

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"lvstun/director/client"
)

// The pace of registrations.
const (
	slowest    = time.Second            // between two renewals, whatever the lease
	firstRetry = 100 * time.Millisecond // after a failure; doubled with each up to slowest
	// requestTimeout is of one request. With renewals a second apart, one that hangs and the retry after
	// it still fit into a lease of 3 s.
	requestTimeout = 1500 * time.Millisecond
	leaveTimeout   = 2 * time.Second // to say goodbye
)

// director is one of them as a registrar uses it; *client.Client is one.
type director interface {
	Register(context.Context, client.Registration) (client.Answer, error)
	Leave(ctx context.Context, session uint64) error
	Close()
}

var _ director = (*client.Client)(nil)

// board holds the registration in force, for all registrars to read.
type board struct {
	mu      sync.Mutex // guards the rest
	reg     client.Registration
	changed chan struct{} // closed when reg is replaced
}

func (b *board) read() (client.Registration, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reg, b.changed
}

func (b *board) write(reg client.Registration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.changed != nil {
		close(b.changed)
	}
	b.reg, b.changed = reg, make(chan struct{})
}

// standing is how it stands with one director.
type standing struct {
	answer    *client.Answer // the last one; nil: never
	attempted bool
	success   time.Time // of the last answer
	err       error     // of the last attempt; nil: it was answered
}

// registrar keeps this real server registered at one director.
type registrar struct {
	address  string
	director director
	board    *board
	wake     func()        // called after every attempt that told something new
	renew    chan struct{} // somebody waits for the next attempt
	log      *slog.Logger

	mu       sync.Mutex // guards the rest
	standing standing
	underway *attempt // nil: none
	next     *attempt // the one to come, if somebody waits for it
}

// attempt is one request to register.
type attempt struct {
	ended  chan struct{} // closed when answer and err are set
	answer client.Answer
	err    error
}

func (r *registrar) read() standing {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.standing
}

// run registers until ctx ends, then leaves. A request that is under way when ctx ends is waited for, so
// that it cannot arrive after the goodbye.
func (r *registrar) run(ctx context.Context) {
	defer r.director.Close()
	for retry := firstRetry; ; {
		reg, changed := r.board.read()
		answer, err := r.register(ctx, reg)
		var wait time.Duration
		renew := r.renew
		if err != nil {
			wait = backoff(retry, err)
			retry = min(2*retry, slowest)
			if asked(err) > 0 {
				changed, renew = nil, nil // it wants quiet, whatever changes and whoever asks meanwhile
			}
		} else {
			retry = firstRetry
			wait = min(time.Duration(answer.Lease)/3, slowest)
			wait -= rand.N(wait/10 + 1) // so that the cluster's agents do not fall into step
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			r.leave(ctx, reg.Session)
			return
		case <-changed:
			timer.Stop()
		case <-renew:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// backoff is a random time between half of retry and retry, or as long as the director asked for.
func backoff(retry time.Duration, err error) time.Duration {
	return max(retry/2+rand.N(retry/2), asked(err))
}

// asked is how long a director asked to be left alone; 0: it did not.
func asked(err error) time.Duration {
	var refused *client.Error
	if errors.As(err, &refused) {
		return refused.RetryAfter
	}
	return 0
}

func (r *registrar) register(ctx context.Context, reg client.Registration) (client.Answer, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	end := r.begin()
	answer, err := r.director.Register(ctx, reg)
	end(answer, err)
	if r.record(answer, err) {
		r.wake()
	}
	return answer, err
}

// begin makes the next attempt the one under way. The function it returns ends it.
func (r *registrar) begin() (end func(client.Answer, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.upcoming()
	r.underway, r.next = a, nil
	return func(answer client.Answer, err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.underway = nil
		a.answer, a.err = answer, err
		close(a.ended)
	}
}

// upcoming is the next attempt to begin. It is called under mu.
func (r *registrar) upcoming() *attempt {
	if r.next == nil {
		r.next = &attempt{ended: make(chan struct{})}
	}
	return r.next
}

// reach renews the lease now and returns what the director answered before ctx ended. An attempt already
// under way counts if it succeeds in time. If it fails, it may have failed long before: another follows.
func (r *registrar) reach(ctx context.Context) (client.Answer, error) {
	for {
		r.mu.Lock()
		a, fresh := r.underway, false
		if a == nil {
			a, fresh = r.upcoming(), true
		}
		r.mu.Unlock()
		if fresh {
			nudge(r.renew)
		}
		select {
		case <-ctx.Done():
			return client.Answer{}, ctx.Err()
		case <-a.ended:
		}
		if a.err == nil || fresh {
			return a.answer, a.err
		}
	}
}

// record keeps the outcome of an attempt, logs it if it is another one than before, and reports whether
// it told something new.
func (r *registrar) record(answer client.Answer, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.standing
	r.standing.attempted, r.standing.err = true, err
	switch {
	case err != nil && (old.err == nil || old.err.Error() != err.Error()):
		r.log.Warn("not registered", "director", r.address, "err", err)
	case err == nil && (old.err != nil || old.answer == nil):
		r.log.Info("registered", "director", r.address, "name", answer.Director, "role", answer.Role, "term", answer.Term)
	case err == nil && (old.answer.Role != answer.Role || old.answer.Term != answer.Term):
		r.log.Info("director's role changed", "director", r.address, "name", answer.Director, "role", answer.Role, "term", answer.Term)
	}
	if err == nil {
		r.standing.answer, r.standing.success = &answer, time.Now()
	}
	return !old.attempted || (old.err == nil) != (err == nil) || err == nil && !reflect.DeepEqual(old.answer, &answer)
}

// leave ends the lease, if there ever was one.
func (r *registrar) leave(ctx context.Context, session uint64) {
	if r.read().answer == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	if err := r.director.Leave(ctx, session); err != nil {
		r.log.Warn("did not leave: the lease will end by itself", "director", r.address, "err", err)
		return
	}
	r.log.Info("left", "director", r.address)
}
