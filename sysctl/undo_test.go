package sysctl

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

// However its user lives, crashes, reloads and fails to read or write: what a Keeper changed is on record, and in the
// end every setting is as it was, or as somebody else has made it.
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
		r := start(h, file, wanted.Draw(t, "wanted")...)
		t.Repeat(map[string]func(*rapid.T){
			"turn":   func(*rapid.T) { r.turn() },
			"stop":   func(*rapid.T) { r.stop() },
			"reload": func(t *rapid.T) { r.wanted = wanted.Draw(t, "wanted"); r.turn() },
			"crash": func(t *rapid.T) {
				r = start(h, file, r.wanted...)
			},
			"faults": func(t *rapid.T) {
				h.fail = nil
				if at := rapid.IntRange(0, 9).Draw(t, "call"); at > 0 {
					h.fail = failAt(at)
				}
			},
			"full":  func(*rapid.T) { _ = os.Mkdir(full, 0o700) }, // no new record can be written
			"empty": func(*rapid.T) { _ = os.Remove(full) },
			"foreign": func(t *rapid.T) {
				key, v := rapid.SampledFrom(keys).Draw(t, "key"), value.Draw(t, "value")
				h.values[key], foreign[key] = v, append(foreign[key], v)
			},
			"device goes and comes": func(t *rapid.T) { // a look sees it gone, and can say so on disk
				_ = os.Remove(full)
				key, v := rapid.SampledFrom(keys).Draw(t, "key"), value.Draw(t, "value")
				delete(h.values, key)
				h.fail = nil
				r.turn()
				h.values[key], before[key], foreign[key] = v, v, nil
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

// failAt fails the call of that number, counted from 1.
func failAt(call int) func(key, value string) error {
	return func(string, string) error {
		if call--; call == 0 {
			return syscall.EIO
		}
		return nil
	}
}

// Whichever call of a life fails, its end or the end of the next one leaves the host as it was.
func TestUndoWhateverFails(t *testing.T) {
	t.Parallel()
	before := map[string]string{"net/a": "0", "net/b.x": "3 50", "net/c": "7"}
	bent := Setting{Key: "net/c", Value: "98", Set: true}
	for at := 1; ; at++ {
		file := filepath.Join(t.TempDir(), "state.json")
		h := &fakeHost{values: maps.Clone(before)}
		calls, failing := 0, failAt(at)
		h.fail = func(key, value string) error { calls++; return failing(key, value) }
		r := start(h, file, settingA, settingB, bent)
		if h.values["net/a"] == "1" {
			h.values["net/a"] = "5"
		}
		r.turn()
		r = start(h, file, settingA, settingB, bent) // after a crash
		r.wanted = r.wanted[1:]
		r.turn()
		r.stop()
		if at <= calls {
			start(h, file)
		}
		same(t, fmt.Sprintf("host after call %d failed", at), before, h.values)
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("call %d: the record stays: %v", at, err)
		}
		if at > calls {
			t.Logf("%d calls", calls)
			break
		}
	}
}

func must(t interface{ Fatal(...any) }, err error) {
	if err != nil {
		t.Fatal(err)
	}
}
