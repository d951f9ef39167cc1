//go:build kernel

package tunnel_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"lvstun/director/ipvs"
	"lvstun/tunnel"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var (
	vip4, vip6 = netip.MustParseAddr("198.51.100.50"), netip.MustParseAddr("2001:db8:50::50")
	rip4, rip6 = netip.MustParseAddr("192.0.2.21"), netip.MustParseAddr("2001:db8::21")
	dip4, dip6 = netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("2001:db8::11")
)

// cluster is a client, a director with the VIPs, and a real server, each a namespace with eth0 on one LAN. Answers do
// not pass through the director.
type cluster struct {
	t                            *testing.T
	client, director, realServer netns.NsHandle
	ipvs                         *ipvs.Handle
	path                         string // of the record
	tunnel                       *tunnel.Tunnel
	port                         int // of the client's last connection
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread goes with its namespaces
	must(t, unix.Unshare(unix.CLONE_NEWNET))
	lan := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan"}}
	must(t, netlink.LinkAdd(lan))
	must(t, netlink.LinkSetUp(lan))
	c := &cluster{t: t, path: filepath.Join(t.TempDir(), "tunnel.json"), port: 20000}
	c.client, c.director, c.realServer = join(t, lan, 1), join(t, lan, 11), join(t, lan, 21)
	c.on(c.client, func() {
		for vip, via := range map[netip.Addr]netip.Addr{vip4: dip4, vip6: dip6} {
			must(t, netlink.RouteAdd(&netlink.Route{Dst: only(vip), Gw: via.AsSlice()}))
		}
	})
	c.on(c.director, func() {
		lo, err := netlink.LinkByName("lo")
		must(t, err)
		for _, vip := range []netip.Addr{vip4, vip6} {
			must(t, netlink.AddrAdd(lo, &netlink.Addr{IPNet: only(vip)}))
		}
		c.ipvs, err = ipvs.Open()
		must(t, err)
		t.Cleanup(func() { c.ipvs.Close() })
	})
	c.on(c.realServer, func() {
		// Strict for the host and loose for the devices, as an agent leaves a host with strict rp_filter.
		names, err := filepath.Glob("/proc/sys/net/ipv4/conf/*/rp_filter")
		must(t, err)
		for _, name := range names {
			must(t, os.WriteFile(name, []byte("2"), 0))
		}
		must(t, os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("1"), 0))
		c.tunnel = tunnel.New(c.path)
	})
	return c
}

func only(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// join makes a namespace whose eth0 is a port of the bridge, with the addresses 192.0.2.n and 2001:db8::n.
func join(t *testing.T, lan netlink.Link, n int) netns.NsHandle {
	t.Helper()
	self, err := netns.Get()
	must(t, err)
	defer self.Close()
	ns, err := netns.New()
	must(t, err)
	t.Cleanup(func() { ns.Close() })
	must(t, netns.Set(self))
	port := fmt.Sprintf("port%d", n)
	must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: "eth0"}))
	l, err := netlink.LinkByName(port)
	must(t, err)
	must(t, netlink.LinkSetMaster(l, lan))
	must(t, netlink.LinkSetUp(l))
	eth0, err := netlink.LinkByName("eth0")
	must(t, err)
	must(t, netlink.LinkSetNsFd(eth0, int(ns)))
	must(t, netns.Set(ns))
	for _, name := range []string{"lo", "eth0"} {
		l, err := netlink.LinkByName(name)
		must(t, err)
		must(t, netlink.LinkSetUp(l))
		if name == "eth0" {
			for _, a := range []string{fmt.Sprintf("192.0.2.%d/24", n), fmt.Sprintf("2001:db8::%d/64", n)} {
				addr, err := netlink.ParseAddr(a)
				must(t, err)
				if addr.IP.To4() == nil {
					addr.Flags = unix.IFA_F_NODAD
				}
				must(t, netlink.AddrAdd(l, addr))
			}
		}
	}
	must(t, netns.Set(self))
	return ns
}

// on calls f in a namespace. Sockets that it opens stay there.
func (c *cluster) on(ns netns.NsHandle, f func()) {
	c.t.Helper()
	self, err := netns.Get()
	must(c.t, err)
	defer self.Close()
	must(c.t, netns.Set(ns))
	defer func() { must(c.t, netns.Set(self)) }()
	f()
}

// receive brings the real server's tunnel side to these receivers.
func (c *cluster) receive(receivers ...tunnel.Receiver) tunnel.Report {
	c.t.Helper()
	var report tunnel.Report
	c.on(c.realServer, func() {
		var err error
		report, err = c.tunnel.Apply(c.t.Context(), tunnel.Desired{Receivers: receivers})
		must(c.t, err)
		if len(report.Held) != len(receivers) {
			c.t.Fatalf("held %v of %v", report.Held, receivers)
		}
	})
	return report
}

