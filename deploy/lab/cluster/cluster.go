// Package cluster writes the configuration of a whole cluster for a topology.
package cluster

import (
	"fmt"
	"net/netip"
	"strings"

	"lvstun/deploy/lab/topology"
)

// Paths on the nodes.
const (
	DirectorConfig = "/etc/lvstun/director.yaml"
	AgentConfig    = "/etc/lvstun/agent.yaml"
	Key            = "/etc/lvstun/cluster.key"
	Token          = "/etc/lvstun/token"
)

// Service is the name of the one virtual service.
const Service = "HTTP"

// apiPort is where agents find directors.
const apiPort = 3637

// Director returns the director.yaml of one director.
func Director(top *topology.Topology, n topology.Node) string {
	var b strings.Builder
	device, own, _ := n.On(top.VIP)
	fmt.Fprintf(&b, "name: %s\ncluster_key_file: %s\n", n.Name, Key)
	if peers := peers(top, n, own); len(peers) > 0 {
		fmt.Fprintf(&b, "heartbeat:\n  paths:\n")
		for _, peer := range peers {
			fmt.Fprintf(&b, "    - {local: %s, peer: %s}\n", quote(own.Addr()), quote(peer))
		}
	}
	fmt.Fprintf(&b, `api: {listen: ":%d"}
web: {listen: "127.0.0.1:3636"}
services:
  - name: %s
    vip: %s
    device: %s
    port: 80
    protocol: tcp
    scheduler: wlc
    check: {kind: http, path: /, expect_status: 200, interval: 1s, timeout: 500ms, rise: 2, fall: 2}
    register: {from: [%s], max_weight: 100}
`, apiPort, Service, quote(top.VIP), device.Device, strings.Join(realServerNetworks(top), ", "))
	return b.String()
}

// Agent returns the agent.yaml of every real server.
func Agent(top *topology.Topology) string {
	var directors []string
	for _, n := range top.WithRole(topology.Director) {
		_, own, _ := n.On(top.VIP)
		directors = append(directors, fmt.Sprintf("%q", netip.AddrPortFrom(own.Addr(), apiPort)))
	}
	return fmt.Sprintf("directors: [%s]\ntoken_file: %s\n", strings.Join(directors, ", "), Token)
}

// Boot returns the boot file of a node: what its distribution would start; "" where it starts nothing.
func Boot(n topology.Node) string {
	switch n.Role {
	case topology.Director:
		return "start director lvs-director run --config " + DirectorConfig + "\n"
	case topology.RealServer:
		return Web + "start agent lvs-agent run --config " + AgentConfig + "\n"
	}
	return ""
}

// Web is the line of a boot file that starts the web server.
const Web = "start web busybox httpd -f -p 80 -h /var/lib/www\n"

// Page is the file that the web server serves at /.
const Page = "/var/lib/www/index.html"

func peers(top *topology.Topology, n topology.Node, own netip.Prefix) []netip.Addr {
	var addrs []netip.Addr
	for _, other := range top.WithRole(topology.Director) {
		if _, a, ok := other.On(own.Addr()); ok && other.Name != n.Name {
			addrs = append(addrs, a.Addr())
		}
	}
	return addrs
}

// realServerNetworks are the networks that hold the real servers' addresses.
func realServerNetworks(top *topology.Topology) []string {
	var networks []string
	seen := map[netip.Prefix]bool{}
	for _, n := range top.WithRole(topology.RealServer) {
		_, own, _ := n.On(n.Address())
		if p := own.Masked(); !seen[p] {
			seen[p] = true
			networks = append(networks, fmt.Sprintf("%q", p))
		}
	}
	return networks
}

// quote writes an address so that YAML reads a string, as one with colons needs.
func quote(a netip.Addr) string {
	if a.Is6() {
		return fmt.Sprintf("%q", a)
	}
	return a.String()
}
