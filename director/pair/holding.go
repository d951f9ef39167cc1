package pair

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"lvstun/director/election"
	"lvstun/director/vip"
)

// The schedule of announcements: at once, then a burst for hosts that were
// busy or lost them, then a slow refresh for caches that nothing else
// corrects. One that failed is tried again soon, and less soon each time.
const (
	announceBurst   = 5
	announceEvery   = 1100 * time.Millisecond
	announceRefresh = time.Minute
	announceAgain   = 5 * time.Millisecond
)

// minRenewal is the shortest time between two renewals: heartbeats may be
// faster, but a kernel lease of seconds is not safer for it.
const minRenewal = 100 * time.Millisecond

// holdings is what a holder holds, and how.
type holdings struct {
	vips  []vip.VIP
	lease time.Duration
	every time.Duration // between renewals
}

func holdingsOf(cfg Config) holdings {
	return holdings{
		vips: cfg.VIPs, lease: cfg.Lease,
		every: max(min(cfg.Interval, cfg.Lease/4), minRenewal),
	}
}

// holder does the kernel's work on the VIPs on a goroutine of its own, so
// that a slow call delays no heartbeat. Orders are done in the order given.
type holder struct {
	host   kernel
	clock  func() time.Duration
	report func(election.Event)
	held   func(on bool, until time.Time)
	log    *slog.Logger

	mu     sync.Mutex // guards orders
	orders []order
	wake   chan struct{}

	// Of the goroutine only.
	holdings
	holding  bool
	until    time.Duration // the kernel keeps the VIPs till then for sure
	left     int           // announcements left in the burst
	failing  bool
	again    time.Duration // the wait before a failed announcement is tried again
	renewal  *time.Ticker
	announce *time.Timer
}

// order is one thing to do.
type order struct {
	kind   orderKind
	before time.Duration // of a claim: too late from then on
	vip    vip.VIP       // of orderAskFor
	to     holdings      // of orderChange
	done   chan<- error  // of orderChange, with room for one

	handover func(context.Context) // of a release that is one: called before Withdrawn is reported
	within   time.Duration         // what it may take
}

type orderKind uint8

const (
	orderClaim orderKind = iota
	orderRelease
	orderAnnounce
	orderAsk
	orderAskFor
	orderAskGateway
	orderChange
)

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
	h.renewal = time.NewTicker(h.every)
	defer h.renewal.Stop()
	h.announce = time.NewTimer(announceRefresh)
	defer h.announce.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
		case <-h.renewal.C:
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
		h.release(o)
	case orderAnnounce:
		h.left = announceBurst
		h.tell()
	case orderAsk:
		h.asked(h.host.Ask())
	case orderAskFor:
		h.asked(h.host.AskFor(o.vip))
	case orderAskGateway:
		h.host.AskGateway() // that there is none is no event
	case orderChange:
		o.done <- h.change(o.to)
	}
}

func (h *holder) asked(err error) {
	if err != nil {
		h.log.Debug("question not asked", "err", err)
	}
}

// claim puts every VIP on its device, or none.
func (h *holder) claim(before time.Duration) {
	at := h.clock()
	if at >= before {
		h.report(election.Refused{Late: true, Why: "the claim came too late: this director was held up after it had asked"})
		return
	}
	for _, v := range h.vips {
		if err := h.host.Put(v, h.lease); err != nil {
			h.log.Error("VIP not taken", "vip", v.Addr, "err", err)
			h.report(election.Refused{Why: err.Error()})
			return // the release that follows takes off what was put
		}
	}
	h.holding, h.failing = true, false
	h.renewed(at)
	h.left, h.again = announceBurst, 0
	h.tell()
}

// renewed notes that the kernel took every VIP for a lease from at.
func (h *holder) renewed(at time.Duration) {
	h.until = at + h.lease
	h.report(election.Renewed{Until: h.until})
	h.held(true, time.Now().Add(h.until-h.clock()))
}

// alive reports whether the lease still runs for sure. One that has ended is
// never renewed: the peer may have taken the VIPs since.
func (h *holder) alive() bool { return h.holding && h.clock() < h.until }

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
		err = errors.Join(err, h.host.Put(v, h.lease))
	}
	if !h.alive() { // this director was frozen in the middle of it, and has no right to what it put
		h.log.Warn("VIPs renewed too late, taking them off again")
		_ = h.remove(h.vips) // said there
		return
	}
	if err != nil {
		if !h.failing {
			h.log.Error("VIPs not renewed", "err", err)
		}
		h.failing = true
		return
	}
	h.failing = false
	h.renewed(at)
}

// change goes over to other holdings without letting go of what stays. VIPs
// that are held and new are put up first: if the kernel refuses one,
// everything is as before.
func (h *holder) change(to holdings) error {
	old := h.holdings
	added, removed := without(to.vips, old.vips), without(old.vips, to.vips)
	if h.alive() {
		for _, v := range removed {
			if slices.ContainsFunc(added, func(a vip.VIP) bool { return a.Addr == v.Addr && a.Device == v.Device }) {
				h.remove([]vip.VIP{v}) // its label changes
			}
		}
		for i, v := range added {
			if err := h.host.Put(v, to.lease); err != nil {
				h.remove(added[:i])
				h.renew()
				return err
			}
		}
	}
	h.holdings = to
	h.renewal.Reset(to.every)
	if !h.holding {
		return nil
	}
	h.remove(slices.DeleteFunc(removed, func(v vip.VIP) bool {
		return slices.ContainsFunc(to.vips, func(a vip.VIP) bool { return a.Addr == v.Addr && a.Device == v.Device })
	}))
	h.renew()
	if len(added) > 0 {
		h.left = announceBurst
		h.tell()
	}
	return nil
}

// without lists what is in a and not in b.
func without(a, b []vip.VIP) []vip.VIP {
	return slices.DeleteFunc(slices.Clone(a), func(v vip.VIP) bool { return slices.Contains(b, v) })
}

// tell announces the VIPs, but only while they are this director's for sure.
func (h *holder) tell() {
	if !h.alive() {
		return
	}
	if err := h.host.Announce(); err != nil {
		if h.again == 0 {
			h.log.Warn("VIPs not announced, trying again", "err", err)
		}
		h.again = min(max(2*h.again, announceAgain), announceEvery)
		h.announce.Reset(h.again)
		return
	}
	h.again = 0
	next := announceRefresh
	if h.left > 0 {
		h.left--
		next = announceEvery
	}
	h.announce.Reset(next)
}

func (h *holder) release(o order) {
	h.holding = false
	if err := h.remove(h.vips); err != nil {
		h.report(election.Withdrawn{Err: err.Error()})
		return
	}
	h.held(false, time.Time{})
	if o.handover != nil {
		ctx, cancel := context.WithTimeout(context.Background(), o.within)
		o.handover(ctx)
		cancel()
	}
	h.report(election.Withdrawn{})
}

func (h *holder) remove(vips []vip.VIP) error {
	var errs []error
	for _, v := range vips {
		errs = append(errs, h.host.Remove(v))
	}
	err := errors.Join(errs...)
	if err != nil {
		h.log.Error("VIPs not released, the kernel lets them go when their lease ends", "err", err)
	}
	return err
}
