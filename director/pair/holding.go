package pair

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"lvstun/director/election"
	"lvstun/director/vip"
)

// The schedule of announcements: at once, then a burst for hosts that were
// busy or lost them, then a slow refresh for caches that nothing else corrects.
const (
	announceBurst   = 5
	announceEvery   = 1100 * time.Millisecond
	announceRefresh = time.Minute
)

// minRenewal is the shortest time between two renewals: heartbeats may be
// faster, but a kernel lease of seconds is not safer for it.
const minRenewal = 100 * time.Millisecond

// holder does the kernel's work on the VIPs on a goroutine of its own, so
// that a slow call delays no heartbeat. Orders are done in the order given.
type holder struct {
	host   kernel
	vips   []vip.VIP
	lease  time.Duration
	every  time.Duration // between renewals
	clock  func() time.Duration
	report func(election.Event)
	held   func(vips []vip.VIP, on bool, until time.Time)
	log    *slog.Logger

	mu     sync.Mutex // guards orders
	orders []order
	wake   chan struct{}

	// Of the goroutine only.
	holding  bool
	renewed  time.Duration
	left     int // announcements left in the burst
	failing  bool
	announce *time.Timer
}

// order is one thing to do.
type order struct {
	kind   orderKind
	before time.Duration // of a claim: too late from then on
}

type orderKind uint8

const (
	orderClaim orderKind = iota
	orderRelease
	orderAnnounce
	orderAsk
)

func renewalEvery(interval, lease time.Duration) time.Duration {
	return max(min(interval, lease/4), minRenewal)
}

// order leaves an order; it never waits.
func (h *holder) order(o order) {
	h.mu.Lock()
	h.orders = append(h.orders, o)
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *holder) next() (order, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.orders) == 0 {
		return order{}, false
	}
	o := h.orders[0]
	h.orders = h.orders[1:]
	return o, true
}

// run does what is ordered until ctx ends. What it holds then is left to its
// lease.
func (h *holder) run(ctx context.Context) {
	renew := time.NewTicker(h.every)
	defer renew.Stop()
	h.announce = time.NewTimer(announceRefresh)
	defer h.announce.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
		case <-renew.C:
			h.renew()
		case <-h.announce.C:
			h.tell()
		}
		for o, ok := h.next(); ok; o, ok = h.next() {
			h.do(o)
		}
	}
}

func (h *holder) do(o order) {
	switch o.kind {
	case orderClaim:
		h.claim(o.before)
	case orderRelease:
		h.release()
	case orderAnnounce:
		h.left = announceBurst
		h.tell()
	case orderAsk:
		if err := h.host.Ask(); err != nil {
			h.log.Debug("question not asked", "err", err)
		}
	}
}

// claim puts every VIP on its device, or none.
func (h *holder) claim(before time.Duration) {
	at := h.clock()
	if at >= before {
		h.report(election.Refused{Why: "the claim came too late: this director was held up after it had asked"})
		return
	}
	for _, v := range h.vips {
		if err := h.host.Put(v); err != nil {
			h.log.Error("VIP not taken", "vip", v.Addr, "err", err)
			h.report(election.Refused{Why: err.Error()})
			return // the release that follows takes off what was put
		}
	}
	h.holding, h.failing, h.renewed = true, false, at
	h.report(election.Renewed{At: at})
	h.held(h.vips, true, h.end(at))
	h.left = announceBurst
	h.tell()
}

func (h *holder) end(at time.Duration) time.Time {
	return time.Now().Add(at + h.lease - h.clock())
}

// alive reports whether the lease still runs for sure. One that has ended is
// never renewed: the peer may have taken the VIPs since.
func (h *holder) alive() bool { return h.holding && h.clock()-h.renewed < h.lease }

func (h *holder) renew() {
	if !h.alive() {
		return
	}
	if presence, err := h.host.Find(h.vips); err == nil {
		for i, v := range h.vips {
			if presence[i] == vip.Absent {
				h.log.Warn("VIP had been taken off its device, putting it back", "vip", v.Addr, "device", v.Device)
				h.left = announceBurst
				h.announce.Reset(0)
			}
		}
	}
	at := h.clock()
	var err error
	for _, v := range h.vips {
		if !h.alive() { // a call may have taken long
			return
		}
		err = errors.Join(err, h.host.Put(v))
	}
	if err != nil {
		if !h.failing {
			h.log.Error("VIPs not renewed", "err", err)
		}
		h.failing = true
		return
	}
	h.failing, h.renewed = false, at
	h.report(election.Renewed{At: at})
	h.held(h.vips, true, h.end(at))
}

// tell announces the VIPs, but only while they are this director's for sure.
func (h *holder) tell() {
	if !h.alive() {
		return
	}
	if err := h.host.Announce(); err != nil {
		h.log.Warn("VIPs not announced", "err", err)
	}
	next := announceRefresh
	if h.left > 0 {
		h.left--
		next = announceEvery
	}
	h.announce.Reset(next)
}

func (h *holder) release() {
	h.holding = false
	var errs []error
	for _, v := range h.vips {
		errs = append(errs, h.host.Remove(v))
	}
	err := errors.Join(errs...)
	if err != nil {
		h.log.Error("VIPs not released, the kernel lets them go when their lease ends", "err", err)
		h.report(election.Withdrawn{Err: err.Error()})
		return
	}
	h.held(h.vips, false, time.Time{})
	h.report(election.Withdrawn{})
}
