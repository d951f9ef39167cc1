// Package registry keeps the leases of the real servers that registered
// themselves: who holds which address, what each said last, and since when.
//
// A lease lasts a fixed time from its last renewal. It ends by that time or by
// its holder's wish, and leaves a tombstone, so that "the agent is gone" can be
// told from "there never was one".
package registry

import (
	"container/list"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// The bounds of a registry.
const (
	MaxLeases = 65536 // running leases
	MaxGone   = 65536 // tombstones; the oldest makes room
)

var (
	// ErrStaleSession: a newer session of the same real server holds the lease,
	// or this very session has left.
	ErrStaleSession = errors.New("the session is over")
	// ErrAddressTaken: another real server holds a lease with this address.
	ErrAddressTaken = errors.New("the address is another real server's")
	// ErrFull: MaxLeases are running.
	ErrFull = errors.New("the registry is full")
)

// State is what a real server says of a service of its.
type State string

// The states of a service.
const (
	Ready    State = "ready"    // takes connections
	Draining State = "draining" // keeps those it has, takes no new ones
	Down     State = "down"     // does not serve
)

// Claim is what a real server says of itself.
type Claim struct {
	Name     string     // the real server's name, unique in the cluster
	Address  netip.Addr // its RIP
	Session  uint64     // grows with every start of the agent; the newest wins
	Services []ServiceClaim
	Report   any // what else the agent reports; a difference (reflect.DeepEqual) is a change
}

// ServiceClaim is a Claim's part about one virtual service.
type ServiceClaim struct {
	Name   string // the virtual service
	Weight int    // 0: the operator's
	State  State
	Reason string // why, in a sentence; may be empty
}

// Why a lease is gone.
const (
	LeaseEnded = "lease ended"
	Left       = "left"
)

// Lease is a claim and its times. One that is Gone is a tombstone.
type Lease struct {
	Claim                // must not be modified: it is shared
	Since      time.Time // when it was taken; a new session begins a new one
	Renewed    time.Time // when it was last renewed
	Expires    time.Time // when it ends unless renewed; when it ended, if Gone
	Gone       bool
	GoneReason string // LeaseEnded or Left
}

// Registry is a set of leases. It is safe for concurrent use.
type Registry struct {
	lease              time.Duration
	changed            func()
	wake               chan struct{} // tells Run that there is a first lease; one waiting signal is enough
	maxLeases, maxGone int

	mu        sync.Mutex               // guards what follows
	byName    map[string]*list.Element // of *Lease, in one of the two lists
	byAddress map[netip.Addr]*Lease    // running leases only
	running   *list.List               // as they end, the next first: all last equally long
	gone      *list.List               // as they went, the oldest first
	pulse     time.Time                // when this process ran for sure; zero without Run
}

// New makes an empty registry whose leases last the given time. changed is
// called, never under a lock, after anything but a plain renewal; it must not
// block for long.
func New(lease time.Duration, changed func()) *Registry {
	return &Registry{
		lease:     lease,
		changed:   changed,
		wake:      make(chan struct{}, 1),
		maxLeases: MaxLeases,
		maxGone:   MaxGone,
		byName:    make(map[string]*list.Element),
		byAddress: make(map[netip.Addr]*Lease),
		running:   list.New(),
		gone:      list.New(),
	}
}

// Put takes or renews the lease of c.Name. While a newer session's lease runs
// the older one is refused with ErrStaleSession; once that has ended the older
// may return, so that a host whose clock went back is not shut out. A session
// that left stays out. An address in another's running lease is refused with
// ErrAddressTaken, a lease beyond MaxLeases with ErrFull. A refusal changes
// nothing.
func (r *Registry) Put(c Claim) error {
	changed, err := r.put(c)
	if changed {
		r.changed()
	}
	return err
}

func (r *Registry) put(c Claim) (changed bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	changed = r.endDue(now)
	var old *Lease
	e, known := r.byName[c.Name]
	if known {
		old = e.Value.(*Lease)
	}
	if err := r.admit(c, old); err != nil {
		return changed, fmt.Errorf("register %s: %w", c.Name, err)
	}
	c.Services = slices.Clone(c.Services)
	next := &Lease{Claim: c, Since: now, Renewed: now, Expires: now.Add(r.lease)}
	if known && !old.Gone {
		if c.Session == old.Session {
			next.Since = old.Since
		}
		changed = changed || !reflect.DeepEqual(old.Claim, next.Claim)
		delete(r.byAddress, old.Address)
		e.Value = next
		r.running.MoveToBack(e)
	} else {
		changed = true
		if known {
			r.gone.Remove(e)
		}
		r.byName[c.Name] = r.running.PushBack(next)
		if r.running.Len() == 1 { // the first: Run sleeps without an end to wait for
			select {
			case r.wake <- struct{}{}:
			default:
			}
		}
	}
	r.byAddress[c.Address] = next
	return changed, nil
}

// admit says why c may not follow old, the lease or tombstone of its name, if
// there is one. The caller holds mu.
func (r *Registry) admit(c Claim, old *Lease) error {
	running := old != nil && !old.Gone
	if running && c.Session < old.Session {
		return fmt.Errorf("%w: session %d is held, this is %d", ErrStaleSession, old.Session, c.Session)
	}
	if old != nil && old.GoneReason == Left && c.Session == old.Session {
		return fmt.Errorf("%w: session %d has left", ErrStaleSession, c.Session)
	}
	if holder := r.byAddress[c.Address]; holder != nil && holder.Name != c.Name {
		return fmt.Errorf("%w: %s holds %s", ErrAddressTaken, holder.Name, c.Address)
	}
	if !running && r.running.Len() >= r.maxLeases {
		return fmt.Errorf("%w: %d leases are running", ErrFull, r.maxLeases)
	}
	return nil
}

// Leave ends the lease of name at its holder's wish. An older session than the
// one that holds it is refused with ErrStaleSession. Leaving without a lease is
// no error.
func (r *Registry) Leave(name string, session uint64) error {
	changed, err := r.leave(name, session)
	if changed {
		r.changed()
	}
	return err
}

func (r *Registry) leave(name string, session uint64) (changed bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	changed = r.endDue(now)
	e, known := r.byName[name]
	if !known {
		return changed, nil
	}
	old := e.Value.(*Lease)
	if old.Gone {
		return changed, nil
	}
	if session < old.Session {
		return changed, fmt.Errorf("leave %s: %w: session %d is held, this is %d", name, ErrStaleSession, old.Session, session)
	}
	r.end(e, now, Left)
	return true, nil
}

// Leases returns every lease, tombstones too, sorted by name.
func (r *Registry) Leases() []Lease {
	r.mu.Lock()
	out := make([]Lease, 0, len(r.byName))
	for _, e := range r.byName {
		out = append(out, *e.Value.(*Lease))
	}
	r.mu.Unlock()
	slices.SortFunc(out, func(a, b Lease) int { return strings.Compare(a.Name, b.Name) })
	return out
}
