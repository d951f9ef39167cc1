package config

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"lvstun/director/config/lvscf"
	"lvstun/director/ipvs"
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
		mustBeServable(t, first)
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
		mustBeServable(t, cfg)
	})
}

// mustBeServable fails for a Config that another part would refuse: the kernel, or a check.
func mustBeServable(t *testing.T, cfg *Config) {
	t.Helper()
	if len(cfg.Services) == 0 {
		t.Fatal("accepted without a service")
	}
	for _, s := range cfg.Services {
		if errs := s.Check.Validate(); len(errs) > 0 {
			t.Fatalf("accepted with a check that cannot run: %v", errs)
		}
		if s.Device == "" || s.Name == "" {
			t.Fatalf("accepted without device or name: %+v", s)
		}
		kernel := ipvs.Service{Key: s.Key(), Scheduler: s.Scheduler, Persistent: s.Persistent,
			PersistenceMask: s.PersistenceMask, OnePacket: s.OnePacket}
		for _, sv := range s.Servers {
			kernel.Destinations = append(kernel.Destinations, ipvs.Destination{
				Addr:   netip.AddrPortFrom(sv.Address, s.Key().Addr.Port()),
				Method: ipvs.MethodTunnel, Weight: sv.Weight, Tunnel: s.Encapsulation,
			})
		}
		if errs := kernel.Validate(); len(errs) > 0 {
			t.Fatalf("accepted what the kernel refuses: %v", errs)
		}
	}
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
