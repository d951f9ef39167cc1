package agent

import (
	"net/netip"
	"time"

	"lvstun/director/client"
)

// Status is how the agent and its real server stand: what `lvs-agent status --json` prints.
type Status struct {
	Name      string           `json:"name"`
	Version   string           `json:"version"`
	Address   netip.Addr       `json:"address"`
	Session   uint64           `json:"session"`
	Since     time.Time        `json:"since"`
	Tunnel    TunnelStatus     `json:"tunnel"`
	Guard     GuardStatus      `json:"guard"`
	Directors []DirectorStatus `json:"directors"`
	Services  []ServiceStatus  `json:"services"`
	Witness   WitnessStatus    `json:"witness"`
	// Differences are where the directors' answers disagree, and which of them counts.
	Differences []string `json:"differences,omitempty"`
}

// TunnelStatus is how the tunnel side stands.
type TunnelStatus struct {
	OK       bool         `json:"ok"`
	VIPs     []netip.Addr `json:"vips"` // in place on a device that is up
	Problems []string     `json:"problems,omitempty"`
	Changes  uint64       `json:"changes"`          // made since the agent's start
	Recent   []Change     `json:"recent,omitempty"` // the last of them, newest first
}

// GuardStatus is what became of the tunnels' packets. `nft list table inet lvstun` shows the same.
type GuardStatus struct {
	Counters map[string]uint64 `json:"counters"`          // packets, by the table's counters
	Refused  uint64            `json:"refused"`           // the packets of those that were dropped
	Problem  string            `json:"problem,omitempty"` // why the table is not as it should be
}

// WitnessStatus is what became of the witness questions of directors.
type WitnessStatus struct {
	Answered uint64            `json:"answered"`
	Dropped  map[string]uint64 `json:"dropped"`           // by reason
	Problem  string            `json:"problem,omitempty"` // why none can be answered
}

// Change is something on the host that was not as wanted.
type Change struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`
	Old  string    `json:"old"`
	New  string    `json:"new"`
}

// DirectorStatus is how it stands with one director.
type DirectorStatus struct {
	Address     string          `json:"address"`
	Registered  bool            `json:"registered"` // the last attempt was answered
	LastSuccess time.Time       `json:"last_success,omitzero"`
	Error       string          `json:"error,omitempty"` // of the last attempt
	Name        string          `json:"name,omitempty"`
	Role        string          `json:"role,omitempty"`
	Term        uint64          `json:"term,omitempty"`
	Lease       client.Duration `json:"lease,omitzero"`
}

// ServiceStatus is what is reported of one service.
type ServiceStatus struct {
	Name     string       `json:"name"`
	VIP      netip.Addr   `json:"vip,omitzero"`
	Port     uint16       `json:"port,omitempty"`
	Protocol string       `json:"protocol,omitempty"`
	State    client.State `json:"state"`
	Reason   string       `json:"reason,omitempty"`
	Weight   int          `json:"weight,omitempty"` // asked for; 0: the operator's
	Since    time.Time    `json:"since"`            // in this state
}
