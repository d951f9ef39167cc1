package sysctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Tree is a folder of settings: Proc, or a copy of a part of it in a test.
type Tree string

// Proc is the kernel's own tree. What is under net belongs to the calling process's network namespace.
const Proc Tree = "/proc/sys"

// host is where settings are read and written, by keys with slashes.
type host interface {
	read(key string) (string, error)
	write(key, value string) error
}

var _ host = Tree("")

func (t Tree) read(key string) (string, error) {
	text, err := os.ReadFile(filepath.Join(string(t), key))
	if errors.Is(err, fs.ErrNotExist) {
		if _, none := os.Stat(filepath.Join(string(t), "net")); errors.Is(none, fs.ErrNotExist) {
			return "", errHidden
		}
	}
	return normal(string(text)), cause(err)
}

// errHidden is a host that shows no settings at all, which says nothing about any of them.
var errHidden = errors.New("there is no /proc/sys/net here, so that kernel settings are neither looked at nor set: take ProcSubset=pid out of the unit")

func (t Tree) write(key, value string) error {
	f, err := os.OpenFile(filepath.Join(string(t), key), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return cause(err)
	}
	_, err = f.WriteString(value)
	return cause(errors.Join(err, f.Close()))
}

// isKey tells whether a key with slashes is one of a network setting, and of nothing beside /proc/sys/net.
func isKey(key string) bool { return fs.ValidPath(key) && strings.HasPrefix(key, "net/") }

// normal returns a value as settings compare it: numbers with one space between.
func normal(value string) string { return strings.Join(strings.Fields(value), " ") }

// cause takes the path out of an error, for the key is said anyway.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// explainRead says why a setting could not be read: one sentence for all where the reason is not the setting's.
func explainRead(key string, err error) string {
	if errors.Is(err, errHidden) {
		return err.Error()
	}
	return fmt.Sprintf("read %s: %v", dotted(key), err)
}

// explainWrite says why a setting could not be written: one sentence for all where the reason is not the setting's.
func explainWrite(key, have, value string, err error) string {
	switch {
	case errors.Is(err, syscall.EROFS):
		return "/proc/sys is read-only here, so that kernel settings are looked at and not set: add ReadWritePaths=/proc/sys/net to the unit, which its ProtectKernelTunables=yes needs, or mount that writable in the container"
	case errors.Is(err, fs.ErrPermission):
		return "kernel settings cannot be set: the capability CAP_NET_ADMIN is missing"
	}
	return fmt.Sprintf("set %s to %s (it is %s): %v", dotted(key), value, have, err)
}
