package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"lvstun/director/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ready    = `HTTP ready ""`
	unsaid   = `HTTP down "no director has said what this service is"`
	checking = `HTTP down "checking"`
)

func pair() (vs, bk *fakeDirector) {
	return newDirector(answer("vs", "active", 1, define("HTTP", "10.0.0.50", "/"))),
		newDirector(answer("vs_bk", "standby", 1, define("HTTP", "10.0.0.50", "/")))
}

func wantStates(t *testing.T, d *fakeDirector, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, d.states()); diff != "" {
		t.Errorf("heard (-want +got):\n%s", diff)
	}
}

// settled lets everything that happens at this moment happen, and a little time pass.
func settled() {
	time.Sleep(10 * time.Millisecond)
	synctest.Wait()
}

func TestFromNothingToReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vs, bk := pair()
		b, stop := start(t, vs, bk)
		settled()
		for _, d := range b.directors {
			heard := d.states()
			if heard[len(heard)-1] != ready {
				t.Errorf("heard %q, want last that it is ready", heard)
			}
			for _, h := range heard[:len(heard)-1] {
				if h != unsaid && h != checking {
					t.Errorf("heard %q before it was ready", h)
				}
			}
		}
		if held, _ := b.host.read(); held != "[10.0.0.50]" {
			t.Errorf("the host holds %s", held)
		}
		notified, _ := b.told()
		if !slices.Contains(notified, "READY=1") || !slices.Contains(notified, "STATUS=2 of 2 directors, 1 of 1 services ready") {
			t.Errorf("the service manager heard %q", notified)
		}
		stop()
		for _, d := range b.directors {
			if heard := d.take(); !strings.HasSuffix(heard[len(heard)-1], " left") {
				t.Errorf("last heard %q, want a goodbye", heard)
			}
		}
		if held, _ := b.host.read(); held != "[10.0.0.50]" {
			t.Errorf("after the stop the host holds %s, want what it held", held)
		}
	})
}

func TestRenewsEverySecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vs, bk := pair()
		_, stop := start(t, vs, bk)
		defer stop()
		settled()
		vs.take()
		time.Sleep(10 * time.Second)
		if n := len(vs.take()); n < 10 || n > 12 {
			t.Errorf("%d renewals in 10 s, want one every 0.9 to 1 s", n)
		}
		quick := *vs.answer
		quick.Lease = client.Duration(600 * time.Millisecond)
		vs.set(func(d *fakeDirector) { d.answer = &quick })
		time.Sleep(2 * time.Second)
		vs.take()
		time.Sleep(2 * time.Second)
		if n := len(vs.take()); n < 10 || n > 12 {
			t.Errorf("%d renewals of a lease of 600 ms in 2 s, want one every 180 to 200 ms", n)
		}
	})
}

func TestCheckGoesDownAndComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vs, bk := pair()
		b, stop := start(t, vs, bk)
		defer stop()
		settled()
		vs.take()
		bk.take()
		b.web.set("10.0.0.50:80: connection refused")
		time.Sleep(210 * time.Millisecond) // one beat of the check and no renewal
		wantStates(t, vs, `HTTP down "10.0.0.50:80: connection refused"`)
		wantStates(t, bk, `HTTP down "10.0.0.50:80: connection refused"`)
		b.web.set("")
		time.Sleep(210 * time.Millisecond)
		wantStates(t, vs, ready)
		if s := b.agent.Status().Services[0]; s.State != client.Ready || time.Since(s.Since) > 250*time.Millisecond {
			t.Errorf("status %+v", s)
		}
	})
}

