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
	// Tick says that time has passed. It is due at Next and, if nothing else
	// happens, every Interval; coming early or late does no harm, but a
	// machine that hears of nothing for the dead time takes itself for one
	// that was out. Silence counts only at a Tick with All: whatever came
	// before it has been heard, and none of it lies unread in a queue of a
	// director that was held up.
	Tick struct{ All bool }
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
	// Answer says that another host spoke for a VIP.
	Answer struct {
		Who   string // which VIP it spoke for, and its MAC
		Asks  bool   // it holds none: it asks for it, as a director does before a claim
		Peer  bool   // it is known to be the peer
		First bool   // its MAC is lower than this director's
	}
	// Sign is a sign of life from the gateway of the VIPs' link.
	Sign struct{}
	// Witnessed is what real servers say of the peer.
	Witnessed struct {
		Round      uint64 // of the Look that asked them
		Asked      int    // none where none is registered
		Answered   int
		PeerActive int // how many of these reach the peer, and it is active
	}
	// Reconfigured changes what the machine was made with.
	Reconfigured struct{ Config Config }
	// Renewed says that the kernel has taken the VIPs, with a new lease.
	Renewed struct {
		Until time.Duration // they will not go before
	}
	// Refused says that the kernel did not take the VIPs of the last Claim,
	// or was not asked because the claim came Late.
	Refused struct {
		Why  string
		Late bool
	}
	// Withdrawn says that the VIPs of the last Release are off their
	// devices, or with Err that some may still be there.
	Withdrawn struct{ Err string }
	// Condition tells what keeps this director from holding the VIPs: their
	// link is down. An empty Fault is good health.
	Condition struct{ Fault string }
	// Handover asks this director to give the VIPs to a ready standby.
	Handover struct{ Why string }
	// Stop asks this director to leave. The Done action ends it.
	Stop struct{}
)

func (Start) event()        {}
func (Tick) event()         {}
func (Beat) event()         {}
func (Goodbye) event()      {}
func (Released) event()     {}
func (Answer) event()       {}
func (Sign) event()         {}
func (Witnessed) event()    {}
func (Reconfigured) event() {}
func (Renewed) event()      {}
func (Refused) event()      {}
func (Withdrawn) event()    {}
func (Condition) event()    {}
func (Handover) event()     {}
func (Stop) event()         {}

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
	// Look around: ask the gateway for a Sign, and real servers whether the
	// peer is active. Witnessed must come back before Within has passed. With
	// VIP, ask who else has the lowest VIP.
	Look struct {
		Round  uint64
		Within time.Duration
		VIP    bool
	}
	// Claim puts every VIP on its device under a lease, keeps renewing it,
	// and announces it. Renewed or Refused come back. What was asked before
	// the claim proves nothing after Before: a claim that late is refused.
	Claim struct {
		Term   uint64
		Before time.Duration
	}
	// Release takes every VIP off its device and announces no more.
	// Withdrawn comes back. With Handover the standby is about to take them.
	Release struct{ Handover bool }
	// Announce the VIPs again.
	Announce struct{}
	// Send a message to the peer on every path.
	Send struct{ Message Message }
	// Done ends the director's part in the election.
	Done struct{}
)

func (Ask) action()      {}
func (Look) action()     {}
func (Claim) action()    {}
func (Release) action()  {}
func (Announce) action() {}
func (Send) action()     {}
func (Done) action()     {}
