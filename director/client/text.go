package client

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// prints is true for what may go to a terminal: no control characters, no marks
// that turn the direction of text, not the sign for broken UTF-8.
func prints(r rune) bool { return unicode.IsPrint(r) && r != utf8.RuneError }

// printable makes s fit for a terminal, a log and a page: at most limit bytes,
// with a blank in place of every rune that does not print.
func printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if !prints(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) <= limit {
		return s
	}
	cut := limit
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}

// printable returns r with every text in it fit for Validate; r stays as it is.
func (r Registration) printable() Registration {
	r.Services = slices.Clone(r.Services)
	for i := range r.Services {
		r.Services[i].Reason = printable(r.Services[i].Reason, MaxReason)
	}
	r.Tunnel.Problems = slices.Clone(r.Tunnel.Problems[:min(len(r.Tunnel.Problems), MaxProblems)])
	for i := range r.Tunnel.Problems {
		r.Tunnel.Problems[i] = printable(r.Tunnel.Problems[i], MaxReason)
	}
	return r
}
