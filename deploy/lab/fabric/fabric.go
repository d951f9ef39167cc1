// Package fabric builds a topology out of boxes, bridges and veth pairs in the network namespace it runs in, and pulls
// its cables and its plugs.
package fabric

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"

	"lvstun/deploy/lab/box"
	"lvstun/deploy/lab/topology"
)

// State is where a built topology keeps its files: a folder for each node with its PID and what it wrote to its disks.
const State = "/run/lab"

// BootFile is run by a node's process 1 at every boot, as rc.local was by init.
const BootFile = "/etc/lvstun/boot"

// Fabric is a built topology.
type Fabric struct {
	self string // the lab's binary
	top  *topology.Topology
	env  func(node string) []string
	log  io.Writer

	mu    sync.Mutex // held over each operation; guards nodes
	nodes map[string]*box.Box
}

// Build makes the topology's bridges and boots its nodes. The namespace must be the lab's own. env is a node's
// environment; log takes what boot files print.
func Build(self string, top *topology.Topology, env func(node string) []string, log io.Writer) (*Fabric, error) {
	f := &Fabric{self: self, top: top, env: env, log: log, nodes: map[string]*box.Box{}}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err // bridges are wires: they must not speak
	}
	for _, n := range top.Networks {
		if err := addBridge(n); err != nil {
			return nil, fmt.Errorf("network %s: %w", n.Name, err)
		}
	}
	for _, n := range top.Nodes {
		if err := os.MkdirAll(filepath.Join(State, n.Name), 0o755); err != nil {
			return nil, err
		}
		if err := writeDisk(n, top); err != nil {
			return nil, fmt.Errorf("node %s: %w", n.Name, err)
		}
		if err := f.Boot(n.Name); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, nil
}

// Close ends every node and takes the bridges away.
func (f *Fabric) Close() error {
	var errs []error
	for _, n := range f.top.Nodes {
		f.mu.Lock()
		running := f.nodes[n.Name] != nil
		f.mu.Unlock()
		if running {
			errs = append(errs, f.Crash(n.Name))
		}
	}
	for _, n := range f.top.Networks {
		errs = append(errs, delLink(n.Name))
	}
	return errors.Join(errs...)
}

// Boot starts a node: a new network namespace, its interfaces, addresses and routes, then its boot file.
func (f *Fabric) Boot(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.top.Node(name)
	if !ok {
		return f.unknown(name)
	}
	if f.nodes[name] != nil {
		return fmt.Errorf("boot %s: it runs already", name)
	}
	dir := filepath.Join(State, name)
	spec := box.Spec{
		Hostname: name,
		Own:      map[string]string{"/etc": filepath.Join(dir, "etc"), "/var/lib": filepath.Join(dir, "var.lib")},
		Argv:     []string{"bash", "-c", "[ ! -e " + BootFile + " ] || exec bash " + BootFile},
		Stay:     true,
	}
	if n.Forward {
		spec.Sysctl = []box.Setting{{Name: "net/ipv4/ip_forward", Value: "1"}, {Name: "net/ipv6/conf/all/forwarding", Value: "1"}}
	}
	b, err := box.Start(f.self, spec, f.env(name), nil, f.log, f.log)
	if err != nil {
		return fmt.Errorf("boot %s: %w", name, err)
	}
	if err := f.plug(n, b.Pid()); err != nil {
		b.Kill()
		return fmt.Errorf("boot %s: %w", name, err)
	}
	f.nodes[name] = b
	if err := os.WriteFile(pidFile(name), []byte(strconv.Itoa(b.Pid())), 0o644); err != nil {
		return err
	}
	return b.Go()
}

// Crash takes a node's cables out and kills all its processes, so that not a packet tells of its end.
func (f *Fabric) Crash(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.top.Node(name)
	if !ok {
		return f.unknown(name)
	}
	b := f.nodes[name]
	if b == nil {
		return fmt.Errorf("crash %s: it is down already", name)
	}
	delete(f.nodes, name)
	err := f.link(n, "", netlink.LinkSetDown)
	b.Kill()
	err = errors.Join(err, os.Remove(pidFile(name)))
	for _, i := range n.Interfaces {
		err = errors.Join(err, delLink(port(n, i)))
	}
	return err
}

// Cut takes a cable out, so that the node sees its carrier go; with device "" all of the node's.
func (f *Fabric) Cut(name, device string) error {
	return f.cable("cut", name, device, netlink.LinkSetDown)
}

// Heal puts a cable back in.
func (f *Fabric) Heal(name, device string) error {
	return f.cable("heal", name, device, netlink.LinkSetUp)
}

func (f *Fabric) cable(verb, name, device string, set func(netlink.Link) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.top.Node(name)
	if !ok {
		return f.unknown(name)
	}
	if f.nodes[name] == nil {
		return fmt.Errorf("%s %s: it is down", verb, name)
	}
	if device != "" && !slices.ContainsFunc(n.Interfaces, func(i topology.Interface) bool { return i.Device == device }) {
		return fmt.Errorf("%s %s: it has no interface %s", verb, name, device)
	}
	return f.link(n, device, set)
}

func (f *Fabric) unknown(name string) error {
	names := make([]string, len(f.top.Nodes))
	for i, n := range f.top.Nodes {
		names[i] = n.Name
	}
	return fmt.Errorf("%s is no node of this topology: it has %s", name, strings.Join(names, ", "))
}

// Pid is the PID of a running node's process 1, as seen beside its fabric.
func Pid(node string) (int, error) {
	data, err := os.ReadFile(pidFile(node))
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(State, node)); err != nil {
			return 0, fmt.Errorf("%s is no node of this topology", node)
		}
		return 0, fmt.Errorf("%s is down", node)
	}
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(data))
}

func pidFile(node string) string { return filepath.Join(State, node, "pid") }

// writeDisk lays out what an installer would leave on a node's disk.
func writeDisk(n topology.Node, top *topology.Topology) error {
	etc := filepath.Join(State, n.Name, "etc", "upper")
	if err := os.MkdirAll(filepath.Join(etc, filepath.Base(filepath.Dir(BootFile))), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(etc, "hostname"), []byte(n.Name+"\n"), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(etc, "hosts"), []byte(hosts(top)), 0o644)
}

// hosts is every node's /etc/hosts.
func hosts(top *topology.Topology) string {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, n := range top.Nodes {
		if a := n.Address(); a.IsValid() {
			names := slices.Compact([]string{n.Name, n.FullName, n.Page})
			fmt.Fprintf(&b, "%s %s\n", a, strings.Join(names, " "))
		}
	}
	return b.String()
}
