// Package tunnel keeps the receiving end of the directors' tunnels on a real server: tunnel devices that are up, the
// VIPs on them, and UDP ports for GUE. How the host was before is recorded in a file before the first change, and put
// back when it is no longer needed.
//
// Each pair of families has its device; GUE comes out of the same ones, GRE has its own:
//
//	IPv4 in IPv4  tunl0    GRE in IPv4  gre0
//	IPv6 in IPv4  sit0     GRE in IPv6  ip6gre0
//	any in IPv6   ip6tnl0
package tunnel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Desired is what the host should receive. The zero Desired is nothing: everything is undone.
type Desired struct {
	Receivers []Receiver
}

// Change is one thing that Apply changed.
type Change struct {
	What     string // "tunl0", "MTU of sit0", "mode of ip6tnl0", "10.0.0.50/32 on tunl0", "UDP port 6080 of IPv4 for GUE"
	Old, New string // "missing", "down", "up", "removed", "absent", "present", "closed", "open", an MTU, a mode
	// Drift: this Tunnel had brought or found it as wanted before, and somebody else has changed it since.
	Drift bool
}

// Report is how the host stands after an Apply.
type Report struct {
	Held    []Receiver // the desired ones by which packets come in, sorted
	Changes []Change
	Repairs uint64   // changes because of drift, since New
	Alarms  []string // things that somebody else keeps changing; a sentence stays the same as long as it is so
	Notes   []string // what was not undone and why; each is said once
}

// Tunnel applies a desired state to the calling process's network namespace. It is not for concurrent use, and there
// must be one for a file.
type Tunnel struct {
	kernel kernel
	store  store
	life   string // "" where the record is not known
	record record

	settled map[string]bool // what this Tunnel has seen as wanted
	fights  fights
	repairs uint64
}

// New returns a Tunnel whose record of how the host was is in the named file, such as /var/lib/lvstun/tunnel.json. It
// touches neither before Apply.
func New(path string) *Tunnel { return newTunnel(rtnetlink{}, file(path)) }

func newTunnel(k kernel, s store) *Tunnel {
	return &Tunnel{kernel: k, store: s, settled: map[string]bool{}, fights: fights{}}
}

// Undo puts the host back as it was before the first Apply with that file, also after a crash and a second time. What
// somebody else has changed since is left; the report's notes say so. A kernel module that was loaded stays loaded.
func Undo(ctx context.Context, path string) (Report, error) {
	return New(path).Apply(ctx, Desired{})
}

// Apply brings the host to the desired state and changes nothing where it is in it. What is no longer desired is put
// back as it was.
//
// A device is ours if we made it, an address if it carries our mark (IFA_PROTO, since Linux 5.18) or, where the kernel
// keeps none, if the record holds it; a port if the record holds it. Everything else stays as it is.
//
// The error holds every problem at once. One of a receiver, such as a VIP that is the host's own address or a missing
// kernel module, keeps only that receiver from being built. Where a receiver is nonsense, the sound ones are built and
// nothing is undone: what was meant is not known. Without a record that can be read and written, or without the
// capability CAP_NET_ADMIN, nothing is changed.
func (t *Tunnel) Apply(ctx context.Context, desired Desired) (Report, error) {
	report := Report{Repairs: t.repairs}
	broken := t.load(&report)
	vips := make([]netip.Addr, len(desired.Receivers))
	ports := len(t.record.Ports) > 0
	for i, r := range desired.Receivers {
		vips[i] = r.VIP.Unmap()
		ports = ports || r.Type == GUE
	}
	var failed []error
	now := attempt{tried: map[string]bool{}, bouts: map[string]bool{}}
	for {
		if err := ctx.Err(); err != nil {
			return report, errors.Join(append(failed, err)...)
		}
		s, err := look(t.kernel, vips, ports)
		if err != nil {
			return report, errors.Join(append(failed, broken, err)...)
		}
		sound, w, problems := judge(desired.Receivers, s)
		p := diff(s, w, t.record, t.kernel.marks())
		t.settle(p.holds)
		if broken == nil {
			broken = t.keep(p.record)
		}
		if broken == nil {
			report.note(p.notes)
			if steps := t.due(p.steps, now); len(steps) > 0 {
				failed = append(failed, t.run(ctx, steps, &report)...)
				continue // what a device is shows only when it is there, and whether a change took only now
			}
		}
		for _, r := range sound {
			if s.holds(r) {
				report.Held = append(report.Held, r)
			}
		}
		report.Alarms = t.fights.alarms(time.Now(), p.holds)
		return report, errors.Join(slices.Concat([]error{broken}, problems, p.problems, failed)...)
	}
}

// load reads the record if it is not known.
func (t *Tunnel) load(report *Report) error {
	if t.life != "" {
		return nil
	}
	life, err := t.kernel.life()
	if err != nil {
		return fmt.Errorf("tell this life of the host from another: %w; nothing is changed", err)
	}
	r, found, err := t.store.load()
	if err == nil && found && r.Life != life {
		report.note([]string{"the record is of a network that is gone, by a reboot of this host or of its container: what it says is forgotten"})
		r, err = record{}, t.store.save(record{})
	}
	if err != nil {
		return err
	}
	t.life, t.record = life, r
	t.record.Life = life
	return nil
}

// keep makes r the record, in its file first.
func (t *Tunnel) keep(r record) error {
	if bytes.Equal(r.text(), t.record.text()) {
		return nil
	}
	if err := t.store.save(r); err != nil {
		t.life = "" // what the file holds now is not known: the next Apply reads it
		return err
	}
	t.record = r
	return nil
}

// settle notes what is as wanted, to know a drift from it.
func (t *Tunnel) settle(holds map[string]bool) {
	settled := map[string]bool{}
	for what, ok := range holds {
		settled[what] = ok || t.settled[what]
	}
	t.settled = settled
}

// attempt is what one Apply has begun.
type attempt struct {
	tried map[string]bool // steps: each is taken once
	bouts map[string]bool // what had drifted, and whether it may be put right now
}

// due leaves out steps that were tried, and those that a fight forbids for now.
func (t *Tunnel) due(steps []step, a attempt) []step {
	return slices.DeleteFunc(steps, func(s step) bool {
		if a.tried[s.what+s.new] {
			return true
		}
		a.tried[s.what+s.new] = true
		if !t.settled[s.what] {
			return false
		}
		if _, known := a.bouts[s.what]; !known {
			a.bouts[s.what] = t.fights.due(s, time.Now())
		}
		return !a.bouts[s.what]
	})
}

// run takes the steps; one that fails does not keep the others from being taken.
func (t *Tunnel) run(ctx context.Context, steps []step, report *Report) []error {
	var errs []error
	for _, s := range steps {
		if ctx.Err() != nil {
			break
		}
		err := s.do(t.kernel)
		if errors.Is(err, unix.EPERM) {
			return append(errs, fmt.Errorf("%s: is %s, not %s: %w: the capability CAP_NET_ADMIN is missing: run as root or by the systemd unit", s.what, s.old, s.new, err))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: is %s, not %s: %w", s.what, s.old, s.new, err))
			continue
		}
		drift := t.settled[s.what]
		if drift {
			t.repairs++
			report.Repairs = t.repairs
		}
		report.Changes = append(report.Changes, Change{s.what, s.old, s.new, drift})
	}
	return errs
}

func (r *Report) note(notes []string) {
	for _, n := range notes {
		if !slices.Contains(r.Notes, n) {
			r.Notes = append(r.Notes, n)
		}
	}
}
