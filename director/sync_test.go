package director

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"lvstun/director/election"
	"lvstun/director/ipvs"
)

type fakeSync struct {
	mu      sync.Mutex
	running []ipvs.SyncDaemon
	err     error
}

func (f *fakeSync) ApplySync(_ context.Context, desired []ipvs.SyncDaemon) (ipvs.SyncReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.running = desired
	}
	return ipvs.SyncReport{}, f.err
}

func (f *fakeSync) want(t *testing.T, want string) {
	t.Helper()
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	var got []string
	for _, d := range f.running {
		got = append(got, d.String())
	}
	if diff := cmp.Diff(want, strings.Join(got, "; ")); diff != "" {
		t.Errorf("daemons (-want +got):\n%s", diff)
	}
}

func TestConnSyncFollowsTheRole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := &fakeSync{}
		c := NewConnSync(kernel, "eth0", 50, slog.New(slog.DiscardHandler))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		const (
			backup = "sync daemon backup on eth0 (id 50)"
			master = "sync daemon master on eth0 (id 50, messages of 1 bytes)"
		)
		kernel.want(t, backup)
		c.Follow(election.Confirming)
		kernel.want(t, backup)
		c.Follow(election.Active)
		kernel.want(t, master)

		kernel.mu.Lock()
		kernel.err = errors.New("device eth0 is down")
		kernel.mu.Unlock()
		c.Follow(election.Standby)
		kernel.want(t, master)
		if got := strings.Join(c.Problems(), "; "); !strings.Contains(got, "device eth0 is down") {
			t.Errorf("problem %q, want the kernel's", got)
		}
		kernel.mu.Lock()
		kernel.err = nil
		kernel.mu.Unlock()
		c.Follow(election.Standby)
		kernel.want(t, backup)
		if got := c.Problems(); len(got) > 0 {
			t.Errorf("problem %q after the recovery", got)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		kernel.want(t, backup) // it goes on without the director
	})
}
