package sysctl

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeHost is a kernel in memory. It takes the value 99 and ignores it, and makes 9 of 98; a call does what fail says
// first.
type fakeHost struct {
	values map[string]string
	writes []string
	fail   func(key, value string) error // of a write, or with value "" of a read; nil: none
}

func (h *fakeHost) read(key string) (string, error) {
	if h.fail != nil {
		if err := h.fail(key, ""); err != nil {
			return "", err
		}
	}
	v, ok := h.values[key]
	if !ok {
		return "", fs.ErrNotExist
	}
	if v == "unreadable" {
		return "", syscall.EIO
	}
	return v, nil
}

func (h *fakeHost) write(key, value string) error {
	if h.fail != nil {
		if err := h.fail(key, value); err != nil {
			return err
		}
	}
	if _, ok := h.values[key]; !ok {
		return fs.ErrNotExist
	}
	h.writes = append(h.writes, key+"="+value)
	switch value {
	case "99":
		return nil
	case "98":
		value = "9"
	}
	h.values[key] = value
	return nil
}

// rig is a Keeper over a fakeHost whose rounds the test turns.
type rig struct {
	*Keeper
	wanted []Setting
	out    bytes.Buffer
}

// start makes a Keeper over h that has turned once.
func start(h host, file string, wanted ...Setting) *rig {
	r := &rig{wanted: wanted}
	r.Keeper = New(Options{File: file, Log: slog.New(slog.NewTextHandler(&r.out, nil))})
	r.host = h
	r.turn()
	return r
}

func (r *rig) turn() Report { return r.Apply(r.wanted) }
func (r *rig) stop() Report { return r.Apply(nil) }

// onlyLooked are settings that may not be set.
func onlyLooked(settings ...Setting) []Setting {
	for i := range settings {
		settings[i].Set = false
	}
	return settings
}

var logLine = regexp.MustCompile(`(?m)^time=\S+ level=(\S+) msg=(.*)$`)

// logged returns and forgets the log.
func (r *rig) logged() string {
	var b strings.Builder
	for _, m := range logLine.FindAllStringSubmatch(r.out.String(), -1) {
		fmt.Fprintf(&b, "%s %s\n", m[1], m[2])
	}
	r.out.Reset()
	return b.String()
}

// said fails the test if what was logged since the last time is not want.
func (r *rig) said(t *testing.T, want string) {
	t.Helper()
	if d := cmp.Diff(want, r.logged()); d != "" {
		t.Errorf("log (-want +got)\n%s", d)
	}
}

// states are a report's findings as text.
func (r *rig) states() string {
	var b strings.Builder
	for _, f := range r.Report().Findings {
		fmt.Fprintf(&b, "%s %s %q of %q, was %q\n", f.Key, f.State, f.Have, f.Want, f.Original)
	}
	return b.String()
}

func same(t *testing.T, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got)\n%s", what, d)
	}
}

var (
	settingA = Setting{Key: "net.a", Value: "1", Why: "so", Severity: Loss, Set: true}
	settingB = Setting{Key: "net/b.x", Value: "0 1", Or: []string{"0 2"}, Why: "so", Set: true}
	audited  = Setting{Key: "net/c", With: "net/d", Value: "0", Why: "so"}
)

// One life: start, drift, reload, a setting that goes and comes, a stop.
func TestKeeper(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "state.json")
	before := map[string]string{"net/a": "0", "net/b.x": "3 50", "net/c": "0", "net/d": "1", "net/e": "1"}
	h := &fakeHost{values: maps.Clone(before)}
	h.fail = func(key, value string) error { // whatever is written, the way back is on disk
		if value == "" {
			return nil
		}
		if r, err := loadRecord(file); err != nil || r[key].Original != before[key] {
			t.Errorf("%s is set to %s with the record %v: %v", key, value, r, err)
		}
		return nil
	}
	held := Setting{Key: "net/e", Value: "1", Set: true, Why: "so"}
	gone := Setting{Key: "net/f", Value: "1", Set: true, Why: "so"}
	r := start(h, file, settingA, settingB, audited, held, gone)
	same(t, "host", map[string]string{"net/a": "1", "net/b.x": "0 1", "net/c": "0", "net/d": "1", "net/e": "1"}, h.values)
	states := `net.a changed "1" of "1", was "0"
net.b/x changed "0 1" of "0 1 or 0 2", was "3 50"
net.c audited "1" of "0", was ""
net.e held "1" of "1", was ""
net.f missing "" of "1", was ""
`
	same(t, "findings", states, r.states())
	r.said(t, `INFO "kernel setting changed" key=net.a old=0 new=1 reason=so
INFO "kernel setting changed" key=net.b/x old="3 50" new="0 1" reason=so
WARN "kernel setting does not serve" key=net.c state=audited have=1 want=0 reason=so
WARN "kernel setting does not serve" key=net.f state=missing have="" want=1 reason=so
`)
	h.writes = nil
	for range 3 {
		r.turn()
	}
	same(t, "writes where nothing changes", []string(nil), h.writes)
	same(t, "findings", states, r.states())
	r.said(t, "")

	h.values["net/a"], h.values["net/b.x"] = "5", "0 2" // drift; and a change to a value that serves
	r.turn()
	same(t, "host", "1", h.values["net/a"])
	same(t, "drifts", uint64(1), r.Report().Drifts)
	r.said(t, `WARN "kernel setting had been changed, set again" key=net.a old=5 new=1 reason=so
`)

	before["net/f"], h.values["net/f"] = "0", "0" // the module comes, and goes with a device's setting
	r.turn()
	r.said(t, `INFO "kernel setting changed" key=net.f old=0 new=1 reason=so
`)
	delete(h.values, "net/f")
	r.turn()
	before["net/f"], h.values["net/f"] = "2", "2" // it comes back otherwise
	r.turn()
	r.logged()

	settingA2 := settingA // a reload
	settingA2.Value = "2"
	r.wanted = []Setting{settingA2, settingB, gone, held}
	r.turn()
	r.said(t, `INFO "kernel setting changed" key=net.a old=1 new=2 reason=so
`)
	r.wanted = []Setting{settingA2, settingB, held}
	r.turn()
	r.said(t, `INFO "kernel setting put back" key=net.f old=1 new=2
`)
	same(t, "drifts", uint64(1), r.Report().Drifts)
	r.stop()
	before["net/b.x"] = "0 2"
	same(t, "host after the stop", before, h.values)
	r.said(t, `INFO "kernel setting put back" key=net.a old=2 new=0
WARN "kernel setting left as it is: somebody else has changed it" key=net.b/x value="0 2" original="3 50"
`)
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the record stays: %v", err)
	}
}

