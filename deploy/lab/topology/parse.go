package topology

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Invalid holds every problem of one topology file.
type Invalid struct {
	Path     string
	Problems []string
}

// Error lists the problems, one a line.
func (e *Invalid) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = e.Path + ": " + p
	}
	return strings.Join(lines, "\n")
}

// The file as written.
type (
	rawTopology struct {
		VIP      string                `yaml:"vip"`
		Networks map[string]rawNetwork `yaml:"networks"`
		Nodes    map[string]rawNode    `yaml:"nodes"`
	}
	rawNetwork struct {
		MTU     int   `yaml:"mtu"`
		Offload onOff `yaml:"offload"`
	}
	rawNode struct {
		Role       string                  `yaml:"role"`
		Name       string                  `yaml:"name"`
		Page       string                  `yaml:"page"`
		IPForward  bool                    `yaml:"ip_forward"`
		Offload    onOff                   `yaml:"offload"`
		Interfaces map[string]rawInterface `yaml:"interfaces"`
		Routes     []rawRoute              `yaml:"routes"`
	}
	rawInterface struct {
		Network   string   `yaml:"network"`
		Addresses []string `yaml:"addresses"`
	}
	rawRoute struct {
		To  string `yaml:"to"`
		Via string `yaml:"via"`
	}
	onOff string // "on", "off", or "" where nothing is said
)

// Parse validates a topology; path only names it in problems. See Load.
func Parse(path string, data []byte) (*Topology, error) {
	var raw rawTopology
	var problems []string
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&raw); err != nil && !errors.Is(err, io.EOF) {
		types, ok := errors.AsType[*yaml.TypeError](err)
		if !ok {
			return nil, &Invalid{Path: path, Problems: []string{err.Error()}}
		}
		problems = append(problems, types.Errors...)
	}
	p := parser{problems: problems}
	t := p.topology(raw)
	if len(p.problems) > 0 {
		return nil, &Invalid{Path: path, Problems: p.problems}
	}
	return t, nil
}

type parser struct{ problems []string }

func (p *parser) problem(format string, args ...any) {
	p.problems = append(p.problems, fmt.Sprintf(format, args...))
}

// maxDevice is the kernel's limit for an interface name (IFNAMSIZ less its NUL).
const maxDevice = 15

var name = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)

func (p *parser) name(what, s string) {
	if !name.MatchString(s) || len(s) > maxDevice {
		p.problem("%s, %q, must be 1 to %d of a-z, 0-9, _ and -, and start with a letter or digit", what, s, maxDevice)
	}
}

func (p *parser) topology(raw rawTopology) *Topology {
	t := &Topology{}
	if raw.VIP != "" {
		t.VIP = p.addr("vip", raw.VIP)
	}
	if len(raw.Nodes) == 0 {
		p.problem("nodes, none, but a lab needs at least one")
	}
	for _, key := range slices.Sorted(maps.Keys(raw.Networks)) {
		p.name("networks, name", key)
		n := raw.Networks[key]
		p.mtu("networks."+key+".mtu", n.MTU)
		t.Networks = append(t.Networks, Network{Name: key, MTU: n.MTU, Offload: p.onOff("networks."+key+".offload", n.Offload)})
	}
	for _, key := range slices.Sorted(maps.Keys(raw.Nodes)) {
		t.Nodes = append(t.Nodes, p.node(key, raw.Nodes[key], t.Networks))
	}
	p.together(t)
	return t
}

func (p *parser) node(key string, raw rawNode, networks []Network) Node {
	at := "nodes." + key
	p.name("nodes, name", key)
	n := Node{Name: key, Role: Role(raw.Role), FullName: raw.Name, Page: raw.Page, Forward: raw.IPForward}
	if !slices.Contains([]Role{"", Client, Gateway, Director, RealServer}, n.Role) {
		p.problem("%s.role, %q, is not client, gateway, director or realserver", at, raw.Role)
	}
	if n.FullName == "" {
		n.FullName = key
	}
	if n.Page == "" {
		n.Page = n.FullName
	}
	offload := p.onOff(at+".offload", raw.Offload)
	for _, device := range slices.Sorted(maps.Keys(raw.Interfaces)) {
		i := p.interfaceOf(at+".interfaces."+device, device, raw.Interfaces[device], networks)
		i.Offload = i.Offload && offload
		if port := key + "." + device; len(port) > maxDevice {
			p.problem("%s.interfaces, %q, is too long: node and interface name together may have %d characters", at, device, maxDevice-1)
		}
		n.Interfaces = append(n.Interfaces, i)
	}
	for i, r := range raw.Routes {
		n.Routes = append(n.Routes, p.route(fmt.Sprintf("%s.routes[%d]", at, i), r, n))
	}
	return n
}