// direct makes the director send the VIPs' port 80 as the receivers have it, with these flags.
func (c *cluster) direct(flags ipvs.TunnelFlags, receivers ...tunnel.Receiver) {
	c.t.Helper()
	var table []ipvs.Service
	ours := map[ipvs.Key]bool{}
	for _, r := range receivers {
		for _, protocol := range []ipvs.Protocol{ipvs.TCP, ipvs.UDP} {
			kind := map[tunnel.Type]ipvs.TunnelType{tunnel.IPIP: ipvs.IPIP, tunnel.GUE: ipvs.GUE, tunnel.GRE: ipvs.GRE}[r.Type]
			table = append(table, ipvs.Service{
				Key: ipvs.NewKey(protocol, netip.AddrPortFrom(r.VIP, 80)), Scheduler: "rr",
				Destinations: []ipvs.Destination{{
					Addr: netip.AddrPortFrom(r.RIP, 80), Method: ipvs.MethodTunnel, Weight: 1,
					Tunnel: ipvs.Tunnel{Type: kind, Port: r.Port, Flags: flags},
				}},
			})
		}
	}
	services, err := c.ipvs.Services(c.t.Context())
	must(c.t, err)
	for _, s := range services {
		ours[s.Key] = true
	}
	_, err = c.ipvs.Apply(c.t.Context(), table, ours)
	must(c.t, err)
}

// serve echoes on the VIP's port 80 until the returned function is called.
func (c *cluster) serve(vip netip.Addr) (stop func()) {
	c.t.Helper()
	address := netip.AddrPortFrom(vip, 80).String()
	var l net.Listener
	var p net.PacketConn
	c.on(c.realServer, func() {
		var err error
		l, err = net.Listen("tcp", address)
		must(c.t, err)
		p, err = net.ListenPacket("udp", address)
		must(c.t, err)
	})
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(c.t.Context())
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				io.Copy(conn, conn)
				conn.Close()
			})
		}
	})
	running.Go(func() {
		buffer := make([]byte, 2000)
		for {
			n, from, err := p.ReadFrom(buffer)
			if err != nil {
				return
			}
			p.WriteTo(buffer[:n], from)
		}
	})
	return func() { l.Close(); p.Close(); cancel(); running.Wait() }
}

// dial connects the client to the VIP's port 80, never from the same port: for minutes IPVS sends what comes from there
// to the destination of before, though it is gone.
func (c *cluster) dial(network string, vip netip.Addr) (conn net.Conn, err error) {
	c.port++
	d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{Port: c.port}}
	if network == "udp" {
		d.LocalAddr = &net.UDPAddr{Port: c.port}
	}
	c.on(c.client, func() { conn, err = d.Dial(network, netip.AddrPortFrom(vip, 80).String()) })
	return conn, err
}

// exchange sends that much and must get it back.
func exchange(conn net.Conn, size int, patience time.Duration) error {
	conn.SetDeadline(time.Now().Add(patience))
	sent, got := bytes.Repeat([]byte("lvstun"), size/6), make([]byte, size/6*6)
	result := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		result <- err
	}()
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if !bytes.Equal(sent, got) {
		return fmt.Errorf("%d other bytes came back", size)
	}
	return <-result
}

// works says "yes", or what went wrong. A datagram may get lost: three must not.
func (c *cluster) works(network string, vip netip.Addr) string {
	tries, size, patience := 1, 120000, 20*time.Second
	if network == "udp" {
		tries, size, patience = 3, 1200, 3*time.Second
	}
	var err error
	for range tries {
		var conn net.Conn
		if conn, err = c.dial(network, vip); err == nil {
			err = exchange(conn, size, patience)
			conn.Close()
		}
		if err == nil {
			return "yes"
		}
	}
	return err.Error()
}

// addresses is what the real server's host looks like.
func (c *cluster) addresses() string {
	var b strings.Builder
	c.on(c.realServer, func() {
		links, err := netlink.LinkList()
		must(c.t, err)
		for _, l := range links {
			all, err := netlink.AddrList(l, netlink.FAMILY_ALL)
			must(c.t, err)
			fmt.Fprintln(&b, l.Attrs().Name, l.Attrs().Flags, l.Attrs().MTU, all)
		}
	})
	return b.String()
}

