package tuning

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"lvstun/sysctl"
)

// every is how often the settings are looked at.
const every = 5 * time.Second

// Options are what a Keeper needs.
type Options struct {
	Root     sysctl.Tree      // where the settings are; "" is sysctl.Proc
	Settings func() []Setting // wanted now, each key once; asked every round, from Run's goroutine

	// Set lets the Keeper set what its settings allow. Without, it only looks, and puts back what a former run left
	// changed.
	Set bool

	// StateFile holds the originals of what is changed, in a folder that lives as long as the kernel's settings:
	// /run/lvstun/director.sysctl.json. Nothing is changed before it is recorded there.
	StateFile string

	Log *slog.Logger
}

// Keeper brings settings to their wanted values, holds them there, and puts back what it found.
type Keeper struct {
	settings func() []Setting
	set      bool
	file     string
	log      *slog.Logger
	host     host
	ready    chan struct{}

	// Run's goroutine's own.
	record   record             // of what is changed
	broken   string             // why the record cannot be read, and nothing may be changed
	last     map[string]Finding // of the round before, by key
	problems []string           // of this round
	drifts   uint64

	mu     sync.Mutex // guards report
	report Report
}

// New makes a Keeper. It touches nothing before Run.
func New(o Options) *Keeper {
	if o.Root == "" {
		o.Root = sysctl.Proc
	}
	return &Keeper{settings: o.Settings, set: o.Set, file: o.StateFile, log: o.Log, host: tree(o.Root), ready: make(chan struct{})}
}

// Ready is closed after the first round: what could be set is set.
func (k *Keeper) Ready() <-chan struct{} { return k.ready }

// Report returns how things stood at the last round.
func (k *Keeper) Report() Report {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.report
}

// Run keeps the settings until ctx ends. Then it puts back every original, except where somebody else has changed the
// setting meanwhile, and returns nil: what it cannot do it logs and reports. A director is better with a setting that
// does not serve than without a process.
//
// A setting whose key disappears, as with a device or with ip_vs, is forgotten: it comes back with the kernel's
// default. A setting that is no longer wanted is put back.
func (k *Keeper) Run(ctx context.Context) error {
	k.open()
	tick := time.NewTicker(every)
	defer tick.Stop()
	k.round(k.settings())
	close(k.ready)
	for {
		select {
		case <-ctx.Done():
			k.round(nil) // nothing is wanted any more
			return nil
		case <-tick.C:
			k.round(k.settings())
		}
	}
}

// open reads what a former run has left changed.
func (k *Keeper) open() {
	var err error
	if k.record, err = loadRecord(k.file); err != nil {
		k.broken = fmt.Sprintf("%v: nothing is set or put back; check the settings and remove the file", err)
	}
}

// round looks at every setting, sets what does not serve and puts back what is not wanted any more.
func (k *Keeper) round(wanted []Setting) {
	before := k.problems
	k.problems = nil
	findings := make([]Finding, len(wanted))
	keep := make(map[string]bool)
	for i, s := range wanted {
		s.Key = slashed(s.Key)
		wanted[i] = s
		findings[i] = k.look(s)
		if k.set && s.Set {
			keep[s.Key] = true
		}
	}
	if k.broken == "" {
		k.putBack(keep)
		k.change(wanted, findings)
	} else {
		k.problem(k.broken)
	}
	k.tell(before, findings)
}

// look reads one setting.
func (k *Keeper) look(s Setting) Finding {
	f := Finding{Key: dotted(s.Key), Want: s.Want(), Why: s.Why, Severity: s.Severity, Set: k.set && s.Set, State: Held}
	have, err := k.host.read(s.Key)
	if err == nil && s.With != "" {
		var with string
		with, err = k.host.read(slashed(s.With))
		have = larger(have, with)
	}
	f.Have = have
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Have, f.State = "", Missing
	case err != nil:
		f.State = Refused
		k.problem(explainRead(s.Key, err))
	case s.serves(have):
		if o := k.record[s.Key]; have != o.Original && slices.Contains(o.Written, have) {
			f.State, f.Original = Changed, o.Original
		}
	case f.Set:
		f.State = Refused // until it is changed
	default:
		f.State = Audited
	}
	return f
}

