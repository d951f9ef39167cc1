package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLoadKnowsTheFormat(t *testing.T) {
	dir := t.TempDir()
	yaml, lvs := readExample(t), seed(t, "vs.lvs.cf")
	for _, tt := range []struct {
		base, text, format, wantErr string
	}{
		{"director.yaml", yaml, "", ""},
		{"anything", yaml, "", ""},
		{"lvs.cf", lvs, "", ""},
		{"vs.lvs.cf", lvs, "", ""},
		{"lvs.cf.vs", lvs, FormatLvsCf, ""},
		{"lvs.cf", yaml, FormatYAML, ""},
		{"lvs.cf.vs", lvs, "", "must be a mapping"},
		{"lvs.cf", yaml, "", "unknown command"},
		{"director.yaml", yaml, "toml", `format "toml": must be yaml or lvs.cf`},
	} {
		t.Run(tt.base+" "+tt.format, func(t *testing.T) {
			path := filepath.Join(dir, tt.base)
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			cfg, _, err := Load(path, Options{Format: tt.format})
			switch {
			case tt.wantErr == "" && err != nil:
				t.Fatal(err)
			case tt.wantErr == "" && cfg.Path != path:
				t.Errorf("path %q, want %q", cfg.Path, path)
			case tt.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tt.wantErr)):
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
		})
	}
}

func TestLoadMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "director.yaml")
	_, _, err := Load(path, Options{})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want one that names %s", err, path)
	}
}

func TestLoadTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "director.yaml")
	for size, want := range map[int]string{
		maxSize:     path + ": the file is empty: it needs at least one service",
		maxSize + 1: path + ": the file is larger than 16 MiB",
	} {
		if err := os.WriteFile(path, bytes.Repeat([]byte("\n"), size), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Load(path, Options{}); err == nil || err.Error() != want {
			t.Errorf("%d bytes: error %v, want %s", size, err, want)
		}
	}
}

// Aliases can make a small file an endless one; they must not make an endless Load.
func TestAliasesAreBounded(t *testing.T) {
	var text strings.Builder
	text.WriteString("services:\n  - &s\n    servers: &l [" + strings.Repeat("{},", 4000) + "]\n")
	for range 4000 {
		text.WriteString("  - *s\n")
	}
	_, _, err := Parse("director.yaml", []byte(text.String()), Options{})
	if err == nil || !strings.Contains(err.Error(), "director.yaml:3: aliases make this file too large") {
		t.Errorf("error %.200v", err)
	}
}

func TestProblemString(t *testing.T) {
	for _, tt := range []struct {
		p    Problem
		want string
	}{
		{Problem{Path: "f", Line: 3, What: "port", Value: "0", Why: "is bad"}, "f:3: port, 0, is bad"},
		{Problem{Path: "f", What: "port", Why: "is missing"}, "f: port, is missing"},
		{Problem{Path: "f", Line: 1, Why: "is not text", Severity: Warning}, "f:1: warning: is not text"},
		{Problem{Path: "f", Line: 1, What: "a\x1b[2J", Value: "x\ny", Why: "is bad"}, `f:1: "a\x1b[2J", "x\ny", is bad`},
		{Problem{Path: "f", Value: strings.Repeat("ü", 101), Why: "is long"}, "f: " + strings.Repeat("ü", 100) + "…, is long"},
	} {
		if got := tt.p.String(); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

// large is a file of 2,284 services with 37,298 servers, the largest table known from the field.
func large() []byte {
	var b bytes.Buffer
	b.WriteString("name: vs\nheartbeat: {paths: [{local: 10.0.0.1, peer: 10.0.0.2}]}\nservices:\n")
	for i, n := 0, 0; i < 2284; i++ {
		fmt.Fprintf(&b, "  - name: service-%d\n    vip: 10.1.%d.%d\n    device: eth0\n    port: 80\n", i, i/250, i%250+1)
		fmt.Fprintf(&b, "    check: {kind: http, path: /health, interval: 5s}\n    servers:\n")
		for ; n < 37298*(i+1)/2284; n++ {
			fmt.Fprintf(&b, "      - {name: rs%d, address: 10.%d.%d.%d, weight: %d}\n", n, 100+n/62500, n/250%250, n%250+1, 1+n%9)
		}
	}
	return b.Bytes()
}

func BenchmarkLoadLarge(b *testing.B) {
	data := large()
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		cfg, _, err := Parse("director.yaml", data, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if n := len(cfg.Services); n != 2284 {
			b.Fatalf("%d services", n)
		}
	}
}
