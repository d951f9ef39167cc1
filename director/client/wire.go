// Package client is the directors' API as its users see it: the messages on the
// wire, with what is allowed in them, and the clients that carry them.
package client

import (
	"net/netip"

	"lvstun/httpcheck"
)

// Duration is written as text, such as "3s".
type Duration = httpcheck.Duration

// State is what a real server says of a service of its.
type State string

// The states of a service.
const (
	Ready    State = "ready"    // takes connections
	Draining State = "draining" // keeps those it has, takes no new ones
	Down     State = "down"     // does not serve
)

// Registration is the body of PUT /v1/realservers/{name}.
type Registration struct {
	Address  netip.Addr      `json:"address"`  // the RIP; the request must come from it
	Session  uint64          `json:"session"`  // unix nanoseconds at the agent's start: a newer session fences an older one
	Services []ServiceReport `json:"services"` // at most MaxServices, each once
	Tunnel   TunnelReport    `json:"tunnel"`
}

// ServiceReport is what the real server says of one virtual service.
type ServiceReport struct {
	Name   string `json:"name"`             // the virtual service
	Weight int    `json:"weight,omitempty"` // 1 to MaxWeight; 0: the operator's
	State  State  `json:"state"`
	Reason string `json:"reason,omitempty"` // at most MaxReason bytes of printable text
}

// TunnelReport is what the real server says of its tunnel side.
type TunnelReport struct {
	OK       bool     `json:"ok"`
	Problems []string `json:"problems,omitempty"` // at most MaxProblems, each as a Reason
}

// Answer is the body of the answer to a registration.
type Answer struct {
	Director  string              `json:"director"` // the director's name
	Role      string              `json:"role"`
	Term      uint64              `json:"term"`
	Lease     Duration            `json:"lease"`     // renew every third of it
	Directors []netip.Addr        `json:"directors"` // every director's own addresses
	Services  []ServiceDefinition `json:"services"`  // those of the registration
	// WitnessKey is the real server's for the witness question; zero: it is asked none.
	WitnessKey WitnessKey `json:"witness_key,omitzero"`
}

// ServiceDefinition is what a real server must know to serve and check a
// virtual service.
type ServiceDefinition struct {
	Name          string         `json:"name"`
	VIP           netip.Addr     `json:"vip"`
	Port          uint16         `json:"port,omitempty"` // 0 only with a firewall mark
	Protocol      string         `json:"protocol"`       // tcp or udp
	FWMark        uint32         `json:"fwmark,omitempty"`
	Encapsulation Encapsulation  `json:"encapsulation"`
	Check         httpcheck.Spec `json:"check"`
	Weight        int            `json:"weight"` // the operator's, 0 to MaxWeight
}

// Encapsulation is how the directors' packets are wrapped.
type Encapsulation struct {
	Type string `json:"type"`           // ipip, gue or gre
	Port uint16 `json:"port,omitempty"` // of gue
}
