package tuning

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

// However a director lives, crashes, reloads and fails to write: what it changed is on record, and in the end every
// setting is as it was, or as somebody else has made it.
func TestUndoDo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	life := 0
	rapid.Check(t, func(t *rapid.T) {
		life++
		file := filepath.Join(dir, fmt.Sprint(life), "state.json")
		full := filepath.Join(filepath.Dir(file), ".state.json.new")
		value := rapid.SampledFrom([]string{"0", "1", "2", "3 50"})
		tried := rapid.SampledFrom([]string{"0", "1", "2", "3 50", "99"})
		keys := []string{"net/a", "net/b", "net/c"}
		before, foreign := map[string]string{}, map[string][]string{}
		for _, key := range keys {
			before[key] = value.Draw(t, "host")
		}
		wanted := rapid.Custom(func(t *rapid.T) []Setting {
			var s []Setting
			for _, key := range keys {
				s = append(s, Setting{Key: key, Value: tried.Draw(t, "value"), Or: []string{value.Draw(t, "or")}, Set: rapid.Bool().Draw(t, "set")})
			}
			return s[rapid.IntRange(0, len(keys)).Draw(t, "from"):]
		})
		h := &fakeHost{values: maps.Clone(before)}
		must(t, os.Mkdir(filepath.Dir(file), 0o700))
		r := start(h, file, true, wanted.Draw(t, "wanted")...)
		t.Repeat(map[string]func(*rapid.T){
			"turn":   func(*rapid.T) { r.turn() },
			"stop":   func(*rapid.T) { r.stop() },
			"reload": func(t *rapid.T) { r.wanted = wanted.Draw(t, "wanted"); r.turn() },
			"crash": func(t *rapid.T) {
				r = start(h, file, rapid.Bool().Draw(t, "set"), r.wanted...)
			},
			"faults": func(t *rapid.T) {
				h.fail = nil
				if at := rapid.IntRange(0, 3).Draw(t, "write"); at > 0 {
					h.fail = func(string, string) error {
						if at--; at == 0 {
							return syscall.EIO
						}
						return nil
					}
				}
			},
			"full":  func(*rapid.T) { _ = os.Mkdir(full, 0o700) }, // no new record can be written
			"empty": func(*rapid.T) { _ = os.Remove(full) },
			"foreign": func(t *rapid.T) {
				key, v := rapid.SampledFrom(keys).Draw(t, "key"), value.Draw(t, "value")
				h.values[key], foreign[key] = v, append(foreign[key], v)
			},
			"": func(t *rapid.T) {
				recorded, err := loadRecord(file)
				must(t, err)
				for key, have := range h.values {
					if have != before[key] && !slices.Contains(foreign[key], have) && !slices.Contains(recorded[key].Written, have) {
						t.Fatalf("%s was changed from %s to %s without a record: %v", key, before[key], have, recorded)
					}
				}
			},
		})
		h.fail = nil
		_ = os.Remove(full)
		r.stop()
		for key, have := range h.values {
			if have != before[key] && !slices.Contains(foreign[key], have) {
				t.Fatalf("%s was %s and is %s; others set it to %v", key, before[key], have, foreign[key])
			}
		}
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("the record stays: %v", err)
		}
	})
}

func must(t interface{ Fatal(...any) }, err error) {
	if err != nil {
		t.Fatal(err)
	}
}
