package sysctl

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fakeTree makes a tree with these settings.
func fakeTree(t *testing.T, values map[string]string) Tree {
	t.Helper()
	root := t.TempDir()
	for key, value := range values {
		path := filepath.Join(root, key)
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, []byte(value), 0o600))
	}
	return Tree(root)
}

// holds fails the test if the setting is not want.
func (t Tree) holds(tb testing.TB, key, want string) {
	tb.Helper()
	if got, err := t.read(key); err != nil || got != want {
		tb.Errorf("%s is %q, want %q: %v", key, got, want, err)
	}
}

func TestTree(t *testing.T) {
	t.Parallel()
	h := fakeTree(t, map[string]string{"a": "3\t50\n"})
	h.holds(t, "a", "3 50")
	must(t, h.write("a", "1"))
	h.holds(t, "a", "1")
	if _, err := h.read("net/b"); !errors.Is(err, errHidden) {
		t.Errorf("a tree without settings: %v", err)
	}
	must(t, os.Mkdir(filepath.Join(string(h), "net"), 0o700))
	_, err := h.read("net/b")
	for _, err := range []error{err, h.write("net/b", "1")} {
		if !errors.Is(err, fs.ErrNotExist) || err.Error() != "no such file or directory" {
			t.Errorf("a key that is not there: %v", err)
		}
	}
}

// Run applies at once, repairs at every look, and puts back at the end.
func TestRun(t *testing.T) {
	t.Parallel()
	root := fakeTree(t, map[string]string{"net/a": "0\n"})
	synctest.Test(t, func(t *testing.T) {
		k := New(Options{Root: root, File: filepath.Join(string(root), "state.json"), Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			k.Run(ctx, time.Second, func() []Setting { return []Setting{settingA} })
		}()
		synctest.Wait()
		root.holds(t, "net/a", "1")
		must(t, root.write("net/a", "7"))
		time.Sleep(time.Second)
		synctest.Wait()
		root.holds(t, "net/a", "1")
		same(t, "drifts", uint64(1), k.Report().Drifts)
		cancel()
		<-done
		root.holds(t, "net/a", "0")
	})
}

// What a crash leaves is undone without the one who did it: twice in a row, and not where a person has been since.
func TestRestore(t *testing.T) {
	t.Parallel()
	root := fakeTree(t, map[string]string{"net/a": "0\n", "net/b.x": "3\t50\n", "net/conf/eth0.100/c": "0\n"})
	file := filepath.Join(string(root), "state.json")
	log := slog.New(slog.DiscardHandler)
	gone := Setting{Key: "net.conf.eth0/100.c", Value: "2", Set: true}
	New(Options{Root: root, File: file, Log: log}).Apply([]Setting{settingA, settingB, gone})
	root.holds(t, "net/conf/eth0.100/c", "2")
	must(t, os.RemoveAll(filepath.Join(string(root), "net/conf/eth0.100")))
	must(t, root.write("net/b.x", "5 5"))

	text, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, text[:len(text)/2], 0o600))
	got := Restore(root, file, log)
	if len(got.Problems) != 1 || !strings.Contains(got.Problems[0], "unexpected end of JSON input: nothing is set or put back") {
		t.Errorf("from half a record: %+v", got)
	}
	root.holds(t, "net/a", "1")

	must(t, os.WriteFile(file, text, 0o600))
	same(t, "first", Report{
		Changes: []Change{{"net.a", "1", "0"}},
		Left:    []Left{{"net.b/x", "5 5", "3 50"}},
	}, Restore(root, file, log))
	same(t, "second", Report{}, Restore(root, file, log))
	root.holds(t, "net/a", "0")
	root.holds(t, "net/b.x", "5 5")
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the record stays: %v", err)
	}
}
