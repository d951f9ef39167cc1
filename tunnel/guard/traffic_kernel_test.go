//go:build kernel

package guard

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The network of these tests: a real server, which is where the test runs, and its neighbours, each in a
// namespace and on a cable of its own.
var (
	vip4, vip6 = netip.MustParseAddr("10.0.0.50"), netip.MustParseAddr("2001:db8::50")
	director   = neighbour{1}
	stranger   = neighbour{2}
	client     = neighbour{3}
)

type neighbour struct{ n byte }

func (p neighbour) at(v6 bool, host byte) netip.Addr {
	if v6 {
		return netip.AddrFrom16([16]byte{0: 0xfd, 3: p.n, 15: host})
	}
	return netip.AddrFrom4([4]byte{10, p.n, 0, host})
}

// rip is the real server's address on the neighbour's cable; own is the neighbour's.
func (p neighbour) rip(v6 bool) netip.Addr { return p.at(v6, 1) }
func (p neighbour) own(v6 bool) netip.Addr { return p.at(v6, 2) }

// world is that network, with every tunnel device of the kernel up and both VIPs in place.
type world struct {
	t      *testing.T
	in     map[neighbour]netns.NsHandle
	answer map[bool]net.PacketConn // the client's sockets, by IPv6
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, in: map[neighbour]netns.NsHandle{}, answer: map[bool]net.PacketConn{}}
	setting(t, "/proc/sys/net/ipv4/ip_forward", "1")
	setting(t, "/proc/sys/net/ipv6/conf/all/forwarding", "1")
	for _, p := range []neighbour{director, stranger, client} {
		w.connect(p)
	}
	ip(t, "fou add port 6080 gue")
	t.Cleanup(func() { ip(t, "fou del port 6080") })
	setting(t, "/proc/sys/net/ipv4/conf/all/rp_filter", "0")
	for _, name := range []string{"lo", "tunl0", "ip6tnl0", "gre0"} {
		l, err := netlink.LinkByName(name)
		must(t, err)
		must(t, netlink.LinkSetUp(l))
		setting(t, "/proc/sys/net/ipv4/conf/"+name+"/rp_filter", "0")
		if name == "tunl0" {
			give(t, &netlink.Handle{}, l, vip4, 32)
		}
		if name == "ip6tnl0" {
			give(t, &netlink.Handle{}, l, vip6, 128)
		}
	}
	for _, v6 := range []bool{false, true} {
		w.answer[v6] = w.socket(client, "udp", netip.AddrPortFrom(client.own(v6), 4000).String())
	}
	t.Cleanup(func() { New().Remove(context.Background()) })
	return w
}

// ip runs ip(8): the library's FouAdd names protocol 0 for GUE, which newer kernels refuse.
func ip(t *testing.T, arguments string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", arguments, err, out)
	}
}

func setting(t *testing.T, file, value string) {
	t.Helper()
	old, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, []byte(value), 0))
	t.Cleanup(func() { os.WriteFile(file, old, 0) })
}

func give(t *testing.T, h *netlink.Handle, l netlink.Link, a netip.Addr, bits int) {
	t.Helper()
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}}
	if a.Is6() {
		addr.Flags = 0x02 // IFA_F_NODAD
	}
	must(t, h.AddrAdd(l, addr))
	t.Cleanup(func() { h.AddrDel(l, addr) })
}

func (w *world) connect(p neighbour) {
	w.t.Helper()
	w.in[p] = newNamespace(w.t)
	name := "to" + string('0'+rune(p.n))
	must(w.t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "rs"}))
	here, err := netlink.LinkByName(name)
	must(w.t, err)
	w.t.Cleanup(func() { netlink.LinkDel(here) })
	there, err := netlink.LinkByName("rs")
	must(w.t, err)
	must(w.t, netlink.LinkSetNsFd(there, int(w.in[p])))
	h, err := netlink.NewHandleAt(w.in[p])
	must(w.t, err)
	w.t.Cleanup(h.Close)
	there, err = h.LinkByName("rs")
	must(w.t, err)
	for _, v6 := range []bool{false, true} {
		bits := map[bool]int{false: 24, true: 64}[v6]
		give(w.t, &netlink.Handle{}, here, p.rip(v6), bits)
		give(w.t, h, there, p.own(v6), bits)
	}
	checksumsInFull(w.t, name)
	must(w.t, netlink.LinkSetUp(here))
	must(w.t, h.LinkSetUp(there))
	for _, v6 := range []bool{false, true} {
		must(w.t, h.RouteAdd(&netlink.Route{LinkIndex: there.Attrs().Index, Gw: p.rip(v6).AsSlice()}))
	}
}

// checksumsInFull makes packets leave a device as on a real cable.
func checksumsInFull(t *testing.T, device string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	request := struct { // struct ifreq, with a struct ethtool_value
		name [unix.IFNAMSIZ]byte
		data *[2]uint32
		_    [16]byte
	}{data: &[2]uint32{unix.ETHTOOL_STXCSUM, 0}}
	copy(request.name[:], device)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		t.Fatal(errno)
	}
}

// newNamespace makes a network namespace on a thread that ends with it.
func newNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	type made struct {
		ns  netns.NsHandle
		err error
	}
	c := make(chan made)
	go func() {
		runtime.LockOSThread()
		ns, err := netns.New()
		c <- made{ns, err}
	}()
	m := <-c
	must(t, m.err)
	t.Cleanup(func() { m.ns.Close() })
	return m.ns
}

// at runs do at a neighbour's: a socket that it opens stays there, wherever it is used from.
func (w *world) at(p neighbour, do func() error) {
	w.t.Helper()
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = netns.Set(w.in[p]); err == nil {
			err = do()
		}
	}()
	<-done
	must(w.t, err)
}

