// Package lvstun holds no code, only the test of which package may know which.
package lvstun

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport lists, for every package of the product, the packages of the product that it may import. A package that
// is not listed fails the test: adding a room to the house is a decision, written down here.
var mayImport = map[string][]string{
	"httpcheck":               nil,
	"sysctl":                  nil,
	"tunnel":                  nil,
	"tunnel/guard":            nil,
	"director/ipvs":           nil,
	"director/election":       nil,
	"director/heartbeat":      nil,
	"director/vip":            nil,
	"director/registry":       nil,
	"director/witness":        nil,
	"director/tuning":         {"sysctl"},
	"director/trust":          nil,
	"director/pair":           {"director/election", "director/heartbeat", "director/vip"},
	"director/config":         {"director/config/lvscf", "director/config/nearest", "director/ipvs", "httpcheck"},
	"director/config/lvscf":   {"director/config/nearest"},
	"director/config/nearest": nil,
	"director/client":         {"director/trust", "httpcheck"},
	"director/api/ui":         {"director/client"},
	"director/api":            {"director/api/ui", "director/client", "director/trust"},
	"director": {"director/api", "director/client", "director/config", "director/election", "director/ipvs", "director/pair",
		"director/registry", "director/trust", "director/witness", "httpcheck"},
	"agent":            {"director/client", "director/trust", "director/witness", "httpcheck", "sysctl", "tunnel", "tunnel/guard"},
	"cmd/lvs-director": {"director", "director/api", "director/client", "director/config", "director/election", "director/ipvs", "director/pair", "director/trust", "director/tuning", "director/vip", "sysctl"},
	"cmd/lvs-agent":    {"agent"},
}

// never lists what no product code may import: programs are not run, the process is not ended from afar.
var never = []string{"os/exec", "log"}

func TestArrowsPointOneWay(t *testing.T) {
	seen := make(map[string]bool)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || path == "bin" || path == "deploy"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		pkg := filepath.ToSlash(filepath.Dir(path))
		allowed, ok := mayImport[pkg]
		if !ok {
			t.Errorf("%s: package %s has no place in the house yet: add it to mayImport", path, pkg)
			return nil
		}
		seen[pkg] = true
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if slices.Contains(never, name) {
				t.Errorf("%s imports %s", path, name)
			}
			if ours, ok := strings.CutPrefix(name, "lvstun/"); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s; %s may import only %v", path, ours, pkg, allowed)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range mayImport {
		if !seen[pkg] {
			t.Errorf("mayImport lists %s, which does not exist", pkg)
		}
	}
}