func (p *parser) interfaceOf(at, device string, raw rawInterface, networks []Network) Interface {
	p.name(at+", name", device)
	i := Interface{Device: device, Network: raw.Network, Offload: true}
	if device == "lo" {
		p.problem("%s, %q, every node has its own already", at, device)
	}
	at2 := slices.IndexFunc(networks, func(n Network) bool { return n.Name == raw.Network })
	if at2 < 0 {
		p.problem("%s.network, %q, is not one of the file's networks", at, raw.Network)
	} else {
		i.MTU, i.Offload = networks[at2].MTU, networks[at2].Offload
	}
	for _, s := range raw.Addresses {
		prefix, err := netip.ParsePrefix(s)
		if err != nil {
			p.problem("%s.addresses, %q, is not an address with a prefix length, as 10.0.0.1/24", at, s)
			continue
		}
		i.Addresses = append(i.Addresses, prefix)
	}
	return i
}

func (p *parser) route(at string, raw rawRoute, n Node) Route {
	r := Route{Via: p.addr(at+".via", raw.Via)}
	if !r.Via.IsValid() {
		return r
	}
	if _, _, ok := n.On(r.Via); !ok {
		p.problem("%s.via, %q, is on none of the node's own networks", at, raw.Via)
	}
	if raw.To == "default" {
		unspecified := netip.IPv4Unspecified()
		if r.Via.Is6() {
			unspecified = netip.IPv6Unspecified()
		}
		r.To = netip.PrefixFrom(unspecified, 0)
		return r
	}
	to, err := netip.ParsePrefix(raw.To)
	switch {
	case err != nil:
		p.problem("%s.to, %q, is neither default nor a network as 192.0.2.0/24", at, raw.To)
	case to != to.Masked():
		p.problem("%s.to, %q, has host bits set: write %s", at, raw.To, to.Masked())
	case to.Addr().Is4() != r.Via.Is4():
		p.problem("%s, %q, goes via %s, which is of the other family", at, raw.To, raw.Via)
	}
	r.To = to
	return r
}

// together checks what only shows over the whole file.
func (p *parser) together(t *Topology) {
	owner := map[netip.Addr]string{}
	for _, n := range t.Nodes {
		for _, i := range n.Interfaces {
			for _, a := range i.Addresses {
				at := n.Name + "'s " + i.Device
				if other, taken := owner[a.Addr()]; taken {
					p.problem("nodes.%s.interfaces.%s.addresses, %q, is already on %s", n.Name, i.Device, a, other)
				}
				if a.Addr() == t.VIP {
					p.problem("vip, %q, is the address of %s: it must be no node's own", t.VIP, at)
				}
				owner[a.Addr()] = at
			}
		}
	}
	for _, n := range t.WithRole(Director) {
		switch _, _, ok := n.On(t.VIP); {
		case !t.VIP.IsValid():
			p.problem("vip, none, but node %s is a director", n.Name)
		case !ok:
			p.problem("vip, %q, is on no network of director %s", t.VIP, n.Name)
		}
	}
	for _, n := range t.WithRole(RealServer) {
		if !n.Address().IsValid() {
			p.problem("nodes.%s, %q, has no address", n.Name, n.Role)
		}
	}
}

func (p *parser) addr(at, s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		p.problem("%s, %q, is not an address", at, s)
	}
	return a
}

func (p *parser) mtu(at string, mtu int) {
	// 68 is the least IPv4 demands of a link (RFC 791); veth takes at most 65535.
	if mtu != 0 && (mtu < 68 || mtu > 65535) {
		p.problem("%s, %d, must be from 68 to 65535", at, mtu)
	}
}

func (p *parser) onOff(at string, s onOff) bool {
	switch s {
	case "", "on":
		return true
	case "off":
		return false
	}
	p.problem("%s, %q, is neither on nor off", at, string(s))
	return true
}
