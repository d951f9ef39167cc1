package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// addressProtocol marks the addresses that are ours (IFA_PROTO). The kernel uses 1 to 3; like a route's
// protocol the rest is for user space, and nobody else is known to use this one.
const addressProtocol = 0x6c

// ifaProto is IFA_PROTO of linux/if_addr.h. Kernels before 5.18 ignore it.
const ifaProto = 11

// rtnetlink is the kernel of the calling process's network namespace.
type rtnetlink struct{}

var _ kernel = rtnetlink{}

func (rtnetlink) link(name string) (link, bool, error) {
	l, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return link{}, false, nil
	}
	if err != nil {
		return link{}, false, err
	}
	a := l.Attrs()
	return link{index: a.Index, kind: l.Type(), up: a.Flags&net.FlagUp != 0}, true, nil
}

func (rtnetlink) addLink(name, kind string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	var l netlink.Link = &netlink.Iptun{LinkAttrs: attrs}
	if kind == "ip6tnl" {
		l = &netlink.Ip6tnl{LinkAttrs: attrs}
	}
	err := netlink.LinkAdd(l)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return errNoKind
	}
	return capability(err)
}

func (rtnetlink) setUp(l link) error {
	return capability(netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.index}}))
}

// addresses reads the messages itself: the library's Addr has no IFA_PROTO.
func (rtnetlink) addresses(l link) ([]address, error) {
	msgs, err := dumpAddresses()
	for range 10 { // something changed while the kernel listed: read again
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
		msgs, err = dumpAddresses()
	}
	if err != nil {
		return nil, err
	}
	var all []address
	for _, m := range msgs {
		index, a, err := parseAddress(m)
		if err != nil {
			return nil, err
		}
		if index == l.index {
			all = append(all, a)
		}
	}
	return all, nil
}

func dumpAddresses() ([][]byte, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
	return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
}

// parseAddress reads the body of an RTM_NEWADDR message (rtnetlink(7)). IPv4 gives the address in
// IFA_LOCAL, IPv6 in IFA_LOCAL only if there is a peer, else in IFA_ADDRESS.
func parseAddress(m []byte) (index int, a address, err error) {
	if len(m) < unix.SizeofIfAddrmsg {
		return 0, address{}, fmt.Errorf("address message of %d bytes", len(m))
	}
	head := nl.DeserializeIfAddrmsg(m)
	attrs, err := nl.ParseRouteAttr(m[unix.SizeofIfAddrmsg:])
	if err != nil {
		return 0, address{}, fmt.Errorf("address message: %w", err)
	}
	var ip, local netip.Addr
	for _, attr := range attrs {
		switch attr.Attr.Type {
		case unix.IFA_ADDRESS:
			ip, _ = netip.AddrFromSlice(attr.Value)
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(attr.Value)
		case ifaProto:
			a.marked = len(attr.Value) == 1 && attr.Value[0] == addressProtocol
		}
	}
	if local.IsValid() {
		ip = local
	}
	a.prefix = netip.PrefixFrom(ip, int(head.Prefixlen))
	if !a.prefix.IsValid() {
		return 0, address{}, fmt.Errorf("address message with address %s and prefix length %d", ip, head.Prefixlen)
	}
	return int(head.Index), a, nil
}

func (rtnetlink) addAddress(l link, p netip.Prefix) error {
	return changeAddress(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, l, p)
}

func (rtnetlink) removeAddress(l link, p netip.Prefix) error {
	return changeAddress(unix.RTM_DELADDR, unix.NLM_F_ACK, l, p)
}

func changeAddress(kind, flags int, l link, p netip.Prefix) error {
	family := unix.AF_INET
	if p.Addr().Is6() {
		family = unix.AF_INET6
	}
	msg := nl.NewIfAddrmsg(family)
	msg.Prefixlen = uint8(p.Bits())
	msg.Index = uint32(l.index)
	if family == unix.AF_INET6 {
		msg.Flags = unix.IFA_F_NODAD // every real server holds the VIP: that is no duplicate
	}
	req := nl.NewNetlinkRequest(kind, flags)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, p.Addr().AsSlice()))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, p.Addr().AsSlice()))
	req.AddData(nl.NewRtAttr(ifaProto, []byte{addressProtocol}))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return capability(err)
}

func capability(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: the capability CAP_NET_ADMIN is missing", err)
	}
	return err
}

// Watch calls changed whenever the kernel says that a link, an address or one of the settings it tells
// about (rp_filter among them) has changed, in any way and on any device; also when it had to drop such
// messages. It returns nil when ctx ends.
func Watch(ctx context.Context, changed func()) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_NETCONF)
	if err != nil {
		return fmt.Errorf("subscribe to rtnetlink: %w", err)
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	for {
		_, _, err := s.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("receive from rtnetlink: %w", err)
		}
		changed()
	}
}

// DeviceOf returns the name of the device that holds addr; found is false if none does.
func DeviceOf(addr netip.Addr) (name string, found bool, err error) {
	msgs, err := dumpAddresses()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return "", false, fmt.Errorf("look for the device of %s: %w", addr, err)
	}
	for _, m := range msgs {
		index, a, err := parseAddress(m)
		if err != nil {
			return "", false, fmt.Errorf("look for the device of %s: %w", addr, err)
		}
		if a.prefix.Addr() != addr.Unmap() {
			continue
		}
		l, err := netlink.LinkByIndex(index)
		if err != nil {
			return "", false, fmt.Errorf("look for the device of %s: %w", addr, err)
		}
		return l.Attrs().Name, true, nil
	}
	return "", false, nil
}
