package sysctl

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Options are what a Keeper needs.
type Options struct {
	Root Tree // where the settings are; "" is Proc

	// File holds the originals of what is changed, in a folder that lives as long as the kernel's settings, below
	// /run. Nothing is changed before it is recorded there. One Keeper at a time has it.
	File string

	Log *slog.Logger // told of every change and of what does not serve, once
}

// Keeper brings settings to their wanted values, holds them there, and puts back what it found. Its rounds are turned
// by one goroutine.
type Keeper struct {
	host host
	file string
	log  *slog.Logger

	record record          // of what is changed; nil until it has been read
	before map[string]past // of the settings of the round before, by key with slashes

	mu     sync.Mutex // guards report
	report Report
}

// past is what is remembered of a setting from one round to the next.
type past struct {
	Finding
	contest
}

// New makes a Keeper. It touches nothing before its first round.
func New(o Options) *Keeper {
	if o.Root == "" {
		o.Root = Proc
	}
	return &Keeper{host: o.Root, file: o.File, log: o.Log}
}

// Restore puts back what a Keeper with this file has changed and not put back itself, and returns a report of no more
// than that. What somebody else has changed since is left. Without Problems in the report nothing of ours is left and
// the file is gone; a second call finds nothing to do.
func Restore(root Tree, file string, log *slog.Logger) Report {
	return New(Options{Root: root, File: file, Log: log}).Apply(nil)
}

// Report returns how things stood at the last round.
func (k *Keeper) Report() Report {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.report
}

// Run turns a round at once and then one each interval, until ctx ends. Then it puts back every original, except where
// somebody else has changed the setting meanwhile. What it cannot do it logs and reports. Wanted is called from Run's
// goroutine.
func (k *Keeper) Run(ctx context.Context, interval time.Duration, wanted func() []Setting) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		k.Apply(wanted())
		select {
		case <-ctx.Done():
			k.Apply(nil)
			return
		case <-tick.C:
		}
	}
}

// Apply is one round: it looks at every setting, sets what does not serve and may be set, and puts back what is no
// longer wanted or may no longer be set. Of settings with the same key the first counts. A second Apply changes
// nothing.
//
// A setting whose key is missing, as when its device or ip_vs has gone, is forgotten: it comes back with the kernel's
// default, and that is then its original.
func (k *Keeper) Apply(wanted []Setting) Report {
	r := round{Keeper: k, now: time.Now(), contests: make(map[string]contest)}
	r.Drifts = k.report.Drifts
	r.open()
	keep := make(map[string]bool)
	seen := make(map[string]bool)
	for _, s := range wanted {
		if s.Key = slashed(s.Key); seen[s.Key] {
			continue
		}
		seen[s.Key] = true
		keep[s.Key] = s.Set
		r.settings = append(r.settings, s)
	}
	if k.record != nil {
		r.putBack(keep)
	}
	for _, s := range r.settings {
		r.Findings = append(r.Findings, r.look(s))
	}
	if k.record != nil {
		r.change()
	}
	r.end()
	return r.Report
}
