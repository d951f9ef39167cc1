package registry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const lease = 3 * time.Second

func addr(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}) }

func rs1(session uint64) Claim {
	return Claim{
		Name: "rs1", Address: addr(1), Session: session,
		Services: []ServiceClaim{{Name: "HTTP", Weight: 10, State: Ready}},
	}
}

// counted is a registry and how often it said that something changed.
func counted() (*Registry, *int) {
	n := new(int)
	return New(lease, func() { *n++ }), n
}

func TestPut(t *testing.T) {
	other := Claim{Name: "rs2", Address: addr(1), Session: 1}
	tests := []struct {
		name    string
		first   Claim
		then    Claim
		wantErr error
		changed int // by the second
	}{
		{name: "renewal", first: rs1(5), then: rs1(5)},
		{name: "newer session", first: rs1(5), then: rs1(6), changed: 1},
		{name: "older session", first: rs1(5), then: rs1(4), wantErr: ErrStaleSession},
		{name: "address of another", first: rs1(5), then: other, wantErr: ErrAddressTaken},
		{name: "another address", first: rs1(5), then: with(rs1(5), func(c *Claim) { c.Address = addr(9) }), changed: 1},
		{name: "weight", first: rs1(5), then: with(rs1(5), func(c *Claim) { c.Services[0].Weight = 11 }), changed: 1},
		{name: "state", first: rs1(5), then: with(rs1(5), func(c *Claim) { c.Services[0].State = Draining }), changed: 1},
		{name: "reason", first: rs1(5), then: with(rs1(5), func(c *Claim) { c.Services[0].Reason = "so" }), changed: 1},
		{name: "one service less", first: rs1(5), then: with(rs1(5), func(c *Claim) { c.Services = nil }), changed: 1},
		{name: "report", first: rs1(5), then: with(rs1(5), func(c *Claim) { c.Report = []string{"tunl0 is down"} }), changed: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, changed := counted()
			if err := r.Put(tt.first); err != nil {
				t.Fatal(err)
			}
			before := r.Leases()
			*changed = 0
			if err := r.Put(tt.then); !errors.Is(err, tt.wantErr) {
				t.Errorf("error %v, want %v", err, tt.wantErr)
			}
			if *changed != tt.changed {
				t.Errorf("changed called %d times, want %d", *changed, tt.changed)
			}
			if tt.wantErr != nil {
				if diff := cmp.Diff(before, r.Leases(), cmpAddr); diff != "" {
					t.Errorf("a refusal changed the leases (-before +after):\n%s", diff)
				}
				return
			}
			if diff := cmp.Diff(tt.then, r.Leases()[0].Claim, cmpAddr); diff != "" {
				t.Errorf("claim (-want +got):\n%s", diff)
			}
		})
	}
}

var cmpAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func with(c Claim, change func(*Claim)) Claim {
	change(&c)
	return c
}

func TestPutKeepsItsOwnCopy(t *testing.T) {
	r, _ := counted()
	c := rs1(1)
	if err := r.Put(c); err != nil {
		t.Fatal(err)
	}
	c.Services[0].Weight = 99
	if got := r.Leases()[0].Services[0].Weight; got != 10 {
		t.Errorf("weight %d: the caller changed what was registered", got)
	}
}

