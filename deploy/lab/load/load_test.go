package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTally(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	tally := NewTally(start)
	tally.Observe(at(20), "rs1", nil)
	tally.Observe(at(40), "rs2", nil)
	tally.Observe(at(140), "", fmt.Errorf("dial: %w", os.ErrDeadlineExceeded))
	tally.Observe(at(30), "rs1", nil) // asked later, answered earlier
	tally.Observe(at(200), "", fmt.Errorf("dial: %w", errors.New("connection refused")))
	tally.Observe(at(290), "rs1", nil)
	tally.Observe(at(300), "", fmt.Errorf("dial: %w", errors.New("connection refused")))
	var b bytes.Buffer
	tally.Print(&b, at(310))
	want := "requests 7\nfailed 3\nlongest_gap_ms 250\nanswer 3 rs1\nanswer 1 rs2\nerror 2 connection refused\nerror 1 timeout\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("Print (-want +got):\n%s", diff)
	}
	b.Reset()
	tally.Print(&b, at(1000)) // nothing since
	if !strings.Contains(b.String(), "longest_gap_ms 690\n") {
		t.Errorf("a gap that lasts until the end is not counted:\n%s", &b)
	}
}

func TestRun(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1)%2 == 0 {
			http.Error(w, "no", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "hello")
	}))
	defer server.Close()
	addr := netip.MustParseAddrPort(server.Listener.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	tally := NewTally(time.Now())
	Run(ctx, addr, 10*time.Millisecond, time.Second, tally)
	if n := int(asked.Load()); tally.requests != n || n < 5 || tally.answers["hello"] != (n+1)/2 || tally.errors["status 503 Service Unavailable"] != n/2 {
		t.Errorf("%d requests served: %+v", n, tally)
	}
}

func TestRunAgainstNobody(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	addr := netip.MustParseAddrPort(server.Listener.Addr().String())
	server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	tally := NewTally(time.Now())
	Run(ctx, addr, 10*time.Millisecond, time.Second, tally)
	if tally.failed != tally.requests || tally.errors["connection refused"] != tally.requests {
		t.Errorf("%+v", tally)
	}
}