// A crash leaves the settings; the next life knows the originals, and a life that only looks puts them back.
func TestKeeperAfterACrash(t *testing.T) {
	t.Parallel()
	for _, set := range []bool{true, false} {
		file := filepath.Join(t.TempDir(), "state.json")
		h := &fakeHost{values: map[string]string{"net/a": "0", "net/b.x": "3 50"}}
		start(h, file, settingA, settingB) // kill -9
		same(t, "host after the crash", map[string]string{"net/a": "1", "net/b.x": "0 1"}, h.values)
		h.values["net/a"] = "7"
		settings := []Setting{settingA, settingB}
		if !set {
			onlyLooked(settings...)
		}
		r := start(h, file, settings...)
		if set {
			same(t, "findings", `net.a changed "1" of "1", was "0"
net.b/x changed "0 1" of "0 1 or 0 2", was "3 50"
`, r.states())
		}
		if !set {
			same(t, "what is only looked at", "3 50", h.values["net/b.x"])
			same(t, "findings", `net.a audited "7" of "1", was ""
net.b/x audited "3 50" of "0 1 or 0 2", was ""
`, r.states())
		}
		same(t, "drifts", uint64(0), r.Report().Drifts)
		r.stop()
		want := map[string]string{"net/a": "0", "net/b.x": "3 50"}
		if !set {
			want["net/a"] = "7"
		}
		same(t, "host", want, h.values)
	}
}

func TestKeeperOnlyLooks(t *testing.T) {
	t.Parallel()
	h := &fakeHost{values: map[string]string{"net/a": "0", "net/b.x": "0 2"}}
	r := start(h, filepath.Join(t.TempDir(), "no", "folder"), onlyLooked(settingA, settingB, audited)...)
	for range 2 {
		r.turn()
	}
	same(t, "findings", `net.a audited "0" of "1", was ""
net.b/x held "0 2" of "0 1 or 0 2", was ""
net.c missing "" of "0", was ""
`, r.states())
	same(t, "problems", []string(nil), r.Report().Problems)
	r.said(t, `WARN "kernel setting does not serve" key=net.a state=audited have=0 want=1 reason=so
`)
	h.values["net/a"] = "5"
	r.turn()
	r.said(t, `WARN "kernel setting does not serve" key=net.a state=audited have=5 want=1 reason=so
`)
	r.stop()
	same(t, "writes", []string(nil), h.writes)
}

