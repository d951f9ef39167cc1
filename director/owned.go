package director

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lvstun/director/ipvs"
)

// owned remembers which virtual services are ours, so that one that left the
// configuration while the director was down is taken out at the next start,
// and one that somebody else made is never touched. Its file belongs under
// /run: it dies with the kernel's table.
type owned struct {
	path string // empty: remember for this run only
	keys map[ipvs.Key]bool
}

// loadOwned reads the record. A missing file is an empty record; a broken one
// is an error together with an empty record, which errs on the side of leaving
// services alone.
func loadOwned(path string) (*owned, error) {
	o := &owned{path: path, keys: make(map[ipvs.Key]bool)}
	if path == "" {
		return o, nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil
	}
	if err != nil {
		return o, fmt.Errorf("read the record of own services: %w", err)
	}
	var keys []ipvs.Key
	if err := json.Unmarshal(text, &keys); err != nil {
		return o, fmt.Errorf("read the record of own services %s: %w", path, err)
	}
	for _, k := range keys {
		o.keys[k] = true
	}
	return o, nil
}

// add records services as ours; it must be called before they are made.
func (o *owned) add(services []ipvs.Service) error {
	grown := maps.Clone(o.keys)
	for _, s := range services {
		grown[s.Key] = true
	}
	return o.set(grown)
}

// settle drops what is no longer in the table from the record.
func (o *owned) settle(services []ipvs.Service) error {
	now := make(map[ipvs.Key]bool, len(services))
	for _, s := range services {
		now[s.Key] = true
	}
	return o.set(now)
}

func (o *owned) set(keys map[ipvs.Key]bool) error {
	if maps.Equal(o.keys, keys) {
		return nil
	}
	if o.path != "" {
		sorted := slices.SortedFunc(maps.Keys(keys), func(a, b ipvs.Key) int { return strings.Compare(a.String(), b.String()) })
		text, err := json.Marshal(sorted)
		if err != nil {
			return fmt.Errorf("record the own services: %w", err)
		}
		if err := replaceFile(o.path, text); err != nil {
			return fmt.Errorf("record the own services: %w", err)
		}
	}
	o.keys = keys
	return nil
}

// replaceFile puts text in the place of path, whole or not at all.
func replaceFile(path string, text []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(text)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
