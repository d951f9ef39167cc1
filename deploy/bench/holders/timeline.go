// Package holders knows when a node held an address, and how long two nodes held it at once.
//
// What it writes and reads are lines of `TIME STATE`: microseconds since 1970, and "held" or "free".
package holders

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// The states of a line.
const (
	held = "held"
	free = "free"
)

// Span is a time in which a node held the address. The zero To is a span that has not ended.
type Span struct{ From, To time.Time }

// Read reads one node's lines.
func Read(r io.Reader) ([]Span, error) {
	var spans []Span
	open := false
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		stamp, state, _ := strings.Cut(lines.Text(), " ")
		micros, err := strconv.ParseInt(stamp, 10, 64)
		if err != nil || state != held && state != free {
			return nil, fmt.Errorf("line %d, %q: want microseconds since 1970, and held or free", n, lines.Text())
		}
		switch at := time.UnixMicro(micros); {
		case state == held && !open:
			spans = append(spans, Span{From: at})
			open = true
		case state == free && open:
			spans[len(spans)-1].To = at
			open = false
		}
	}
	return spans, lines.Err()
}

// Both is how long, between from and to, both a and b held the address.
func Both(a, b []Span, from, to time.Time) time.Duration {
	var sum time.Duration
	for _, x := range a {
		for _, y := range b {
			start := later(from, later(x.From, y.From))
			end := earlier(x.end(to), y.end(to))
			if end.After(start) {
				sum += end.Sub(start)
			}
		}
	}
	return sum
}

// end is when the span ended, at limit at the latest.
func (s Span) end(limit time.Time) time.Time {
	if s.To.IsZero() {
		return limit
	}
	return earlier(s.To, limit)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
