package config

import (
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"lvstun/director/config/lvscf"
)

// seeds are the files of an archive and of the seed.
func seeds(f *testing.F, archive string, names ...string) {
	f.Helper()
	a, err := txtar.ParseFile(archive)
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range a.Files {
		f.Add(file.Data)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
}

// An lvs.cf that is accepted, printed in its canonical form and read again is the same configuration.
func FuzzLvsCf(f *testing.F) {
	seeds(f, "testdata/lvscf.txtar", "testdata/vs.lvs.cf", "testdata/published_vs_bk.lvs.cf")
	f.Fuzz(func(t *testing.T, data []byte) {
		block, _ := lvscf.Parse(data)
		first, _, err := Parse("lvs.cf", data, Options{})
		if err != nil {
			mustBeInvalid(t, err)
			return
		}
		canonical := block.String()
		second, _, err := Parse("lvs.cf", []byte(canonical), Options{})
		if err != nil {
			t.Fatalf("the canonical form is refused: %v\n%s", err, canonical)
		}
		if diff := cmp.Diff(first, second, addresses); diff != "" {
			t.Fatalf("the canonical form differs (-file +canonical):\n%s\n%s", diff, canonical)
		}
		if again, problems := lvscf.Parse([]byte(canonical)); again.String() != canonical {
			t.Fatalf("the canonical form has another: %v\n%s\n%s", problems, canonical, again)
		}
	})
}

// Whatever the bytes, there is a Config whose checks and keys hold, or a list of problems.
func FuzzYAML(f *testing.F) {
	seeds(f, "testdata/yaml.txtar", example)
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, _, err := Parse("director.yaml", data, Options{})
		if err != nil {
			mustBeInvalid(t, err)
			return
		}
		if len(cfg.Services) == 0 {
			t.Fatal("accepted without a service")
		}
		for _, s := range cfg.Services {
			if errs := s.Check.Validate(); len(errs) > 0 {
				t.Fatalf("accepted with a check that cannot run: %v", errs)
			}
			if !s.VIP.IsValid() || s.Device == "" || s.Name == "" {
				t.Fatalf("accepted without VIP, device or name: %+v", s)
			}
		}
	})
}

func mustBeInvalid(t *testing.T, err error) {
	t.Helper()
	invalid := new(Invalid)
	if !errors.As(err, &invalid) {
		t.Fatalf("not an *Invalid: %v", err)
	}
	for _, p := range invalid.Problems {
		if p.Why == "" || p.Line < 0 {
			t.Fatalf("a problem that says nothing: %+v", p)
		}
	}
}
