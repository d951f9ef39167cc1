package tuning

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"lvstun/sysctl"
)

// host is where settings are read and written, by keys with slashes.
type host interface {
	read(key string) (string, error)
	write(key, value string) error
}

// tree is a host as a tree of files. Where package sysctl sets numbers, it reads and writes the values of any setting.
type tree sysctl.Tree

var _ host = tree("")

func (t tree) read(key string) (string, error) {
	if !fs.ValidPath(key) {
		return "", fmt.Errorf("%q is not a key", key)
	}
	text, err := os.ReadFile(filepath.Join(string(t), key))
	return normal(string(text)), cause(err)
}

func (t tree) write(key, value string) error {
	f, err := os.OpenFile(filepath.Join(string(t), key), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return cause(err)
	}
	_, err = f.WriteString(value)
	return cause(errors.Join(err, f.Close()))
}

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

// explainWrite says why a setting could not be written: one sentence for all where the reason is not the setting's.
func explainWrite(key, have, value string, err error) string {
	switch {
	case errors.Is(err, syscall.EROFS):
		return "/proc/sys is read-only here, so that kernel settings are looked at and not set: take ProtectKernelTunables=yes out of the unit, or mount /proc/sys/net writable in the container"
	case errors.Is(err, fs.ErrPermission):
		return "kernel settings cannot be set: the capability CAP_NET_ADMIN is missing"
	}
	return fmt.Sprintf("set %s to %s (it is %s): %v", dotted(key), value, have, err)
}
