// Package topology reads the lab's networks and nodes from YAML.
package topology

import (
	_ "embed"
	"net/netip"
	"os"
	"slices"
)

//go:embed seed.yaml
var seed []byte

// Role says what a node does in the cluster.
type Role string

// The roles. A node without one is a bystander: a host that only has addresses.
const (
	Client     Role = "client"
	Gateway    Role = "gateway"
	Director   Role = "director"
	RealServer Role = "realserver"
)

// Topology is one validated lab: every name in it resolves, every address parses.
type Topology struct {
	VIP      netip.Addr // the zero Addr where the topology names none
	Networks []Network  // sorted by name
	Nodes    []Node     // sorted by name
}

// Network is one Ethernet segment.
type Network struct {
	Name    string
	MTU     int  // bytes; 0 leaves the kernel's default
	Offload bool // false: TSO, GSO and GRO are off on its interfaces, so that every packet fits the MTU
}

// Node is one host.
type Node struct {
	Name       string
	Role       Role
	FullName   string // the name it registers under; Name where the file gives none
	Page       string // what its web server answers; FullName where the file gives none
	Forward    bool   // it routes IPv4 and IPv6
	Interfaces []Interface
	Routes     []Route
}

// Interface connects a node to a network.
type Interface struct {
	Device    string
	Network   string
	MTU       int
	Offload   bool
	Addresses []netip.Prefix
}

// Route is one static route of a node.
type Route struct {
	To  netip.Prefix // 0.0.0.0/0 or ::/0 for the default route
	Via netip.Addr
}

// Load reads and validates the file at path; "" is the classic one, seed.yaml.
// On failure the error is an *Invalid with every problem of the file, unless the file cannot be read at all.
func Load(path string) (*Topology, error) {
	if path == "" {
		return Parse("seed.yaml", seed)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// Node returns the node of that name.
func (t *Topology) Node(name string) (Node, bool) {
	i := slices.IndexFunc(t.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return Node{}, false
	}
	return t.Nodes[i], true
}

// WithRole returns the nodes of one role, sorted by name.
func (t *Topology) WithRole(role Role) []Node {
	var nodes []Node
	for _, n := range t.Nodes {
		if n.Role == role {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// Address returns the node's first address, or the zero Addr for a node without one.
func (n Node) Address() netip.Addr {
	for _, i := range n.Interfaces {
		for _, a := range i.Addresses {
			return a.Addr()
		}
	}
	return netip.Addr{}
}

// On returns the first of the node's interfaces that has an address whose network holds addr.
func (n Node) On(addr netip.Addr) (Interface, netip.Prefix, bool) {
	for _, i := range n.Interfaces {
		for _, a := range i.Addresses {
			if a.Contains(addr) {
				return i, a, true
			}
		}
	}
	return Interface{}, netip.Prefix{}, false
}
