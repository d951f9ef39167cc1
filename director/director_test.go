package director

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"lvstun/director/api"
	"lvstun/director/client"
	"lvstun/director/config"
	"lvstun/director/ipvs"
	"lvstun/director/pair"
	"lvstun/director/registry"
	"lvstun/director/trust"
)

// fakeKernel is a table with the ownership rule of ipvs.Handle and a record of what was written.
type fakeKernel struct {
	mu      sync.Mutex
	table   map[ipvs.Key]ipvs.Service
	applies int
	err     error // fails every call while it is set
	lowest  int   // the fewest destinations that any service of ours ever had after an Apply
}

func newFakeKernel(services ...ipvs.Service) *fakeKernel {
	k := &fakeKernel{table: make(map[ipvs.Key]ipvs.Service), lowest: 1 << 20}
	for _, s := range services {
		k.table[s.Key] = s
	}
	return k
}

func (k *fakeKernel) Services(context.Context) ([]ipvs.Service, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Values(k.table)), k.err
}

func (k *fakeKernel) Apply(_ context.Context, desired []ipvs.Service, ours map[ipvs.Key]bool) (ipvs.Report, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.applies++
	if k.err != nil {
		return ipvs.Report{}, k.err
	}
	for key := range ours {
		delete(k.table, key)
	}
	for _, s := range desired {
		k.table[s.Key] = s
		k.lowest = min(k.lowest, len(s.Destinations))
	}
	return ipvs.Report{}, nil
}

// weights renders the table as service → address → weight.
func (k *fakeKernel) weights() map[string]map[string]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make(map[string]map[string]int)
	for key, s := range k.table {
		out[key.String()] = make(map[string]int)
		for _, d := range s.Destinations {
			out[key.String()][d.Addr.Addr().String()] = d.Weight
		}
	}
	return out
}

func (k *fakeKernel) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}

// open is a service into which agents register; it lists no server, so no check runs.
func open() config.Service {
	s := web()
	s.Servers = nil
	return s
}

func start(t *testing.T, k Kernel, ownedFile string, services ...config.Service) (*Director, func()) {
	t.Helper()
	d := New(Options{
		Config: &config.Config{Name: "vs", Services: services, Heartbeat: config.Heartbeat{Paths: []config.Path{
			{Local: netip.MustParseAddr("10.0.0.1"), Peer: netip.MustParseAddr("10.0.0.2")},
		}}},
		Kernel: k, Pair: fakePair{}, OwnedFile: ownedFile, Log: slog.New(slog.DiscardHandler),
		Problems:   func() []string { return nil },
		Drifts:     func() uint64 { return 3 },
		WitnessKey: func(name string) [32]byte { return sha256.Sum256([]byte(name)) },
		Source:     source,
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	return d, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
}

// source is what the route to a real server says: there is one to rs1 and rs2 only.
func source(to netip.Addr) (netip.Addr, error) {
	switch to {
	case rs1:
		return netip.MustParseAddr("192.168.1.10"), nil
	case rs2: // by the network of the heartbeats
		return netip.MustParseAddr("10.0.0.1"), nil
	}
	return netip.Addr{}, errors.New("network is unreachable")
}

// fakePair is a half that does nothing.
type fakePair struct{}

func (fakePair) Status() pair.Status            { return pair.Status{Term: 4} }
func (fakePair) Handover(context.Context) error { return errors.New("nobody to hand over to") }

func claims(name string) trust.Claims { return trust.Claims{Name: name, Services: []string{"HTTP"}} }

func report(addr netip.Addr, state client.State, weight int) client.Registration {
	return client.Registration{Address: addr, Session: 1, Services: []client.ServiceReport{{Name: "HTTP", State: state, Weight: weight, Reason: "r"}}}
}

func register(t *testing.T, d *Director, name string, r client.Registration) client.Answer {
	t.Helper()
	answer, err := d.Register(t.Context(), claims(name), r)
	if err != nil {
		t.Fatalf("register %s: %v", name, err)
	}
	return answer
}

func wantWeights(t *testing.T, k *fakeKernel, want map[string]map[string]int) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, k.weights()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

const webKey = "10.0.0.50:80/tcp"

func TestRegistrationsFillTheTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newFakeKernel()
		d, stop := start(t, k, "", open())
		defer stop()
		<-d.Ready()
		register(t, d, "rs1", report(rs1, client.Ready, 5))
		register(t, d, "rs2", report(rs2, client.Down, 0))
		time.Sleep(2 * coalesce)
		wantWeights(t, k, map[string]map[string]int{webKey: {rs1.String(): 5, rs2.String(): 0}})

		// rs2 serves; rs1 goes on renewing until its agent dies.
		register(t, d, "rs2", report(rs2, client.Ready, 0))
		time.Sleep(LeaseTime / 2)
		register(t, d, "rs2", report(rs2, client.Ready, 0))
		wantWeights(t, k, map[string]map[string]int{webKey: {rs1.String(): 5, rs2.String(): 1}})
		time.Sleep(LeaseTime/2 + 2*coalesce)
		wantWeights(t, k, map[string]map[string]int{webKey: {rs2.String(): 1}})

		if err := d.Leave(t.Context(), claims("rs2"), 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * coalesce)
		wantWeights(t, k, map[string]map[string]int{webKey: {}})
	})
}

func TestAnswerTellsTheAgentAllItNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, stop := start(t, newFakeKernel(), "", open())
		defer stop()
		<-d.Ready()
		got := register(t, d, "rs1", report(rs1, client.Ready, 5))
		svc := open()
		want := client.Answer{
			Director: "vs", Role: pair.Status{}.Role.String(), Term: 4, Lease: client.Duration(LeaseTime),
			Directors: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("192.168.1.10")},
			Services: []client.ServiceDefinition{{
				Name: "HTTP", VIP: svc.VIP, Port: 80, Protocol: "tcp", Encapsulation: client.Encapsulation{Type: "ipip"}, Weight: 1,
			}},
			WitnessKey: sha256.Sum256([]byte("rs1")),
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
	})
}

// A real server is told of the source of what comes to it, beside both ends of the heartbeat.
func TestAnswerNamesTheSourceOfTunnelPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, stop := start(t, newFakeKernel(), "", open())
		defer stop()
		<-d.Ready()
		for rs, want := range map[netip.Addr]string{
			rs1: "[10.0.0.1 10.0.0.2 192.168.1.10]",
			rs2: "[10.0.0.1 10.0.0.2]",
			rs3: "[10.0.0.1 10.0.0.2]",
		} {
			got := register(t, d, rs.String(), report(rs, client.Ready, 1))
			if got := fmt.Sprint(got.Directors); got != want {
				t.Errorf("%s is told of directors at %s, want %s", rs, got, want)
			}
		}
	})
}

func TestRefusedRegistrationsChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newFakeKernel()
		d, stop := start(t, k, "", open())
		defer stop()
		<-d.Ready()
		newer := report(rs1, client.Ready, 5)
		newer.Session = 2
		register(t, d, "rs1", newer)
		unknown := report(rs2, client.Ready, 1)
		unknown.Services = append(unknown.Services, client.ServiceReport{Name: "FTP", State: client.Ready})
		for _, tt := range []struct {
			name, says string
			as         string
			r          client.Registration
			want       error
		}{
			{"unknown service beside a known one", `"FTP"`, "rs2", unknown, api.ErrUnknownService},
			{"an address the operator does not allow", out.String(), "rs2", report(out, client.Ready, 1), api.ErrForbidden},
			{"an older session", "rs1", "rs1", report(rs1, client.Down, 5), api.ErrConflict},
			{"another's address", rs1.String(), "rs9", report(rs1, client.Down, 5), api.ErrConflict},
		} {
			_, err := d.Register(t.Context(), claims(tt.as), tt.r)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: error %v, want one that is %v and says %s", tt.name, err, tt.want, tt.says)
			}
		}
		time.Sleep(2 * coalesce)
		wantWeights(t, k, map[string]map[string]int{webKey: {rs1.String(): 5}})
	})
}

// A director that starts beside a full table, whose agents need a while to come back, takes nothing out meanwhile.
func TestRestartNeverEmptiesTheTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newFakeKernel(ipvs.Service{Key: open().Key(), Destinations: []ipvs.Destination{holding(rs1, 5), holding(rs2, 6)}})
		d, stop := start(t, k, "", open())
		<-d.Ready()
		wantWeights(t, k, map[string]map[string]int{webKey: {rs1.String(): 5, rs2.String(): 6}})
		time.Sleep(grace - time.Second)
		register(t, d, "rs1", report(rs1, client.Ready, 5))
		time.Sleep(2 * time.Second) // the grace is over; rs2 never came back
		wantWeights(t, k, map[string]map[string]int{webKey: {rs1.String(): 5}})
		stop()
		wantWeights(t, k, map[string]map[string]int{webKey: {rs1.String(): 5}})
		if k.lowest == 0 {
			t.Error("the service was empty for a while")
		}
	})
}

