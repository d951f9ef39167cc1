package holders

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func at(micros int64) time.Time { return time.UnixMicro(micros) }

func TestRead(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []Span
		err      string
	}{
		{name: "nothing"},
		{name: "never held", in: "10 free\n20 free\n"},
		{name: "held, lost, held", in: "10 free\n20 held\n35 free\n50 held\n", want: []Span{{at(20), at(35)}, {From: at(50)}}},
		{name: "renewals and a second start change nothing", in: "10 held\n15 held\n20 free\n25 free\n", want: []Span{{at(10), at(20)}}},
		{name: "no time", in: "10 held\nsoon free\n", err: `line 2, "soon free": want microseconds since 1970, and held or free`},
		{name: "no state", in: "10\n", err: `line 1, "10": want microseconds since 1970, and held or free`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Read(strings.NewReader(tt.in))
			said := ""
			if err != nil {
				said = err.Error()
			}
			if said != tt.err {
				t.Errorf("error %q, want %q", said, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("spans (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBoth(t *testing.T) {
	one := []Span{{at(100), at(200)}, {From: at(400)}}
	for _, tt := range []struct {
		name     string
		other    []Span
		from, to int64
		want     time.Duration
	}{
		{"apart", []Span{{at(200), at(400)}}, 0, 1000, 0},
		{"the end of the first", []Span{{at(150), at(300)}}, 0, 1000, 50 * time.Microsecond},
		{"inside", []Span{{at(120), at(130)}}, 0, 1000, 10 * time.Microsecond},
		{"twice", []Span{{at(150), at(450)}}, 0, 1000, 100 * time.Microsecond},
		{"both without an end", []Span{{From: at(600)}}, 0, 1000, 400 * time.Microsecond},
		{"only since from", []Span{{at(150), at(300)}}, 180, 1000, 20 * time.Microsecond},
		{"only until to", []Span{{From: at(600)}}, 0, 650, 50 * time.Microsecond},
		{"ends after to", []Span{{at(600), at(900)}}, 0, 650, 50 * time.Microsecond},
		{"after to", []Span{{From: at(600)}}, 0, 500, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Both(one, tt.other, at(tt.from), at(tt.to)); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
			if got := Both(tt.other, one, at(tt.from), at(tt.to)); got != tt.want {
				t.Errorf("the other way round: %s, want %s", got, tt.want)
			}
		})
	}
}
