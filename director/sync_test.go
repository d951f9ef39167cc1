package director

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"lvstun/director/election"
	"lvstun/director/ipvs"
)

type fakeSync struct {
	mu      sync.Mutex
	running []ipvs.SyncDaemon
	applied int
	flows   []ipvs.Flow // of the table
	told    []string    // "9:SYN_RECV" of what went out, and the pace before it
	stuck   int         // after so many flows SendFlows waits for its context; 0 is never
	err     error       // of ApplySync
	sendErr error
}

func (f *fakeSync) ApplySync(_ context.Context, desired []ipvs.SyncDaemon) (ipvs.SyncReport, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied++
	if f.err == nil {
		f.running = desired
	}
	return ipvs.SyncReport{}, f.err
}

func (f *fakeSync) SendFlows(ctx context.Context, to ipvs.SyncDaemon, pace int, want func(ipvs.Flow) bool) (sent int, err error) {
	f.mu.Lock()
	flows, stuck, failed := f.flows, f.stuck, f.sendErr
	f.told = append(f.told, fmt.Sprintf("%s %d/s:", to.Device, pace))
	f.mu.Unlock()
	if failed != nil {
		return 0, failed
	}
	for i, flow := range flows {
		if i > 0 && i == stuck {
			<-ctx.Done()
			return sent, ctx.Err()
		}
		if want(flow) {
			sent++
			f.mu.Lock()
			f.told = append(f.told, fmt.Sprintf("%d:%s", flow.Client.Port(), flow.State))
			f.mu.Unlock()
		}
	}
	return sent, nil
}

func (f *fakeSync) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
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

// wantTold checks what went out since the last time.
func (f *fakeSync) wantTold(t *testing.T, want string) {
	t.Helper()
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if diff := cmp.Diff(want, strings.Join(f.told, " ")); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	f.told = nil
}

func tcpFlow(port uint16, state string) ipvs.Flow {
	return ipvs.Flow{Protocol: ipvs.TCP, State: state, Expires: time.Minute,
		Client: netip.AddrPortFrom(netip.MustParseAddr("10.9.0.10"), port), VIP: netip.MustParseAddrPort("10.9.0.50:80"),
		Destination: netip.MustParseAddrPort("10.9.0.100:80")}
}

// running starts a ConnSync, and stops it at the end of the test.
func runConnSync(t *testing.T, kernel SyncKernel, log *slog.Logger) *ConnSync {
	c := NewConnSync(kernel, "eth0", 50, log)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

const (
	backupDaemon = "sync daemon backup on eth0 (id 50)"
	masterDaemon = "sync daemon master on eth0 (id 50, messages of 1 bytes)"
)

func TestConnSyncFollowsTheRole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := &fakeSync{}
		c := runConnSync(t, kernel, slog.New(slog.DiscardHandler))
		time.Sleep(time.Hour)
		kernel.want(t, "") // whatever runs stays until the role is known
		c.Follow(election.Standby)
		kernel.want(t, backupDaemon)
		c.Follow(election.Confirming)
		kernel.want(t, backupDaemon)
		c.Follow(election.Active)
		kernel.want(t, masterDaemon)

		kernel.set(func() { kernel.err = errors.New("device eth0 is down") })
		c.Follow(election.Standby)
		kernel.want(t, masterDaemon)
		if got := strings.Join(c.Problems(), "; "); !strings.Contains(got, "device eth0 is down") {
			t.Errorf("problem %q, want the kernel's", got)
		}
		kernel.set(func() { kernel.err = nil })
		time.Sleep(retryAfter)
		kernel.want(t, backupDaemon)
		if got := c.Problems(); len(got) > 0 {
			t.Errorf("problem %q after the recovery", got)
		}
		kernel.set(func() { kernel.applied = 0 })
		time.Sleep(10 * verifyEvery)
		synctest.Wait()
		if kernel.applied != 10 {
			t.Errorf("looked %d times", kernel.applied)
		}
	})
}

// A director that was active and starts again goes on as master: the daemon is
// not turned over and back, which would drop what it has not sent.
func TestConnSyncStartsAsWhatItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := &fakeSync{}
		c := runConnSync(t, kernel, slog.New(slog.DiscardHandler))
		c.Follow(election.Active)
		kernel.want(t, masterDaemon)
		if kernel.applied != 1 {
			t.Errorf("applied %d times", kernel.applied)
		}
	})
}

func TestConnSyncFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := &fakeSync{flows: []ipvs.Flow{tcpFlow(1, "ESTABLISHED"), tcpFlow(2, "SYN_RECV")}}
		var log bytes.Buffer
		c := NewConnSync(kernel, "eth0", 50, slog.New(slog.NewTextHandler(&log, nil))) // Run may have ended, or not begun
		c.Flush(t.Context())
		c.Follow(election.Standby)
		c.Flush(t.Context())
		kernel.wantTold(t, "")
		c.Follow(election.Active)
		c.Flush(t.Context())
		kernel.wantTold(t, "eth0 128000/s: 1:ESTABLISHED 2:SYN_RECV")

		// The role may be known to have changed before the VIPs are gone.
		c.Follow(election.Standby)
		opened := tcpFlow(2, "ESTABLISHED")
		younger := tcpFlow(1, "ESTABLISHED")
		younger.Expires++
		kernel.set(func() { kernel.flows = []ipvs.Flow{younger, opened, tcpFlow(3, "SYN_RECV")} })
		c.Flush(t.Context())
		kernel.wantTold(t, "eth0 128000/s: 2:ESTABLISHED 3:SYN_RECV")
		c.Flush(t.Context())
		kernel.wantTold(t, "eth0 128000/s:")
		if !strings.Contains(log.String(), `msg="the standby was told of the flows" sent=2`) || strings.Contains(log.String(), "ERROR") {
			t.Errorf("logged:\n%s", log.String())
		}

		// After a while all is told anew, by a director that is active again.
		time.Sleep(recently)
		synctest.Wait()
		if c.told != nil {
			t.Errorf("%d flows remembered", len(c.told))
		}
		c.Flush(t.Context())
		kernel.wantTold(t, "")
		c.Follow(election.Active)
		c.Flush(t.Context())
		kernel.wantTold(t, "eth0 128000/s: 1:ESTABLISHED 2:ESTABLISHED 3:SYN_RECV")
	})
}

// A Flush ends with its context, and the next goes on where it ended; after an
// error of the network it starts again.
func TestConnSyncFlushCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := &fakeSync{stuck: 2, flows: []ipvs.Flow{tcpFlow(1, "ESTABLISHED"), tcpFlow(2, "ESTABLISHED"), tcpFlow(3, "ESTABLISHED")}}
		var log bytes.Buffer
		c := NewConnSync(kernel, "eth0", 50, slog.New(slog.NewTextHandler(&log, nil)))
		c.Follow(election.Active)
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		c.Flush(ctx)
		kernel.wantTold(t, "eth0 128000/s: 1:ESTABLISHED 2:ESTABLISHED")
		if !strings.Contains(log.String(), `msg="the standby was not told of every flow" sent=2 err="context deadline exceeded"`) {
			t.Errorf("logged:\n%s", log.String())
		}
		kernel.set(func() { kernel.stuck = 0 })
		c.Flush(t.Context())
		kernel.wantTold(t, "eth0 128000/s: 3:ESTABLISHED")
		kernel.set(func() { kernel.sendErr = errors.New("network is down") })
		c.Flush(t.Context())
		kernel.set(func() { kernel.sendErr = nil })
		c.Flush(t.Context())
		kernel.wantTold(t, "eth0 128000/s: eth0 128000/s: 1:ESTABLISHED 2:ESTABLISHED 3:ESTABLISHED")
	})
}

func TestConnSyncPeerArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all = "eth0 20000/s: 1:ESTABLISHED 2:SYN_RECV"
		kernel := &fakeSync{flows: []ipvs.Flow{tcpFlow(1, "ESTABLISHED"), tcpFlow(2, "SYN_RECV")}}
		c := runConnSync(t, kernel, slog.New(slog.DiscardHandler))
		after := func(d time.Duration, want string) {
			t.Helper()
			time.Sleep(d)
			kernel.wantTold(t, want)
		}
		c.PeerArrived() // told to a standby, and to one that is active in a moment
		after(time.Second, "")
		c.Follow(election.Active)
		after(14*time.Second, all)
		after(time.Hour, "")

		for range 3 {
			c.PeerArrived()
		}
		after(900*time.Millisecond, "")
		c.PeerArrived() // anew
		after(900*time.Millisecond, "")
		after(100*time.Millisecond, all)
		after(14*time.Second, all)
		after(time.Hour, "")

		c.PeerArrived()
		after(time.Second, all)
		c.PeerArrived() // between the two times
		after(time.Second, all)
		after(14*time.Second, all)
		after(time.Hour, "")

		kernel.set(func() { kernel.sendErr = errors.New("network is down") })
		c.PeerArrived()
		after(time.Second, "eth0 20000/s:")
		if got := strings.Join(c.Problems(), "; "); got != "a standby that has come does not know every connection: network is down" {
			t.Errorf("problem %q", got)
		}
		kernel.set(func() { kernel.sendErr = nil })
		after(time.Second, all)
		if got := c.Problems(); len(got) > 0 {
			t.Errorf("problem %q after the recovery", got)
		}
		c.Follow(election.Standby)
		after(time.Hour, "")
	})
}
