// Package result keeps the measurements of a benchmark run, sums them up and shows them.
package result

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"lvstun/deploy/bench/load"
)

// Measurement is one repetition of one event.
type Measurement struct {
	System string `json:"system"`
	Event  string `json:"event"`
	Round  int    `json:"round"`
	// Trouble says why the event did not go as it should: the standby never took over, a command failed. What the
	// client saw stands all the same.
	Trouble string      `json:"trouble,omitempty"`
	Client  load.Result `json:"client"`
	// TwoHoldersMS is how long both directors held the VIP, in milliseconds.
	TwoHoldersMS float64 `json:"two_holders_ms"`
}

// Run is a whole run of the benchmark: what failover.json holds.
type Run struct {
	Began        string            `json:"began"`     // RFC 3339
	Kernel       string            `json:"kernel"`    // release
	Processor    string            `json:"processor"` // count and model
	Versions     map[string]string `json:"versions"`  // of the programs
	Summary      []Row             `json:"summary"`
	Measurements []Measurement     `json:"measurements"`
}

// Row sums up the repetitions of one event with one system. Times are milliseconds.
type Row struct {
	Event       string `json:"event"`
	System      string `json:"system"`
	Repetitions int    `json:"repetitions"`
	Troubled    int    `json:"troubled"` // of the repetitions
	Gap         Spread `json:"gap_ms"`
	Requests    int    `json:"requests"` // of all repetitions
	Failed      Spread `json:"failed"`   // requests
	Resets      Spread `json:"resets"`   // flows
	Lost        Spread `json:"lost"`     // flows
	Broken      Spread `json:"broken"`   // flows, reset or lost
	Flows       int    `json:"flows"`    // of one repetition
	Stall       Spread `json:"stall_ms"` // of the flows that lived on
	TwoHolders  Spread `json:"two_holders_ms"`
	HeldUp      Spread `json:"held_up_ms"` // the client itself, by the machine
}

// Spread is the median and the largest of some numbers.
type Spread struct {
	Median float64 `json:"median"`
	Max    float64 `json:"max"`
}

// SpreadOf is the zero Spread where there are no numbers.
func SpreadOf(numbers []float64) Spread {
	if len(numbers) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(numbers))
	n := len(sorted)
	return Spread{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Max: sorted[n-1]}
}

// Events are the events of the benchmark and what they are called.
var Events = []struct{ Name, Title string }{
	{"crash", "host of the active director crashes"},
	{"freeze", "daemon of the active director freezes"},
	{"stop", "daemon of the active director is stopped"},
	{"handover", "planned handover"},
}

// Summarize makes the rows: by event, in each the systems in the order of the first measurements.
func Summarize(all []Measurement) []Row {
	var systems []string
	for _, m := range all {
		if !slices.Contains(systems, m.System) {
			systems = append(systems, m.System)
		}
	}
	var rows []Row
	for _, event := range Events {
		for _, system := range systems {
			if row := summarize(event.Name, system, all); row.Repetitions > 0 {
				rows = append(rows, row)
			}
		}
	}
	return rows
}

func summarize(event, system string, all []Measurement) Row {
	row := Row{Event: event, System: system}
	var gap, failed, resets, lost, broken, stall, two, heldUp []float64
	for _, m := range all {
		if m.Event != event || m.System != system {
			continue
		}
		row.Repetitions++
		if m.Trouble != "" {
			row.Troubled++
		}
		c := m.Client
		row.Requests += c.Requests
		row.Flows = c.Flows
		gap = append(gap, c.GapMS)
		failed = append(failed, float64(c.Failed))
		resets = append(resets, float64(c.Resets))
		lost = append(lost, float64(c.Lost))
		broken = append(broken, float64(c.Resets+c.Lost))
		stall = append(stall, c.StallMS)
		two = append(two, m.TwoHoldersMS)
		heldUp = append(heldUp, c.HeldUpMS)
	}
	row.Gap, row.Failed, row.Stall, row.TwoHolders = SpreadOf(gap), SpreadOf(failed), SpreadOf(stall), SpreadOf(two)
	row.Resets, row.Lost, row.Broken, row.HeldUp = SpreadOf(resets), SpreadOf(lost), SpreadOf(broken), SpreadOf(heldUp)
	return row
}

// ReadMeasurements reads measurements, one JSON object a line, and refuses events that it does not know.
func ReadMeasurements(r io.Reader) ([]Measurement, error) {
	var all []Measurement
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		var m Measurement
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if titleOf(m.Event) == "" {
			return nil, fmt.Errorf("line %d: event %q is unknown", n, m.Event)
		}
		all = append(all, m)
	}
	return all, lines.Err()
}

// titleOf is "" where there is no such event.
func titleOf(event string) string {
	for _, e := range Events {
		if e.Name == event {
			return e.Title
		}
	}
	return ""
}

// JSON writes the run.
func (r Run) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