func TestTunnelSideBreaksAndIsRepaired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vs, bk := pair()
		b, stop := start(t, vs, bk)
		defer stop()
		time.Sleep(2500 * time.Millisecond)
		vs.take()

		// With word from the kernel: at once.
		b.host.set(func(h *fakeHost) { h.held = nil; h.changed() })
		settled()
		if held, _ := b.host.read(); held != "[10.0.0.50]" {
			t.Errorf("after the kernel's word the host holds %s", held)
		}
		// Without: within a second.
		b.host.set(func(h *fakeHost) { h.held = nil })
		time.Sleep(time.Second)
		if held, _ := b.host.read(); held != "[10.0.0.50]" {
			t.Errorf("a second after a silent loss the host holds %s", held)
		}
		// Not repairable: the service goes down, with the reason, and comes back.
		b.host.set(func(h *fakeHost) { h.broken = "kernel module ipip is missing"; h.changed() })
		time.Sleep(time.Second)
		b.host.set(func(h *fakeHost) { h.broken = "" })
		time.Sleep(time.Second)
		wantStates(t, vs, ready, `HTTP down "tunnel side: kernel module ipip is missing"`, ready)

		s := b.agent.Status().Tunnel
		if !s.OK || s.Changes != 3 || len(s.Recent) != 3 || s.Recent[0].What != "10.0.0.50" || !s.Recent[0].At.After(s.Recent[2].At) {
			t.Errorf("status %+v, want three changes, newest first", s)
		}
		stop()
		for _, want := range []string{
			`msg="tunnel side built" what=10.0.0.50 old=absent new=present`,
			`msg="tunnel side repaired" what=10.0.0.50 old=absent new=present`,
			`msg="tunnel side is not right" reason="kernel module ipip is missing"`,
			`msg="tunnel side is right again"`,
		} {
			if !strings.Contains(b.log.String(), want) {
				t.Errorf("the log lacks %s:\n%s", want, b.log)
			}
		}
	})
}

// A storm of notifications must not turn the loop into a busy one, and none of them may be lost for more
// than a second.
func TestStormOfNotifications(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vs, bk := pair()
		b, stop := start(t, vs, bk)
		defer stop()
		settled()
		_, before := b.host.read()
		for range 1000 {
			b.host.set(func(h *fakeHost) { h.changed() })
			time.Sleep(time.Millisecond)
		}
		if _, after := b.host.read(); after-before > 12 {
			t.Errorf("%d looks at the host in a second of 1000 notifications", after-before)
		}
	})
}

func TestLosingDirectorsChangesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vs, bk := pair()
		b, stop := start(t, vs, bk)
		defer stop()
		settled()
		die := func(d *fakeDirector) { d.answer = nil }
		vs.set(die)
		time.Sleep(5 * time.Second)
		vs.take()
		bk.take()
		time.Sleep(5 * time.Second)
		if n := len(bk.take()); n < 5 {
			t.Errorf("the living director heard %d renewals in 5 s", n)
		}
		if n := len(vs.take()); n < 5 || n > 15 {
			t.Errorf("the dead director was tried %d times in 5 s", n)
		}
		bk.set(die)
		time.Sleep(time.Minute)
		if held, _ := b.host.read(); held != "[10.0.0.50]" {
			t.Errorf("without any director the host holds %s", held)
		}
		s := b.agent.Status()
		if s.Services[0].State != client.Ready || s.Directors[0].Registered || s.Directors[0].Error != errDead.Error() || s.Directors[0].Term != 1 {
			t.Errorf("status %+v", s)
		}
		vs.take()
		vs.set(func(d *fakeDirector) { d.answer = answer("vs", "active", 2, define("HTTP", "10.0.0.50", "/")) })
		time.Sleep(1100 * time.Millisecond)
		if heard := vs.states(); len(heard) == 0 || heard[len(heard)-1] != ready {
			t.Errorf("the director that came back heard %q", heard)
		}
	})
}

func TestAHangingDirectorHoldsNothingUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vs, bk := pair()
		vs.takes = time.Hour
		b, stop := start(t, vs, bk)
		settled()
		if heard := bk.states(); heard[len(heard)-1] != ready {
			t.Errorf("the other director heard %q", heard)
		}
		if notified, _ := b.told(); slices.Contains(notified, "READY=1") {
			t.Error("ready before every director was asked")
		}
		time.Sleep(requestTimeout)
		if notified, _ := b.told(); !slices.Contains(notified, "READY=1") {
			t.Error("not ready after every director was asked")
		}
		begin := time.Now()
		stop()
		if took := time.Since(begin); took > requestTimeout+leaveTimeout {
			t.Errorf("stopping took %v", took)
		}
	})
}

func TestAgentOfADeadCluster(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b, stop := start(t, newDirector(nil), newDirector(nil))
		time.Sleep(3 * time.Second)
		if _, applies := b.host.read(); applies != 0 {
			t.Errorf("the host was touched %d times before any director said what is wanted", applies)
		}
		if s := b.agent.Status(); s.Tunnel.OK || s.Services[0].State != client.Down {
			t.Errorf("status %+v", s)
		}
		_, pings := b.told()
		stop()
		if pings < 3 {
			t.Errorf("%d pings of the watchdog in 3 s", pings)
		}
		if heard := b.directors[0].states(); slices.Contains(heard, "left") {
			t.Error("left a director it never reached")
		}
	})
}

