//go:build kernel

package vip

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const ms = time.Millisecond

// twoHosts joins this network namespace to another by a wire, eth0 at both
// ends, and returns the other. The test must run in a namespace of its own.
func twoHosts(t *testing.T) (peer *netlink.Handle) {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	own, err := netns.Get()
	must(t, err)
	other, err := netns.New()
	must(t, err)
	must(t, netns.Set(own))
	t.Cleanup(func() { _ = other.Close(); _ = own.Close() })
	peer, err = netlink.NewHandleAt(other)
	must(t, err)
	t.Cleanup(peer.Close)

	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(other)}))
	here, err := netlink.LinkByName("eth0")
	must(t, err)
	t.Cleanup(func() { _ = netlink.LinkDel(here) })
	must(t, netlink.LinkSetUp(here))
	there, err := peer.LinkByName("eth0")
	must(t, err)
	must(t, peer.LinkSetUp(there))
	waitFor(t, 5*time.Second, "the wire is up", func() bool { return LinkFault([]VIP{{Device: "eth0"}}) == "" })
	return peer
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, most time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > most {
			t.Fatalf("not within %v: %s", most, what)
		}
		time.Sleep(5 * ms)
	}
	return time.Since(began)
}

var (
	vip4 = VIP{Addr: netip.MustParseAddr("10.0.0.50"), Device: "eth0", Label: "eth0:1"}
	vip6 = VIP{Addr: netip.MustParseAddr("2001:db8::50"), Device: "eth0"}
)

func TestLease(t *testing.T) {
	twoHosts(t)
	for _, v := range []VIP{vip4, vip6} {
		t.Run(v.Addr.String(), func(t *testing.T) {
			h, err := OpenHolder()
			must(t, err)
			defer h.Close()
			is := func(want Presence) func() bool {
				return func() bool {
					got, err := h.Find([]VIP{v})
					must(t, err)
					return got[0] == want
				}
			}
			if !is(Absent)() {
				t.Fatal("there before it was put")
			}
			must(t, h.Put(v, time.Second))
			for began := time.Now(); time.Since(began) < 2*time.Second; time.Sleep(100 * ms) {
				if !is(Leased)() {
					t.Fatalf("gone after %v, and it was renewed", time.Since(began))
				}
				must(t, h.Put(v, time.Second))
			}
			took := waitFor(t, 3*time.Second, "the kernel ends the lease", is(Absent))
			t.Logf("a lease of 1 s ended after %v", took.Round(ms))
			// The kernel rounds the age of an address up by a quarter of a second (ADDRCONF_TIMER_FUZZ in
			// net/ipv4/devinet.c), and the last renewal began before the clock here.
			if took < 700*ms {
				t.Errorf("ended early, after %v", took)
			}

			must(t, h.Put(v, time.Second))
			link, err := netlink.LinkByName("eth0")
			must(t, err)
			addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
			must(t, err)
			at := slices.IndexFunc(addrs, func(a netlink.Addr) bool { return a.IP.Equal(v.Addr.AsSlice()) })
			if a := addrs[at]; a.Label != v.Label {
				t.Errorf("label %q, want %q", a.Label, v.Label)
			} else if v.Addr.Is6() && a.PreferedLft != 0 {
				t.Errorf("preferred for %d s: this host may speak in the VIP's name", a.PreferedLft)
			}
			must(t, h.Remove(v))
			if !is(Absent)() {
				t.Error("there after it was removed")
			}
			must(t, h.Remove(v)) // not there: no error

			forever := address(v, 0)
			must(t, netlink.AddrAdd(link, forever))
			if !is(Permanent)() {
				t.Error("without a lease, and not permanent")
			}
			must(t, h.Put(v, time.Second)) // becomes a lease
			if !is(Leased)() {
				t.Error("put, and not leased")
			}
			must(t, h.Remove(v))
		})
	}
	h, err := OpenHolder()
	must(t, err)
	defer h.Close()
	gone := VIP{Addr: vip4.Addr, Device: "nodev0"}
	if err := h.Put(gone, time.Second); err == nil {
		t.Error("put on a device that is not there")
	}
	must(t, h.Remove(gone))
}

