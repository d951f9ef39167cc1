//go:build kernel

package guard

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// guarded is what these tests let through.
func guarded() Desired {
	return Desired{
		Directors: []netip.Addr{director.own(false), director.own(true)},
		VIPs:      []netip.Addr{vip4, vip6},
		Devices: []Device{
			{Name: "tunl0", Protocols: []uint8{IPv4InIP}},
			{Name: "ip6tnl0", IPv6: true, Protocols: []uint8{IPv4InIP, IPv6InIP}},
			{Name: "gre0", Protocols: []uint8{GRE}},
		},
		GUEPorts: []uint16{6080},
		MSS4:     MSS(PathMTU, 0, vip4, vip4),
		MSS6:     MSS(PathMTU, 0, vip6, vip6),
	}
}

// counted are the counters that are not 0.
func counted(t *testing.T, g *Guard, d Desired) map[string]uint64 {
	t.Helper()
	report, err := g.Apply(t.Context(), d)
	must(t, err)
	all := map[string]uint64{}
	for _, c := range report.Counters {
		if c.Packets > 0 {
			all[c.Name] = c.Packets
		}
	}
	return all
}

// TestWhatATunnelCarries sends every packet twice: without the guard, where it must do what it is made
// for, and with it.
func TestWhatATunnelCarries(t *testing.T) {
	w := newWorld(t)
	own := director.rip(false)
	for _, at := range []netip.AddrPort{netip.AddrPortFrom(vip4, 9000), netip.AddrPortFrom(vip4, 9001), netip.AddrPortFrom(vip6, 9000),
		netip.AddrPortFrom(vip6, 9001), netip.AddrPortFrom(own, 9000)} {
		w.echo(at)
	}
	const text = "is anybody there?"
	from4, from6 := netip.AddrPortFrom(client.own(false), 4000), netip.AddrPortFrom(client.own(true), 4000)
	to := func(a netip.Addr, port uint16) []byte {
		if a.Is6() {
			return datagram(from6, netip.AddrPortFrom(a, port), text)
		}
		return datagram(from4, netip.AddrPortFrom(a, port), text)
	}
	gre4 := []byte{0, 0, 0x08, 0x00}
	narrow := guarded()
	narrow.Services = []Service{{VIP: vip4, Protocol: 17, Port: 9000}}
	narrow6 := guarded()
	narrow6.Services = []Service{{VIP: vip6, Protocol: 17, Port: 9000}}
	tests := []struct {
		name    string
		desired Desired
		send    func()
		v6      bool              // of the answer
		want    bool              // that it arrives
		counts  map[string]uint64 // that rise, and by how much
	}{
		{name: "director, ipip", send: func() { w.send(director, "ip4:4", nil, to(vip4, 9000)) }, want: true, counts: map[string]uint64{Decapsulated: 1}},
		{name: "stranger, ipip", send: func() { w.send(stranger, "ip4:4", nil, to(vip4, 9000)) }, counts: map[string]uint64{NotFromDirectors: 1}},
		{name: "director, ip6ip6", send: func() { w.send(director, "ip6:41", nil, to(vip6, 9000)) }, v6: true, want: true, counts: map[string]uint64{Decapsulated: 1}},
		{name: "stranger, ip6ip6", send: func() { w.send(stranger, "ip6:41", nil, to(vip6, 9000)) }, v6: true, counts: map[string]uint64{NotFromDirectors: 1}},
		{name: "director, gre", send: func() { w.send(director, "ip4:47", gre4, to(vip4, 9000)) }, want: true, counts: map[string]uint64{Decapsulated: 1}},
		{name: "stranger, gre", send: func() { w.send(stranger, "ip4:47", gre4, to(vip4, 9000)) }, counts: map[string]uint64{NotFromDirectors: 1}},
		{name: "director, gue", send: func() { w.sendGUE(director, 4, to(vip4, 9000)) }, want: true, counts: map[string]uint64{Decapsulated: 1}},
		{name: "stranger, gue", send: func() { w.sendGUE(stranger, 4, to(vip4, 9000)) }, counts: map[string]uint64{NotFromDirectors: 1}},
		{name: "to the host's own address", send: func() { w.send(director, "ip4:4", nil, to(own, 9000)) },
			counts: map[string]uint64{Decapsulated: 1, NotToVIPs: 1}},
		{name: "to be forwarded", send: func() {
			w.send(director, "ip4:4", nil, datagram(netip.MustParseAddrPort("10.1.0.99:1"), from4, text))
		}, counts: map[string]uint64{Decapsulated: 1, NotToVIPs: 1}},
		{name: "IPv6 to be forwarded", send: func() {
			w.send(director, "ip6:41", nil, datagram(netip.AddrPortFrom(director.at(true, 99), 1), from6, text))
		}, v6: true, counts: map[string]uint64{Decapsulated: 1, NotToVIPs: 1}},
		{name: "to a service", desired: narrow, send: func() { w.send(director, "ip4:4", nil, to(vip4, 9000)) }, want: true,
			counts: map[string]uint64{Decapsulated: 1}},
		{name: "to another port of the VIP", desired: narrow, send: func() { w.send(director, "ip4:4", nil, to(vip4, 9001)) },
			counts: map[string]uint64{Decapsulated: 1, NotToServices: 1}},
		{name: "to a VIP without services", desired: narrow, send: func() { w.send(director, "ip6:41", nil, to(vip6, 9000)) }, v6: true, want: true,
			counts: map[string]uint64{Decapsulated: 1}},
		{name: "to a service, in fragments", desired: narrow, send: func() {
			for _, f := range fragments(to(vip4, 9000)) {
				w.send(director, "ip4:4", nil, f)
			}
		}, want: true, counts: map[string]uint64{Decapsulated: 2}},
		{name: "to another port of the VIP, in fragments", desired: narrow, send: func() {
			for _, f := range fragments(to(vip4, 9001)) {
				w.send(director, "ip4:4", nil, f)
			}
		}, counts: map[string]uint64{Decapsulated: 2, NotToServices: 1}},
		{name: "IPv6 to a service, in fragments", desired: narrow6, send: func() {
			for _, f := range fragments(to(vip6, 9000)) {
				w.send(director, "ip6:41", nil, f)
			}
		}, v6: true, want: true, counts: map[string]uint64{Decapsulated: 2}},
		{name: "IPv6 to another port of the VIP", desired: narrow6, send: func() { w.send(director, "ip6:41", nil, to(vip6, 9001)) }, v6: true,
			counts: map[string]uint64{Decapsulated: 1, NotToServices: 1}},
		{name: "IPv6 to another port of the VIP, in fragments", desired: narrow6, send: func() {
			for _, f := range fragments(to(vip6, 9001)) {
				w.send(director, "ip6:41", nil, f)
			}
		}, v6: true, counts: map[string]uint64{Decapsulated: 2, NotToServices: 1}},
		{name: "stranger, ip6ip6 behind a destination option", send: func() {
			w.send(stranger, "ip6:60", []byte{41, 0, 1, 4, 0, 0, 0, 0}, to(vip6, 9000)) // PadN
		}, v6: true, counts: map[string]uint64{NotFromDirectors: 1}},
		{name: "stranger, ip6ip6 behind a fragment header", send: func() {
			w.send(stranger, "ip6:44", []byte{41, 0, 0, 0, 0, 0, 0, 7}, to(vip6, 9000)) // the first and last
		}, v6: true, counts: map[string]uint64{NotFromDirectors: 1}},
		{name: "IP in two tunnels", send: func() {
			w.send(director, "ip4:4", nil, packet(from4.Addr(), vip4, 4, to(vip4, 9000)))
		}, counts: map[string]uint64{Decapsulated: 1, NotFromDirectors: 1}},
	}
	g := New()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.send()
			if !w.hears(test.v6, text, soon) {
				t.Fatal("without the guard: it does not arrive, so this shows nothing")
			}
			if test.desired.Directors == nil {
				test.desired = guarded()
			}
			before := counted(t, g, test.desired)
			defer remove(t, g, true)
			test.send()
			if got := w.hears(test.v6, text, map[bool]time.Duration{true: soon, false: never}[test.want]); got != test.want {
				t.Errorf("with the guard: it arrives: %t, want %t", got, test.want)
			}
			after := counted(t, g, test.desired)
			for _, c := range counters {
				if rise := after[c.Name] - before[c.Name]; rise != test.counts[c.Name] {
					t.Errorf("counter %s rose by %d, want %d", c.Name, rise, test.counts[c.Name])
				}
			}
		})
	}
}

