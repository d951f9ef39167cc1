package httpcheck

// State is what the checks of a server add up to.
type State uint8

const (
	Unknown State = iota // not enough answers yet
	Up
	Down
)

// String is "unknown", "up" or "down".
func (s State) String() string {
	switch s {
	case Up:
		return "up"
	case Down:
		return "down"
	}
	return "unknown"
}

// MarshalText is String as bytes.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Tracker turns single results into a state. It is pure: no clock, no I/O, not for concurrent use.
// The first success leaves Unknown at once; otherwise rise successes in a row are up and fall failures
// in a row are down.
type Tracker struct {
	rise, fall int
	state      State
	streak     int // results in a row that speak against state
}

// NewTracker returns a tracker in state Unknown. Values below 1 count as 1.
func NewTracker(rise, fall int) *Tracker {
	return &Tracker{rise: max(rise, 1), fall: max(fall, 1)}
}

// State is the state after the last result.
func (t *Tracker) State() State { return t.state }

// Observe takes the next result and returns the state after it, and whether that changed it.
func (t *Tracker) Observe(r Result) (state State, changed bool) {
	next, needed := Down, t.fall
	if r.OK {
		next, needed = Up, t.rise
		if t.state == Unknown {
			needed = 1
		}
	}
	if t.state == next {
		t.streak = 0
		return t.state, false
	}
	t.streak++
	if t.streak < needed {
		return t.state, false
	}
	t.state, t.streak = next, 0
	return t.state, true
}
