package sysctl

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRecordOnDisk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.json")
	r, err := loadRecord(path)
	if err != nil || len(r) != 0 {
		t.Fatalf("no file: %v, %v", r, err)
	}
	one := r.with("net/a", "0", "1").with("net/a", "7", "2").with("net/a", "7", "2").with("net/b", "3 50", "0 1")
	want := record{"net/a": {"0", []string{"1", "2"}}, "net/b": {"3 50", []string{"0 1"}}}
	if d := cmp.Diff(want, one); d != "" || len(r) != 0 {
		t.Fatalf("record (-want +got)\n%s\nthe one before: %v", d, r)
	}
	for range 2 {
		if err := one.save(path); err != nil {
			t.Fatal(err)
		}
	}
	again, err := loadRecord(path)
	if d := cmp.Diff(want, again); err != nil || d != "" {
		t.Fatalf("read again: %v\n%s", err, d)
	}
	if names, _ := os.ReadDir(filepath.Dir(path)); len(names) != 1 {
		t.Errorf("files beside the record: %v", names)
	}
	for range 2 {
		if err := (record{}).save(path); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("an empty record has a file: %v", err)
	}
	for _, r := range []record{one, {}} {
		err := r.save(filepath.Join(path, "not", "there"))
		if len(r) > 0 && (err == nil || !strings.HasPrefix(err.Error(), "record the original settings: ")) {
			t.Errorf("saved in no folder: %v", err)
		}
	}
}

// What this program would not have written is refused with the reason, and nothing of it is used.
func TestRecordRefused(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "unexpected end of JSON input"},
		{"truncated", `{"version":1,"settings":{"net/a":{"original":"0"`, "unexpected end of JSON input"},
		{"two in one", `{"version":1,"settings":{"net/a":{"original":"0","written":["1"]}}}{}`, "invalid character '{' after top-level value"},
		{"newer", `{"version":2,"settings":[]}`, "it is of version 2, from a newer lvstun than this one, which knows version 1"},
		{"something else", `{"net/a":{"original":"0","written":["1"]}}`, "it is no record of lvstun"},
		{"nothing", `{"version":1,"settings":{}}`, "it holds no setting"},
		{"a field more", `{"version":1,"settings":{"net/a":{"original":"0","written":["1"],"by":"x"}}}`, `json: unknown field "by"`},
		{"another's key", `{"version":1,"settings":{"kernel/core_pattern":{"original":"0","written":["1"]}}}`, `"kernel/core_pattern" is not the key of a network setting`},
		{"no value", `{"version":1,"settings":{"net/a":{"original":"","written":["1"]}}}`, `net/a: "" is not a value`},
	} {
		r, err := parseRecord([]byte(tt.text))
		if d := cmp.Diff(tt.want, fmt.Sprint(err)); d != "" || r != nil {
			t.Errorf("%s: %v, error (-want +got)\n%s", tt.name, r, d)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	for _, seed := range []string{
		`{"net/a":{"original":"0","written":["1"]}}`, `{"net/a":{"original":"3 50","written":[]}}`, `{}`,
		`{"net/../../etc/passwd":{"original":"0","written":["1"]}}`, `{"/net/a":{"original":"0"}}`, `{"kernel/core_pattern":{"original":"|x"}}`,
		`{"net/a":{"original":"","written":[]}}`, `{"net/a":{"original":"1\n2","written":[" 1"]}}`,
	} {
		f.Add([]byte(`{"version":1,"settings":` + seed + "}"))
	}
	for _, seed := range []string{``, `{}`, `null`, `[]`, "{", `{"version":1,"settings":null}`, `{"version":2,"settings":{}}`, `{"version":"1"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseRecord(text)
		if (r == nil) != (err != nil) {
			t.Fatalf("record %v with error %v", r, err)
		}
		path := filepath.Join(t.TempDir(), "state.json")
		for key, o := range r {
			if !fs.ValidPath(key) || !strings.HasPrefix(key, "net/") || o.Original == "" || o.Original != normal(o.Original) {
				t.Fatalf("took %q: %+v", key, o)
			}
		}
		if err != nil {
			return
		}
		if err := r.save(path); err != nil {
			t.Fatal(err)
		}
		again, err := loadRecord(path)
		if err != nil || len(again) != len(r) {
			t.Fatalf("%v became %v: %v", r, again, err)
		}
	})
}
