//go:build kernel

package tunnel

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// everything is a receiver of every kind.
const everything = "10.0.0.50 2001:db8::50 10.0.0.51/6 2001:db8::51/6 10.0.0.50/gre 2001:db8::51/gre 10.0.0.50/6/gre 2001:db8::50/6/gre " +
	"10.0.0.52/gue:6080 2001:db8::52/gue:6080 10.0.0.52/6/gue:6080 2001:db8::52/6/gue:6080"

// theHost is the devices, addresses, routes and GUE ports of the namespace, as text.
func theHost(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	links, err := netlink.LinkList()
	must(t, err)
	for _, l := range links {
		a := l.Attrs()
		fmt.Fprintf(&b, "%d %s %s %v mtu %d group %d", a.Index, a.Name, l.Type(), a.Flags, a.MTU, a.Group)
		if t, ok := l.(*netlink.Ip6tnl); ok {
			fmt.Fprintf(&b, " mode %d", t.Proto)
		}
		addresses, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		must(t, err)
		for _, a := range addresses {
			fmt.Fprintf(&b, " %s", a.IPNet)
		}
		b.WriteString("\n")
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		must(t, err)
		var lines []string
		for _, r := range routes {
			lines = append(lines, r.String()+"\n")
		}
		slices.Sort(lines)
		b.WriteString(strings.Join(lines, ""))
	}
	ports, err := rtnetlink{}.ports()
	must(t, err)
	fmt.Fprintln(&b, len(ports), ports)
	return b.String()
}

