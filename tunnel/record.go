package tunnel

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
)

// recordVersion is the version of the record's form, which this program reads and writes.
const recordVersion = 1

// record is how things were that we changed or are about to change, and what we have put or are about to put there.
type record struct {
	Version int `json:"version"`
	// Life is that of the kernel's state (kernel.life): in another one nothing of it is left.
	Life      string            `json:"life"`
	Devices   map[string]origin `json:"devices,omitempty"`
	Addresses []place           `json:"addresses,omitempty"` // ours, sorted
	Ports     []port            `json:"ports,omitempty"`     // ours, sorted
}

// origin is how a device was before we used it.
type origin struct {
	Made   bool `json:"made,omitempty"`   // it was not there: we asked for it
	Loaded bool `json:"loaded,omitempty"` // it was not there, and came with a kernel module that our asking loaded
	Index  int  `json:"index,omitempty"`  // tells it from another device of its name that comes after it
	Up     bool `json:"up"`
	MTU    int  `json:"mtu,omitempty"`
	// Protocol is what an ip6tnl took: 0 anything, 4 IPv4, 41 IPv6.
	Protocol  uint8          `json:"protocol,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"` // not ours
}

// of reports whether it is the origin of this very device.
func (o origin) of(l link) bool {
	if o.Made {
		return l.marked
	}
	return o.Index == l.index
}

func (r record) clone() record {
	r.Devices = maps.Clone(r.Devices)
	if r.Devices == nil {
		r.Devices = map[string]origin{}
	}
	r.Addresses, r.Ports = slices.Clone(r.Addresses), slices.Clone(r.Ports)
	return r
}

func (r record) empty() bool { return len(r.Devices)+len(r.Addresses)+len(r.Ports) == 0 }

// text is the record as its file has it, the same for equal records.
func (r record) text() []byte {
	r.Version = recordVersion
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		panic(err) // numbers, texts and prefixes: there is nothing that could not be written
	}
	return append(text, '\n')
}

// parseRecord reads a record and takes nothing that it would not have written.
func parseRecord(text []byte) (record, error) {
	var head struct{ Version int }
	if err := json.Unmarshal(text, &head); err != nil {
		return record{}, fmt.Errorf("it is cut short or damaged: %w", err)
	}
	if head.Version != recordVersion {
		return record{}, fmt.Errorf("it has version %d, this program knows only %d: use the program that wrote it", head.Version, recordVersion)
	}
	var r record
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return record{}, fmt.Errorf("it is damaged: %w", err)
	}
	if r.Life == "" {
		return record{}, errors.New("it is damaged: it does not say of which life of the host it is")
	}
	for name := range r.Devices {
		if !known(name) {
			return record{}, fmt.Errorf("it is damaged: %q is no device of ours", name)
		}
	}
	for _, a := range r.Addresses {
		if !known(a.Device) || !a.Prefix.IsSingleIP() {
			return record{}, fmt.Errorf("it is damaged: %s is no address of ours", a)
		}
	}
	for _, p := range r.Ports {
		if p.Number == 0 {
			return record{}, errors.New("it is damaged: a port without a number")
		}
	}
	return r, nil
}

func known(name string) bool {
	return slices.ContainsFunc(devices, func(d device) bool { return d.name == name })
}

// store keeps the record.
type store interface {
	load() (r record, found bool, err error)
	save(r record) error // an empty one is removed
}

// file is the path of a record. It has one writer.
type file string

var _ store = file("")

func (f file) load() (record, bool, error) {
	text, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, false, nil
	}
	var r record
	if err == nil {
		r, err = parseRecord(text)
	}
	if err != nil {
		return record{}, false, fmt.Errorf("the record of how this host was, %s: %w; nothing is changed: "+
			"look at `ip address` and `ip fou show`, put right what is not wanted, then remove the file", f, err)
	}
	return r, true, nil
}

// save returns when the record would survive a crash of the host; until then the file is the one before.
func (f file) save(r record) error {
	if err := f.replace(r); err != nil {
		return fmt.Errorf("record how this host was: %w; nothing is changed", err)
	}
	return nil
}

func (f file) replace(r record) error {
	if r.empty() {
		if err := os.Remove(string(f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	folder := filepath.Dir(string(f))
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	next := filepath.Join(folder, "."+filepath.Base(string(f))+".new")
	if err := write(next, r.text()); err != nil {
		return err
	}
	if err := os.Rename(next, string(f)); err != nil {
		return err
	}
	dir, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func write(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}
