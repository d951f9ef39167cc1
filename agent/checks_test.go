package agent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lvstun/httpcheck"
)

func TestObserve(t *testing.T) {
	t.Parallel()
	type step struct {
		state   httpcheck.State
		ok      bool
		reason  string
		want    verdict
		changed bool
	}
	up, down := verdict{state: httpcheck.Up}, func(why string) verdict { return verdict{state: httpcheck.Down, reason: why} }
	tests := []struct {
		name  string
		begin verdict
		steps []step
	}{
		{"up", verdict{}, []step{{httpcheck.Up, true, "", up, true}, {httpcheck.Up, true, "", up, false}}},
		{"failing at first", verdict{}, []step{
			{httpcheck.Unknown, false, "refused", verdict{reason: "refused"}, true},
			{httpcheck.Down, false, "refused", down("refused"), true},
		}},
		{"one failure of two", up, []step{{httpcheck.Up, false, "refused", up, false}}},
		{"coming back keeps the reason until it is up", down("refused"), []step{
			{httpcheck.Down, true, "", down("refused"), false},
			{httpcheck.Down, false, "status 503", down("status 503"), true},
			{httpcheck.Up, true, "", up, true},
		}},
		{"a new check keeps the old verdict until it has its own", up, []step{
			{httpcheck.Unknown, false, "refused", up, false},
			{httpcheck.Down, false, "refused", down("refused"), true},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := &check{verdict: tt.begin}
			for i, s := range tt.steps {
				changed := k.observe(httpcheck.Update{State: s.state, Result: httpcheck.Result{OK: s.ok, Reason: s.reason}})
				if changed != s.changed {
					t.Errorf("step %d: changed %v, want %v", i, changed, s.changed)
				}
				if diff := cmp.Diff(s.want, k.read(), cmp.AllowUnexported(verdict{})); diff != "" {
					t.Errorf("step %d: verdict (-want +got):\n%s", i, diff)
				}
			}
		})
	}
}

func TestSetStartsAndStops(t *testing.T) {
	t.Parallel()
	a := target{spec: httpcheck.Spec{Kind: httpcheck.TCP}, addr: netip.MustParseAddrPort("10.0.0.50:80")}
	moved := target{spec: a.spec, addr: netip.MustParseAddrPort("10.0.0.51:80")}
	events := make(chan string, 10)
	c := &checks{wake: func() {}, run: func(ctx context.Context, t target, report func(httpcheck.Update)) error {
		report(httpcheck.Update{State: httpcheck.Up, Result: httpcheck.Result{OK: true}})
		events <- "start " + t.addr.String()
		<-ctx.Done()
		events <- "stop " + t.addr.String()
		return nil
	}}
	expect := func(want ...string) {
		t.Helper()
		got := map[string]bool{}
		for range want {
			select {
			case e := <-events:
				got[e] = true
			case <-time.After(5 * time.Second):
			}
		}
		for _, w := range want {
			if !got[w] {
				t.Errorf("no %q among %v", w, got)
			}
		}
	}
	c.set(t.Context(), map[string]target{"HTTP": a})
	expect("start 10.0.0.50:80")
	first := c.running["HTTP"]
	c.set(t.Context(), map[string]target{"HTTP": a})
	if c.running["HTTP"] != first {
		t.Error("an unchanged check was started again")
	}
	c.set(t.Context(), map[string]target{"HTTP": moved})
	expect("stop 10.0.0.50:80", "start 10.0.0.51:80")
	c.set(t.Context(), nil)
	expect("stop 10.0.0.51:80")
	if v := c.verdicts(); len(v) != 0 {
		t.Errorf("verdicts without a check: %v", v)
	}
	c.set(t.Context(), map[string]target{"HTTP": a})
	expect("start 10.0.0.50:80")
	c.stop()
	expect("stop 10.0.0.50:80")
}

func TestACheckThatCannotRunIsDown(t *testing.T) {
	t.Parallel()
	woken := make(chan struct{}, 1)
	c := &checks{wake: func() { nudge(woken) }, run: func(context.Context, target, func(httpcheck.Update)) error { return errors.New("no such kind") }}
	c.set(t.Context(), map[string]target{"HTTP": {}})
	<-woken
	if v := c.verdicts()["HTTP"]; v.state != httpcheck.Down || v.reason != "no such kind" {
		t.Errorf("verdict %+v", v)
	}
	c.stop()
}

// A probe of an address that this host does not hold must fail here, and not be carried to another.
func TestProbesStayOnThisHost(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	spec := httpcheck.Spec{Kind: httpcheck.TCP}.WithDefaults()
	probe := func(addr netip.AddrPort) (got httpcheck.Update) {
		ctx, cancel := context.WithCancel(t.Context())
		if err := probeLocally(ctx, target{spec, addr}, func(u httpcheck.Update) { got = u; cancel() }); err != nil {
			t.Error(err)
		}
		return got
	}
	here := l.Addr().(*net.TCPAddr).AddrPort()
	if u := probe(here); u.State != httpcheck.Up {
		t.Errorf("of a local service: %+v", u)
	}
	elsewhere := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.50"), here.Port())
	if u := probe(elsewhere); u.Result.OK || !strings.Contains(u.Result.Reason, "cannot assign requested address") {
		t.Errorf("of an address that is not here: %+v", u)
	}
	if err := probeLocally(t.Context(), target{}, nil); err == nil {
		t.Error("an empty spec runs")
	}
}
