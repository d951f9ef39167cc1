package tunnel

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// A thing that something else keeps changing is put right at once this often within a minute, then once a minute.
const (
	bouts = 5
	pause = time.Minute
)

// fights are the things that were put right lately, by what they are.
type fights map[string]*fight

type fight struct {
	times   []time.Time // of repairs within the last minute
	alarmed bool        // until a minute has passed without one
	old     string      // what it was changed to, the last time
}

// due reports whether something that drifted may be put right now, and counts it if so.
func (f fights) due(s step, now time.Time) bool {
	it := f[s.what]
	if it == nil {
		it = &fight{}
		f[s.what] = it
	}
	it.old = s.old
	it.settle(now)
	if it.alarmed && len(it.times) > 0 {
		return false
	}
	it.times = append(it.times, now)
	it.alarmed = it.alarmed || len(it.times) >= bouts
	return true
}

// settle forgets what is a minute past.
func (f *fight) settle(now time.Time) {
	f.times = slices.DeleteFunc(f.times, func(t time.Time) bool { return now.Sub(t) >= pause })
}

// alarms ends the fights that are over, and tells of the others.
func (f fights) alarms(now time.Time, holds map[string]bool) []string {
	var all []string
	for _, what := range slices.Sorted(maps.Keys(f)) {
		it := f[what]
		it.settle(now)
		ok, wanted := holds[what]
		if !wanted || ok && len(it.times) == 0 {
			delete(f, what)
		} else if it.alarmed {
			all = append(all, fmt.Sprintf("%s: something else on this host keeps changing it (to %s): after %d repairs within a minute it is put right once a minute; find what does it", what, it.old, bouts))
		}
	}
	return all
}
