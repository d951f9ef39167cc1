package result

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lvstun/deploy/bench/load"
)

func TestSpreadOf(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   []float64
		want Spread
	}{
		{"none", nil, Spread{}},
		{"one", []float64{7}, Spread{7, 7}},
		{"odd", []float64{30, 10, 20}, Spread{20, 30}},
		{"even", []float64{40, 10, 20, 30}, Spread{25, 40}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := SpreadOf(tt.in); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func measurement(system, event string, gap float64, failed, resets, lost int, two float64) Measurement {
	return Measurement{System: system, Event: event, TwoHoldersMS: two, Client: load.Result{
		Requests: 100, GapMS: gap, HeldUpMS: 12, Failed: failed, Flows: 20, Resets: resets, Lost: lost, StallMS: gap + 5,
	}}
}

// run is a run of two systems.
func run() Run {
	late := measurement("other 1 s", "crash", 12000, 400, 0, 20, 0)
	late.Trouble = "the standby did not take over"
	all := []Measurement{
		measurement("lvstun", "handover", 20, 0, 0, 0, 0.4),
		measurement("lvstun", "crash", 300, 28, 1, 0, 0),
		measurement("other 1 s", "crash", 3300, 320, 3, 1, 0),
		measurement("lvstun", "crash", 400, 30, 0, 0, 0),
		late,
	}
	return Run{
		Began: "2026-03-01T12:00:00Z", Kernel: "6.1.0", Processor: "2 × CPU", Versions: map[string]string{"other": "2.2", "lvstun": "v1"},
		Summary: Summarize(all), Measurements: all,
	}
}

func TestSummarize(t *testing.T) {
	want := []Row{
		{
			Event: "crash", System: "lvstun", Repetitions: 2, Gap: Spread{350, 400}, Requests: 200, Failed: Spread{29, 30},
			Resets: Spread{0.5, 1}, Broken: Spread{0.5, 1}, Flows: 20, Stall: Spread{355, 405}, HeldUp: Spread{12, 12},
		},
		{
			Event: "crash", System: "other 1 s", Repetitions: 2, Troubled: 1, Gap: Spread{7650, 12000}, Requests: 200,
			Failed: Spread{360, 400}, Resets: Spread{1.5, 3}, Lost: Spread{10.5, 20}, Broken: Spread{12, 20}, Flows: 20,
			Stall: Spread{7655, 12005}, HeldUp: Spread{12, 12},
		},
		{
			Event: "handover", System: "lvstun", Repetitions: 1, Gap: Spread{20, 20}, Requests: 100, Flows: 20,
			Stall: Spread{25, 25}, HeldUp: Spread{12, 12}, TwoHolders: Spread{0.4, 0.4},
		},
	}
	if diff := cmp.Diff(want, run().Summary); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestTable(t *testing.T) {
	const want = `2026-03-01T12:00:00Z, kernel 6.1.0 on 2 × CPU, lvstun v1, other 2.2; 1 to 2 repetitions of each event
The machine held the client itself up for 12 ms, which is part of the gaps.

host of the active director crashes
             longest gap          failed requests  flows reset  flows lost    two holders  
  lvstun     350 ms, max 400 ms   29, max 30       0.5, max 1   0             0            
  other 1 s  7.65 s, max 12.00 s  360, max 400     1.5, max 3   10.5, max 20  0            trouble in 1 of 2

planned handover
          longest gap  failed requests  flows reset  flows lost  two holders  
  lvstun  20 ms        0                0            0           < 1 ms       

Median of the repetitions, and the largest where it differs. Gap: the client's longest time without a request that ended well.
`
	var got strings.Builder
	if err := run().Table(&got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestMarkdown(t *testing.T) {
	const want = `| host of the active director crashes | longest gap | failed requests | flows reset | flows lost | two holders |
|---|--:|--:|--:|--:|--:|
| lvstun | 350 ms, max 400 ms | 29, max 30 | 0.5, max 1 | 0 | 0 |
| other 1 s (trouble in 1 of 2) | 7.65 s, max 12.00 s | 360, max 400 | 1.5, max 3 | 10.5, max 20 | 0 |

| planned handover | longest gap | failed requests | flows reset | flows lost | two holders |
|---|--:|--:|--:|--:|--:|
| lvstun | 20 ms | 0 | 0 | 0 | < 1 ms |

Median of the repetitions, and the largest where it differs. Gap: the client's longest time without a request that ended well.

2026-03-01T12:00:00Z, kernel 6.1.0 on 2 × CPU, lvstun v1, other 2.2; 1 to 2 repetitions of each event  
The machine held the client itself up for 12 ms, which is part of the gaps.
`
	var got strings.Builder
	if err := run().Markdown(&got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("markdown (-want +got):\n%s", diff)
	}
}

func TestJSONRoundTrip(t *testing.T) {
	var b bytes.Buffer
	if err := run().JSON(&b); err != nil {
		t.Fatal(err)
	}
	var got Run
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(run(), got); diff != "" {
		t.Errorf("run (-want +got):\n%s", diff)
	}
}

func TestReadMeasurements(t *testing.T) {
	const line = `{"system":"lvstun","event":"crash","round":3,"client":{"gap_ms":312.5,"failed":4},"two_holders_ms":1}` + "\n"
	for _, tt := range []struct {
		name, in, err string
		want          []Measurement
	}{
		{name: "nothing"},
		{name: "one", in: line, want: []Measurement{{
			System: "lvstun", Event: "crash", Round: 3, TwoHoldersMS: 1, Client: load.Result{GapMS: 312.5, Failed: 4},
		}}},
		{name: "cut short", in: line + "{", err: "line 2: unexpected end of JSON input"},
		{name: "an event that is none", in: `{"event":"flood"}`, err: `line 1: event "flood" is unknown`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ReadMeasurements(strings.NewReader(tt.in))
			said := ""
			if err != nil {
				said = err.Error()
			}
			if said != tt.err {
				t.Errorf("error %q, want %q", said, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("measurements (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAxis(t *testing.T) {
	for _, tt := range []struct {
		name      string
		gaps      []Spread
		low, high float64
	}{
		{"no rows", nil, 1, 10},
		{"nothing but zero", []Spread{{0, 0}}, 1, 10},
		{"three decades", []Spread{{12, 40}, {3300, 9000}, {0, 0}}, 10, 10000},
		{"one number on a power of ten", []Spread{{100, 100}}, 100, 1000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var rows []Row
			for _, g := range tt.gaps {
				rows = append(rows, Row{Gap: g})
			}
			if low, high := axis(rows); low != tt.low || high != tt.high {
				t.Errorf("%g to %g, want %g to %g", low, high, tt.low, tt.high)
			}
		})
	}
}

// TestChart checks that the chart is XML, that its bars are as long as the medians say, and that it names everything.
func TestChart(t *testing.T) {
	r := run()
	r.Kernel = "<6.1 & later>"
	var b bytes.Buffer
	if err := r.Chart(&b); err != nil {
		t.Fatal(err)
	}
	var widths, texts []string
	d := xml.NewDecoder(bytes.NewReader(b.Bytes()))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not XML: %v\n%s", err, b.String())
		}
		switch token := token.(type) {
		case xml.StartElement:
			if token.Name.Local != "rect" || token.Attr[0].Value == "ground" {
				continue
			}
			for _, a := range token.Attr {
				if a.Name.Local == "width" {
					widths = append(widths, token.Attr[0].Value+" "+a.Value)
				}
			}
		case xml.CharData:
			texts = append(texts, string(token))
		}
	}
	// From 10 ms to 100 s are four decades on 340 pixels: 350 ms are log10(35)/4 of it, 7.65 s log10(765)/4, 20 ms log10(2)/4.
	want := []string{"ours 131.2", "theirs 245.1", "ours 25.6"}
	if diff := cmp.Diff(want, widths); diff != "" {
		t.Errorf("bars (-want +got):\n%s", diff)
	}
	all := strings.Join(texts, "\n")
	for _, s := range []string{"host of the active director crashes", "planned handover", "lvstun", "other 1 s", "350 ms", "10 ms", "100 s", "29, max 30", "12, max 20 of 20", "<6.1 & later>",
		"other 1 s, crash: trouble in 1 of 2"} {
		if !strings.Contains(all, s) {
			t.Errorf("the chart does not say %q", s)
		}
	}
}
