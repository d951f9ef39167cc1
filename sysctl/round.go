package sysctl

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"
)

// round is one round of a Keeper.
type round struct {
	*Keeper
	Report
	now      time.Time
	settings []Setting // with their findings at the same index, and their keys with slashes
	contests map[string]contest
}

// open reads what a former run has left changed. A file that cannot be read is tried again each round, for a person
// may have taken it away.
func (r *round) open() {
	if r.record != nil {
		return
	}
	var err error
	if r.record, err = loadRecord(r.file); err != nil {
		r.problem(fmt.Sprintf("%v: nothing is set or put back; check the settings that matter and remove the file", err))
	}
}

// look reads one setting.
func (r *round) look(s Setting) Finding {
	f := Finding{Key: dotted(s.Key), Want: s.Want(), Why: s.Why, Severity: s.Severity, Set: s.Set, State: Held}
	have, err := r.read(s.Key)
	if err == nil && s.With != "" {
		var with string
		with, err = r.read(slashed(s.With))
		have = larger(have, with)
	}
	f.Have = have
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Have, f.State = "", Missing
	case err != nil:
		f.Have, f.State = "", Refused
		r.problem(explainRead(s.Key, err))
	case s.serves(have):
		if o := r.record[s.Key]; have != o.Original && slices.Contains(o.Written, have) {
			f.State, f.Original = Changed, o.Original
		}
	case f.Set:
		f.State = Refused // until it is changed
	default:
		f.State = Audited
	}
	return f
}

func (r *round) read(key string) (string, error) {
	if !isKey(key) {
		return "", errors.New("it is not the key of a network setting")
	}
	return r.host.read(key)
}

// change sets what does not serve, after it has recorded the originals.
func (r *round) change() {
	grown := r.record
	var todo []int
	for i, s := range r.settings {
		if f := &r.Findings[i]; r.due(s, f) {
			grown = grown.with(s.Key, f.Have, s.Value)
			todo = append(todo, i)
		}
	}
	if !r.save(grown) {
		return
	}
	for _, i := range todo {
		s, f := r.settings[i], &r.Findings[i]
		if now, err := r.write(s.Key, s.Value); err != nil {
			r.problem(explainWrite(s.Key, f.Have, s.Value, err))
			if errors.Is(err, errIgnored) {
				r.revert(s.Key, f.Have, now)
			}
			continue
		}
		if r.drifted(s.Key, f) {
			r.Drifts++
			r.log.Warn("kernel setting had been changed, set again", "key", f.Key, "old", f.Have, "new", s.Value, "reason", s.Why)
		} else {
			r.log.Info("kernel setting changed", "key", f.Key, "old", f.Have, "new", s.Value, "reason", s.Why)
		}
		r.Changes = append(r.Changes, Change{f.Key, f.Have, s.Value})
		f.Have, f.State, f.Original = s.Value, Changed, r.record[s.Key].Original
	}
}

// due tells whether a setting is to be set in this round, and keeps the contest for it.
func (r *round) due(s Setting, f *Finding) bool {
	c := r.before[s.Key].contest
	set := f.State == Refused && f.Have != ""
	switch {
	case !f.Set || f.State == Missing || r.before[s.Key].Want != f.Want:
		c = contest{}
	case set && r.drifted(s.Key, f):
		if set = c.repair(r.now, f.Have); !set {
			f.State = Contested
		}
	case f.Serves() && c.rest(r.now):
		r.log.Info("kernel setting is set back by nobody any more", "key", f.Key)
	}
	if c.theirs != "" {
		r.problem(c.alarm(s.Key))
	}
	r.contests[s.Key] = c
	return set
}

// drifted tells whether a setting that does not serve did so in the round before, or is contested.
func (r *round) drifted(key string, f *Finding) bool {
	was, known := r.before[key]
	return known && was.Want == f.Want && (was.Serves() || was.State == Contested)
}

// errIgnored is a write that the kernel took and did not follow, as IPVS does with values out of range.
var errIgnored = errors.New("the kernel ignores that value")

// write sets a setting and sees that it holds. With errIgnored comes what the kernel has made of it, where that is
// known.
func (r *round) write(key, value string) (now string, err error) {
	if err := r.host.write(key, value); err != nil {
		return "", err
	}
	if now, err = r.host.read(key); err != nil || now != value {
		return now, errors.Join(errIgnored, err)
	}
	return now, nil
}

// revert takes back a value that the kernel did not follow: now is what it may have made of it.
func (r *round) revert(key, have, now string) {
	if now != "" && now != have {
		r.save(r.record.with(key, have, now))
	}
	if now != have {
		_ = r.host.write(key, have) // if not now, then when everything is put back
	}
}

// putBack restores the originals of all settings but those to keep, where they are still ours.
func (r *round) putBack(keep map[string]bool) {
	left := maps.Clone(r.record)
	for _, key := range slices.Sorted(maps.Keys(r.record)) {
		o := r.record[key]
		have, err := r.host.read(key)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			delete(left, key)
			continue
		case keep[key]:
			continue
		case err != nil:
			r.problem(explainRead(key, err))
			continue
		case have == o.Original:
		case !slices.Contains(o.Written, have):
			r.log.Warn("kernel setting left as it is: somebody else has changed it", "key", dotted(key), "value", have, "original", o.Original)
			r.Left = append(r.Left, Left{dotted(key), have, o.Original})
		default:
			if _, err := r.write(key, o.Original); err != nil {
				r.problem(explainWrite(key, have, o.Original, err))
				continue
			}
			r.log.Info("kernel setting put back", "key", dotted(key), "old", have, "new", o.Original)
			r.Changes = append(r.Changes, Change{dotted(key), have, o.Original})
		}
		delete(left, key)
	}
	r.save(left)
}

// save makes now the record, in its file first. Where that fails the record is what it was.
func (r *round) save(now record) bool {
	same := func(a, b origin) bool { return a.Original == b.Original && slices.Equal(a.Written, b.Written) }
	if maps.EqualFunc(r.record, now, same) {
		return true
	}
	if err := now.save(r.file); err != nil {
		r.problem(fmt.Sprintf("%v: nothing is set", err))
		return false
	}
	r.record = now
	return true
}

// problem notes a sentence once.
func (r *round) problem(sentence string) {
	if !slices.Contains(r.Problems, sentence) {
		r.Problems = append(r.Problems, sentence)
	}
}

// end logs what is new since the round before, remembers, and publishes the report.
func (r *round) end() {
	for _, p := range r.Problems {
		if !slices.Contains(r.report.Problems, p) {
			r.log.Error("kernel settings are not kept", "err", p)
		}
	}
	now := make(map[string]past, len(r.settings))
	for i, s := range r.settings {
		f := r.Findings[i]
		if was := r.before[s.Key]; !f.Serves() && (was.State != f.State || was.Have != f.Have) {
			r.log.Warn("kernel setting does not serve", "key", f.Key, "state", f.State, "have", f.Have, "want", f.Want, "reason", f.Why)
		}
		now[s.Key] = past{f, r.contests[s.Key]}
	}
	r.before = now
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Keeper.report = r.Report
}
