package client

import (
	"net/netip"
	"time"
)

// Status is the body of GET /v1/status: what `lvs-director status --json` and
// the web page show. Fields may be added; readers ignore those they don't know.
type Status struct {
	Name       string            `json:"name"`
	Version    string            `json:"version"`
	Role       string            `json:"role"`
	RoleReason string            `json:"role_reason"`
	Term       uint64            `json:"term"`
	RoleSince  time.Time         `json:"role_since"`
	Rule       string            `json:"rule"` // by which a silent peer is taken for dead
	Pair       PairStatus        `json:"pair"`
	VIPs       []VIPStatus       `json:"vips"`
	Services   []ServiceStatus   `json:"services"`
	Leases     []LeaseStatus     `json:"leases"`
	Problems   []string          `json:"problems"` // one sentence each
	Drifts     uint64            `json:"drifts"`   // kernel settings that somebody had changed and that were set again
	Counters   map[string]uint64 `json:"counters"` // requests the API refused, by reason
}

// PairStatus is this director's view of the pair.
type PairStatus struct {
	Paths       []PathStatus `json:"paths"`
	Peer        PeerStatus   `json:"peer"`
	Transitions []Transition `json:"transitions"` // of this director's role, the latest last
}

// PathUp is the state of a path on which the peer is heard.
const PathUp = "up"

// PathStatus is one heartbeat path.
type PathStatus struct {
	Local     netip.Addr        `json:"local"`
	Peer      netip.Addr        `json:"peer"`
	State     string            `json:"state"`
	Error     string            `json:"error,omitempty"` // why it is unbound, or the last send failed
	LastHeard time.Time         `json:"last_heard,omitzero"`
	Sent      uint64            `json:"sent"`
	Received  uint64            `json:"received"`
	Dropped   map[string]uint64 `json:"dropped"` // datagrams, by reason
}

// PeerStatus is the other director, as its beats tell it.
type PeerStatus struct {
	Name          string   `json:"name"` // empty: none was heard yet
	Alive         bool     `json:"alive"`
	Role          string   `json:"role"`
	Term          uint64   `json:"term"`
	DigestMatches bool     `json:"digest_matches"`    // its configuration is this one's
	Differs       []string `json:"differs,omitempty"` // the parts of the configuration that are not
}

// Transition is a change of role.
type Transition struct {
	At     time.Time `json:"at"`
	From   string    `json:"from"`
	To     string    `json:"to"`
	Reason string    `json:"reason"`
}

// VIPStatus is one VIP on this director.
type VIPStatus struct {
	Addr   netip.Addr `json:"addr"`
	Device string     `json:"device"`
	Held   bool       `json:"held"`
	Error  string     `json:"error,omitempty"` // why it could not be kept, or who else answers for it
}

// ServiceStatus is one virtual service.
type ServiceStatus struct {
	Name         string              `json:"name"`
	VIP          netip.Addr          `json:"vip"`
	Port         uint16              `json:"port,omitempty"`
	Protocol     string              `json:"protocol"`
	FWMark       uint32              `json:"fwmark,omitempty"`
	Scheduler    string              `json:"scheduler"`
	Destinations []DestinationStatus `json:"destinations"`
	Stats        Stats               `json:"stats"`
}

// DestinationStatus is one real server in a virtual service.
type DestinationStatus struct {
	Name          string     `json:"name,omitempty"`
	Address       netip.Addr `json:"address"`
	Weight        int        `json:"weight"`
	InUse         bool       `json:"in_use"` // IPVS has it, with Weight
	State         string     `json:"state"`
	Reason        string     `json:"reason,omitempty"`
	Source        string     `json:"source"` // who decided: agent, check, kernel
	ActiveConns   uint32     `json:"active_conns"`
	InactiveConns uint32     `json:"inactive_conns"`
	Stats         Stats      `json:"stats"`
}

// Stats is what IPVS counted since it began.
type Stats struct {
	Conns      uint64 `json:"conns"`
	InPackets  uint64 `json:"in_packets"`
	OutPackets uint64 `json:"out_packets"`
	InBytes    uint64 `json:"in_bytes"`
	OutBytes   uint64 `json:"out_bytes"`
}

// LeaseStatus is one real server that registered itself.
type LeaseStatus struct {
	Name       string          `json:"name"`
	Address    netip.Addr      `json:"address"`
	Since      time.Time       `json:"since"`
	Renewed    time.Time       `json:"renewed"`
	Expires    time.Time       `json:"expires"`
	Gone       bool            `json:"gone"`
	GoneReason string          `json:"gone_reason,omitempty"`
	Services   []ServiceReport `json:"services"`
	Tunnel     TunnelReport    `json:"tunnel"`
}
