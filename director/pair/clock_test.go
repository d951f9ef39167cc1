//go:build !kernel

package pair

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestMonotonicTime holds that a step of the host's clock changes nothing:
// what decides reads time only as differences, and does nothing to a time that
// takes its monotonic reading away (see package time).
func TestMonotonicTime(t *testing.T) {
	// Of package time; a Time from elsewhere has no monotonic reading.
	allowed := []string{"Duration", "Time", "Now", "Since", "Until", "After", "NewTimer", "NewTicker", "Timer", "Ticker",
		"Second", "Millisecond", "Microsecond", "Minute", "TimeOnly"}
	// Methods of Time that read or keep the wall clock only.
	forbidden := []string{"Unix", "UnixMilli", "UnixMicro", "UnixNano", "Round", "Truncate", "UTC", "Local", "AddDate"}
	var files []string
	for _, folder := range []string{".", "../election", "../heartbeat", "../vip"} {
		found, err := filepath.Glob(filepath.Join(folder, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, slices.DeleteFunc(found, func(f string) bool { return strings.HasSuffix(f, "_test.go") })...)
	}
	if len(files) < 15 {
		t.Fatalf("only %d files: %v", len(files), files)
	}
	set := token.NewFileSet()
	for _, name := range files {
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if sel, ok := call.Fun.(*ast.SelectorExpr); ok && slices.Contains(forbidden, sel.Sel.Name) {
					t.Errorf("%s: %s drops the monotonic reading of a time", set.Position(sel.Pos()), sel.Sel.Name)
				}
			}
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "time" && !slices.Contains(allowed, sel.Sel.Name) {
					t.Errorf("%s: time.%s reads another clock, or is new here", set.Position(sel.Pos()), sel.Sel.Name)
				}
			}
			return true
		})
	}
}
