//go:build kernel

package ipvs

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// TestMain lets the tests on LANs of their own wait side by side: they hardly do anything else.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// host is a network namespace with eth0 on the LAN.
type host struct {
	t    *testing.T
	ns   netns.NsHandle
	nl   *netlink.Handle
	eth0 netlink.Link
}

// lan is a bridge with two directors, a real server and a client on it; nobody has the VIPs yet, except that the real
// server has them on tunl0 and ip6tnl0.
type lan struct {
	t                  *testing.T
	active, standby    *host
	realServer, client *host
	vip, vip6          netip.AddrPort
	group              SyncDaemon         // where flows are told
	table              map[*host]*Handle  // of the directors
	conns              map[*host]*os.File // their connections, /proc/net/ip_vs_conn
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newLAN makes a LAN for a test that from then on runs beside the others.
func newLAN(t *testing.T) *lan {
	t.Helper()
	t.Parallel()
	return newLANAlone(t)
}

// newLANAlone puts the bridge into a namespace of the test's own.
func newLANAlone(t *testing.T) *lan {
	t.Helper()
	runtime.LockOSThread()
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan"}}
	must(t, netlink.LinkAdd(bridge))
	must(t, netlink.LinkSetUp(bridge))
	l := &lan{t: t, vip: netip.MustParseAddrPort("10.9.0.50:80"), vip6: netip.MustParseAddrPort("[2001:db8::50]:80"),
		group: master, conns: map[*host]*os.File{}, table: map[*host]*Handle{}}
	l.active, l.standby = l.join(bridge, 1), l.join(bridge, 2)
	l.realServer, l.client = l.join(bridge, 100), l.join(bridge, 10)

	l.realServer.do(func() error {
		for _, dev := range []string{"all", "eth0", "tunl0"} {
			for key, value := range map[string]string{"rp_filter": "0", "arp_ignore": "1", "arp_announce": "2"} {
				if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+dev+"/"+key, []byte(value), 0); err != nil {
					return err
				}
			}
		}
		return nil
	})
	for name, vip := range map[string]netip.AddrPort{"tunl0": l.vip, "ip6tnl0": l.vip6} {
		tunnel, err := l.realServer.nl.LinkByName(name)
		must(t, err)
		must(t, l.realServer.nl.LinkSetUp(tunnel))
		must(t, l.realServer.nl.AddrAdd(tunnel, alone(vip.Addr())))
	}

	for _, d := range []*host{l.active, l.standby} {
		d.do(func() error {
			h, err := Open()
			if err != nil {
				return err
			}
			t.Cleanup(func() { h.Close() })
			l.table[d] = h
			f, err := os.Open("/proc/thread-self/net/ip_vs_conn")
			if err != nil {
				return err
			}
			t.Cleanup(func() { f.Close() })
			l.conns[d] = f
			return nil
		})
		l.serve(d, "wlc")
	}
	l.echo()
	return l
}

// alone is a VIP. One of IPv6 is deprecated, or the director would send from it: its packets in the tunnel would seem to
// the real server to come from the real server itself, which drops them (ip6_tnl_rcv_ctl).
func alone(a netip.Addr) *netlink.Addr {
	addr := within(a, a.BitLen())
	if a.Is6() {
		addr.ValidLft = 3600
	}
	return addr
}

// within is an address on a LAN, at once.
func within(a netip.Addr, bits int) *netlink.Addr {
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}}
	if a.Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	return addr
}

// join makes a host with the addresses 10.9.0.n and 2001:db8::n, n in hexadecimal.
func (l *lan) join(bridge netlink.Link, n byte) *host {
	l.t.Helper()
	own, err := netns.Get()
	must(l.t, err)
	defer own.Close()
	ns, err := netns.New()
	must(l.t, err)
	must(l.t, netns.Set(own))
	h := &host{t: l.t, ns: ns}
	l.t.Cleanup(func() { ns.Close() })
	h.nl, err = netlink.NewHandleAt(ns)
	must(l.t, err)
	l.t.Cleanup(h.nl.Close)

	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("port%d", n)
	wire := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns)}
	must(l.t, netlink.LinkAdd(wire))
	must(l.t, netlink.LinkSetMaster(wire, bridge))
	must(l.t, netlink.LinkSetUp(wire))
	lo, err := h.nl.LinkByName("lo")
	must(l.t, err)
	must(l.t, h.nl.LinkSetUp(lo))
	h.eth0, err = h.nl.LinkByName("eth0")
	must(l.t, err)
	must(l.t, h.nl.LinkSetUp(h.eth0))
	must(l.t, h.nl.AddrAdd(h.eth0, within(netip.AddrFrom4([4]byte{10, 9, 0, n}), 24)))
	must(l.t, h.nl.AddrAdd(h.eth0, within(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: n}), 64)))
	return h
}