// Each pair of families in each encapsulation carries TCP and UDP, from a real IPVS through the device that Apply set
// up and nothing else, and leaves the host as it was. The one thing that does not work must not: a GRE header with a
// checksum is refused by the kernel's devices (ip_tunnel_rcv and __ip6_tnl_rcv compare it with the device's own flag).
func TestConformance(t *testing.T) {
	c := newCluster(t)
	var u unix.Utsname
	must(t, unix.Uname(&u))
	table := fmt.Sprintf("Linux %s\n| VIP | RIP | encapsulation | device | TCP | UDP |\n|---|---|---|---|---|---|\n", unix.ByteSliceToString(u.Release[:]))
	before := c.addresses()
	for _, tt := range []struct {
		name  string
		kind  tunnel.Type
		port  uint16
		flags ipvs.TunnelFlags
		fails bool
	}{
		{name: "ipip", kind: tunnel.IPIP},
		{name: "gue", kind: tunnel.GUE, port: 6080},
		{name: "gue, checksum full", kind: tunnel.GUE, port: 6080, flags: ipvs.Csum},
		{name: "gue, checksum remote", kind: tunnel.GUE, port: 6080, flags: ipvs.RemCsum},
		{name: "gre", kind: tunnel.GRE},
		{name: "gre, checksum full", kind: tunnel.GRE, flags: ipvs.Csum, fails: true},
	} {
		for _, vip := range []netip.Addr{vip4, vip6} {
			for _, rip := range []netip.Addr{rip4, rip6} {
				r := tunnel.Receiver{VIP: vip, RIP: rip, Type: tt.kind, Port: tt.port}
				c.receive(r)
				c.direct(tt.flags, r)
				stop := c.serve(vip)
				if tt.fails {
					conn, err := c.dial("udp", vip)
					must(t, err)
					conn.SetDeadline(time.Now().Add(500 * time.Millisecond))
					conn.Write([]byte("hello"))
					if _, err := conn.Read(make([]byte, 10)); err == nil {
						t.Errorf("%s over %s by %s works", vip, rip, tt.name)
					}
					conn.Close()
					table += fmt.Sprintf("| %s | %s | %s | %s | no | no |\n", family(vip), family(rip), tt.name, r.Device())
				} else {
					tcp, udp := c.works("tcp", vip), c.works("udp", vip)
					if tcp != "yes" || udp != "yes" {
						t.Errorf("%s over %s by %s: TCP %s, UDP %s", vip, rip, tt.name, tcp, udp)
					}
					table += fmt.Sprintf("| %s | %s | %s | %s | %s | %s |\n", family(vip), family(rip), tt.name, r.Device(), tcp, udp)
				}
				stop()
				c.receive()
				if after := c.addresses(); after != before {
					t.Errorf("%s over %s by %s: the host was\n%sand is\n%s", vip, rip, tt.name, before, after)
				}
			}
		}
	}
	t.Log(table)
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// VIPs come and go while a connection to another one goes on; encapsulations come and go under it.
func TestVIPsComeAndGoWhileOthersServe(t *testing.T) {
	c := newCluster(t)
	ipip4 := tunnel.Receiver{VIP: vip4, RIP: rip4, Type: tunnel.IPIP}
	gue4 := tunnel.Receiver{VIP: vip4, RIP: rip4, Type: tunnel.GUE, Port: 6080}
	gre4 := tunnel.Receiver{VIP: vip4, RIP: rip4, Type: tunnel.GRE}
	over6 := tunnel.Receiver{VIP: vip4, RIP: rip6, Type: tunnel.IPIP}
	six := tunnel.Receiver{VIP: vip6, RIP: rip4, Type: tunnel.IPIP}
	c.receive(ipip4)
	c.direct(0, ipip4)
	defer c.serve(vip4)()
	first, err := c.dial("tcp", vip4)
	must(t, err)
	defer first.Close()
	must(t, exchange(first, 6000, 20*time.Second))

	c.receive(ipip4, six)
	c.direct(0, ipip4, six)
	stop := c.serve(vip6)
	if got := c.works("tcp", vip6); got != "yes" {
		t.Errorf("the new VIP: %s", got)
	}
	must(t, exchange(first, 6000, 20*time.Second))
	stop()
	c.direct(0, ipip4)
	c.receive(ipip4)
	must(t, exchange(first, 6000, 20*time.Second))

	// The encapsulation changes: both are received until the director has changed, too. An established flow changes with
	// it (ip_vs_tunnel_xmit looks at the destination), but not to another destination.
	now := ipip4
	for _, next := range []tunnel.Receiver{gue4, gre4, over6} {
		c.receive(now, next)
		c.direct(0, next)
		if got := c.works("tcp", vip4); got != "yes" {
			t.Errorf("%s: %s", next, got)
		}
		if next != over6 {
			c.receive(next)
			must(t, exchange(first, 6000, 20*time.Second))
		}
		now = next
	}
}
