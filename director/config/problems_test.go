package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write the problems found into testdata")

// Each archive holds files and, after each, its problems word by word.
func TestProblems(t *testing.T) {
	for _, path := range []string{"testdata/yaml.txtar", "testdata/lvscf.txtar"} {
		t.Run(filepath.Base(path), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var files []txtar.File
			want := make(map[string]string)
			for _, f := range archive.Files {
				if name, isProblems := strings.CutSuffix(f.Name, ".problems"); isProblems {
					want[name] = string(f.Data)
				} else {
					files = append(files, f)
				}
			}
			archive.Files = nil
			for _, f := range files {
				got := problems(t, f.Name, f.Data)
				archive.Files = append(archive.Files, f, txtar.File{Name: f.Name + ".problems", Data: []byte(got)})
				if diff := cmp.Diff(want[f.Name], got); diff != "" && !*update {
					t.Errorf("%s (-want +got):\n%s", f.Name, diff)
				}
			}
			if *update {
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// problems is what check prints of a file, and whether it refuses it.
func problems(t *testing.T, name string, data []byte) string {
	t.Helper()
	cfg, warnings, err := Parse(name, data, Options{})
	var out strings.Builder
	for _, w := range warnings {
		out.WriteString(w.String() + "\n")
	}
	switch invalid := new(Invalid); {
	case err == nil:
		out.WriteString("accepted\n")
	case errors.As(err, &invalid):
		if cfg != nil || warnings != nil {
			t.Errorf("%s: refused, and yet there is a Config or there are warnings beside the error", name)
		}
		out.WriteString(err.Error() + "\nrefused\n")
	default:
		t.Errorf("%s: %v", name, err)
	}
	return out.String()
}