// What goes wrong is one sentence, said once, and does not stop the rest; nothing is changed without a record.
func TestKeeperTroubles(t *testing.T) {
	t.Parallel()
	fails := func(errno error, only string) func(string, string) error {
		return func(key, value string) error {
			if value != "" && (only == "" || key == only) {
				return errno
			}
			return nil
		}
	}
	ignored, bent := settingA, settingA
	ignored.Value, bent.Value = "99", "98"
	tests := []struct {
		name     string
		fail     func(key, value string) error
		a        Setting
		state    string // the content of the state file
		file     string // its name below the folder
		values   map[string]string
		problems []string
		host     map[string]string
	}{
		{
			name: "read-only", fail: fails(syscall.EROFS, ""), a: settingA,
			problems: []string{"/proc/sys is read-only here, so that kernel settings are looked at and not set: add ReadWritePaths=/proc/sys/net to the unit, which its ProtectKernelTunables=yes needs, or mount that writable in the container"},
			host:     map[string]string{"net/a": "0", "net/b.x": "3 50"},
		},
		{
			name: "no capability", fail: fails(syscall.EACCES, ""), a: settingA,
			problems: []string{"kernel settings cannot be set: the capability CAP_NET_ADMIN is missing"},
			host:     map[string]string{"net/a": "0", "net/b.x": "3 50"},
		},
		{
			name: "one refused", fail: fails(syscall.EINVAL, "net/a"), a: settingA,
			problems: []string{"set net.a to 1 (it is 0): invalid argument"},
			host:     map[string]string{"net/a": "0", "net/b.x": "0 1"},
		},
		{
			name: "one bent", a: bent,
			problems: []string{"set net.a to 98 (it is 0): the kernel ignores that value"},
			host:     map[string]string{"net/a": "0", "net/b.x": "0 1"},
		},
		{
			name: "one ignored", a: ignored,
			problems: []string{"set net.a to 99 (it is 0): the kernel ignores that value"},
			host:     map[string]string{"net/a": "0", "net/b.x": "0 1"},
		},
		{
			name: "one unreadable", a: settingA, values: map[string]string{"net/a": "unreadable", "net/b.x": "3 50"},
			problems: []string{"read net.a: input/output error"},
			host:     map[string]string{"net/a": "unreadable", "net/b.x": "0 1"},
		},
		{
			name: "no folder for the record", a: settingA, file: "no/folder",
			problems: []string{"record the original settings: open DIR/no/.folder.new: no such file or directory: nothing is set"},
			host:     map[string]string{"net/a": "0", "net/b.x": "3 50"},
		},
		{
			name: "a truncated record", a: settingA, state: `{"version": 1, "settings": {"net/a"`,
			problems: []string{"read the record of the original settings DIR/state: unexpected end of JSON input: nothing is set or put back; check the settings that matter and remove the file"},
			host:     map[string]string{"net/a": "0", "net/b.x": "3 50"},
		},
		{
			name: "a newer record", a: settingA, state: `{"version": 2, "settings": {"net/a": {"original": "0", "written": ["1"], "why": "so"}}}`,
			problems: []string{"read the record of the original settings DIR/state: it is of version 2, from a newer lvstun than this one, which knows version 1: nothing is set or put back; check the settings that matter and remove the file"},
			host:     map[string]string{"net/a": "0", "net/b.x": "3 50"},
		},
		{
			name: "not a network setting", a: Setting{Key: "kernel/core_pattern", Value: "x", Set: true},
			problems: []string{"read kernel.core_pattern: it is not the key of a network setting"},
			host:     map[string]string{"net/a": "0", "net/b.x": "0 1"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, "state")
			if tt.file != "" {
				file = filepath.Join(dir, tt.file)
			}
			if tt.state != "" {
				if err := os.WriteFile(file, []byte(tt.state), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			h := &fakeHost{values: map[string]string{"net/a": "0", "net/b.x": "3 50"}, fail: tt.fail}
			if tt.values != nil {
				h.values = tt.values
			}
			before := maps.Clone(h.values)
			r := start(h, file, tt.a, settingB)
			for range 2 {
				r.turn()
			}
			var problems []string
			for _, p := range r.Report().Problems {
				problems = append(problems, strings.ReplaceAll(p, dir, "DIR"))
			}
			same(t, "problems", tt.problems, problems)
			same(t, "host", tt.host, h.values)
			if n := strings.Count(r.logged(), "ERROR"); n != len(tt.problems) {
				t.Errorf("the problem was logged %d times", n)
			}
			r.stop()
			same(t, "host after the stop", before, h.values)
			if log := r.logged(); strings.Contains(log, "somebody else") {
				t.Errorf("what was never changed is called somebody else's:\n%s", log)
			}
			if got, _ := os.ReadFile(file); string(got) != tt.state {
				t.Errorf("the record is %q", got)
			}
		})
	}
}

// Where /proc/sys is hidden, one sentence says so, and no record is given up.
func TestKeeperHidden(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "state.json")
	h := &fakeHost{values: map[string]string{"net/a": "0", "net/b.x": "3 50"}}
	start(h, file, settingA, settingB)
	r := start(Tree(filepath.Join(t.TempDir(), "nowhere")), file, settingA, settingB)
	same(t, "problems", []string{errHidden.Error()}, r.Report().Problems)
	r.stop()
	start(h, file, settingA, settingB).stop()
	same(t, "host", map[string]string{"net/a": "0", "net/b.x": "3 50"}, h.values)
}

// What cannot be put back stays on record for the next life.
func TestKeeperCannotPutBack(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "state.json")
	h := &fakeHost{values: map[string]string{"net/a": "0"}}
	r := start(h, file, settingA)
	h.fail = func(_, value string) error {
		if value != "" {
			return syscall.EROFS
		}
		return nil
	}
	r.stop()
	same(t, "host", "1", h.values["net/a"])
	if len(r.Report().Problems) != 1 {
		t.Errorf("problems: %q", r.Report().Problems)
	}
	h.fail = nil
	start(h, file, settingA).stop()
	same(t, "host", "0", h.values["net/a"])
}
