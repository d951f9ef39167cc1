package load

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick is a Config for a server on the loopback.
func quick(t *testing.T, s *httptest.Server) Config {
	t.Helper()
	cfg := Defaults
	cfg.Addr = netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://"))
	cfg.Flows, cfg.Beat, cfg.Calm, cfg.Patience = 3, 20*time.Millisecond, 200*time.Millisecond, 3*time.Second
	return cfg
}

// server serves a page of one line; what broken returns while it is set is what happens instead.
func server(t *testing.T, broken *atomic.Bool) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
			return
		}
		io.WriteString(w, "page\n")
	}))
	t.Cleanup(s.Close)
	return s
}

func TestRunSeesAnOutage(t *testing.T) {
	var broken atomic.Bool
	s := server(t, &broken)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, err := Run(ctx, quick(t, s), func() {
		go func() {
			defer cancel()
			broken.Store(true)
			time.Sleep(150 * time.Millisecond)
			broken.Store(false)
		}()
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.GapMS < 100 || got.Failed < 3 || got.Requests <= got.Failed {
		t.Errorf("an outage of 150 ms: %+v", got)
	}
	if got.Flows != 3 || got.Resets != 3 || got.Lost != 0 {
		t.Errorf("three flows were reset: %+v", got)
	}
}

func TestRunWithoutAnOutage(t *testing.T) {
	var broken atomic.Bool
	cfg := quick(t, server(t, &broken))
	cfg.Limit = time.Second // ends it without a signal
	got, err := Run(t.Context(), cfg, func() {})
	if err != nil {
		t.Fatal(err)
	}
	if got.Failed != 0 || got.Resets != 0 || got.Lost != 0 || got.Requests == 0 {
		t.Errorf("nothing happened: %+v", got)
	}
}

func TestRunNeverReady(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	cfg := quick(t, server(t, &broken))
	cfg.Patience = 300 * time.Millisecond
	_, err := Run(t.Context(), cfg, func() { t.Error("it said that it is ready") })
	if err == nil || !strings.Contains(err.Error(), "does not answer well") || !strings.Contains(err.Error(), "reset by peer") {
		t.Errorf("error %v does not name what happened", err)
	}
}