func TestOnlyOwnServicesAreTakenOut(t *testing.T) {
	record := filepath.Join(t.TempDir(), "services.json")
	foreign := ipvs.Service{Key: ipvs.NewKey(ipvs.UDP, netip.MustParseAddrPort("10.0.0.60:53"))}
	second := open()
	second.Name, second.Port = "HTTPS", 443
	synctest.Test(t, func(t *testing.T) {
		k := newFakeKernel(foreign)
		d, stop := start(t, k, record, open(), second)
		<-d.Ready()
		stop()
		wantWeights(t, k, map[string]map[string]int{webKey: {}, "10.0.0.50:443/tcp": {}, "10.0.0.60:53/udp": {}})

		// HTTPS leaves the configuration while the director is down.
		d, stop = start(t, k, record, open())
		<-d.Ready()
		stop()
		wantWeights(t, k, map[string]map[string]int{webKey: {}, "10.0.0.60:53/udp": {}})
	})
}

func TestFailedApplyIsSaidAndTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newFakeKernel()
		d, stop := start(t, k, "", open())
		defer stop()
		<-d.Ready()
		k.fail(errors.New("the kernel is busy"))
		register(t, d, "rs1", report(rs1, client.Ready, 5))
		time.Sleep(2 * coalesce)
		if got := strings.Join(d.Status().Problems, "\n"); !strings.Contains(got, "the kernel is busy") {
			t.Errorf("problems %q, want the kernel's error", got)
		}
		k.fail(nil)
		time.Sleep(retryAfter)
		wantWeights(t, k, map[string]map[string]int{webKey: {rs1.String(): 5}})
		if got := d.Status().Problems; len(got) > 0 {
			t.Errorf("problems %q after the recovery, want none", got)
		}
	})
}

// A hundred changes within a moment are one or two writes, and a steady stream of them cannot keep the table waiting.
func TestChangesCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newFakeKernel()
		d, stop := start(t, k, "", open())
		defer stop()
		<-d.Ready()
		synctest.Wait()
		before := k.applies
		for i := range 100 {
			register(t, d, "rs1", report(rs1, client.Ready, 1+i%9))
			time.Sleep(coalesce / 5)
		}
		synctest.Wait()
		if got := k.applies - before; got < 10 || got > 25 {
			t.Errorf("100 changes within %v made %d writes, want one each %v", 20*coalesce, got, coalesce)
		}
	})
}

func TestStatusJoinsDecisionsAndCounters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newFakeKernel()
		d, stop := start(t, k, "", open())
		defer stop()
		<-d.Ready()
		r := report(rs1, client.Ready, 5)
		r.Tunnel.OK = true
		register(t, d, "rs1", r)
		time.Sleep(2 * coalesce)
		synctest.Wait()
		k.mu.Lock()
		s := k.table[open().Key()]
		s.Destinations = slices.Clone(s.Destinations)
		s.Destinations[0].ActiveConns = 3
		s.Stats.Conns = 12
		k.table[s.Key] = s
		k.mu.Unlock()

		status := d.Status()
		if status.Drifts != 3 {
			t.Errorf("%d drifts, want 3", status.Drifts)
		}
		if len(status.Services) != 1 || len(status.Services[0].Destinations) != 1 {
			t.Fatalf("status has services %+v, want HTTP with rs1", status.Services)
		}
		svc := status.Services[0]
		if got := svc.Destinations[0]; got.Name != "rs1" || got.Weight != 5 || got.ActiveConns != 3 || got.Source != FromAgent || svc.Stats.Conns != 12 {
			t.Errorf("status %+v", svc)
		}
		if len(status.Leases) != 1 || !status.Leases[0].Tunnel.OK || status.Leases[0].Services[0].State != client.State(registry.Ready) {
			t.Errorf("leases %+v", status.Leases)
		}
	})
}

// A reload changes what differs and nothing else: leases go on, and a service that left the configuration goes.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newFakeKernel()
		second := open()
		second.Name, second.Port = "HTTPS", 443
		d, stop := start(t, k, "", open(), second)
		defer stop()
		<-d.Ready()
		register(t, d, "rs1", report(rs1, client.Ready, 5))
		time.Sleep(2 * coalesce)
		wantWeights(t, k, map[string]map[string]int{webKey: {rs1.String(): 5}, "10.0.0.50:443/tcp": {}})

		bounded := open()
		bounded.Register.MaxWeight = 2
		d.Reload(&config.Config{Name: "vs", Services: []config.Service{bounded}})
		time.Sleep(2 * coalesce)
		wantWeights(t, k, map[string]map[string]int{webKey: {rs1.String(): 2}})
		if _, err := d.Register(t.Context(), claims("rs2"), client.Registration{
			Address: rs2, Services: []client.ServiceReport{{Name: "HTTPS", State: client.Ready}},
		}); !errors.Is(err, api.ErrUnknownService) {
			t.Errorf("registering into a service that left: %v", err)
		}
	})
}
