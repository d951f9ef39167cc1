package election

import (
	"cmp"
	"net/netip"
	"time"
)

// ID names a director. IDs are ordered, so that exactly one of two wins a tie.
type ID struct {
	Addr netip.Addr // the lowest of its own heartbeat addresses
	Name string
}

// Compare orders IDs: by address, and by name where two share an address.
func (a ID) Compare(b ID) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Name, b.Name))
}

// Event is something that happened to a director.
type Event interface{ event() }

type (
	// Start begins the director's part in the election. It must be the first
	// event and comes once.
	Start struct {
		Held  bool   // every VIP is on its device under a lease that still runs
		Fault string // as in Condition
	}
	// Tick says that time has passed. It is due at Next; coming early or late
	// does no harm.
	Tick struct{}
	// Beat is a proven packet from the peer, newer than all before it.
	Beat struct {
		From    ID
		Role    Role
		Term    uint64
		HearsUs bool // the peer has heard this director within the dead time
	}
	// Goodbye is the peer's proven word that it stops. If it was active it
	// has left its VIPs to their lease.
	Goodbye struct{ Term uint64 }
	// Released is the peer's proven word that it was active, holds the VIPs
	// no more and gives them to this director.
	Released struct{ Term uint64 }
	// Answer says that a foreign host answered for a VIP, or asks for it too.
	Answer struct {
		Who   string // what the answer was for and whose MAC it carried
		Rival bool   // it asked, as this director does, and its MAC is the lower
	}
	// Renewed says that the kernel has taken the VIPs with a full lease.
	Renewed struct {
		At time.Duration // just before the kernel was asked
	}
	// Refused says that the kernel did not take the VIPs of the last Claim.
	Refused struct{ Why string }
	// Withdrawn says that the VIPs of the last Release are off their
	// devices, or with Err that some may still be there.
	Withdrawn struct{ Err string }
	// Condition tells what keeps this director from holding the VIPs: their
	// link is down, or it is isolated. An empty Fault is good health.
	Condition struct{ Fault string }
	// Handover asks this director to give the VIPs to a ready standby.
	Handover struct{ Why string }
	// Stop asks this director to leave. The Done action ends it.
	Stop struct{}
)

func (Start) event()     {}
func (Tick) event()      {}
func (Beat) event()      {}
func (Goodbye) event()   {}
func (Released) event()  {}
func (Answer) event()    {}
func (Renewed) event()   {}
func (Refused) event()   {}
func (Withdrawn) event() {}
func (Condition) event() {}
func (Handover) event()  {}
func (Stop) event()      {}

// Action is something a director has to do, in the order given.
type Action interface{ action() }

// Message is what a director tells its peer.
type Message uint8

// The messages.
const (
	MessageBeat     Message = iota // role and term, at once rather than at the next interval
	MessageGoodbye                 // I stop
	MessageReleased                // I hold the VIPs no more, take them
)

type (
	// Ask the neighbours who has each VIP. Answers come back as Answer.
	Ask struct{}
	// Claim puts every VIP on its device under a lease, keeps renewing it,
	// and announces it. Renewed or Refused come back. What was asked before
	// the claim proves nothing after Before: a claim that late is refused.
	Claim struct {
		Term   uint64
		Before time.Duration
	}
	// Release takes every VIP off its device and announces no more.
	// Withdrawn comes back.
	Release struct{}
	// Announce the VIPs again.
	Announce struct{}
	// Send a message to the peer on every path.
	Send struct{ Message Message }
	// Done ends the director's part in the election.
	Done struct{}
)

func (Ask) action()      {}
func (Claim) action()    {}
func (Release) action()  {}
func (Announce) action() {}
func (Send) action()     {}
func (Done) action()     {}