func TestAddressIsFreeAgain(t *testing.T) {
	takeover := Claim{Name: "rs2", Address: addr(1), Session: 1}
	tests := []struct {
		name string
		free func(*testing.T, *Registry)
	}{
		{"after leaving", func(t *testing.T, r *Registry) { must(t, r.Leave("rs1", 1)) }},
		{"after the lease", func(*testing.T, *Registry) { time.Sleep(lease) }},
		{"after a move", func(t *testing.T, r *Registry) {
			must(t, r.Put(with(rs1(1), func(c *Claim) { c.Address = addr(7) })))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, _ := counted()
				must(t, r.Put(rs1(1)))
				tt.free(t, r)
				must(t, r.Put(takeover))
			})
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// running runs the registry for the length of f.
func running(t *testing.T, r *Registry, f func()) {
	t.Helper()
	done := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- r.Run(ctx) }()
	f()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestLeaseEndsOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var ends []time.Duration
		start := time.Now()
		r := New(lease, func() {
			mu.Lock()
			defer mu.Unlock()
			ends = append(ends, time.Since(start))
		})
		running(t, r, func() {
			synctest.Wait()         // Run sleeps with nothing to wait for
			must(t, r.Put(rs1(1)))  // 0 s
			time.Sleep(time.Second) // 1 s
			must(t, r.Put(Claim{Name: "rs2", Address: addr(2), Session: 1}))
			time.Sleep(time.Second) // 2 s
			must(t, r.Put(rs1(1)))  // renewed: ends at 5 s, after rs2
			time.Sleep(time.Hour)
		})
		want := []time.Duration{0, time.Second, 4 * time.Second, 5 * time.Second}
		if diff := cmp.Diff(want, ends); diff != "" {
			t.Errorf("changes at (-want +got):\n%s", diff)
		}
		leases := r.Leases()
		wantLease := Lease{
			Claim: rs1(1), Since: start, Renewed: start.Add(2 * time.Second), Expires: start.Add(5 * time.Second),
			Gone: true, GoneReason: LeaseEnded,
		}
		if diff := cmp.Diff(wantLease, leases[0], cmpAddr); diff != "" {
			t.Errorf("tombstone (-want +got):\n%s", diff)
		}
		if leases[1].Name != "rs2" {
			t.Errorf("leases are not sorted by name: %v", leases)
		}
	})
}

// A lease whose time has come counts no longer, even before Run came to it.
func TestLeaseEndsWithoutRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, changed := counted()
		must(t, r.Put(rs1(5)))
		time.Sleep(lease)
		*changed = 0
		must(t, r.Put(rs1(4))) // no newer session holds it any more
		if got := r.Leases()[0]; got.Gone || got.Session != 4 || !got.Since.Equal(time.Now()) {
			t.Errorf("lease %+v, want session 4 since now", got)
		}
		if *changed != 1 {
			t.Errorf("changed called %d times, want 1", *changed)
		}
	})
}

func TestSinceOutlastsRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := counted()
		start := time.Now()
		must(t, r.Put(rs1(1)))
		time.Sleep(time.Second)
		must(t, r.Put(rs1(1)))
		if got := r.Leases()[0].Since; !got.Equal(start) {
			t.Errorf("since %v, want %v: a renewal began a new lease", got, start)
		}
		time.Sleep(time.Second)
		must(t, r.Put(rs1(2)))
		if got := r.Leases()[0].Since; !got.Equal(time.Now()) {
			t.Errorf("since %v, want now: a new session begins a new lease", got)
		}
	})
}

func TestLeave(t *testing.T) {
	tests := []struct {
		name     string
		session  uint64
		wantErr  error
		wantGone bool
	}{
		{"the session that holds it", 5, nil, true},
		{"a newer one", 6, nil, true},
		{"an older one", 4, ErrStaleSession, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, changed := counted()
			must(t, r.Put(rs1(5)))
			*changed = 0
			if err := r.Leave("rs1", tt.session); !errors.Is(err, tt.wantErr) {
				t.Errorf("error %v, want %v", err, tt.wantErr)
			}
			got := r.Leases()[0]
			if got.Gone != tt.wantGone {
				t.Errorf("gone %t, want %t", got.Gone, tt.wantGone)
			}
			if !tt.wantGone {
				if *changed != 0 {
					t.Error("a refusal counts as a change")
				}
				return
			}
			if got.GoneReason != Left || *changed != 1 {
				t.Errorf("reason %q, changed %d times; want %q, once", got.GoneReason, *changed, Left)
			}
			must(t, r.Leave("rs1", tt.session)) // twice is no error
			if *changed != 1 {
				t.Error("leaving twice counts as a change")
			}
		})
	}
	r, _ := counted()
	must(t, r.Leave("never seen", 1))
}

// A renewal that was under way when its session left must not bring it back.
func TestALateRenewalAfterLeaving(t *testing.T) {
	r, _ := counted()
	must(t, r.Put(rs1(5)))
	must(t, r.Leave("rs1", 5))
	if err := r.Put(rs1(5)); !errors.Is(err, ErrStaleSession) {
		t.Errorf("error %v, want %v", err, ErrStaleSession)
	}
	must(t, r.Put(rs1(4))) // a restart under a clock that went back
	if r.Leases()[0].Gone {
		t.Error("the new session holds no lease")
	}
}

