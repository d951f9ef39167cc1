//go:build kernel

package agent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"lvstun/tunnel"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func setting(t *testing.T, key, value string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join("/proc/sys/net/ipv4/conf", key), []byte(value), 0o644))
}

func linkOf(t *testing.T, name string) netlink.Link {
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

// directors are those of every test.
var directors = []netip.Addr{netip.MustParseAddr("192.168.7.1")}

// byIPIP is the receivers of the VIPs on the host of most tests.
func byIPIP(vips ...netip.Addr) (all []tunnel.Receiver) {
	for _, vip := range vips {
		all = append(all, tunnel.Receiver{VIP: vip, RIP: rip, Type: tunnel.IPIP})
	}
	return all
}

// newGuardedHost is this namespace's kernel. What it builds goes with the test.
func newGuardedHost(t *testing.T) kernelHost {
	t.Helper()
	h := newKernelHost(t.TempDir())
	t.Cleanup(func() {
		_, err := h.tunnel.Apply(context.Background(), tunnel.Desired{})
		must(t, err)
		_, err = h.guard.Remove(context.Background())
		must(t, err)
		h.settings.Apply(nil)
	})
	return h
}

// lan is the device with the real server's address, under a name with a dot in it.
const lan = "lan0.100"

func makeLAN(t *testing.T) {
	t.Helper()
	must(t, netlink.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: lan}}))
	t.Cleanup(func() { netlink.LinkDel(linkOf(t, lan)) })
	must(t, netlink.AddrAdd(linkOf(t, lan), addrOf(t, rip.String()+"/24")))
	must(t, netlink.LinkSetUp(linkOf(t, lan)))
}

// Each thing a person or a network restart can break on a built tunnel side is put right by the next
// look, and that is all the look does.
func TestWhatIsBrokenIsRepaired(t *testing.T) {
	makeLAN(t)
	vip := netip.MustParseAddr("10.0.0.50")
	h := newGuardedHost(t)
	apply := func() (side, []change) { return h.apply(t.Context(), byIPIP(vip), directors, rip) }

	for _, key := range []string{"all/rp_filter", "all/arp_ignore", "all/arp_announce", lan + "/arp_ignore", lan + "/arp_announce"} {
		setting(t, key, map[bool]string{true: "1", false: "0"}[strings.HasSuffix(key, "rp_filter")])
	}
	if s, changes := apply(); !s.ok() || len(s.held) != 1 || len(changes) < 6 {
		t.Fatalf("from nothing: %+v, %v", s, changes)
	}
	if s, changes := apply(); !s.ok() || len(changes) != 0 {
		t.Errorf("a second time: %+v, %v", s, changes)
	}

	conf, dev := "net.ipv4.conf.", strings.ReplaceAll(lan, ".", "/")
	tests := []struct {
		name    string
		breakIt func()
		want    []change
	}{
		{"tunl0 down", func() { must(t, netlink.LinkSetDown(linkOf(t, "tunl0"))) }, []change{{"tunl0", "down", "up"}}},
		{"VIP removed", func() { must(t, netlink.AddrDel(linkOf(t, "tunl0"), addrOf(t, "10.0.0.50/32"))) }, []change{{"10.0.0.50/32 on tunl0", "absent", "present"}}},
		{"rp_filter strict on all", func() { setting(t, "all/rp_filter", "1") }, nil}, // loose on tunl0 still wins
		{"rp_filter strict on tunl0", func() { setting(t, "tunl0/rp_filter", "1") }, []change{{conf + "tunl0.rp_filter", "1", "2"}}},
		{"arp_* reset", func() {
			setting(t, "all/arp_ignore", "0")
			setting(t, "all/arp_announce", "0")
			setting(t, lan+"/arp_ignore", "3")
			setting(t, lan+"/arp_announce", "1")
		}, []change{
			{conf + "all.arp_ignore", "0", "1"}, {conf + "all.arp_announce", "0", "2"},
			{conf + dev + ".arp_ignore", "3", "1"}, {conf + dev + ".arp_announce", "1", "2"},
		}},
		{"a stricter choice of the host's", func() { setting(t, "all/arp_ignore", "2"); setting(t, lan+"/arp_ignore", "8") }, nil},
		{"a foreign address", func() { must(t, netlink.AddrAdd(linkOf(t, "tunl0"), addrOf(t, "10.9.9.9/32"))) }, nil},
	}
	for _, tt := range tests {
		tt.breakIt()
		s, changes := apply()
		if !s.ok() || len(s.held) != 1 {
			t.Errorf("%s: %+v", tt.name, s)
		}
		if diff := cmp.Diff(tt.want, changes, cmp.AllowUnexported(change{})); diff != "" {
			t.Errorf("%s: changes (-want +got):\n%s", tt.name, diff)
		}
		if _, changes := apply(); len(changes) != 0 {
			t.Errorf("%s: a second time: %v", tt.name, changes)
		}
	}
	if _, found, err := tunnel.DeviceOf(netip.MustParseAddr("10.9.9.9")); !found || err != nil {
		t.Errorf("the foreign address is gone: %v", err)
	}
	must(t, netlink.AddrDel(linkOf(t, "tunl0"), addrOf(t, "10.9.9.9/32")))

	s, _ := h.apply(t.Context(), byIPIP(vip), directors, netip.MustParseAddr("192.0.2.77"))
	if want := "no device of this host holds 192.0.2.77, the address in its token"; len(s.held) != 0 || len(s.problems) != 1 || s.problems[0] != want {
		t.Errorf("without the own address: %+v", s)
	}
}