// testTunnel is one with a record in a folder of the test's, and the check that in the end all is undone, by another
// run of the program, and that a second time there is nothing to do.
func testTunnel(t *testing.T) *Tunnel {
	t.Helper()
	before, path := theHost(t), filepath.Join(t.TempDir(), "tunnel.json")
	t.Cleanup(func() {
		if _, err := Undo(context.Background(), path); err != nil {
			t.Errorf("undo: %v", err)
		}
		if diff := cmp.Diff(before, theHost(t)); diff != "" {
			t.Errorf("the host after undo (-want +got):\n%s", diff)
		}
		if report, err := Undo(context.Background(), path); err != nil || len(report.Changes)+len(report.Notes) != 0 {
			t.Errorf("a second undo: %+v, %v", report, err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("the record is still there")
		}
	})
	return New(path)
}

// apply applies, which must succeed, and checks that a second time there is nothing to do.
func apply(t *testing.T, tunnel *Tunnel, what string) Report {
	t.Helper()
	report, err := tunnel.Apply(t.Context(), desired(what))
	must(t, err)
	if len(report.Held) != len(strings.Fields(what)) {
		t.Errorf("Apply(%s): held %v", what, report.Held)
	}
	if again, err := tunnel.Apply(t.Context(), desired(what)); err != nil || len(again.Changes) != 0 {
		t.Errorf("a second Apply(%s): %v, %v", what, again.Changes, err)
	}
	return report
}

func byName(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	must(t, err)
	return l
}

func addrOf(t *testing.T, text string) *netlink.Addr {
	t.Helper()
	a, err := netlink.ParseAddr(text)
	must(t, err)
	return a
}

// Receivers come and go; then everything is as before.
func TestTheKernelIsKept(t *testing.T) {
	tunnel := testTunnel(t)
	apply(t, tunnel, "")
	for _, what := range []string{"10.0.0.50", everything, "10.0.0.51 2001:db8::50/gre", "", everything} {
		apply(t, tunnel, what)
	}
	before := theHost(t)
	must(t, netlink.AddrAdd(byName(t, "tunl0"), addrOf(t, "10.9.9.9/32")))
	apply(t, tunnel, everything) // what is not ours stays
	must(t, netlink.AddrDel(byName(t, "tunl0"), addrOf(t, "10.9.9.9/32")))
	if diff := cmp.Diff(before, theHost(t)); diff != "" {
		t.Errorf("after a foreign address came and went (-want +got):\n%s", diff)
	}
}

// Each device that is in use already, or unfit for IPv6, is so again afterwards.
func TestUndoOnAHostInUse(t *testing.T) {
	must(t, netlink.LinkSetUp(byName(t, "gre0")))
	must(t, netlink.AddrAdd(byName(t, "gre0"), addrOf(t, "10.9.9.9/24")))
	must(t, netlink.AddrAdd(byName(t, "tunl0"), addrOf(t, "10.0.0.50/32")))
	must(t, netlink.LinkSetMTU(byName(t, "ip6gre0"), 1000))
	must(t, rtnetlink{}.setProtocol(link{name: "ip6tnl0"}, 4))
	t.Cleanup(func() {
		must(t, rtnetlink{}.setProtocol(link{name: "ip6tnl0"}, 41))
		must(t, netlink.LinkSetMTU(byName(t, "ip6gre0"), 1448))
		must(t, netlink.AddrDel(byName(t, "tunl0"), addrOf(t, "10.0.0.50/32")))
		must(t, netlink.AddrDel(byName(t, "gre0"), addrOf(t, "10.9.9.9/24")))
		must(t, netlink.LinkSetDown(byName(t, "gre0")))
	})
	apply(t, testTunnel(t), everything)
}

// What a person has changed meanwhile is left and said.
func TestUndoLeavesWhatAPersonChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tunnel.json")
	apply(t, New(path), "10.0.0.50 10.0.0.51/6")
	must(t, netlink.AddrDel(byName(t, "tunl0"), addrOf(t, "10.0.0.50/32")))
	must(t, netlink.AddrAdd(byName(t, "tunl0"), addrOf(t, "10.0.0.50/32")))
	must(t, netlink.LinkSetMTU(byName(t, "ip6tnl0"), 1400))
	report, err := Undo(t.Context(), path)
	must(t, err)
	want := []string{
		"tunl0 stays up: it holds 10.0.0.50/32, which is not ours",
		"10.0.0.50/32 on tunl0 stays: somebody else has put it there since",
	}
	if diff := cmp.Diff(want, report.Notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	if l := byName(t, "ip6tnl0").Attrs(); l.MTU != 1400 || l.Flags&net.FlagUp != 0 {
		t.Errorf("ip6tnl0: %+v", l)
	}
	must(t, netlink.AddrDel(byName(t, "tunl0"), addrOf(t, "10.0.0.50/32")))
	must(t, netlink.LinkSetDown(byName(t, "tunl0")))
	must(t, netlink.LinkSetMTU(byName(t, "ip6tnl0"), 1452))
}

// The address must be one the kernel really receives on, without duplicate detection holding it back.
func TestTheAddressesCanBeUsed(t *testing.T) {
	apply(t, testTunnel(t), "10.0.0.60 2001:db8::60/6 2001:db8::61")
	for _, address := range []string{"10.0.0.60:0", "[2001:db8::60]:0", "[2001:db8::61]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Errorf("listen: %v", err)
			continue
		}
		l.Close()
	}
}

// A device that the kernel has no fallback for is made, known as ours, made again when somebody deletes it, and removed.
// The kind does not matter for that, and no kind of tunnel can be had here without its fallback device.
func TestADeviceThatIsMade(t *testing.T) {
	real := tunl0
	tunl0 = device{"lvs.0", "dummy", "dummy", "CONFIG_DUMMY"} // a name may hold a dot
	devices[0] = tunl0
	t.Cleanup(func() { tunl0, devices[0] = real, real })
	tunnel := testTunnel(t)
	want := []Change{{"lvs.0", "missing", "present", false}, {"lvs.0", "down", "up", false}, {"10.0.0.50/32 on lvs.0", "absent", "present", false}}
	if diff := cmp.Diff(want, apply(t, tunnel, "10.0.0.50").Changes); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if l, _, err := (rtnetlink{}).link("lvs.0"); err != nil || !l.marked {
		t.Errorf("%+v, %v", l, err)
	}
	must(t, tunl0.make(rtnetlink{})) // it is there already
	if err := (rtnetlink{}).addLink("lvs.1", "nonsense"); err != errNoKind {
		t.Errorf("a kind that no kernel has: %v", err)
	}
	reports := kept(t, tunnel, "10.0.0.50")
	time.Sleep(300 * time.Millisecond)
	begin := time.Now()
	must(t, netlink.LinkDel(byName(t, "lvs.0")))
	for {
		select {
		case r := <-reports:
			if len(r.Held) == 1 {
				t.Logf("device deleted: repaired after %v: %v", time.Since(begin).Round(time.Millisecond), r.Changes)
				return
			}
		case <-time.After(20 * time.Second):
			t.Fatal("not repaired after 20 s")
		}
	}
}

