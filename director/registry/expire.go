package registry

import (
	"container/list"
	"context"
	"time"
)

// Run ends leases when their time has come, until ctx is done. It sleeps until
// the next end that is known, so renewals cost it nothing.
func (r *Registry) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-timer.C:
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

// endDue ends every lease whose time has come. The caller holds mu.
func (r *Registry) endDue(now time.Time) (changed bool) {
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