// TestGUEIsNoWayPastTheFirewall: what GUE says to be UDP would reach the host's own services.
func TestGUEIsNoWayPastTheFirewall(t *testing.T) {
	w := newWorld(t)
	at, err := net.ListenPacket("udp", netip.AddrPortFrom(director.rip(false), 9000).String())
	must(t, err)
	defer at.Close()
	nft(t, "table ip other {\n chain c {\n type filter hook input priority 0; udp dport 9000 drop\n }\n}")
	defer nft(t, "delete table ip other")
	bare := datagram(netip.AddrPortFrom(director.own(false), 1), netip.AddrPortFrom(director.rip(false), 9000), "boo")[20:]
	w.sendGUE(director, 17, bare)
	if !hears(at, "boo", soon) {
		t.Fatal("without the guard: it does not arrive, so this shows nothing")
	}
	g := New()
	counted(t, g, guarded())
	w.sendGUE(director, 17, bare)
	if hears(at, "boo", never) {
		t.Error("it arrives")
	}
	if n := counted(t, g, guarded())[GUEWithoutIP]; n != 1 {
		t.Errorf("counted %d", n)
	}
}

// TestAFragmentIsNotTakenForGUE: where the kernel looks for the port of a later fragment of IPv6 there is
// its flow label.
func TestAFragmentIsNotTakenForGUE(t *testing.T) {
	w := newWorld(t)
	to := netip.AddrPortFrom(stranger.rip(true), 9000)
	at, err := net.ListenPacket("udp", to.String())
	must(t, err)
	defer at.Close()
	const text = "a datagram of somebody"
	counted(t, New(), guarded())
	for _, f := range fragments(datagram(netip.AddrPortFrom(stranger.own(true), 4000), to, text)) {
		binary.BigEndian.PutUint16(f[2:], 6080)
		w.send(stranger, "ip6:255", nil, f) // with a header of its own
	}
	if !hears(at, text, soon) {
		t.Error("it does not arrive")
	}
}

