//go:build kernel

package tunnel

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func apply(t *testing.T, tunnel *Tunnel, desired string, want ...Change) {
	t.Helper()
	report, err := tunnel.Apply(t.Context(), vips(desired))
	must(t, err)
	if diff := cmp.Diff(want, report.Changes); diff != "" {
		t.Errorf("Apply(%s): changes (-want +got):\n%s", desired, diff)
	}
	if len(report.Held) != len(vips(desired).VIPs) {
		t.Errorf("Apply(%s): held %v", desired, report.Held)
	}
	report, err = tunnel.Apply(t.Context(), vips(desired))
	if err != nil || len(report.Changes) != 0 {
		t.Errorf("a second Apply(%s): %v, %v", desired, report.Changes, err)
	}
}

func byName(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	must(t, err)
	return l
}

func TestTheKernelIsKept(t *testing.T) {
	tunnel := New()
	apply(t, tunnel, "")
	if _, err := tunnel.Apply(t.Context(), vips("10.0.0.50 2001:db8::50")); err != nil {
		t.Fatal(err)
	}
	apply(t, tunnel, "10.0.0.50 2001:db8::50")
	tunl0, ip6tnl0 := byName(t, "tunl0"), byName(t, "ip6tnl0")
	vip, err := netlink.ParseAddr("10.0.0.50/32")
	must(t, err)
	foreign, err := netlink.ParseAddr("10.9.9.9/32")
	must(t, err)

	must(t, netlink.LinkSetDown(tunl0))
	apply(t, tunnel, "10.0.0.50 2001:db8::50", Change{"tunl0", "down", "up"})

	must(t, netlink.AddrDel(tunl0, vip))
	apply(t, tunnel, "10.0.0.50 2001:db8::50", Change{"10.0.0.50/32 on tunl0", "absent", "present"})

	must(t, netlink.LinkSetDown(ip6tnl0)) // takes the addresses with it
	apply(t, tunnel, "10.0.0.50 2001:db8::50", Change{"ip6tnl0", "down", "up"}, Change{"2001:db8::50/128 on ip6tnl0", "absent", "present"})

	must(t, netlink.AddrAdd(tunl0, foreign))
	apply(t, tunnel, "10.0.0.51", Change{"10.0.0.51/32 on tunl0", "absent", "present"}, Change{"10.0.0.50/32 on tunl0", "present", "absent"}, Change{"2001:db8::50/128 on ip6tnl0", "present", "absent"})

	// Another run of the program knows ours by the mark, and still leaves the foreign one.
	apply(t, New(), "", Change{"10.0.0.51/32 on tunl0", "present", "absent"})
	left, err := rtnetlink{}.addresses(link{index: tunl0.Attrs().Index})
	must(t, err)
	if diff := cmp.Diff("[{10.9.9.9/32 false}]", render(left)); diff != "" {
		t.Errorf("left on tunl0 (-want +got):\n%s", diff)
	}
	must(t, netlink.AddrDel(tunl0, foreign))
}

func render(list []address) string {
	text := "["
	for _, a := range list {
		text += "{" + a.prefix.String() + map[bool]string{true: " true}", false: " false}"}[a.marked]
	}
	return text + "]"
}

// The address must be one the kernel really receives on, without duplicate detection holding it back.
func TestTheAddressesCanBeUsed(t *testing.T) {
	tunnel := New()
	if _, err := tunnel.Apply(t.Context(), vips("10.0.0.60 2001:db8::60")); err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"10.0.0.60:0", "[2001:db8::60]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Errorf("listen: %v", err)
			continue
		}
		l.Close()
	}
	apply(t, tunnel, "", Change{"10.0.0.60/32 on tunl0", "present", "absent"}, Change{"2001:db8::60/128 on ip6tnl0", "present", "absent"})
}

func TestWatchTellsAtOnce(t *testing.T) {
	tunnel := New()
	if _, err := tunnel.Apply(t.Context(), vips("10.0.0.70")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	changed, done := make(chan struct{}, 100), make(chan error, 1)
	go func() { done <- Watch(ctx, func() { changed <- struct{}{} }) }()
	quiet := func() { // until nothing was said for a while
		for {
			select {
			case <-changed:
			case <-time.After(300 * time.Millisecond):
				return
			}
		}
	}
	quiet()
	vip := &netlink.Addr{IPNet: &net.IPNet{IP: netip.MustParseAddr("10.0.0.70").AsSlice(), Mask: net.CIDRMask(32, 32)}}
	for name, breakIt := range map[string]func() error{
		"address": func() error { return netlink.AddrDel(byName(t, "tunl0"), vip) },
		"link":    func() error { return netlink.LinkSetDown(byName(t, "tunl0")) },
	} {
		must(t, breakIt())
		select {
		case <-changed:
		case <-time.After(5 * time.Second):
			t.Errorf("%s: no word within 5 s", name)
		}
		quiet()
	}
	cancel()
	must(t, <-done)
}