func TestDirectorsOfTwoMinds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vs, bk := pair()
		b, stop := start(t, vs, bk)
		settled()
		bk.set(func(d *fakeDirector) { d.answer = answer("vs_bk", "standby", 1, define("HTTP", "10.0.0.51", "/")) })
		time.Sleep(time.Second)
		if held, _ := b.host.read(); held != "[10.0.0.50 10.0.0.51]" {
			t.Errorf("the host holds %s, want the VIPs of both", held)
		}
		want := []string{"service HTTP: vs and vs_bk want different things; vs counts (term 1)"}
		if diff := cmp.Diff(want, b.agent.Status().Differences); diff != "" {
			t.Errorf("differences (-want +got):\n%s", diff)
		}
		vs.set(func(d *fakeDirector) { d.answer = answer("vs", "active", 1, define("HTTP", "10.0.0.51", "/")) })
		time.Sleep(2 * time.Second)
		if held, _ := b.host.read(); held != "[10.0.0.51]" {
			t.Errorf("the host holds %s, want what both agree on", held)
		}
		stop()
		if n := strings.Count(b.log.String(), "the directors differ"); n != 1 {
			t.Errorf("the difference was logged %d times, want once:\n%s", n, b.log)
		}
	})
}

// A check whose terms changed goes on with the old verdict: a new configuration must not quiesce
// anything by itself.
func TestANewCheckKeepsTheVerdict(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vs, bk := pair()
		b, stop := start(t, vs, bk)
		defer stop()
		settled()
		vs.take()
		b.web.mu.Lock()
		b.web.slow = time.Second
		b.web.mu.Unlock()
		for _, d := range b.directors {
			d.set(func(d *fakeDirector) { d.answer = answer("vs", "active", 1, define("HTTP", "10.0.0.50", "/other")) })
		}
		time.Sleep(3 * time.Second)
		wantStates(t, vs, ready)
		if runs := b.web.started(); runs != 2 {
			t.Errorf("%d checks were started, want the old and the new one", runs)
		}
	})
}

func TestLosingTheNotificationsIsSurvived(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vs, bk := pair()
		b, stop := startOn(t, &fakeHost{watchErr: errDead}, vs, bk)
		settled()
		b.host.set(func(h *fakeHost) { h.held = nil })
		time.Sleep(time.Second)
		if held, _ := b.host.read(); held != "[10.0.0.50]" {
			t.Errorf("a second after a loss the host holds %s", held)
		}
		stop()
		if !strings.Contains(b.log.String(), "the kernel's notifications are lost") {
			t.Errorf("nobody was told:\n%s", b.log)
		}
	})
}

func TestLogTellsTransitionsOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vs, bk := pair()
		bk.answer = nil
		b, stop := start(t, vs, bk)
		time.Sleep(time.Minute)
		stop()
		lines := strings.Count(b.log.String(), "\n")
		if lines > 8 {
			t.Errorf("%d lines about a quiet minute:\n%s", lines, b.log)
		}
		for _, want := range []string{
			"msg=registered director=10.0.0.1:3637 name=vs role=active term=1",
			`level=WARN msg="not registered" director=10.0.0.2:3637 err="connection refused"`,
			"msg=service service=HTTP state=ready",
			"msg=left director=10.0.0.1:3637",
		} {
			if !strings.Contains(b.log.String(), want) {
				t.Errorf("the log lacks %s:\n%s", want, b.log)
			}
		}
	})
}

func TestARefusalAsksForQuiet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vs, bk := pair()
		bk.answer, bk.err = nil, &client.Error{Status: 429, Sentence: "slow down", RetryAfter: 20 * time.Second}
		b, stop := start(t, vs, bk)
		defer stop()
		for i := range 30 {
			time.Sleep(500 * time.Millisecond)
			b.web.set(map[int]string{0: "down"}[i%2]) // changes are no reason to ask again
		}
		if heard := bk.take(); len(heard) != 1 {
			t.Errorf("asked %d times in 15 s by one who wanted 20 s of quiet: %q", len(heard), fmt.Sprint(heard))
		}
	})
}