// TestBesideOtherTables: a table that accepts tunnels opens nothing, and one that drops is not bypassed.
func TestBesideOtherTables(t *testing.T) {
	w := newWorld(t)
	w.echo(netip.AddrPortFrom(vip4, 9000))
	inner := datagram(netip.AddrPortFrom(client.own(false), 4000), netip.AddrPortFrom(vip4, 9000), "hello")
	g := New()
	counted(t, g, guarded())
	for _, priority := range []int{-400, 0, 300} {
		nft(t, fmt.Sprintf("table ip filter {\n chain INPUT {\n type filter hook input priority %d; ip protocol 4 accept\n }\n}", priority))
		w.send(stranger, "ip4:4", nil, inner)
		if w.hears(false, "hello", never) {
			t.Errorf("priority %d: an accept of another table lets a stranger in", priority)
		}
		nft(t, "delete table ip filter")
		nft(t, fmt.Sprintf("table ip filter {\n chain INPUT {\n type filter hook input priority %d; iifname tunl0 drop\n }\n}", priority))
		w.send(director, "ip4:4", nil, inner)
		if w.hears(false, "hello", never) {
			t.Errorf("priority %d: the drop of another table is bypassed", priority)
		}
		nft(t, "delete table ip filter")
	}
	w.send(director, "ip4:4", nil, inner)
	if !w.hears(false, "hello", soon) {
		t.Error("without other tables: it does not arrive")
	}
}

