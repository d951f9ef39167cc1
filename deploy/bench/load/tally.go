// Package load is a client that asks on a new connection every few milliseconds and keeps long flows beside, and counts
// what it sees of a failover.
package load

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// Result is what a client saw between From and To.
type Result struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`

	Requests int            `json:"requests"` // on new connections
	Failed   int            `json:"failed"`   // of them
	Causes   map[string]int `json:"causes,omitempty"`
	// GapMS is the longest time without a request on a new connection that ended well, in milliseconds.
	GapMS float64 `json:"gap_ms"`
	// HeldUpMS is the longest time the client itself did not get to ask, in milliseconds: what a busy machine adds to a
	// gap.
	HeldUpMS float64 `json:"held_up_ms"`

	Flows  int `json:"flows"`  // long ones
	Resets int `json:"resets"` // flows that the other end reset or closed
	Lost   int `json:"lost"`   // flows that still waited for an answer at the end
	// StallMS is the longest time a flow that lived on waited for one answer, in milliseconds.
	StallMS float64 `json:"stall_ms"`
}

// tally counts. It begins anew with begin.
type tally struct {
	mu      sync.Mutex // guards all below
	began   bool
	result  Result
	last    time.Time // of the last good answer on a new connection
	sent    time.Time // of the last request on a new connection
	trouble time.Time // of the last request that failed
	flows   []flow
}

// flow is one long flow.
type flow struct {
	since  time.Time // connected; zero while it is not
	asked  time.Time // of the request that is not yet answered; zero where there is none
	stall  time.Duration
	broken bool
}

func newTally(flows int) *tally { return &tally{flows: make([]flow, flows)} }

// begin forgets what was before now.
func (t *tally) begin(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.began, t.last, t.sent = true, now, now
	t.result = Result{From: now, Flows: len(t.flows), Causes: map[string]int{}}
	for i := range t.flows {
		t.flows[i].stall = 0
	}
}

// sending says that a request on a new connection is due and made at now.
func (t *tally) sending(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.result.HeldUpMS = max(t.result.HeldUpMS, milliseconds(now.Sub(t.sent)))
	t.sent = now
}

// request counts a request on a new connection that ended at now.
func (t *tally) request(now time.Time, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.result.Requests++
	if err == nil {
		t.good(now)
		return
	}
	t.trouble = now
	t.result.Failed++
	if t.result.Causes == nil {
		t.result.Causes = map[string]int{}
	}
	t.result.Causes[cause(err)]++
}

// good ends a gap.
func (t *tally) good(now time.Time) {
	t.result.GapMS = max(t.result.GapMS, milliseconds(now.Sub(t.last)))
	t.last = now
}

// connected says that flow i is established.
func (t *tally) connected(i int, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flows[i] = flow{since: now}
}

// asked says that flow i waits for an answer.
func (t *tally) asked(i int, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flows[i].asked = now
}

// answered says that flow i has its answer.
func (t *tally) answered(i int, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := &t.flows[i]
	f.stall = max(f.stall, now.Sub(f.asked))
	f.asked = time.Time{}
}

// broke says that flow i has ended. It returns whether the flow should be made again, as before begin it should.
func (t *tally) broke(i int) (again bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.began {
		t.flows[i].broken = true
		return false
	}
	t.flows[i] = flow{}
	return true
}

// calm says whether in the last span before now no request failed and one ended well, and whether every flow that is
// not broken is as old and waits less than half of it for its answer.
func (t *tally) calm(now time.Time, span time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.trouble) < span || now.Sub(t.last) > span/2 {
		return false
	}
	for _, f := range t.flows {
		switch {
		case f.broken:
		case f.since.IsZero() || now.Sub(f.since) < span:
			return false
		case !f.asked.IsZero() && now.Sub(f.asked) > span/2:
			return false
		}
	}
	return true
}

// end returns what was counted up to now. A flow whose answer takes longer than limit is lost.
func (t *tally) end(now time.Time, limit time.Duration) Result {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.good(now)
	r := t.result
	r.To = now
	for _, f := range t.flows {
		switch {
		case f.broken:
			r.Resets++
		case !f.asked.IsZero() && now.Sub(f.asked) > limit:
			r.Lost++
		default:
			r.StallMS = max(r.StallMS, milliseconds(f.stall))
		}
	}
	return r
}

// cause names a request's failure without its ports.
func cause(err error) string {
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return "timeout"
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "closed"
	}
	return err.Error()
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
