package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Severity says whether a Problem refuses the file.
type Severity uint8

// An Error refuses the file; a Warning tells of something that is not as it looks.
const (
	Error Severity = iota
	Warning
)

// Problem is one thing about a file that its author should know.
type Problem struct {
	Path     string // of the file
	Line     int    // from 1; 0: the file as a whole
	What     string // the key, as a path into the file
	Value    string // as written; "" if there is none, or if it might be a secret
	Why      string // what is wrong with it and what to write instead
	Severity Severity
}

// String is "path:line: what, value, why", without the parts that are absent.
func (p Problem) String() string {
	var s strings.Builder
	s.WriteString(p.Path)
	if p.Line > 0 {
		fmt.Fprintf(&s, ":%d", p.Line)
	}
	s.WriteString(": ")
	if p.Severity == Warning {
		s.WriteString("warning: ")
	}
	for _, part := range []string{show(p.What), show(p.Value)} {
		if part != "" {
			s.WriteString(part + ", ")
		}
	}
	s.WriteString(p.Why)
	return s.String()
}

// show keeps a value on one line and at a length a person reads.
func show(value string) string {
	const most = 100
	if r := []rune(value); len(r) > most {
		value = string(r[:most]) + "…"
	}
	if strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return strconv.Quote(value)
	}
	return value
}

// Invalid is the error of a file that was refused: all its errors and warnings, by line.
type Invalid struct{ Problems []Problem }

// Error is one line for each problem.
func (e *Invalid) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func byLine(problems []Problem) {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.What, b.What))
	})
}