func (w *world) socket(p neighbour, network, address string) (conn net.PacketConn) {
	w.t.Helper()
	w.at(p, func() (err error) {
		conn, err = net.ListenPacket(network, address)
		return err
	})
	w.t.Cleanup(func() { conn.Close() })
	return conn
}

// send puts a packet into a tunnel from a neighbour to the real server.
func (w *world) send(from neighbour, network string, header, packet []byte) {
	w.t.Helper()
	v6 := network[2] == '6'
	conn := w.socket(from, network, from.own(v6).String())
	_, err := conn.WriteTo(append(header, packet...), &net.IPAddr{IP: from.rip(v6).AsSlice()})
	must(w.t, errors.Join(err, conn.Close()))
}

// sendGUE does so with GUE, which says that the packet's protocol is the given one (linux/gue.h).
func (w *world) sendGUE(from neighbour, protocol byte, packet []byte) {
	w.t.Helper()
	conn := w.socket(from, "udp", netip.AddrPortFrom(from.own(false), 0).String())
	_, err := conn.WriteTo(append([]byte{0, protocol, 0, 0}, packet...), net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.rip(false), 6080)))
	must(w.t, errors.Join(err, conn.Close()))
}

// echo answers every datagram to an address of the real server.
func (w *world) echo(at netip.AddrPort) {
	w.t.Helper()
	conn, err := net.ListenPacket("udp", at.String())
	must(w.t, err)
	done := make(chan struct{})
	w.t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, 2000)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			conn.WriteTo(b[:n], from)
		}
	}()
}

// hears says whether the client gets a datagram with this text within a time, and drops others before it.
func (w *world) hears(v6 bool, text string, within time.Duration) bool {
	w.t.Helper()
	return hears(w.answer[v6], text, within)
}

func hears(conn net.PacketConn, text string, within time.Duration) bool {
	conn.SetReadDeadline(time.Now().Add(within))
	b := make([]byte, 2000)
	for {
		n, _, err := conn.ReadFrom(b)
		if err != nil {
			return false
		}
		if string(b[:n]) == text {
			return true
		}
	}
}

const (
	soon  = 5 * time.Second        // for what must come
	never = 300 * time.Millisecond // for what must not
)

// datagram is a packet with UDP in it.
func datagram(from, to netip.AddrPort, text string) []byte {
	b := make([]byte, 8, 8+len(text))
	binary.BigEndian.PutUint16(b[0:], from.Port())
	binary.BigEndian.PutUint16(b[2:], to.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(text)))
	b = append(b, text...)
	binary.BigEndian.PutUint16(b[6:], transportSum(from.Addr(), to.Addr(), 17, b))
	return packet(from.Addr(), to.Addr(), 17, b)
}

// syn is a packet with the SYN of a TCP connection in it, which offers an MSS of 1460.
func syn(from, to netip.AddrPort) []byte {
	b := make([]byte, 24)
	binary.BigEndian.PutUint16(b[0:], from.Port())
	binary.BigEndian.PutUint16(b[2:], to.Port())
	b[12], b[13] = 6<<4, 2
	binary.BigEndian.PutUint16(b[14:], 65535)
	copy(b[20:], []byte{2, 4, 1460 >> 8, 1460 & 255})
	binary.BigEndian.PutUint16(b[16:], transportSum(from.Addr(), to.Addr(), 6, b))
	return packet(from.Addr(), to.Addr(), 6, b)
}

func packet(from, to netip.Addr, protocol byte, payload []byte) []byte {
	var h []byte
	if from.Is4() {
		h = make([]byte, 12, 20)
		h[0], h[8], h[9] = 0x45, 64, protocol
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(payload)))
	} else {
		h = make([]byte, 8, 40)
		h[0], h[6], h[7] = 0x60, protocol, 64
		binary.BigEndian.PutUint16(h[4:], uint16(len(payload)))
	}
	h = append(append(h, from.AsSlice()...), to.AsSlice()...)
	if from.Is4() {
		binary.BigEndian.PutUint16(h[10:], sum(h))
	}
	return append(h, payload...)
}

// fragments cuts a packet in two, the first with the least there can be.
func fragments(b []byte) [2][]byte {
	var out [2][]byte
	from, to, protocol, header := addressOf(b[12:16]), addressOf(b[16:20]), b[9], 20
	if b[0]>>4 == 6 {
		from, to, protocol, header = addressOf(b[8:24]), addressOf(b[24:40]), b[6], 40
	}
	for i, part := range [][]byte{b[header : header+8], b[header+8:]} {
		if header == 40 {
			out[i] = packet(from, to, 44, append([]byte{protocol, 0, 0, []byte{1, 8}[i], 0, 0, 0, 77}, part...))
			continue
		}
		f := packet(from, to, protocol, part)
		binary.BigEndian.PutUint16(f[4:], 77)
		binary.BigEndian.PutUint16(f[6:], []uint16{0x2000, 1}[i])
		binary.BigEndian.PutUint16(f[10:], 0)
		binary.BigEndian.PutUint16(f[10:], sum(f[:20]))
		out[i] = f
	}
	return out
}

func addressOf(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

func transportSum(from, to netip.Addr, protocol byte, b []byte) uint16 {
	pseudo := append(append(from.AsSlice(), to.AsSlice()...), 0, protocol)
	return sum(append(binary.BigEndian.AppendUint16(pseudo, uint16(len(b))), b...))
}

// sum is the Internet checksum (RFC 1071).
func sum(b []byte) uint16 {
	var n uint32
	for i, c := range b {
		n += uint32(c) << (8 * (1 - i%2))
	}
	for n > 0xffff {
		n = n&0xffff + n>>16
	}
	return ^uint16(n)
}
