package sysctl

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// fake makes a tree of the given settings in dir.
func fake(t interface{ Fatal(...any) }, dir string, values map[string]string) Tree {
	for key, value := range values {
		path := filepath.Join(dir, key)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Tree(dir)
}

func (t Tree) value(key string) string {
	b, err := os.ReadFile(filepath.Join(string(t), key))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestApply(t *testing.T) {
	t.Parallel()
	host := map[string]string{
		"net/ipv4/conf/all/rp_filter":      "1\n",
		"net/ipv4/conf/eth0.100/rp_filter": "0\n",
		"net/ipv4/conf/eth0/arp_ignore":    "8\n",
		"net/ipv4/tcp_rmem":                "4096\t131072\t6291456\n",
	}
	tests := []struct {
		name    string
		desired []Setting
		want    []Change
		err     string // every line of the error
	}{
		{name: "nothing"},
		{name: "already so", desired: []Setting{{Key: "net/ipv4/conf/all/rp_filter", Value: 1}}},
		{
			name:    "written",
			desired: []Setting{{Key: "net/ipv4/conf/all/rp_filter", Value: 2}},
			want:    []Change{{"net/ipv4/conf/all/rp_filter", 1, 2}},
		},
		{name: "another value that serves", desired: []Setting{{Key: "net/ipv4/conf/eth0/arp_ignore", Value: 1, Or: []int{2, 8}}}},
		{
			name:    "dots in a key",
			desired: []Setting{{Key: "net.ipv4.conf.all.rp_filter", Value: 0}},
			want:    []Change{{"net/ipv4/conf/all/rp_filter", 1, 0}},
		},
		{
			name:    "dots in a name, slash form",
			desired: []Setting{{Key: "net/ipv4/conf/eth0.100/rp_filter", Value: 2}},
			want:    []Change{{"net/ipv4/conf/eth0.100/rp_filter", 0, 2}},
		},
		{
			name:    "dots in a name, dot form",
			desired: []Setting{{Key: "net.ipv4.conf.eth0/100.rp_filter", Value: 2}},
			want:    []Change{{"net/ipv4/conf/eth0.100/rp_filter", 0, 2}},
		},
		{
			name: "one that fails does not stop the others",
			desired: []Setting{
				{Key: "net/ipv4/conf/tunl0/rp_filter", Value: 2},
				{Key: "net/ipv4/tcp_rmem", Value: 2},
				{Key: "../../etc/passwd", Value: 2},
				{Key: "", Value: 2},
				{Key: "net/ipv4/conf/all/rp_filter", Value: 2},
			},
			want: []Change{{"net/ipv4/conf/all/rp_filter", 1, 2}},
			err: `setting net/ipv4/conf/tunl0/rp_filter: read: no such file or directory: the kernel has no such setting, or its device is gone
setting net/ipv4/tcp_rmem: holds "4096\t131072\t6291456\n", not a number
setting "../../etc/passwd": not a key
setting "": not a key`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tree := fake(t, t.TempDir(), host)
			report, err := tree.Apply(t.Context(), tt.desired)
			if diff := cmp.Diff(tt.want, report.Changes); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
			text := ""
			if err != nil {
				text = err.Error()
			}
			if diff := cmp.Diff(tt.err, text); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			for _, c := range tt.want {
				if got := tree.value(c.Key); got != fmt.Sprint(c.New) {
					t.Errorf("%s holds %q, want %d", c.Key, got, c.New)
				}
			}
			again, _ := tree.Apply(t.Context(), tt.desired)
			if len(again.Changes) != 0 {
				t.Errorf("a second Apply changed %v", again.Changes)
			}
		})
	}
}

func TestApplyEndsWithItsContext(t *testing.T) {
	t.Parallel()
	tree := fake(t, t.TempDir(), map[string]string{"a": "0"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tree.Apply(ctx, []Setting{{Key: "a", Value: 1}}); err == nil {
		t.Error("no error")
	}
	if got := tree.value("a"); got != "0" {
		t.Errorf("a is %q after the context ended", got)
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	for errno, want := range map[syscall.Errno]string{
		syscall.EROFS:  "setting a/b: set to 1 (it is 0): read-only file system: /proc/sys is mounted read-only (in a container, or by systemd's ProtectKernelTunables)",
		syscall.EPERM:  "setting a/b: set to 1 (it is 0): operation not permitted: the capability CAP_NET_ADMIN is missing",
		syscall.EACCES: "setting a/b: set to 1 (it is 0): permission denied: the capability CAP_NET_ADMIN is missing",
		syscall.EINVAL: "setting a/b: set to 1 (it is 0): invalid argument",
	} {
		err := explain("a/b", "set to 1 (it is 0)", &fs.PathError{Op: "open", Path: "/proc/sys/a/b", Err: errno})
		if err.Error() != want {
			t.Errorf("explain(%v) = %q, want %q", errno, err, want)
		}
	}
}

// From any host, Apply ends at a wanted value everywhere, leaves what served, and is then idempotent.
func TestApplyConverges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		host, desired := map[string]string{}, []Setting{}
		for i, old := range rapid.SliceOfN(rapid.IntRange(0, 4), 1, 6).Draw(t, "host") {
			key := fmt.Sprintf("net/k%d", i)
			host[key] = fmt.Sprintf("%d\n", old)
			desired = append(desired, Setting{
				Key: key, Value: rapid.IntRange(0, 4).Draw(t, "value"),
				Or: rapid.SliceOfN(rapid.IntRange(0, 4), 0, 2).Draw(t, "or"),
			})
		}
		tree := fake(t, filepath.Join(dir, fmt.Sprint(round)), host)
		report, err := tree.Apply(context.Background(), desired)
		if err != nil {
			t.Fatal(err)
		}
		changed := map[string]bool{}
		for _, c := range report.Changes {
			changed[c.Key] = true
		}
		for _, s := range desired {
			got := strings.TrimSpace(tree.value(s.Key))
			serves := got == fmt.Sprint(s.Value)
			for _, or := range s.Or {
				serves = serves || got == fmt.Sprint(or)
			}
			if !serves || changed[s.Key] == (got == strings.TrimSpace(host[s.Key])) {
				t.Fatalf("%s: was %q, is %q, wanted %d or %v, reported as changed: %v", s.Key, host[s.Key], got, s.Value, s.Or, changed[s.Key])
			}
		}
		if again, err := tree.Apply(context.Background(), desired); err != nil || len(again.Changes) != 0 {
			t.Fatalf("a second Apply: %v, %v", again.Changes, err)
		}
	})
}