func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := counted()
		r.maxLeases, r.maxGone = 2, 1
		for i := 1; i <= 2; i++ {
			must(t, r.Put(Claim{Name: fmt.Sprint(i), Address: addr(i), Session: 1}))
		}
		if err := r.Put(Claim{Name: "3", Address: addr(3), Session: 1}); !errors.Is(err, ErrFull) {
			t.Errorf("error %v, want %v", err, ErrFull)
		}
		must(t, r.Put(Claim{Name: "1", Address: addr(1), Session: 1})) // a renewal needs no room
		time.Sleep(lease)
		must(t, r.Put(Claim{Name: "3", Address: addr(3), Session: 1}))
		var names []string
		for _, l := range r.Leases() {
			names = append(names, fmt.Sprintf("%s gone=%t", l.Name, l.Gone))
		}
		// Of the two that ended together, the one renewed first made room.
		if diff := cmp.Diff([]string{"1 gone=true", "3 gone=false"}, names); diff != "" {
			t.Errorf("leases (-want +got):\n%s", diff)
		}
		r.maxLeases = 1
		must(t, r.Leave("3", 1))
		must(t, r.Put(Claim{Name: "4", Address: addr(4), Session: 1}))
		if err := r.Put(Claim{Name: "3", Address: addr(3), Session: 2}); !errors.Is(err, ErrFull) {
			t.Errorf("a tombstone's return: error %v, want %v", err, ErrFull)
		}
	})
}

// changed may ask for the leases: it is called outside the lock.
func TestChangedIsCalledOutsideTheLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r *Registry
		var calls atomic.Int32
		r = New(lease, func() { r.Leases(); calls.Add(1) })
		running(t, r, func() {
			must(t, r.Put(rs1(1)))
			must(t, r.Leave("rs1", 1))
			must(t, r.Put(rs1(2)))
			time.Sleep(2 * lease)
		})
		if n := calls.Load(); n != 4 {
			t.Errorf("changed called %d times, want 4", n)
		}
	})
}

func TestConcurrentUse(t *testing.T) {
	r := New(time.Millisecond, func() {})
	running(t, r, func() {
		var g sync.WaitGroup
		for i := range 8 {
			g.Go(func() {
				for n := range 500 {
					name := fmt.Sprint(n % 5)
					_ = r.Put(Claim{Name: name, Address: addr(n % 7), Session: uint64(i)}) // refusals are part of it
					_ = r.Leave(name, uint64(n%9))
					r.Leases()
				}
			})
		}
		g.Wait()
	})
	if r.running.Len()+r.gone.Len() != len(r.byName) || r.running.Len() != len(r.byAddress) {
		t.Errorf("%d running, %d gone, %d names, %d addresses do not add up",
			r.running.Len(), r.gone.Len(), len(r.byName), len(r.byAddress))
	}
}

// BenchmarkPut renews 10,000 agents in turn, as they do once a second.
func BenchmarkPut(b *testing.B) {
	const agents = 10_000
	r := New(time.Hour, func() {})
	claims := make([]Claim, agents)
	for i := range claims {
		claims[i] = Claim{
			Name: fmt.Sprintf("rs%d", i), Address: addr(i), Session: 1,
			Services: []ServiceClaim{{Name: "HTTP", State: Ready}},
		}
		if err := r.Put(claims[i]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := r.Put(claims[i%agents]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLeases(b *testing.B) {
	r := New(time.Hour, func() {})
	for i := range 10_000 {
		if err := r.Put(Claim{Name: fmt.Sprintf("rs%d", i), Address: addr(i), Session: 1}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		r.Leases()
	}
}

// TestHeldUp holds that a director that did not run for a while ends no lease for that.
func TestHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := counted()
		running(t, r, func() {
			must(t, r.Put(rs1(1)))
			synctest.Wait()
			r.mu.Lock() // as if all of it had happened ten seconds ago
			const out = 10 * time.Second
			r.pulse = r.pulse.Add(-out)
			l := r.running.Front().Value.(*Lease)
			l.Expires = l.Expires.Add(-out)
			r.mu.Unlock()
			time.Sleep(lease - time.Second)
			if l := r.Leases()[0]; l.Gone {
				t.Errorf("the lease is gone: %s", l.GoneReason)
			}
			time.Sleep(time.Second + lease/pulses + time.Millisecond)
			if l := r.Leases()[0]; !l.Gone {
				t.Error("the lease does not end any more")
			}
		})
	})
}