// TestReplacedUnderTraffic asks through the tunnel, one question after the other, while the table is
// replaced again and again: no question of a director is lost, none of a stranger gets through.
func TestReplacedUnderTraffic(t *testing.T) {
	w := newWorld(t)
	w.echo(netip.AddrPortFrom(vip4, 9000))
	g := New()
	one, other := guarded(), guarded()
	other.Directors = append(other.Directors, netip.MustParseAddr("192.0.2.1"))
	other.VIPs = append(other.VIPs, netip.MustParseAddr("192.0.2.50"))
	other.MSS4--
	counted(t, g, one)
	stop := make(chan struct{})
	var replacing sync.WaitGroup
	replaced := 0
	replacing.Go(func() {
		for {
			for _, d := range []Desired{other, one} {
				if report, err := g.Apply(t.Context(), d); err != nil || len(report.Changes) == 0 {
					t.Errorf("replace: %v, %v", report.Changes, err)
					return
				}
				replaced++
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	asked := 0
	for began := time.Now(); time.Since(began) < 3*time.Second || asked < 100; asked++ {
		from := netip.AddrPortFrom(client.own(false), 4000)
		w.send(stranger, "ip4:4", nil, datagram(from, netip.AddrPortFrom(vip4, 9000), "stranger"))
		text := fmt.Sprintf("question %d", asked)
		w.send(director, "ip4:4", nil, datagram(from, netip.AddrPortFrom(vip4, 9000), text))
		w.answer[false].SetReadDeadline(time.Now().Add(soon))
		b := make([]byte, 100)
		n, _, err := w.answer[false].ReadFrom(b)
		if err != nil || string(b[:n]) != text {
			t.Fatalf("question %d: %q, %v", asked, b[:n], err)
		}
	}
	close(stop)
	replacing.Wait()
	got := counted(t, g, one)
	t.Logf("%d questions, %d replacements, counted %v", asked, replaced, got)
	for _, name := range []string{Decapsulated, NotFromDirectors} {
		if got[name] != uint64(asked) {
			t.Errorf("counter %s: %d of %d", name, got[name], asked)
		}
	}
	if got[NotToVIPs] != 0 {
		t.Errorf("%d packets to a VIP were refused", got[NotToVIPs])
	}
	if replaced < 10 {
		t.Errorf("only %d replacements", replaced)
	}
}

// TestCountersOutliveAFlush: the Guard remembers what it saw last.
func TestCountersOutliveAFlush(t *testing.T) {
	w := newWorld(t)
	g := New()
	counted(t, g, guarded())
	w.send(stranger, "ip4:4", nil, []byte("junk"))
	w.send(stranger, "ip4:4", nil, []byte("junk"))
	for began := time.Now(); counted(t, g, guarded())[NotFromDirectors] != 2 && time.Since(began) < soon; {
	}
	nft(t, "flush ruleset")
	w.send(stranger, "ip4:4", nil, []byte("junk")) // seen by nobody
	report, err := g.Apply(t.Context(), guarded())
	must(t, err)
	if n := report.Refused(); n != 2 || len(report.Changes) != 1 {
		t.Errorf("after a flush: %d refused, changes %v", n, report.Changes)
	}
	w.send(stranger, "ip4:4", nil, []byte("junk"))
	for began := time.Now(); counted(t, g, guarded())[NotFromDirectors] != 3 && time.Since(began) < soon; {
	}
	if n := counted(t, g, guarded())[NotFromDirectors]; n != 3 {
		t.Errorf("after one more: %d", n)
	}
	if !strings.Contains(nft(t, "list counter inet lvstun not_from_directors"), "packets 3 ") {
		t.Error("the kernel's counter does not go on from there")
	}
}

// TestMSSOnTheWire reads the MSS of a SYN-ACK at the client.
func TestMSSOnTheWire(t *testing.T) {
	w := newWorld(t)
	for _, test := range []struct {
		name     string
		vip      netip.Addr
		mine     int // of the listening socket, 0: the kernel's
		mtu      int // of the path
		want     uint16
		unguided uint16 // without the guard
	}{
		{"IPv4", vip4, 0, 1500, 1440, 1460},
		{"IPv4, a path of 1400", vip4, 0, 1400, 1340, 1460},
		{"IPv4, smaller already", vip4, 1000, 1500, 1000, 1000},
		{"IPv4, just so", vip4, 1440, 1500, 1440, 1440},
		{"IPv6", vip6, 0, 1500, 1400, 1440},
		{"IPv6, smaller already", vip6, 1000, 1500, 1000, 1000},
	} {
		t.Run(test.name, func(t *testing.T) {
			v6 := test.vip.Is6()
			config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
				return c.Control(func(fd uintptr) {
					if test.mine != 0 {
						must(t, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, test.mine))
					}
				})
			}}
			config.SetMultipathTCP(false) // its sockets know no TCP_MAXSEG
			l, err := config.Listen(t.Context(), "tcp", netip.AddrPortFrom(test.vip, 80).String())
			must(t, err)
			defer l.Close()
			raw, network := w.socket(client, map[bool]string{false: "ip4:6", true: "ip6:6"}[v6], client.own(v6).String()), "ip4:4"
			if v6 {
				network = "ip6:41"
			}
			ask := func(port uint16) uint16 {
				w.send(director, network, nil, syn(netip.AddrPortFrom(client.own(v6), port), netip.AddrPortFrom(test.vip, 80)))
				return synAckMSS(t, raw, port)
			}
			if got := ask(5001); got != test.unguided {
				t.Errorf("without the guard: MSS %d, want %d", got, test.unguided)
			}
			g, d := New(), guarded()
			d.MSS4, d.MSS6 = MSS(test.mtu, 0, vip4, vip4), MSS(test.mtu, 0, vip6, vip6)
			counted(t, g, d)
			defer remove(t, g, true)
			if got := ask(5002); got != test.want {
				t.Errorf("MSS %d, want %d", got, test.want)
			}
			before := counted(t, g, d)[MSSLowered]
			own, err := net.Dial("tcp", l.Addr().String())
			must(t, err)
			own.Close()
			if after := counted(t, g, d)[MSSLowered]; after != before {
				t.Errorf("the host's own connection counts %d", after-before)
			}
			lowered := before > 0
			if lowered != (test.want < test.unguided) {
				t.Errorf("counted as lowered: %t", lowered)
			}
		})
	}
}

// TestMSSOfAServiceBehindADNAT is of one in a container: its answers are only forwarded.
func TestMSSOfAServiceBehindADNAT(t *testing.T) {
	w := newWorld(t)
	var l net.Listener
	w.at(stranger, func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(stranger.own(false), 8080).String())
		return err
	})
	defer l.Close()
	nft(t, fmt.Sprintf("table ip nat {\n chain pre {\n type nat hook prerouting priority -100; ip daddr %s tcp dport 80 dnat to %s:8080\n }\n}", vip4, stranger.own(false)))
	defer nft(t, "delete table ip nat")
	raw := w.socket(client, "ip4:6", client.own(false).String())
	ask := func(port uint16) uint16 {
		w.send(director, "ip4:4", nil, syn(netip.AddrPortFrom(client.own(false), port), netip.AddrPortFrom(vip4, 80)))
		return synAckMSS(t, raw, port)
	}
	if got := ask(5001); got != 1460 {
		t.Errorf("without the guard: MSS %d", got)
	}
	counted(t, New(), guarded())
	if got := ask(5002); got != 1440 {
		t.Errorf("MSS %d, want 1440", got)
	}
}

// synAckMSS waits for a SYN-ACK to a port; the kernel's checksum must be right, or the client would drop it.
func synAckMSS(t *testing.T, raw net.PacketConn, port uint16) uint16 {
	t.Helper()
	raw.SetReadDeadline(time.Now().Add(soon))
	b := make([]byte, 200)
	for {
		n, from, err := raw.ReadFrom(b)
		must(t, err)
		if n < 24 || b[13] != 0x12 || uint16(b[2])<<8|uint16(b[3]) != port {
			continue
		}
		src, _ := netip.AddrFromSlice(from.(*net.IPAddr).IP)
		dst, _ := netip.AddrFromSlice(raw.LocalAddr().(*net.IPAddr).IP)
		if sum := transportSum(src.Unmap(), dst.Unmap(), 6, b[:n]); sum != 0 {
			t.Errorf("checksum is off by %#x", sum)
		}
		for o := b[20:n]; len(o) >= 4; {
			switch {
			case o[0] == tcpOptionMSS:
				return uint16(o[2])<<8 | uint16(o[3])
			case o[0] == 1:
				o = o[1:]
			default:
				o = o[max(2, int(o[1])):]
			}
		}
		t.Fatal("a SYN-ACK without an MSS")
	}
}
