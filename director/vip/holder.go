package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forever is the lifetime of an address that has no lease.
const forever = 1<<32 - 1

// kernelTimeout bounds one netlink call.
const kernelTimeout = time.Second

// Holder puts VIPs on their devices under a kernel lease and takes them off.
// What it does not renew, the kernel takes off by itself. It is not for
// concurrent use.
type Holder struct {
	nl *netlink.Handle
}

// OpenHolder opens a Holder. It works in the network namespace it was opened
// in.
func OpenHolder() (*Holder, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	if err := h.SetSocketTimeout(kernelTimeout); err != nil {
		h.Close()
		return nil, fmt.Errorf("bound rtnetlink's answers: %w", err)
	}
	return &Holder{nl: h}, nil
}

// Close gives the socket back. Addresses stay for the rest of their lease.
func (h *Holder) Close() { h.nl.Close() }

func address(v VIP, lease time.Duration) *netlink.Addr {
	seconds := int(lease / time.Second)
	bits := v.Addr.BitLen()
	a := &netlink.Addr{
		IPNet:    &net.IPNet{IP: v.Addr.AsSlice(), Mask: net.CIDRMask(bits, bits)},
		ValidLft: seconds, PreferedLft: seconds,
	}
	if v.Addr.Is4() {
		a.Label = v.Label
	} else {
		a.Flags = unix.IFA_F_NODAD // the question was asked already
		// Never the source of what this host says: a real server drops a
		// tunnel packet that comes from an address of its own, the VIP.
		a.PreferedLft = 0
	}
	return a
}

// Put puts v on its device, or renews it there, for a lease from now, in
// whole seconds.
func (h *Holder) Put(v VIP, lease time.Duration) error {
	link, err := h.nl.LinkByName(v.Device)
	if err == nil {
		err = h.nl.AddrReplace(link, address(v, lease))
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("put %s: the capability CAP_NET_ADMIN is missing: %w", v, err)
	case v.Addr.Is6() && errors.Is(err, unix.EACCES):
		return fmt.Errorf("put %s: IPv6 is off there (sysctl net.ipv6.conf.%s.disable_ipv6): %w", v, v.Device, err)
	}
	return fmt.Errorf("put %s: %w", v, err)
}

// Remove takes v off its device. That it was not there is no error.
func (h *Holder) Remove(v VIP) error {
	link, err := h.nl.LinkByName(v.Device)
	if gone := (netlink.LinkNotFoundError{}); errors.As(err, &gone) {
		return nil
	}
	if err == nil {
		a := address(v, 0)
		a.Label = "" // one put there under another label goes as well
		err = h.nl.AddrDel(link, a)
	}
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove %s: %w", v, err)
	}
	return nil
}

// Presence is how an address is on its device.
type Presence uint8

// The presences.
const (
	Absent    Presence = iota
	Leased             // for the rest of a lease
	Permanent          // without a lease: not put there by a Holder
)

// Find tells how each of vips is on its device now.
func (h *Holder) Find(vips []VIP) ([]Presence, error) {
	type key struct {
		device string
		addr   netip.Addr
	}
	found := map[key]Presence{}
	done := map[string]bool{}
	for _, v := range vips {
		if done[v.Device] {
			continue
		}
		done[v.Device] = true
		addrs, err := h.list(v.Device)
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			ones, bits := a.Mask.Size()
			addr, ok := netip.AddrFromSlice(a.IP)
			if !ok || ones != bits {
				continue
			}
			presence := Leased
			if a.ValidLft == forever {
				presence = Permanent
			}
			found[key{v.Device, addr.Unmap()}] = presence
		}
	}
	presences := make([]Presence, len(vips))
	for i, v := range vips {
		presences[i] = found[key{v.Device, v.Addr}]
	}
	return presences, nil
}

// list reads the addresses of a device; a device that is not there has none.
func (h *Holder) list(device string) ([]netlink.Addr, error) {
	link, err := h.nl.LinkByName(device)
	if gone := (netlink.LinkNotFoundError{}); errors.As(err, &gone) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find device %s: %w", device, err)
	}
	const attempts = 3 // addresses may change under the dump
	for range attempts {
		var addrs []netlink.Addr
		addrs, err = h.nl.AddrList(link, netlink.FAMILY_ALL)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			if err != nil {
				return nil, fmt.Errorf("list the addresses of %s: %w", device, err)
			}
			return addrs, nil
		}
	}
	return nil, fmt.Errorf("list the addresses of %s: %w", device, err)
}
