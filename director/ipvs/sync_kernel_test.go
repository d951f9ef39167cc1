//go:build kernel

package ipvs

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// tell sends a director's flows to the other's daemon.
func (l *lan) tell(d *host, pace int, want func(Flow) bool) (sent int) {
	l.t.Helper()
	d.do(func() (err error) {
		sent, err = l.table[d].SendFlows(l.t.Context(), l.group, pace, want)
		return err
	})
	return sent
}

// inject sends entries of the test's own.
func (l *lan) inject(d *host, entries ...syncEntry) {
	l.t.Helper()
	d.do(func() error {
		conn, size, err := l.group.dial(l.t.Context())
		if err != nil {
			return err
		}
		defer conn.Close()
		m := newSyncMessage(l.group.ID, size)
		for i, e := range entries {
			m.add(e)
			if i == len(entries)-1 || !m.fits(entries[i+1]) {
				if _, err := conn.Write(m.datagram()); err != nil {
					return err
				}
				m.reset()
				time.Sleep(time.Millisecond)
			}
		}
		return nil
	})
}

// flows are what a director knows, without the time, sorted.
func (l *lan) flows(d *host) (list []string) {
	l.t.Helper()
	for f, err := range ReadFlows(bytes.NewReader(l.connections(d))) {
		must(l.t, err)
		list = append(list, fmt.Sprintf("%s %s > %s > %s %s", f.Protocol, f.Client, f.VIP, f.Destination, f.State))
	}
	slices.Sort(list)
	return list
}

