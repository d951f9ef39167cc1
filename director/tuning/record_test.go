package tuning

import (
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

func FuzzParseRecord(f *testing.F) {
	for _, seed := range []string{
		`{}`, `null`, `[]`, `{"net/a":{"original":"0","written":["1"]}}`, `{"net/a":{"original":"3 50","written":[]}}`,
		`{"net/../../etc/passwd":{"original":"0","written":["1"]}}`, `{"/net/a":{"original":"0"}}`, `{"kernel/core_pattern":{"original":"|x"}}`,
		`{"net/a":{"original":"","written":[]}}`, `{"net/a":{"original":"1\n2","written":[" 1"]}}`, "{",
	} {
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
