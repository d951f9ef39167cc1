package fabric

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"lvstun/deploy/lab/topology"
)

// port is the name of an interface's cable end on the bridge.
func port(n topology.Node, i topology.Interface) string { return n.Name + "." + i.Device }

func addBridge(n topology.Network) error {
	no := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs(), MulticastSnooping: &no}
	bridge.Name, bridge.MTU = n.Name, n.MTU
	if err := netlink.LinkAdd(bridge); err != nil {
		return err
	}
	return netlink.LinkSetUp(bridge)
}

func delLink(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}

// link does set to the bridge's end of a node's cable, or of all of them where device is "".
func (f *Fabric) link(n topology.Node, device string, set func(netlink.Link) error) error {
	for _, i := range n.Interfaces {
		if device != "" && device != i.Device {
			continue
		}
		link, err := netlink.LinkByName(port(n, i))
		if err == nil {
			err = set(link)
		}
		if err != nil {
			return fmt.Errorf("%s's cable at %s: %w", n.Name, i.Device, err)
		}
	}
	return nil
}

// plug gives the node whose process 1 is pid its interfaces, addresses and routes.
func (f *Fabric) plug(n topology.Node, pid int) error {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer inside.Close()
	for _, i := range n.Interfaces {
		if err := f.plugOne(n, i, ns, inside); err != nil {
			return fmt.Errorf("%s: %w", i.Device, err)
		}
	}
	for _, r := range n.Routes {
		route := &netlink.Route{Gw: net.IP(r.Via.AsSlice()), Dst: &net.IPNet{
			IP: r.To.Addr().AsSlice(), Mask: net.CIDRMask(r.To.Bits(), r.To.Addr().BitLen()),
		}}
		if err := inside.RouteAdd(route); err != nil {
			return fmt.Errorf("route to %s via %s: %w", r.To, r.Via, err)
		}
	}
	return nil
}

func (f *Fabric) plugOne(n topology.Node, i topology.Interface, ns netns.NsHandle, inside *netlink.Handle) error {
	bridge, err := netlink.LinkByName(i.Network)
	if err != nil {
		return err
	}
	cable := &netlink.Veth{
		LinkAttrs: netlink.NewLinkAttrs(), PeerName: i.Device,
		PeerNamespace: netlink.NsFd(ns), PeerHardwareAddr: f.mac(n, i),
	}
	cable.Name, cable.MTU = port(n, i), i.MTU
	if err := netlink.LinkAdd(cable); err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(cable, bridge); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(cable); err != nil {
		return err
	}
	device, err := inside.LinkByName(i.Device)
	if err != nil {
		return err
	}
	if i.MTU != 0 {
		if err := inside.LinkSetMTU(device, i.MTU); err != nil {
			return err
		}
	}
	if !i.Offload {
		if err := errors.Join(offloadOff(cable.Name), in(ns, func() error { return offloadOff(i.Device) })); err != nil {
			return err
		}
	}
	for _, a := range i.Addresses {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())}}
		if a.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD // the file's addresses are known to be unique
		}
		if err := inside.AddrAdd(device, addr); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	return inside.LinkSetUp(device)
}

// mac is the interface's hardware address: the same at every boot, as a real one.
func (f *Fabric) mac(n topology.Node, i topology.Interface) net.HardwareAddr {
	node := slices.IndexFunc(f.top.Nodes, func(o topology.Node) bool { return o.Name == n.Name })
	device := slices.IndexFunc(n.Interfaces, func(o topology.Interface) bool { return o.Device == i.Device })
	return net.HardwareAddr{0x02, 'l', 'a', 'b' + byte(node>>8), byte(node), byte(device)}
}
