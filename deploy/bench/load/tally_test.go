package load

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var zero = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }

func TestRequests(t *testing.T) {
	y := newTally(0)
	y.request(at(-900), io.EOF) // before begin: forgotten
	y.sending(at(-900))
	y.begin(at(0))
	y.sending(at(10))
	y.request(at(10), nil)
	y.sending(at(45))
	y.request(at(20), nil)
	y.sending(at(55))
	y.request(at(30), os.ErrDeadlineExceeded)
	y.request(at(40), &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)})
	y.request(at(50), os.ErrDeadlineExceeded)
	y.request(at(330), nil)
	y.request(at(340), fmt.Errorf("read: %w", io.EOF))
	y.request(at(350), errors.New(`status "HTTP/1.1 500"`))
	y.request(at(400), nil)
	want := Result{
		From: at(0), To: at(410), Requests: 9, Failed: 5, GapMS: 310, HeldUpMS: 35,
		Causes: map[string]int{"timeout": 2, "connection reset by peer": 1, "closed": 1, `status "HTTP/1.1 500"`: 1},
	}
	if diff := cmp.Diff(want, y.end(at(410), 0)); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
}

func TestGapAtTheEnd(t *testing.T) {
	y := newTally(0)
	y.begin(at(0))
	y.request(at(10), nil)
	if got := y.end(at(510), 0).GapMS; got != 500 {
		t.Errorf("a gap that does not end is %g ms, want 500", got)
	}
}

func TestFlows(t *testing.T) {
	y := newTally(4)
	for i := range 4 {
		y.connected(i, at(-2000))
	}
	y.asked(0, at(-2000))
	y.answered(0, at(-1000)) // a stall before begin: forgotten
	if again := y.broke(1); !again {
		t.Error("a flow that breaks before begin is not made again")
	}
	y.connected(1, at(-1500))
	y.begin(at(0))
	y.asked(0, at(100))
	y.answered(0, at(350)) // lives on, after a stall
	y.asked(1, at(100))
	if again := y.broke(1); again { // reset
		t.Error("a flow that breaks after begin is made again")
	}
	y.asked(2, at(100))   // waits to the end
	y.asked(3, at(10000)) // has just asked
	got := y.end(at(10100), 500*time.Millisecond)
	want := Result{From: at(0), To: at(10100), Causes: map[string]int{}, GapMS: 10100, Flows: 4, Resets: 1, Lost: 1, StallMS: 250}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
}

func TestCalm(t *testing.T) {
	const span = time.Second
	for _, tt := range []struct {
		name string
		with func(y *tally)
		want bool
	}{
		{"all well", func(*tally) {}, true},
		{"no request ended well for long", func(y *tally) { y.last = at(-600) }, false},
		{"a request failed lately", func(y *tally) { y.request(at(-900), io.EOF) }, false},
		{"a request failed long ago", func(y *tally) { y.trouble = at(-1100) }, true},
		{"a flow is not connected", func(y *tally) { y.broke(0) }, false},
		{"a flow is young", func(y *tally) { y.connected(0, at(-900)) }, false},
		{"a flow waits", func(y *tally) { y.asked(0, at(-600)) }, false},
		{"a flow has just asked", func(y *tally) { y.asked(0, at(-100)) }, true},
		{"a flow waited and is broken", func(y *tally) { y.begin(at(-10)); y.asked(0, at(-600)); y.broke(0) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			y := newTally(2)
			y.connected(0, at(-3000))
			y.connected(1, at(-3000))
			y.request(at(-10), nil)
			tt.with(y)
			if got := y.calm(at(0), span); got != tt.want {
				t.Errorf("calm is %t, want %t", got, tt.want)
			}
		})
	}
}