// larger returns the larger of two numbers without a sign.
func larger(a, b string) string {
	if len(a) > len(b) || len(a) == len(b) && a > b {
		return a
	}
	return b
}

// change sets what does not serve, after it has recorded the originals.
func (k *Keeper) change(wanted []Setting, findings []Finding) {
	grown := k.record
	for i, s := range wanted {
		if f := findings[i]; f.State == Refused && f.Have != "" {
			grown = grown.with(s.Key, f.Have, s.Value)
		}
	}
	if !k.save(grown) {
		return
	}
	for i, s := range wanted {
		f := &findings[i]
		if f.State != Refused || f.Have == "" {
			continue
		}
		if err := k.write(s.Key, s.Value); err != nil {
			k.problem(explainWrite(s.Key, f.Have, s.Value, err))
			if errors.Is(err, errIgnored) {
				_ = k.host.write(s.Key, f.Have) // should it have become something else
			}
			continue
		}
		was, known := k.last[f.Key]
		if known && was.Serves() && was.Want == f.Want {
			k.drifts++
			k.log.Warn("kernel setting had been changed, set again", "key", f.Key, "old", f.Have, "new", s.Value, "reason", s.Why)
		} else {
			k.log.Info("kernel setting changed", "key", f.Key, "old", f.Have, "new", s.Value, "reason", s.Why)
		}
		f.Have, f.State, f.Original = s.Value, Changed, k.record[s.Key].Original
	}
}

// errIgnored is a write that the kernel took and did not follow, as IPVS does with values out of range.
var errIgnored = errors.New("the kernel ignores that value")

func (k *Keeper) write(key, value string) error {
	if err := k.host.write(key, value); err != nil {
		return err
	}
	if now, err := k.host.read(key); err != nil || now != value {
		return errors.Join(errIgnored, err)
	}
	return nil
}

// putBack restores the originals of all settings but those to keep, where they are still ours.
func (k *Keeper) putBack(keep map[string]bool) {
	left := maps.Clone(k.record)
	for _, key := range slices.Sorted(maps.Keys(k.record)) {
		o := k.record[key]
		have, err := k.host.read(key)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			delete(left, key)
			continue
		case keep[key]:
			continue
		case err != nil:
			k.problem(explainRead(key, err))
			continue
		case have == o.Original:
		case !slices.Contains(o.Written, have):
			k.log.Warn("kernel setting left as it is: somebody else has changed it", "key", dotted(key), "value", have, "original", o.Original)
		default:
			if err := k.write(key, o.Original); err != nil {
				k.problem(explainWrite(key, have, o.Original, err))
				continue
			}
			k.log.Info("kernel setting put back", "key", dotted(key), "old", have, "new", o.Original)
		}
		delete(left, key)
	}
	k.save(left)
}

// save makes r the record, in its file first. Where that fails the record is what it was.
func (k *Keeper) save(r record) bool {
	same := func(a, b origin) bool { return a.Original == b.Original && slices.Equal(a.Written, b.Written) }
	if maps.EqualFunc(k.record, r, same) {
		return true
	}
	if err := r.save(k.file); err != nil {
		k.problem(fmt.Sprintf("%v: nothing is set", err))
		return false
	}
	k.record = r
	return true
}

// problem notes a sentence once.
func (k *Keeper) problem(sentence string) {
	if !slices.Contains(k.problems, sentence) {
		k.problems = append(k.problems, sentence)
	}
}

// tell logs what is new since the round before, and publishes the report.
func (k *Keeper) tell(before []string, findings []Finding) {
	for _, p := range k.problems {
		if !slices.Contains(before, p) {
			k.log.Error("kernel settings are not kept", "err", p)
		}
	}
	last := make(map[string]Finding, len(findings))
	for _, f := range findings {
		if was := k.last[f.Key]; !f.Serves() && (was.State != f.State || was.Have != f.Have) {
			k.log.Warn("kernel setting does not serve", "key", f.Key, "state", f.State, "have", f.Have, "want", f.Want, "reason", f.Why)
		}
		last[f.Key] = f
	}
	k.last = last
	k.mu.Lock()
	defer k.mu.Unlock()
	k.report = Report{Findings: findings, Problems: k.problems, Drifts: k.drifts}
}
