// Package pair makes two directors one: it carries heartbeats to the peer,
// runs the election, and keeps the VIPs on their devices while this director
// is the active one. It shares no lock, goroutine or queue with the rest of
// the director.
package pair

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"lvstun/director/election"
	"lvstun/director/heartbeat"
	"lvstun/director/vip"
)

// Role is what this director is at the moment.
type Role = election.Role

// The roles.
const (
	Standby    = election.Standby
	Confirming = election.Confirming
	Active     = election.Active
	Fault      = election.Fault
)

// Path is one heartbeat path.
type Path = heartbeat.Path

// Config is what a Pair needs to know. Zero durations and a zero port take
// the defaults given beside them.
type Config struct {
	Name     string        // this director's name, 1 to 64 bytes, unlike the peer's
	Key      [32]byte      // authenticates heartbeats; the same on both directors
	Paths    []Path        // ways to the peer; none makes a director without a peer
	Port     uint16        // UDP port of both ends; 539
	Interval time.Duration // between heartbeats; 100ms
	Dead     time.Duration // silence after which the peer counts as dead, at least 2 × Interval; 300ms
	Lease    time.Duration // kernel lifetime of a VIP, whole seconds, at least 1s; 2s
	VIPs     []vip.VIP     // what the active director holds
	Digest   [32]byte      // of the configuration both directors must share; not needed where there are Parts
	Parts    []Part        // the same in at most MaxParts parts, in the same order on both directors

	// OnRole, if set, is told every role this director takes, in order. It
	// may block: only the next call waits for it.
	OnRole func(Role)

	// OnHandover, if set, is called at a handover, also at that of a director
	// that stops: twice while the VIPs are still here, and again when they are
	// off their devices and the standby has not been told to take them. So the
	// standby can learn of the flows under way: of all, of those that came up
	// meanwhile, of the last. It must return when ctx ends: within a second,
	// and the last time within 20 ms.
	OnHandover func(ctx context.Context)

	// OnPeer, if set, is told that the other director is there: for the first
	// time, or again after a restart or a long silence. It must not block.
	OnPeer func()

	// AskWitnesses, if set, asks registered real servers whether they reach
	// the peer now and it is active. It is called while the peer is silent,
	// before a takeover, and now and then to know whom there is to ask. It
	// must return what it has when ctx ends, and what it counts must be
	// fresh: an agent that heard the peer before it was asked says nothing.
	AskWitnesses func(ctx context.Context) WitnessReport
}

// Part is the digest of a part of the configuration, so that a person can be
// told which one differs. Four bytes of each go to the peer.
type Part struct {
	Name   string // "services"
	Digest [32]byte
}

// MaxParts is how many parts a heartbeat has room for.
const MaxParts = heartbeat.DigestSize / partSize

// WitnessReport is what real servers say of the peer.
type WitnessReport struct {
	Asked      int // 0 where none is registered
	Answered   int
	PeerActive int // how many of these reach the peer, and it is active
}

// WitnessStatus says by what rule a silent peer is taken for dead.
type WitnessStatus struct {
	On   bool          // there is somebody to ask
	Last WitnessReport // the last one
	At   time.Time     // when it came; zero before the first
}

// String is the rule that is in force, as a person reads it.
func (w WitnessStatus) String() string {
	if !w.On || w.Last.Asked == 0 {
		return "plain rules: no witnesses"
	}
	return fmt.Sprintf("witnesses: %d asked, %d answered, %d reach the peer and it is active; last asked %s",
		w.Last.Asked, w.Last.Answered, w.Last.PeerActive, w.At.Format(time.TimeOnly))
}

// Status is what the pair looks like at one moment. It is a copy.
type Status struct {
	Role        Role
	Term        uint64
	Since       time.Time
	Reason      string // why the role is what it is
	Peer        PeerStatus
	Paths       []PathStatus
	VIPs        []VIPStatus
	Witnesses   WitnessStatus
	Transitions []Transition // the last ones, oldest first
	Problems    []string     // what a person should look at, one sentence each
}

// PeerStatus is what is known of the other director.
type PeerStatus struct {
	Name          string // empty until it was heard
	Role          Role
	Term          uint64
	Alive         bool // proven within the dead time
	HearsUs       bool // alive, and its last packet echoed what we sent within the dead time
	LastHeard     time.Time
	DigestMatches bool     // true until a differing digest was heard
	Differs       []string // the names of the Parts that differ
}

// PathState says whether a path carries heartbeats.
type PathState string

// The states of a path.
const (
	PathUp      PathState = "up"      // a proven packet within the dead time
	PathSilent  PathState = "silent"  // bound, nothing proven within the dead time
	PathUnbound PathState = "unbound" // the local address is not there, see Err
)

// PathStatus is one path with its counters.
type PathStatus struct {
	Local, Peer netip.Addr
	State       PathState
	Err         string // why it is unbound, or the last send failed
	LastHeard   time.Time
	Sent        uint64
	Received    uint64            // proven packets
	Dropped     map[string]uint64 // by reason: short, forged, replay, …; never nil
}

// VIPStatus is one VIP as this director holds it or not.
type VIPStatus struct {
	vip.VIP
	Held    bool
	Until   time.Time // end of the kernel lease, when Held
	Foreign string    // another host's MAC that spoke for it in the last seconds, or empty
}

// Transition is one change of role.
type Transition struct {
	At       time.Time
	From, To Role
	Term     uint64
	Reason   string
}
