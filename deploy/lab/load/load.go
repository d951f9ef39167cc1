// Package load asks a web server over and over, on a new connection each time, and tells how long it was away.
package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Tally is what came of the requests.
type Tally struct {
	mu       sync.Mutex // guards all below
	began    time.Time
	last     time.Time // when the last good answer came; began before the first
	requests int
	failed   int
	gap      time.Duration
	answers  map[string]int
	errors   map[string]int
}

// NewTally starts a tally at a time.
func NewTally(now time.Time) *Tally {
	return &Tally{began: now, last: now, answers: map[string]int{}, errors: map[string]int{}}
}

// Observe adds a request that ended at now, with the page it got or the error.
func (t *Tally) Observe(now time.Time, page string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests++
	if err != nil {
		t.failed++
		t.errors[cause(err)]++
		return
	}
	t.answers[page]++
	t.good(now)
}

// good ends the gap that a good answer, or the end, ends.
func (t *Tally) good(now time.Time) {
	if now.After(t.last) {
		t.gap = max(t.gap, now.Sub(t.last))
		t.last = now
	}
}

// Print writes the tally up to now, one `name value` a line: requests, failed, longest_gap_ms (the longest time without
// a good answer), then `answer N PAGE` and `error N CAUSE` for each kind.
func (t *Tally) Print(w io.Writer, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.good(now)
	fmt.Fprintf(w, "requests %d\nfailed %d\nlongest_gap_ms %d\n", t.requests, t.failed, t.gap.Milliseconds())
	for _, page := range slices.Sorted(maps.Keys(t.answers)) {
		fmt.Fprintf(w, "answer %d %s\n", t.answers[page], page)
	}
	for _, cause := range slices.Sorted(maps.Keys(t.errors)) {
		fmt.Fprintf(w, "error %d %s\n", t.errors[cause], cause)
	}
}

// cause is the innermost of an error, which has no ports and is the same for all failures of a kind.
func cause(err error) string {
	if net, ok := errors.AsType[net.Error](err); ok && net.Timeout() {
		return "timeout"
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err.Error()
}

// Run asks the address for / every interval, whatever became of the requests before, until ctx ends; a request may take
// up to timeout. It waits for the last ones.
func Run(ctx context.Context, addr netip.AddrPort, every, timeout time.Duration, t *Tally) {
	var asked sync.WaitGroup
	defer asked.Wait()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		asked.Go(func() {
			page, err := ask(addr, timeout)
			t.Observe(time.Now(), page, err)
		})
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ask makes one request on a new connection and returns the page's first line.
func ask(addr netip.AddrPort, timeout time.Duration) (string, error) {
	deadline := time.Now().Add(timeout)
	conn, err := (&net.Dialer{Deadline: deadline}).Dial("tcp", addr.String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.0\r\nHost: %s\r\n\r\n", addr.Addr()); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(io.LimitReader(conn, 64<<10)) // HTTP/1.0: the server closes behind it
	if err != nil {
		return "", err
	}
	head, page, whole := strings.Cut(string(answer), "\r\n\r\n")
	if !whole {
		return "", errors.New("answer cut short")
	}
	head, _, _ = strings.Cut(head, "\r\n")
	if _, status, _ := strings.Cut(head, " "); !strings.HasPrefix(status, "200") {
		return "", errors.New("status " + status)
	}
	page, _, _ = strings.Cut(page, "\n")
	return page, nil
}