// kept runs the loop of a program that keeps the receivers, and gives its reports of changes.
func kept(t *testing.T, tunnel *Tunnel, what string) <-chan Report {
	ctx, cancel := context.WithCancel(t.Context())
	wake, done, reports := make(chan struct{}, 1), make(chan struct{}, 2), make(chan Report, 1000)
	t.Cleanup(func() { cancel(); <-done; <-done })
	go func() {
		if err := Watch(ctx, func() {
			select {
			case wake <- struct{}{}:
			default:
			}
		}); err != nil {
			t.Error(err)
		}
		done <- struct{}{}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			case <-wake:
			}
			report, err := tunnel.Apply(ctx, desired(what))
			if err != nil && ctx.Err() == nil {
				t.Log(err) // it may be in the middle of what breaks
			}
			if len(report.Changes) > 0 {
				reports <- report
			}
		}
	}()
	return reports
}

// Whatever is broken is whole again within a second: on the kernel's word, and the ports for GUE, of which it says
// nothing, by the next look.
func TestRepairTime(t *testing.T) {
	tunnel := testTunnel(t)
	const what = "10.0.0.50 2001:db8::50 10.0.0.50/6 10.0.0.50/gre 2001:db8::50/6/gre 10.0.0.50/gue:6080"
	apply(t, tunnel, what)
	reports := kept(t, tunnel, what)
	wipe := func(name string) func() error {
		return func() error {
			l := byName(t, name)
			addresses, err := netlink.AddrList(l, netlink.FAMILY_ALL)
			must(t, err)
			for _, a := range addresses {
				must(t, netlink.AddrDel(l, &a))
			}
			return nil
		}
	}
	for _, tt := range []struct {
		name, what string
		breakIt    func() error
	}{
		{"tunl0 down", "tunl0", func() error { return netlink.LinkSetDown(byName(t, "tunl0")) }},
		{"VIP removed", "10.0.0.50/32 on tunl0", func() error { return netlink.AddrDel(byName(t, "tunl0"), addrOf(t, "10.0.0.50/32")) }},
		{"all addresses of sit0 wiped", "2001:db8::50/128 on sit0", wipe("sit0")},
		{"sit0 down and its addresses gone", "2001:db8::50/128 on sit0", func() error { return netlink.LinkSetDown(byName(t, "sit0")) }},
		{"ip6tnl0 for IPv6 only", "mode of ip6tnl0", func() error { return rtnetlink{}.setProtocol(link{name: "ip6tnl0"}, 41) }},
		{"MTU of ip6gre0 too small for IPv6", "2001:db8::50/128 on ip6gre0", func() error { return netlink.LinkSetMTU(byName(t, "ip6gre0"), 1000) }},
		{"port for GUE closed", "UDP port 6080 of IPv4 for GUE", func() error { return rtnetlink{}.closePort(port{false, 6080}) }},
	} {
		time.Sleep(300 * time.Millisecond) // so that the word of it is no echo of a repair
		begin := time.Now()
		must(t, tt.breakIt())
		var seen []Change
		for deadline := time.After(20 * time.Second); !slices.ContainsFunc(seen, func(c Change) bool { return c.What == tt.what && c.Drift }); {
			select {
			case r := <-reports:
				seen = append(seen, r.Changes...)
			case <-deadline:
				t.Fatalf("%s: not repaired after 20 s: %+v", tt.name, seen)
			}
		}
		t.Logf("%s: repaired after %v: %v", tt.name, time.Since(begin).Round(time.Millisecond), seen)
		if s, err := look(rtnetlink{}, nil, true); err != nil || slices.ContainsFunc(desired(what).Receivers, func(r Receiver) bool { return !s.holds(r) }) {
			t.Errorf("%s: not all is held: %+v, %v", tt.name, s, err)
		}
	}
}