func TestAskAndAnnounce(t *testing.T) {
	peer := twoHosts(t)
	there, err := peer.LinkByName("eth0")
	must(t, err)
	vips := []VIP{vip4, vip6}
	n := NewNeighbours(vips)
	must(t, n.Open())
	seen := make(chan Sighting, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.Run(ctx, func(_ VIP, s Sighting) { seen <- s }, func() { t.Error("a gateway spoke, and there is none") })
	}()
	defer func() { cancel(); <-done }()

	must(t, n.Ask())
	select {
	case s := <-seen:
		t.Errorf("nobody has them, and %s answered", s.MAC)
	case <-time.After(200 * ms):
	}
	other := &Holder{nl: peer}
	for _, v := range vips {
		must(t, other.Put(v, 5*time.Second))
		var got Sighting
		took := waitFor(t, 2*time.Second, "the other kernel answers", func() bool {
			must(t, n.Ask()) // as an election does: it takes a moment to join its group
			select {
			case got = <-seen:
				return true
			case <-time.After(15 * ms):
				return false
			}
		})
		if got.Addr != v.Addr || got.Asks || got.MAC != MAC(there.Attrs().HardwareAddr) {
			t.Errorf("%s: saw %+v", v, got)
		}
		t.Logf("%s: the other kernel answered after %v", v, took.Round(10*time.Microsecond))
		must(t, other.Remove(v))
	}

	// What the other kernel believes follows the announcement.
	lie := &netlink.Neigh{
		LinkIndex: there.Attrs().Index, IP: vip4.Addr.AsSlice(), State: netlink.NUD_STALE,
		HardwareAddr: []byte{2, 9, 9, 9, 9, 9},
	}
	must(t, peer.NeighSet(lie))
	must(t, n.Announce())
	waitFor(t, 2*time.Second, "the neighbour's cache is corrected", func() bool {
		neighs, err := peer.NeighList(there.Attrs().Index, netlink.FAMILY_V4)
		must(t, err)
		return slices.ContainsFunc(neighs, func(n netlink.Neigh) bool {
			return n.IP.Equal(vip4.Addr.AsSlice()) && MAC(n.HardwareAddr) == ownOf(t)
		})
	})
	for len(seen) > 0 {
		if s := <-seen; s.MAC == ownOf(t) {
			t.Errorf("heard itself: %+v", s)
		}
	}

	// The wire goes down and comes back: questions work again.
	here, err := netlink.LinkByName("eth0")
	must(t, err)
	must(t, netlink.LinkSetDown(here))
	waitFor(t, 2*time.Second, "the socket is closed", func() bool { return n.Ask() != nil })
	must(t, netlink.LinkSetUp(here))
	waitFor(t, 5*time.Second, "the socket is open again", func() bool { return n.Ask() == nil })
}

// TestGateway holds that the default gateway on the VIPs' link is found, asked
// and heard, in both families.
func TestGateway(t *testing.T) {
	peer := twoHosts(t)
	there, err := peer.LinkByName("eth0")
	must(t, err)
	here, err := netlink.LinkByName("eth0")
	must(t, err)
	for _, test := range []struct {
		vip          VIP
		own, gateway string
	}{
		{vip4, "10.0.0.1/24", "10.0.0.254"},
		{vip6, "2001:db8:1::1/64", "2001:db8:1::fe"},
	} {
		t.Run(test.gateway, func(t *testing.T) {
			n := NewNeighbours([]VIP{test.vip})
			must(t, n.Open())
			signs := make(chan struct{}, 100)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				n.Run(ctx, func(VIP, Sighting) {}, func() { signs <- struct{}{} })
			}()
			defer func() { cancel(); <-done }()
			if n.AskGateway() {
				t.Fatal("asked a gateway, and there is none")
			}
			own, err := netlink.ParseAddr(test.own)
			must(t, err)
			own.Flags = unix.IFA_F_NODAD
			must(t, netlink.AddrAdd(here, own))
			must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: here.Attrs().Index, Gw: net.ParseIP(test.gateway)}))
			if !n.AskGateway() {
				t.Fatal("did not find the gateway")
			}
			select {
			case <-signs:
				t.Error("nobody has the gateway's address, and it spoke")
			case <-time.After(100 * ms):
			}
			prefix := netip.MustParsePrefix(test.own)
			at, err := netlink.ParseAddr(netip.PrefixFrom(netip.MustParseAddr(test.gateway), prefix.Bits()).String())
			must(t, err)
			at.Flags = unix.IFA_F_NODAD
			must(t, peer.AddrAdd(there, at))
			waitFor(t, 2*time.Second, "the gateway speaks", func() bool {
				n.AskGateway()
				select {
				case <-signs:
					return true
				case <-time.After(20 * ms):
					return false
				}
			})
		})
	}
}

// TestHeldUp holds that a frame is sent however long this host was held up
// before: here by others that want every processor.
func TestHeldUp(t *testing.T) {
	twoHosts(t)
	n := NewNeighbours([]VIP{vip4, vip6})
	must(t, n.Open())
	defer n.Close()
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 4 * runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !stop.Load() {
			}
		})
	}
	defer wg.Wait()
	defer stop.Store(true)
	for began := time.Now(); time.Since(began) < 500*ms; {
		if err := n.Announce(); err != nil {
			t.Fatal(err)
		}
	}
}

func ownOf(t *testing.T) MAC {
	t.Helper()
	here, err := netlink.LinkByName("eth0")
	must(t, err)
	return MAC(here.Attrs().HardwareAddr)
}

func TestWatchLinks(t *testing.T) {
	peer := twoHosts(t)
	there, err := peer.LinkByName("eth0")
	must(t, err)
	faults := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- WatchLinks(ctx, []VIP{vip4}, "", func(f string) { faults <- f }) }()
	time.Sleep(100 * ms)
	for _, step := range []struct {
		change func() error
		want   string
	}{
		{func() error { return peer.LinkSetDown(there) }, "device eth0 has no carrier"},
		{func() error { return peer.LinkSetUp(there) }, ""},
		{func() error { return peer.LinkDel(there) }, "device eth0 is missing"},
	} {
		began := time.Now()
		must(t, step.change())
		select {
		case got := <-faults:
			if got != step.want {
				t.Errorf("%q, want %q", got, step.want)
			}
			t.Logf("%q after %v", got, time.Since(began).Round(100*time.Microsecond))
		case <-time.After(5 * time.Second):
			t.Fatalf("%q: not told", step.want)
		}
	}
	cancel()
	must(t, <-done)
}
