package httpcheck

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var target = netip.MustParseAddrPort("192.0.2.1:80")

// checkerWith runs a checker on interval whose probes are probe.
func checkerWith(interval time.Duration, probe func(context.Context, netip.AddrPort) Result) *Checker {
	spec := Spec{Kind: TCP, Interval: Duration(interval), Timeout: Duration(time.Second), Rise: 1, Fall: 2}
	return &Checker{spec: spec, probe: probe}
}

func TestCheckerKeepsItsInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var at []time.Duration
		c := checkerWith(2*time.Second, func(context.Context, netip.AddrPort) Result {
			at = append(at, time.Since(begin))
			time.Sleep(300 * time.Millisecond) // a probe's own time must not shift the beats
			return Result{OK: true}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 21*time.Second)
		defer cancel()
		c.Run(ctx, target, func(Update) {})

		if at[0] != 0 {
			t.Errorf("first probe after %v, want at once", at[0])
		}
		if at[1] > 2300*time.Millisecond {
			t.Errorf("second probe after %v, want within one interval of the first one's end", at[1])
		}
		for i := 2; i < len(at); i++ {
			if at[i]-at[i-1] != 2*time.Second {
				t.Errorf("probe %d came %v after the one before, want 2s", i, at[i]-at[i-1])
			}
		}
		if len(at) < 10 {
			t.Errorf("%d probes in 21 s, want at least 10", len(at))
		}
	})
}

func TestCheckersSpreadOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		second := map[time.Duration]bool{}
		for range 20 {
			n := 0
			ctx, cancel := context.WithCancel(t.Context())
			start := time.Now()
			checkerWith(2*time.Second, func(context.Context, netip.AddrPort) Result {
				if n++; n == 2 {
					second[time.Since(start)] = true
					cancel()
				}
				return Result{OK: true}
			}).Run(ctx, target, func(Update) {})
		}
		if len(second) < 15 {
			t.Errorf("20 checkers made their second probe at only %d distinct times (%v in all)", len(second), time.Since(begin))
		}
	})
}

func TestCheckerNeverOverlapsItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		running, probes := 0, 0
		c := checkerWith(time.Second, func(context.Context, netip.AddrPort) Result {
			if running++; running > 1 {
				t.Error("two probes at once")
			}
			probes++
			time.Sleep(2500 * time.Millisecond)
			running--
			return Result{OK: true}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		c.Run(ctx, target, func(Update) {})
		if probes < 9 || probes > 11 {
			t.Errorf("%d probes of 2.5 s each on a beat of 1 s in 30 s, want about 10", probes)
		}
	})
}

func TestCheckerReports(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		answers := []bool{true, false, false, true}
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		var got []string
		checkerWith(time.Second, func(context.Context, netip.AddrPort) Result {
			if n == len(answers) {
				cancel() // a probe cut short by the end must not be reported
				return Result{}
			}
			n++
			return Result{OK: answers[n-1]}
		}).Run(ctx, target, func(u Update) { got = append(got, fmt.Sprint(u.State, u.Changed)) })
		if diff := cmp.Diff([]string{"up true", "up false", "down true", "up true"}, got); diff != "" {
			t.Errorf("updates (-want +got):\n%s", diff)
		}
	})
}

func TestKindNoneIsUpOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := New(Spec{Kind: None})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var got []Update
		c.Run(ctx, target, func(u Update) { got = append(got, u) })
		if len(got) != 1 || got[0].State != Up || !got[0].Changed {
			t.Errorf("updates %+v, want one that is up", got)
		}
	})
}
