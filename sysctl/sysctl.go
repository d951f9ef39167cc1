// Package sysctl keeps kernel settings under /proc/sys at wanted values: it reads, compares and writes
// only what differs.
package sysctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Setting is one wanted value.
type Setting struct {
	// Key in either of sysctl(8)'s forms: the first separator decides. With slashes, dots are part of
	// a name (net/ipv4/conf/eth0.100/rp_filter); with dots, slashes stand for dots in a name
	// (net.ipv4.conf.eth0/100.rp_filter).
	Key   string
	Value int
	// Or lists further values that serve as well: where the kernel holds one of them, it stays.
	Or []int
}

// Change is a setting that was written.
type Change struct {
	Key      string // with slashes
	Old, New int
}

// Report is what an Apply did.
type Report struct {
	Changes []Change
}

// Tree is a folder of settings: Proc, or a copy of a part of it in a test.
type Tree string

// Proc is the kernel's own tree. What is under net belongs to the calling process's network namespace.
const Proc Tree = "/proc/sys"

// Apply brings every setting to its wanted value; where all hold already it writes nothing. A setting
// that fails does not keep the others from being applied: the error holds them all, the report what was
// changed all the same.
func (t Tree) Apply(ctx context.Context, desired []Setting) (Report, error) {
	var report Report
	var errs []error
	for _, s := range desired {
		if err := ctx.Err(); err != nil {
			return report, errors.Join(append(errs, err)...)
		}
		change, err := t.apply(s)
		if err != nil {
			errs = append(errs, err)
		}
		if change != nil {
			report.Changes = append(report.Changes, *change)
		}
	}
	return report, errors.Join(errs...)
}

// apply returns the change it made, if any.
func (t Tree) apply(s Setting) (*Change, error) {
	key, err := clean(s.Key)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(string(t), key)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, explain(key, "read", err)
	}
	old, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, fmt.Errorf("setting %s: holds %.40q, not a number", key, text)
	}
	if old == s.Value || slices.Contains(s.Or, old) {
		return nil, nil
	}
	if err := write(path, strconv.Itoa(s.Value)); err != nil {
		return nil, explain(key, fmt.Sprintf("set to %d (it is %d)", s.Value, old), err)
	}
	return &Change{Key: key, Old: old, New: s.Value}, nil
}

func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// clean returns key with slashes, as a path below the tree.
func clean(key string) (string, error) {
	path := key
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		path = strings.NewReplacer(".", "/", "/", ".").Replace(key)
	}
	if !fs.ValidPath(path) || path == "." {
		return "", fmt.Errorf("setting %q: not a key", key)
	}
	return path, nil
}

// explain turns an errno into a sentence that says what is missing.
func explain(key, action string, err error) error {
	why := err
	var path *fs.PathError
	if errors.As(err, &path) {
		why = path.Err // the path is the key
	}
	hint := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		hint = ": the kernel has no such setting, or its device is gone"
	case errors.Is(err, syscall.EROFS):
		hint = ": /proc/sys is mounted read-only (in a container, or by systemd's ProtectKernelTunables)"
	case errors.Is(err, fs.ErrPermission):
		hint = ": the capability CAP_NET_ADMIN is missing"
	}
	return fmt.Errorf("setting %s: %s: %w%s", key, action, why, hint)
}
