package sysctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// origin is what a setting was before the first change, and every value that was written since: with one of these it
// is ours to put back, with any other somebody else's.
type origin struct {
	Original string   `json:"original"`
	Written  []string `json:"written"`
}

// record is every setting that is, or is about to be, changed, by its key with slashes. Its file dies with the
// kernel's settings: it belongs under /run.
type record map[string]origin

// recordFile is a record as its file holds it.
type recordFile struct {
	Version  int    `json:"version"`
	Settings record `json:"settings"`
}

// recordVersion is the version of recordFile. Another one may mean something else by the same words.
const recordVersion = 1

// parseRecord reads a record and takes nothing that it would not have written.
func parseRecord(text []byte) (record, error) {
	var head struct{ Version int }
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, err
	}
	switch {
	case head.Version > recordVersion:
		return nil, fmt.Errorf("it is of version %d, from a newer lvstun than this one, which knows version %d", head.Version, recordVersion)
	case head.Version < recordVersion:
		return nil, errors.New("it is no record of lvstun")
	}
	var file recordFile
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&file); err != nil {
		return nil, err
	}
	if len(file.Settings) == 0 {
		return nil, errors.New("it holds no setting")
	}
	for key, o := range file.Settings {
		if !isKey(key) {
			return nil, fmt.Errorf("%q is not the key of a network setting", key)
		}
		for _, v := range append(o.Written, o.Original) {
			if v == "" || v != normal(v) {
				return nil, fmt.Errorf("%s: %q is not a value", key, v)
			}
		}
	}
	return file.Settings, nil
}

// loadRecord reads the record; a file that is not there is an empty one.
func loadRecord(path string) (record, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, nil
	}
	var r record
	if err == nil {
		r, err = parseRecord(text)
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of the original settings %s: %w", path, err)
	}
	return r, nil
}

// save puts the record into its file, whole or not at all, and returns when it would survive a crash. An empty record
// has no file.
func (r record) save(path string) error {
	err := r.replace(path)
	if err != nil {
		return fmt.Errorf("record the original settings: %w", err)
	}
	return nil
}

func (r record) replace(path string) error {
	if len(r) == 0 {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := json.MarshalIndent(recordFile{recordVersion, r}, "", "\t")
	if err != nil {
		return err
	}
	next := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new") // there is one writer
	tmp, err := os.OpenFile(next, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = tmp.Write(append(text, '\n'))
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// with returns a record that also holds that key had the value have and is about to get value.
func (r record) with(key, have, value string) record {
	grown := maps.Clone(r)
	o, ok := grown[key]
	if !ok {
		o.Original = have
	}
	if !slices.Contains(o.Written, value) {
		o.Written = append(slices.Clone(o.Written), value)
	}
	grown[key] = o
	return grown
}
