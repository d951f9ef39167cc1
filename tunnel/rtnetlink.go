package tunnel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Our marks: the protocol of addresses (IFA_PROTO) and the group of devices (IFLA_GROUP, the letters lvs). The kernel
// uses the protocols 1 to 3; like a route's protocol the rest is for user space, and nobody else is known to use this
// one.
const (
	addressProtocol = 0x6c
	deviceGroup     = 0x6c7673
)

// ifaProto is IFA_PROTO of linux/if_addr.h. Kernels before 5.18 ignore it.
const ifaProto = 11

// rtnetlink is the kernel of the calling process's network namespace.
type rtnetlink struct{}

var _ kernel = rtnetlink{}

// life is the boot and the network namespace: its cookie is never used again until the next boot (Linux 5.14; before,
// its inode must do).
func (rtnetlink) life() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		var ns unix.Stat_t
		if err := unix.Stat("/proc/thread-self/ns/net", &ns); err != nil {
			return "", err
		}
		cookie = ns.Ino
	}
	return fmt.Sprintf("%s/%d", strings.TrimSpace(string(boot)), cookie), nil
}

func (rtnetlink) marks() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	return keepsMarks(unix.ByteSliceToString(u.Release[:]))
}

// keepsMarks reports whether a kernel of that release has IFA_PROTO.
func keepsMarks(release string) bool {
	var major, minor int
	n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor)
	return n == 2 && (major > 5 || major == 5 && minor >= 18)
}

func (rtnetlink) link(name string) (link, bool, error) {
	l, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return link{}, false, nil
	}
	if err != nil {
		return link{}, false, err
	}
	a := l.Attrs()
	found := link{name: name, index: a.Index, kind: l.Type(), up: a.Flags&net.FlagUp != 0, mtu: a.MTU, marked: a.Group == deviceGroup}
	if t, ok := l.(*netlink.Ip6tnl); ok {
		found.protocol = t.Proto
	}
	return found, true, nil
}

func (rtnetlink) name(index int) (string, bool, error) {
	l, err := netlink.LinkByIndex(index)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	return l.Attrs().Name, true, nil
}

func (rtnetlink) addLink(name, kind string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group = name, deviceGroup
	err := netlink.LinkAdd(&netlink.GenericLink{LinkAttrs: attrs, LinkType: kind})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return errNoKind
	}
	return err
}

func (rtnetlink) removeLink(l link) error { return netlink.LinkDel(byIndex(l)) }

func (rtnetlink) setUp(l link, up bool) error {
	if up {
		return netlink.LinkSetUp(byIndex(l))
	}
	return netlink.LinkSetDown(byIndex(l))
}

func (rtnetlink) setMTU(l link, mtu int) error { return netlink.LinkSetMTU(byIndex(l), mtu) }

func byIndex(l link) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: l.index}}
}

// addresses reads the messages itself: the library's Addr has no IFA_PROTO.
func (rtnetlink) addresses() ([]address, error) {
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
	all := make([]address, len(msgs))
	for i, m := range msgs {
		if all[i], err = parseAddress(m); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func dumpAddresses() ([][]byte, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
	return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
}

// compatible are the IPv4 addresses that the kernel puts as IPv6 ones on a sit device that is up (add_v4_addrs in
// net/ipv6/addrconf.c).
var compatible = netip.MustParsePrefix("::/96")

// parseAddress reads the body of an RTM_NEWADDR message (rtnetlink(7)). IPv4 gives the address in
// IFA_LOCAL, IPv6 in IFA_LOCAL only if there is a peer, else in IFA_ADDRESS.
func parseAddress(m []byte) (address, error) {
	if len(m) < unix.SizeofIfAddrmsg {
		return address{}, fmt.Errorf("address message of %d bytes", len(m))
	}
	head := nl.DeserializeIfAddrmsg(m)
	attrs, err := attributes(m[unix.SizeofIfAddrmsg:])
	if err != nil {
		return address{}, fmt.Errorf("address message: %w", err)
	}
	a := address{index: int(head.Index)}
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
		return address{}, fmt.Errorf("address message with address %s and prefix length %d", ip, head.Prefixlen)
	}
	a.auto = ip.Is6() && (ip.IsLinkLocalUnicast() || compatible.Contains(ip))
	return a, nil
}

// attributes fills the last one up to where the next would be: the library reads so far.
func attributes(b []byte) ([]syscall.NetlinkRouteAttr, error) {
	return nl.ParseRouteAttr(append(b[:len(b):len(b)], make([]byte, -len(b)&(unix.RTA_ALIGNTO-1))...))
}

func (rtnetlink) addAddress(l link, p netip.Prefix) error {
	err := changeAddress(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, l, p)
	switch {
	case p.Addr().Is6() && errors.Is(err, unix.EACCES):
		return fmt.Errorf("IPv6 is switched off on the device: set net/ipv6/conf/%s/disable_ipv6 to 0", l.name)
	case p.Addr().Is6() && errors.Is(err, unix.EOPNOTSUPP):
		return errors.New("this kernel does no IPv6: it is built without CONFIG_IPV6 or was booted with ipv6.disable=1")
	}
	return err
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
	return err
}

// DeviceOf returns the name of the device that holds addr; found is false if none does.
func DeviceOf(addr netip.Addr) (name string, found bool, err error) {
	all, err := rtnetlink{}.addresses()
	for _, a := range all {
		if a.prefix.Addr() == addr.Unmap() && !found && err == nil {
			name, found, err = rtnetlink{}.name(a.index)
		}
	}
	if err != nil {
		return "", false, fmt.Errorf("look for the device of %s: %w", addr, err)
	}
	return name, found, nil
}