// do runs f on a thread of its own in the host's namespace.
func (h *host) do(f func() error) {
	h.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if err := netns.Set(h.ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	must(h.t, <-done)
}

func (h *host) sysctl(settings ...Setting) {
	h.t.Helper()
	h.do(func() error {
		for _, s := range settings {
			if err := os.WriteFile("/proc/sys/"+strings.ReplaceAll(s.Key, ".", "/"), []byte(s.Value), 0); err != nil {
				return fmt.Errorf("%s=%s: %w", s.Key, s.Value, err)
			}
		}
		return nil
	})
}

// serve gives a director the services with the one real server, or others.
func (l *lan) serve(d *host, scheduler string, ds ...Destination) {
	l.t.Helper()
	if ds == nil {
		ds = []Destination{tun("10.9.0.100:80", 1), tun("[2001:db8::64]:80", 1)}
	}
	services := []Service{wlc(NewKey(TCP, l.vip)), wlc(NewKey(TCP, l.vip6))}
	for i := range services {
		services[i].Scheduler = scheduler
		for _, d := range ds {
			if familyOf(d.Addr.Addr()) == services[i].family() {
				services[i].Destinations = append(services[i].Destinations, d)
			}
		}
	}
	l.apply(d, services...)
}

func (l *lan) apply(d *host, services ...Service) {
	l.t.Helper()
	_, err := l.table[d].Apply(l.t.Context(), services, nil)
	must(l.t, err)
}

// echo answers every byte to the VIP on the real server.
func (l *lan) echo() {
	l.t.Helper()
	l.realServer.do(func() error {
		ln, err := net.Listen("tcp", ":80")
		if err != nil {
			return err
		}
		l.t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() { defer c.Close(); io.Copy(c, c) }()
			}
		}()
		return nil
	})
}

// moveVIP takes the VIPs from one director, or nobody, to another and tells the client.
func (l *lan) moveVIP(from, to *host) {
	l.t.Helper()
	for _, vip := range []netip.Addr{l.vip.Addr(), l.vip6.Addr()} {
		if from != nil {
			must(l.t, from.nl.AddrDel(from.eth0, alone(vip)))
		}
		must(l.t, to.nl.AddrAdd(to.eth0, alone(vip)))
		must(l.t, l.client.nl.NeighSet(&netlink.Neigh{LinkIndex: l.client.eth0.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: vip.AsSlice(), HardwareAddr: to.eth0.Attrs().HardwareAddr}))
	}
}

func (l *lan) sync(d *host, daemons ...SyncDaemon) {
	l.t.Helper()
	if _, err := l.table[d].ApplySync(l.t.Context(), daemons); err != nil {
		l.t.Fatal(err)
	}
}

// flow is a TCP connection from the client to the VIP.
type flow struct {
	net.Conn
	began time.Time
}

func (l *lan) connect() *flow { return l.connectTo(l.vip) }

func (l *lan) connectTo(vip netip.AddrPort) *flow {
	l.t.Helper()
	f := &flow{}
	l.client.do(func() (err error) {
		f.Conn, err = (&net.Dialer{Timeout: 5 * time.Second}).Dial("tcp", vip.String())
		return err
	})
	f.began = time.Now()
	l.t.Cleanup(func() { f.Close() })
	return f
}

// ping sends a byte and waits for it.
func (f *flow) ping() error {
	b := []byte{'x'}
	f.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := f.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(f, b)
	return err
}

// knows tells whether the host's table has the flow, established.
func (l *lan) knows(d *host, f *flow) bool {
	l.t.Helper()
	client := f.LocalAddr().(*net.TCPAddr).AddrPort()
	ip := client.Addr().As4()
	from := fmt.Sprintf("TCP %02X%02X%02X%02X %04X ", ip[0], ip[1], ip[2], ip[3], client.Port())
	for line := range strings.Lines(string(l.connections(d))) {
		if strings.HasPrefix(line, from) && strings.Contains(line, " ESTABLISHED ") {
			return true
		}
	}
	return false
}

func (l *lan) connections(d *host) []byte {
	l.t.Helper()
	_, err := l.conns[d].Seek(0, io.SeekStart)
	must(l.t, err)
	b, err := io.ReadAll(l.conns[d])
	must(l.t, err)
	return b
}

// heardOf waits until the host knows the flow, sending a byte every so often (0 is never), and returns the flow's age;
// 0 where it has not heard within most.
func (l *lan) heardOf(d *host, f *flow, every, most time.Duration) time.Duration {
	l.t.Helper()
	next := time.Now().Add(every)
	for time.Since(f.began) < most {
		if l.knows(d, f) {
			return time.Since(f.began)
		}
		if every > 0 && time.Now().After(next) {
			must(l.t, f.ping())
			next = next.Add(every)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0
}
