package sysctl

import (
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// Another program sets a setting back every second. It is repaired five times, then once a minute, with an alarm that
// ends when the other program does.
func TestContest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := &fakeHost{values: map[string]string{"net/a": "0", "net/b.x": "3 50"}}
		r := start(h, filepath.Join(dir, "state.json"), settingA, settingB)
		r.logged()
		alarm := []string{"something on this host sets net.a back to 0 again and again, so that it is set only once a minute: find it with grep -rs a /etc/sysctl.conf /etc/sysctl.d /run/sysctl.d /usr/lib/sysctl.d /etc/network /etc/NetworkManager, or it is another program that manages the network"}
		var set []int // the seconds in which net.a was set
		for second := 1; second <= 320; second++ {
			time.Sleep(time.Second)
			if second <= 200 {
				h.values["net/a"] = "0"
			}
			report := r.turn()
			for range report.Changes {
				set = append(set, second)
			}
			var want []string
			if second >= 6 && second < 305 { // a minute after the last repair
				want = alarm
			}
			same(t, fmt.Sprintf("problems at %d s", second), want, report.Problems)
			state := Changed
			if want != nil && second < 245 && set[len(set)-1] != second {
				state = Contested
			}
			same(t, fmt.Sprintf("state at %d s", second), state, report.Findings[0].State)
		}
		same(t, "repairs", []int{1, 2, 3, 4, 5, 65, 125, 185, 245}, set)
		same(t, "drifts", uint64(9), r.Report().Drifts)
		same(t, "writes", 2+len(set), len(h.writes))
		r.stop()
		same(t, "host after the stop", map[string]string{"net/a": "0", "net/b.x": "3 50"}, h.values)
	})
}

// Drift that is rarer than six times within a minute is just repaired, for as long as it takes.
func TestNoContest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := &fakeHost{values: map[string]string{"net/a": "0"}}
		r := start(h, filepath.Join(dir, "state.json"), settingA)
		for i := range 50 {
			time.Sleep(12 * time.Second)
			h.values["net/a"] = "0"
			if report := r.turn(); h.values["net/a"] != "1" || len(report.Problems) > 0 {
				t.Fatalf("drift %d: %+v", i, report)
			}
		}
	})
}

// Who wants another value starts without a grudge.
func TestContestEndsWithTheWish(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := &fakeHost{values: map[string]string{"net/a": "0"}}
		r := start(h, filepath.Join(dir, "state.json"), settingA)
		for range 7 {
			h.values["net/a"] = "0"
			r.turn()
		}
		same(t, "contested", "0", h.values["net/a"])
		r.wanted[0].Value = "2"
		report := r.turn()
		same(t, "with another wish", "2", h.values["net/a"])
		same(t, "problems", []string(nil), report.Problems)
	})
}