// Where ARP cannot be silenced, no VIP is added: this host would take the cluster's traffic on a network
// it shares with the directors.
func TestNoVIPWhereSettingsAreReadOnly(t *testing.T) {
	makeLAN(t)
	vip := netip.MustParseAddr("10.0.0.56")
	h := newGuardedHost(t)
	setting(t, "all/arp_ignore", "0")
	must(t, unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""))
	defer func() { must(t, unix.Unmount("/proc/sys", unix.MNT_DETACH)) }()
	must(t, unix.Mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))

	s, _ := h.apply(t.Context(), byIPIP(vip), directors, rip)
	if len(s.held) != 0 || len(s.problems) == 0 || !strings.Contains(strings.Join(s.problems, "\n"), "/proc/sys is read-only here") {
		t.Errorf("tunnel side: %+v", s)
	}
	if _, found, err := tunnel.DeviceOf(vip); found || err != nil {
		t.Errorf("the VIP was added: %v, %v", found, err)
	}
}

// A packet out of the tunnel, from a client whom the routes do not look for behind tunl0, arrives though
// `all` is strict; with tunl0 strict too it does not, so the test would see the difference.
func TestTunnelPacketsPassAStrictHost(t *testing.T) {
	runtime.LockOSThread() // and never unlocked: the thread goes with its namespaces
	self, err := netns.Get()
	must(t, err)
	defer self.Close()
	director, err := netns.New()
	must(t, err)
	defer director.Close()
	must(t, netns.Set(self))

	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth0"}, PeerName: "eth0"}))
	t.Cleanup(func() { netlink.LinkDel(linkOf(t, "veth0")) })
	must(t, netlink.LinkSetNsFd(linkOf(t, "eth0"), int(director)))
	must(t, netlink.AddrAdd(linkOf(t, "veth0"), addrOf(t, "192.168.7.100/24")))
	must(t, netlink.LinkSetUp(linkOf(t, "veth0")))
	gateway := &netlink.Route{Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Gw: net.ParseIP("192.168.7.10")}
	must(t, netlink.RouteAdd(gateway))

	address, vip := netip.MustParseAddr("192.168.7.100"), netip.MustParseAddr("10.0.0.57")
	h := newGuardedHost(t)
	if s, _ := h.apply(t.Context(), byIPIP(vip), directors, address); !s.ok() {
		t.Fatalf("tunnel side: %+v", s)
	}
	setting(t, "all/rp_filter", "1")
	inbox, err := net.ListenPacket("udp4", vip.String()+":5000")
	must(t, err)
	defer inbox.Close()
	arrives := func() bool {
		must(t, netns.Set(director))
		send(t, vip)
		must(t, netns.Set(self))
		must(t, inbox.SetReadDeadline(time.Now().Add(500*time.Millisecond)))
		_, _, err := inbox.ReadFrom(make([]byte, 16))
		return err == nil
	}
	must(t, netns.Set(director))
	for _, a := range []string{"192.168.7.1/24", "203.0.113.9/32"} { // the director, and a client of its
		must(t, netlink.AddrAdd(linkOf(t, "eth0"), addrOf(t, a)))
	}
	must(t, netlink.LinkSetUp(linkOf(t, "eth0")))
	to := &netlink.Iptun{LinkAttrs: netlink.LinkAttrs{Name: "torip"}, Local: net.ParseIP("192.168.7.1"), Remote: net.ParseIP("192.168.7.100")}
	must(t, netlink.LinkAdd(to))
	must(t, netlink.LinkSetUp(to))
	must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: to.Attrs().Index, Dst: addrOf(t, vip.String()+"/32").IPNet}))
	must(t, netns.Set(self))

	if !arrives() {
		t.Error("strict on all, loose on tunl0: the packet does not arrive")
	}
	setting(t, "tunl0/rp_filter", "0")
	if arrives() {
		t.Error("strict on all, 0 on tunl0: the packet arrives, so this test proves nothing")
	}
	if _, changes := h.apply(t.Context(), byIPIP(vip), directors, address); len(changes) != 1 || !arrives() {
		t.Errorf("after the repair %v the packet does not arrive", changes)
	}
}

// send sends one datagram from the client's address to the VIP, out of the calling thread's namespace.
func send(t *testing.T, vip netip.Addr) {
	t.Helper()
	c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP("203.0.113.9")}, &net.UDPAddr{IP: vip.AsSlice(), Port: 5000})
	must(t, err)
	defer c.Close()
	_, err = fmt.Fprint(c, "hello")
	must(t, err)
}

// The kernel's notifications reach the loop: what is broken is whole again well within a second.
func TestRepairedOnTheKernelsWord(t *testing.T) {
	makeLAN(t)
	vip := netip.MustParseAddr("10.0.0.58")
	h := newGuardedHost(t)
	if s, _ := h.apply(t.Context(), byIPIP(vip), directors, rip); !s.ok() {
		t.Fatalf("tunnel side: %+v", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	drifts, done := make(chan struct{}, 1), make(chan error, 1)
	go func() { done <- h.watchers()[0](ctx, func() { nudge(drifts) }) }()
	time.Sleep(200 * time.Millisecond) // until it listens

	begin := time.Now()
	must(t, netlink.LinkSetDown(linkOf(t, "tunl0")))
	select {
	case <-drifts:
	case <-time.After(5 * time.Second):
		t.Fatal("no word from the kernel")
	}
	if _, changes := h.apply(t.Context(), byIPIP(vip), directors, rip); len(changes) == 0 {
		t.Error("nothing was repaired")
	}
	t.Logf("repaired %v after it broke", time.Since(begin))
	cancel()
	must(t, <-done)
}