// So many changes at once that the kernel drops its messages: that is one to look, too, and the next ones come again.
func TestWatchSurvivesAnOverflow(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	lost, calls := make(chan struct{}, 1), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- watch(ctx, func() { calls <- struct{}{} }, func() (subscription, error) {
			s, err := subscribe()
			return &listener{s, lost}, err
		})
	}()
	add := func(n int) {
		for range n {
			must(t, netlink.AddrAdd(byName(t, "tunl0"), addrOf(t, "10.8.0.1/32")))
			must(t, netlink.AddrDel(byName(t, "tunl0"), addrOf(t, "10.8.0.1/32")))
		}
	}
	for first := true; first; { // it listens
		add(1)
		select {
		case <-calls:
			first = false
		case <-time.After(100 * time.Millisecond):
		}
	}
	add(500) // while nobody takes a call
	for overflow := false; !overflow; {
		select {
		case <-calls:
		case <-lost:
			overflow = true
		case <-time.After(20 * time.Second):
			t.Fatal("no overflow: this test proves nothing")
		}
	}
	<-calls // of the overflow
	for quiet := false; !quiet; {
		select {
		case <-calls:
		case <-time.After(time.Second):
			quiet = true
		}
	}
	add(1)
	select {
	case <-calls:
	case <-time.After(20 * time.Second):
		t.Error("no word of a change after an overflow")
	}
	cancel()
	for ended := false; !ended; {
		select {
		case <-calls:
		case err := <-done:
			must(t, err)
			ended = true
		}
	}
}

// listener tells when messages were lost.
type listener struct {
	subscription
	lost chan struct{}
}

func (l *listener) Receive() ([]syscall.NetlinkMessage, *unix.SockaddrNetlink, error) {
	m, from, err := l.subscription.Receive()
	if err == unix.ENOBUFS {
		select {
		case l.lost <- struct{}{}:
		default:
		}
	}
	return m, from, err
}

// What keeps a kernel from it is said in words.
func TestRefusals(t *testing.T) {
	tunnel := testTunnel(t)
	disable := "/proc/sys/net/ipv6/conf/sit0/disable_ipv6"
	must(t, os.WriteFile(disable, []byte("1"), 0))
	t.Cleanup(func() { must(t, os.WriteFile(disable, []byte("0"), 0)) })
	taken, err := net.ListenPacket("udp4", ":6080")
	must(t, err)
	t.Cleanup(func() { taken.Close() })
	must(t, netlink.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "lan0.100"}}))
	must(t, netlink.AddrAdd(byName(t, "lan0.100"), addrOf(t, "10.0.0.53/24")))
	t.Cleanup(func() { must(t, netlink.LinkDel(byName(t, "lan0.100"))) })
	report, err := tunnel.Apply(t.Context(), desired("10.0.0.50 2001:db8::50 10.0.0.52/gue:6080 10.0.0.53 10.0.0.54/vxlan"))
	want := `VIP 10.0.0.53: is this host's own address on lan0.100: remove it there, or take this host out of the service
VIP 10.0.0.54: unknown encapsulation "vxlan": there are ipip, gue and gre
2001:db8::50/128 on sit0: is absent, not present: IPv6 is switched off on the device: set net/ipv6/conf/sit0/disable_ipv6 to 0
UDP port 6080 of IPv4 for GUE: is closed, not open: address already in use: another program listens on that port`
	if diff := cmp.Diff(want, text(err)); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
	if len(report.Held) != 1 {
		t.Errorf("held %v", report.Held)
	}
}

func TestWithoutTheCapability(t *testing.T) {
	before, path := theHost(t), filepath.Join(t.TempDir(), "tunnel.json")
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread goes with its capabilities
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			failed <- err
			return
		}
		_, err := New(path).Apply(t.Context(), desired(everything))
		failed <- err
	}()
	err := <-failed
	if !strings.Contains(text(err), "CAP_NET_ADMIN is missing") || strings.Contains(text(err), "\n") {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff(before, theHost(t)); diff != "" {
		t.Errorf("host (-want +got):\n%s", diff)
	}
}