// wait waits until a director knows just these flows.
func (l *lan) wait(d *host, want ...string) {
	l.t.Helper()
	slices.Sort(want)
	var diff string
	for range 500 {
		if diff = cmp.Diff(want, l.flows(d)); diff == "" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.t.Fatalf("flows (-want +got)\n%s", diff)
}

// counts are the connections of a director's real servers: active, inactive, templates.
func (l *lan) counts(d *host) string {
	l.t.Helper()
	var list []string
	for _, s := range services(l.t, l.table[d]) {
		for _, d := range s.Destinations {
			if n := d.ActiveConns + d.InactiveConns + d.PersistConns; n > 0 {
				list = append(list, fmt.Sprintf("%s %d %d %d", d.Addr, d.ActiveConns, d.InactiveConns, d.PersistConns))
			}
		}
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func (l *lan) checkCounts(d *host, want string) {
	l.t.Helper()
	if got := l.counts(d); got != want {
		l.t.Errorf("counts %q, want %q", got, want)
	}
}

// mute keeps the real server's answers from the client, or lets them go again.
func (l *lan) mute(on bool) {
	l.t.Helper()
	for _, client := range []string{"10.9.0.10", "2001:db8::a"} {
		mac := l.client.eth0.Attrs().HardwareAddr
		if on {
			mac = net.HardwareAddr{2, 0, 0, 0, 0, 1}
		}
		must(l.t, l.realServer.nl.NeighSet(&netlink.Neigh{LinkIndex: l.realServer.eth0.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: net.ParseIP(client), HardwareAddr: mac}))
	}
}

// Flows that no master has told of, one of them half open, outlive the move of the VIP at once. Their real server gets no
// new flows from the standby: those would go to one that is dead.
func TestKernelFlowsHandedOver(t *testing.T) {
	l := newLAN(t)
	l.moveVIP(nil, l.active)
	l.serve(l.standby, "wlc", tun("10.9.0.100:80", 0), tun("[2001:db8::64]:80", 0), tun("10.9.0.200:80", 1), tun("[2001:db8::c8]:80", 1))
	l.sync(l.standby, backup)
	var open []*flow
	var want []string
	for _, vip := range []netip.AddrPort{l.vip, l.vip6} {
		f := l.connectTo(vip)
		must(t, f.ping())
		open = append(open, f)
	}
	l.mute(true)
	opened := make(chan error)
	for _, vip := range []netip.AddrPort{l.vip, l.vip6} {
		go l.client.do(func() error { // its error is the test's, so that it never ends without a word
			c, err := (&net.Dialer{Timeout: 20 * time.Second}).Dial("tcp", vip.String())
			if err == nil {
				f := &flow{Conn: c}
				defer f.Close()
				err = f.ping()
			}
			opened <- err
			return nil
		})
	}
	for range 500 {
		if want = l.flows(l.active); len(want) == 4 && strings.Count(strings.Join(want, "\n"), "SYN_RECV") == 2 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	text := strings.Join(want, "\n")
	if strings.Count(text, "10.9.0.100:80 ESTABLISHED") != 1 || strings.Count(text, "10.9.0.100:80 SYN_RECV") != 1 ||
		strings.Count(text, "[2001:db8::64]:80 ESTABLISHED") != 1 || strings.Count(text, "[2001:db8::64]:80 SYN_RECV") != 1 {
		t.Fatalf("the active has\n%s", text)
	}

	began := time.Now()
	if n := l.tell(l.active, 128_000, every); n != 4 {
		t.Errorf("%d flows told", n)
	}
	l.wait(l.standby, want...)
	t.Logf("told within %s", time.Since(began))
	l.checkCounts(l.standby, "10.9.0.100:80 2 0 0, [2001:db8::64]:80 2 0 0")
	l.takeover()
	l.mute(false)
	for _, f := range open {
		if err := f.ping(); err != nil {
			t.Errorf("%s: %v", f.RemoteAddr(), err)
		}
	}
	for range 2 {
		if err := <-opened; err != nil {
			t.Errorf("half open: %v", err)
		}
	}
}

// What the standby knows already is no more and no less for being told again, even of the past.
func TestKernelFlowsTwice(t *testing.T) {
	l := newLAN(t)
	l.moveVIP(nil, l.active)
	l.sync(l.standby, backup)
	f := l.connect()
	must(t, f.ping())
	want := l.flows(l.active)
	for range 3 {
		l.tell(l.active, 128_000, every)
		l.wait(l.standby, want...)
		l.checkCounts(l.standby, "10.9.0.100:80 1 0 0")
	}
	past := entryOf(TCP, f.LocalAddr().String(), "10.9.0.50:80", "10.9.0.100:80", "SYN_RECV", MethodTunnel, time.Minute)
	l.inject(l.active, past)
	l.wait(l.standby, strings.Replace(want[0], "ESTABLISHED", "SYN_RECV", 1))
	l.checkCounts(l.standby, "10.9.0.100:80 1 0 0")
	past.State = "FIN_WAIT"
	l.inject(l.active, past)
	l.wait(l.standby, strings.Replace(want[0], "ESTABLISHED", "FIN_WAIT", 1))
	l.checkCounts(l.standby, "10.9.0.100:80 0 1 0")
	past.State = "SYN_RECV"
	l.inject(l.active, past)
	l.wait(l.standby, strings.Replace(want[0], "ESTABLISHED", "SYN_RECV", 1))
	l.takeover()
	must(t, f.ping())
	l.wait(l.active, want...)
	l.checkCounts(l.active, "10.9.0.100:80 1 0 0")
	f.Close()
	l.wait(l.active, strings.Replace(want[0], "ESTABLISHED", "FIN_WAIT", 1))
	l.checkCounts(l.active, "10.9.0.100:80 0 1 0")
}

// An older flow of the same client port makes way, also for one that is only opening.
func TestKernelFlowsReplaceOlder(t *testing.T) {
	l := newLAN(t)
	l.serve(l.standby, "wlc", tun("10.9.0.100:80", 1), tun("10.9.0.101:80", 1))
	l.sync(l.standby, backup)
	for i, older := range []string{"ESTABLISHED", "FIN_WAIT", "SYN_RECV"} {
		for j, newer := range []string{"SYN_RECV", "ESTABLISHED"} {
			client := fmt.Sprintf("10.9.%d.%d:1000", i+1, j+1)
			l.inject(l.active, entryOf(TCP, client, "10.9.0.50:80", "10.9.0.100:80", older, MethodTunnel, time.Minute))
			l.inject(l.active, entryOf(TCP, client, "10.9.0.50:80", "10.9.0.101:80", newer, MethodTunnel, time.Minute))
		}
	}
	var want []string
	for i := range 3 {
		for j, newer := range []string{"SYN_RECV", "ESTABLISHED"} {
			want = append(want, fmt.Sprintf("tcp 10.9.%d.%d:1000 > 10.9.0.50:80 > 10.9.0.101:80 %s", i+1, j+1, newer))
		}
	}
	l.wait(l.standby, want...)
	l.checkCounts(l.standby, "10.9.0.101:80 6 0 0")
}

// A flow whose real server the standby does not have yet is dropped there (__ip_vs_get_out_rt does not tunnel without one),
// but is bound to it when it is told again.
func TestKernelFlowsBindLater(t *testing.T) {
	l := newLAN(t)
	l.moveVIP(nil, l.active)
	l.serve(l.standby, "wlc", tun("10.9.0.101:80", 1))
	l.sync(l.standby, backup)
	f := l.connect()
	must(t, f.ping())
	l.tell(l.active, 128_000, every)
	l.wait(l.standby, l.flows(l.active)...)
	l.checkCounts(l.standby, "")
	l.serve(l.standby, "wlc", tun("10.9.0.100:80", 1))
	l.checkCounts(l.standby, "")
	l.tell(l.active, 128_000, every)
	for range 100 {
		if l.counts(l.standby) != "" {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.checkCounts(l.standby, "10.9.0.100:80 1 0 0")
	l.takeover()
	must(t, f.ping())
}

// The standby counts a flow of a fwmark service at its real server, and none without the mark. The group is one of IPv6.
func TestKernelFlowsOfFWMark(t *testing.T) {
	l := newLAN(t)
	l.apply(l.standby, wlc(FWMarkKey(7, IPv4), tun("10.9.0.101:0", 1)))
	l.group = SyncDaemon{State: Backup, Device: "eth0", ID: 7, Group: netip.MustParseAddr("ff02::51"), Port: 9000, TTL: 2}
	l.sync(l.standby, l.group)
	e := entryOf(TCP, "10.9.0.10:1000", "10.9.0.50:81", "10.9.0.101:81", "ESTABLISHED", MethodTunnel, time.Minute)
	unmarked := e
	unmarked.Client = netip.MustParseAddrPort("10.9.0.10:1001")
	e.fwmark = 7
	l.inject(l.active, e, unmarked)
	l.wait(l.standby, "tcp 10.9.0.10:1000 > 10.9.0.50:81 > 10.9.0.101:81 ESTABLISHED", "tcp 10.9.0.10:1001 > 10.9.0.50:81 > 10.9.0.101:81 ESTABLISHED")
	l.checkCounts(l.standby, "10.9.0.101:0 1 0 0")
}

// traffic makes a flow of every kind that a master tells of, and the records of persistence.
func (l *lan) traffic() {
	l.t.Helper()
	https := wlc(tcp("10.9.0.50:443"), tun("10.9.0.100:443", 1))
	https.Persistent = 5 * time.Minute
	for _, d := range []*host{l.active, l.standby} {
		l.apply(d, https, wlc(udp("10.9.0.50:53"), tun("10.9.0.100:53", 1)), wlc(udp("[2001:db8::50]:53"), tun("[2001:db8::64]:53", 1)))
	}
	l.realServer.do(func() error {
		ln, err := net.Listen("tcp", ":443")
		l.t.Cleanup(func() { ln.Close() }) // which the kernel answers for
		return err
	})
	l.connectTo(netip.MustParseAddrPort("10.9.0.50:443"))
	for _, vip := range []netip.AddrPort{l.vip, l.vip6} {
		must(l.t, l.connectTo(vip).ping())
		gone := l.connectTo(vip)
		must(l.t, gone.ping())
		gone.Close()
		l.client.do(func() error {
			c, err := net.Dial("udp", netip.AddrPortFrom(vip.Addr(), 53).String())
			if err != nil {
				return err
			}
			defer c.Close()
			for range 2 {
				if _, err := c.Write([]byte("?")); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
					return err
				}
			}
			return nil
		})
	}
}

// The kernel's own master and SendFlows say the same of the same flows, in bytes, from the same address and with the same
// TTL. Only what is left of a flow's time differs.
func TestKernelMasterSaysTheSame(t *testing.T) {
	l := newLAN(t)
	l.moveVIP(nil, l.active)
	l.set(PromptMaxLen, SyncSettings()...)
	l.sync(l.standby)
	var in *net.UDPConn
	l.standby.do(func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		in, err = net.ListenMulticastUDP("udp4", eth0, &net.UDPAddr{IP: net.IPv4(224, 0, 0, 81), Port: 8848})
		return err
	})
	defer in.Close()
	raw := ipv4.NewPacketConn(in)
	must(t, raw.SetControlMessage(ipv4.FlagTTL, true))
	hear := func(told map[string]string, most time.Duration) {
		t.Helper()
		b := make([]byte, 2000)
		in.SetReadDeadline(time.Now().Add(most))
		for {
			n, cm, from, err := raw.ReadFrom(b)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			must(t, err)
			told["sender"] = fmt.Sprintf("%s, ttl %d", from.(*net.UDPAddr).IP, cm.TTL)
			told["head"] = hex.EncodeToString([]byte{b[0], b[1], b[5], b[6], b[7]})
			for rest := b[8:n]; len(rest) > 0; {
				size := binary.BigEndian.Uint16(rest[2:])
				entry := bytes.Clone(rest[:size])
				clear(entry[20:24])
				if entry[6]&0x10 != 0 { // a template, which may become assured meanwhile
					clear(entry[8:10])
				}
				told[hex.EncodeToString(append(entry[:2:2], entry[10:]...))] = hex.Dump(entry) // the last is kept
				rest = rest[(size+3)&^3:]
			}
		}
	}
	l.traffic()
	const kinds = 2 + 2 + 3 + 3 // sender and head; a template and its flow; established, closed and UDP of both families
	masters, ours := map[string]string{}, map[string]string{}
	hear(masters, 4*time.Second) // in which it says all it has
	if n := l.tell(l.active, 128_000, every); n != kinds-2 {
		t.Errorf("%d flows told", n)
	}
	hear(ours, time.Second)
	if len(masters) != kinds {
		t.Errorf("the master told of %d flows, want %d", len(masters)-2, kinds-2)
	}
	if d := cmp.Diff(masters, ours); d != "" {
		t.Errorf("(-the kernel's master +ours)\n%s", d)
	}
}

// The kernel renews a record of persistence by the time it was made with, which is why SendFlows tells that of the service
// and not what is left.
func TestKernelTemplateTold(t *testing.T) {
	l := newLAN(t)
	l.moveVIP(nil, l.active)
	l.sync(l.standby, backup)
	l.traffic()
	template := func(d *host) (found Flow) {
		for f, err := range ReadFlows(bytes.NewReader(l.connections(d))) {
			must(t, err)
			if f.Template {
				found = f
			}
		}
		return found
	}
	short := syncEntry{Flow: template(l.active), method: MethodTunnel, timeout: 20 * time.Second}
	l.inject(l.active, short)
	l.wait(l.standby, fmt.Sprintf("tcp %s > %s > %s %s", short.Client, short.VIP, short.Destination, short.State))
	l.moveVIP(l.active, l.standby)
	l.connectTo(short.VIP)
	if left := template(l.standby).Expires; left > 20*time.Second {
		t.Errorf("renewed to %s", left)
	}
	l.tell(l.active, 128_000, func(f Flow) bool { return f.Template })
	left := time.Duration(0)
	for range 100 {
		if left = template(l.standby).Expires; left > 4*time.Minute {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if left <= 4*time.Minute || !strings.Contains(l.counts(l.standby), "10.9.0.100:443 1 0 1") {
		t.Errorf("told: %s left, counts %q", left, l.counts(l.standby))
	}
}

// How long ten thousand flows take, from one table to the other. The kernel has one table for all namespaces: here, and
// not among hosts, what the standby learns pushes lines of the active to where they are read once more, and what other
// tests end pulls lines to where they are not. So the test runs alone.
func TestKernelManyFlows(t *testing.T) {
	l := newLANAlone(t)
	l.sync(l.active, backup)
	l.sync(l.standby, backup)
	const many = 10_000
	var entries []syncEntry
	for i := range many {
		e := entryOf(TCP, "10.9.0.10:1", "10.9.0.50:80", "10.9.0.100:80", "ESTABLISHED", MethodTunnel, time.Minute)
		e.Client = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, 1, byte(i / 1000)}), uint16(1000+i%1000))
		entries = append(entries, e)
	}
	wait := func(d *host) (n int, took time.Duration) {
		for range 50 {
			began := time.Now()
			count, err := CountFlows(bytes.NewReader(l.connections(d)), func(netip.Addr) bool { return true })
			must(t, err)
			if n, took = count.Total(), time.Since(began); n >= many {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		return n, took
	}
	l.inject(l.standby, entries...)
	known, read := wait(l.active)
	told := make(map[Flow]bool)
	began := time.Now()
	sent := l.tell(l.active, 128_000, func(f Flow) bool {
		f.Expires = 0
		again := told[f]
		told[f] = true
		return !again
	})
	took := time.Since(began)
	learned, _ := wait(l.standby)
	t.Logf("%d flows: read in %s, read and told in %s; the standby knew %d within %s", sent, read, took, learned, time.Since(began))
	if known != many || sent != many || learned != many {
		t.Errorf("%d known, %d sent, %d learned", known, sent, learned)
	}
}
