package registry

import (
	"container/list"
	"context"
	"time"
)

// Run ends leases when their time has come, until ctx is done. It sleeps until
// the next end that is known, so renewals cost it nothing.
//
// Time in which this process did not run counts for no lease: renewals that
// nobody could take are not renewals that did not come.
func (r *Registry) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	pulse := time.NewTicker(r.lease / pulses)
	defer pulse.Stop()
	defer r.awake(time.Time{})
	r.awake(time.Now())
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-timer.C:
		case <-pulse.C:
		}
		r.mu.Lock()
		now := time.Now()
		changed := r.endDue(now)
		timer.Stop()
		if first := r.running.Front(); first != nil {
			timer.Reset(first.Value.(*Lease).Expires.Sub(now))
		}
		r.mu.Unlock()
		if changed {
			r.changed()
		}
	}
}

// pulses is how often within a lease Run sees that the process runs.
const pulses = 6

// awake notes that Run runs, or with the zero time that it does not.
func (r *Registry) awake(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pulse = now
}

// heldUp gives every lease the time in which this process did not run. The
// caller holds mu.
func (r *Registry) heldUp(now time.Time) {
	if r.pulse.IsZero() {
		return
	}
	out := now.Sub(r.pulse)
	r.pulse = now
	if out < 2*r.lease/pulses {
		return
	}
	for e := r.running.Front(); e != nil; e = e.Next() {
		longer := *e.Value.(*Lease) // what was handed out stays as it was
		longer.Expires = longer.Expires.Add(out)
		e.Value = &longer
		r.byAddress[longer.Address] = &longer
	}
}

// endDue ends every lease whose time has come. The caller holds mu.
func (r *Registry) endDue(now time.Time) (changed bool) {
	r.heldUp(now)
	for e := r.running.Front(); e != nil; e = r.running.Front() {
		l := e.Value.(*Lease)
		if now.Before(l.Expires) {
			break
		}
		r.end(e, l.Expires, LeaseEnded)
		changed = true
	}
	return changed
}

// end turns a running lease into a tombstone. The caller holds mu.
func (r *Registry) end(e *list.Element, at time.Time, reason string) {
	l := *e.Value.(*Lease)
	r.running.Remove(e)
	delete(r.byAddress, l.Address)
	l.Gone, l.GoneReason, l.Expires = true, reason, at
	r.byName[l.Name] = r.gone.PushBack(&l)
	if r.gone.Len() > r.maxGone {
		oldest := r.gone.Remove(r.gone.Front()).(*Lease)
		delete(r.byName, oldest.Name)
	}
}
