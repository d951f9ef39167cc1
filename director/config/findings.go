package config

import (
	"fmt"
	"strings"
)

// findings collects the problems of one file. Everything in the file is named by its path in director.yaml
// ("services[0].check.port"), also in an lvs.cf; where turns a path into a line and into the words of the format.
type findings struct {
	file     string
	where    func(path string) (line int, what string)
	problems []Problem
	errors   int
	broken   map[string]bool // paths without a usable value: nothing more is said of them or of what is inside
}

// fail reports an error about the value at a path, unless that value has been reported as unreadable already.
func (f *findings) fail(path, value, format string, args ...any) {
	if !f.isBroken(path) {
		line, what := f.where(path)
		f.add(Problem{Line: line, What: what, Value: value, Why: fmt.Sprintf(format, args...)})
	}
}

// breaks reports an error that leaves the path without a value.
func (f *findings) breaks(line int, path, value, format string, args ...any) {
	f.add(Problem{Line: line, What: path, Value: value, Why: fmt.Sprintf(format, args...)})
	f.broken[path] = true
}

// warn reports something that does not refuse the file.
func (f *findings) warn(path, value, format string, args ...any) {
	if !f.isBroken(path) {
		line, what := f.where(path)
		f.add(Problem{Line: line, What: what, Value: value, Why: fmt.Sprintf(format, args...), Severity: Warning})
	}
}

func (f *findings) add(p Problem) {
	p.Path = f.file
	if p.Severity == Error {
		f.errors++
	}
	f.problems = append(f.problems, p)
}

// isBroken tells whether a path, or what it is inside of, is without a value.
func (f *findings) isBroken(path string) bool {
	for path != "" {
		if f.broken[path] {
			return true
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return false
}

// result is the warnings of a file without errors, or the *Invalid of one that has any.
func (f *findings) result() ([]Problem, error) {
	byLine(f.problems)
	if f.errors > 0 {
		return nil, &Invalid{Problems: f.problems}
	}
	return f.problems, nil
}
