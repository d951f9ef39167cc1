package httpcheck

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestTracker(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		rise, fall int
		results    string // + success, - failure
		want       string // u up, d down, ? unknown, after each result; upper case: it changed
	}{
		{name: "first success is up at once", rise: 3, fall: 3, results: "+", want: "U"},
		{name: "first failures count", rise: 1, fall: 3, results: "---", want: "??D"},
		{name: "a success among the first failures", rise: 3, fall: 3, results: "--+--", want: "??Uuu"},
		{name: "fall", rise: 1, fall: 2, results: "+-+--", want: "Uuuu" + "D"},
		{name: "rise", rise: 2, fall: 1, results: "-+-++", want: "Dddd" + "U"},
		{name: "the seed's: one failure, two successes", rise: 2, fall: 1, results: "+-++-", want: "UDdUD"},
		{name: "below one counts as one", rise: 0, fall: -1, results: "-+", want: "DU"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tracker := NewTracker(tt.rise, tt.fall)
			var got strings.Builder
			for _, r := range tt.results {
				state, changed := tracker.Observe(Result{OK: r == '+'})
				letter := map[State]string{Unknown: "?", Up: "u", Down: "d"}[state]
				if changed {
					letter = strings.ToUpper(letter)
				}
				got.WriteString(letter)
			}
			if diff := cmp.Diff(tt.want, got.String()); diff != "" {
				t.Errorf("states (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever came before, rise successes in a row end up and fall failures in a row end down, and a state
// is only ever left by that many results against it.
func TestTrackerProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rise, fall := rapid.IntRange(1, 5).Draw(t, "rise"), rapid.IntRange(1, 5).Draw(t, "fall")
		tracker := NewTracker(rise, fall)
		before, good, bad := Unknown, 0, 0
		for _, ok := range rapid.SliceOf(rapid.Bool()).Draw(t, "results") {
			if ok {
				good, bad = good+1, 0
			} else {
				good, bad = 0, bad+1
			}
			state, changed := tracker.Observe(Result{OK: ok})
			if changed != (state != before) {
				t.Fatalf("changed is %v from %v to %v", changed, before, state)
			}
			if good >= rise && state != Up || bad >= fall && state != Down {
				t.Fatalf("state %v after %d good, %d bad in a row (rise %d, fall %d)", state, good, bad, rise, fall)
			}
			if before == Up && state == Down && bad < fall || before == Down && state == Up && good < rise {
				t.Fatalf("left %v after %d good, %d bad in a row", before, good, bad)
			}
			before = state
		}
	})
}
