package trust

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
)

// The one line of a key file: this prefix and the key in base64.
const (
	keyFamily = "lvstun-cluster-key-"
	keyPrefix = keyFamily + "1:"
)

// maxSecretFile bounds what is read of a key or token file, in bytes.
const maxSecretFile = MaxToken + 2

// ReadKeyFile reads a cluster key. It refuses a file that anyone but its owner
// can read or write, and one owned by neither root nor this process's user.
func ReadKeyFile(path string) (ClusterKey, error) {
	b, err := readSecret(path)
	if err != nil {
		return ClusterKey{}, fmt.Errorf("read cluster key: %w", err)
	}
	k, err := ParseKey(b)
	if err != nil {
		return ClusterKey{}, fmt.Errorf("read cluster key %s: %w", path, err)
	}
	return k, nil
}

// WriteKeyFile writes k to a new file of mode 0600. A file that is already
// there is never touched: the error is then fs.ErrExist.
func WriteKeyFile(path string, k ClusterKey) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write cluster key: %w", err)
	}
	_, err = f.Write(k.file())
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		os.Remove(path)
		return fmt.Errorf("write cluster key %s: %w", path, err)
	}
	return nil
}

// file is the content of a key file.
func (k ClusterKey) file() []byte {
	b := base64.StdEncoding.AppendEncode([]byte(keyPrefix), k[:])
	return append(b, '\n')
}

// ParseKey reads the content of a key file: exactly one line of version 1. Its
// errors never repeat what the file holds.
func ParseKey(b []byte) (ClusterKey, error) {
	line, _ := bytes.CutSuffix(b, []byte("\n"))
	text, ok := bytes.CutPrefix(line, []byte(keyPrefix))
	switch {
	case len(line) == 0:
		return ClusterKey{}, errors.New("the file is empty; make a key with `lvs-director keygen`")
	case !ok && bytes.HasPrefix(line, []byte(keyFamily)):
		return ClusterKey{}, errors.New("the key is of another version; this program reads version 1")
	case !ok:
		return ClusterKey{}, fmt.Errorf("not a cluster key: it must be one line that begins with %s", keyPrefix)
	}
	raw, err := decode(base64.StdEncoding, string(text))
	if err != nil {
		return ClusterKey{}, errors.New("the key is damaged: after the prefix comes base64 and one end of line")
	}
	if len(raw) != len(ClusterKey{}) {
		return ClusterKey{}, fmt.Errorf("the key has %d bytes, want %d", len(raw), len(ClusterKey{}))
	}
	return ClusterKey(raw), nil
}

// ReadTokenFile reads the token an agent was given, under the same rules as a
// key file; blanks and line ends around it do not matter.
func ReadTokenFile(path string) (Token, error) {
	b, err := readSecret(path)
	if err != nil {
		return Token{}, fmt.Errorf("read token: %w", err)
	}
	t, err := ParseToken(string(bytes.TrimSpace(b)))
	if err != nil {
		return Token{}, fmt.Errorf("read token %s: %w", path, err)
	}
	return t, nil
}

// readSecret reads a small regular file that only its owner can read. What is
// checked is the open file and not the path, so swapping links gains nothing.
//
// The service manager's credentials (systemd.exec(5)) it hands over to the
// service's user either as the owner or, where the file system has them, by an
// access list on root's file, whose mask then stands where the mode has its
// group (acl(5)): 0440.
func readSecret(path string) ([]byte, error) {
	// A FIFO in place of the file must not hang the start.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	refused := os.FileMode(0o077)
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" && filepath.Dir(path) == filepath.Clean(dir) {
		refused = 0o037
	}
	if mode := info.Mode().Perm(); mode&refused != 0 {
		return nil, fmt.Errorf("%s is open to others (mode %04o): run `chmod 600 %s`", path, mode, path)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 0 && int(uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s belongs to user %d, who could change it: run `chown %d %s`", path, uid, os.Geteuid(), path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(b) > maxSecretFile {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, maxSecretFile)
	}
	return b, nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
