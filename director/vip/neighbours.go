package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// reopenAfter is how long a packet socket rests after its device went down.
const reopenAfter = 100 * time.Millisecond

// Neighbours speaks with the hosts on the VIPs' links: it asks who has a VIP,
// says who has it now, and hears what they say of it. Ask and Announce may be
// called from any goroutine.
type Neighbours struct {
	vips  []VIP
	wires []*wire
}

// wire is a device with the packet sockets on it, one for each protocol.
type wire struct {
	device   string
	protocol uint16 // etherARP or etherIPv6
	groups   []MAC

	mu      sync.Mutex   // guards what follows
	conn    *packet.Conn // nil while the device is down or missing
	mac     MAC
	gateway netip.Addr // the one last asked, or zero

	reading atomic.Bool // the last frame read has not been reported yet
}

// NewNeighbours makes Neighbours for vips. It opens nothing before Run.
func NewNeighbours(vips []VIP) *Neighbours {
	n := &Neighbours{vips: vips}
	for _, v := range vips {
		w := n.wire(v)
		if w == nil {
			w = &wire{device: v.Device, protocol: protocolOf(v)}
			n.wires = append(n.wires, w)
		}
		if v.Addr.Is6() { // or the device filters what rivals ask
			w.groups = append(w.groups, groupMAC(solicitedNode(v.Addr)), groupMAC(allNodes))
		}
	}
	return n
}

func protocolOf(v VIP) uint16 {
	if v.Addr.Is6() {
		return etherIPv6
	}
	return etherARP
}

// wire is the one v is spoken of on, or nil.
func (n *Neighbours) wire(v VIP) *wire {
	for _, w := range n.wires {
		if w.device == v.Device && w.protocol == protocolOf(v) {
			return w
		}
	}
	return nil
}

// Open opens the packet sockets of the devices that are there, so that a
// question can be asked at once. It fails if the host does not allow packet
// sockets; a device that is missing or down is tried again by Run.
func (n *Neighbours) Open() error {
	for _, w := range n.wires {
		if _, err := w.open(); errors.Is(err, unix.EPERM) {
			n.Close()
			return fmt.Errorf("open a packet socket on %s: the capability CAP_NET_RAW is missing: %w", w.device, err)
		}
	}
	return nil
}

// Close closes what Open opened. Run does so by itself.
func (n *Neighbours) Close() {
	for _, w := range n.wires {
		w.close(w.current())
	}
}

// Run reports what the neighbours say of the VIPs, and every sign of life of
// a gateway that was asked, until ctx ends, and closes the sockets then.
// Frames of this host's own are left out.
func (n *Neighbours) Run(ctx context.Context, report func(VIP, Sighting), gateway func()) {
	var wg sync.WaitGroup
	for _, w := range n.wires {
		wg.Go(func() {
			for ctx.Err() == nil {
				n.listen(ctx, w, report, gateway)
				select {
				case <-ctx.Done():
				case <-time.After(reopenAfter):
				}
			}
		})
	}
	<-ctx.Done()
	n.Close()
	wg.Wait()
	n.Close() // one may have been opened meanwhile
}

// listen reads from a wire until its device goes down or ctx ends.
func (n *Neighbours) listen(ctx context.Context, w *wire, report func(VIP, Sighting), gateway func()) {
	conn, err := w.open()
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { w.close(conn) })
	defer stop()
	defer w.close(conn)
	own := ownMACs()
	buf := make([]byte, 256)
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	for {
		size, err := w.read(raw, buf)
		if err != nil {
			return // down, removed or closed
		}
		s, ok := sight(buf[:size])
		if !ok || slices.Contains(own, s.MAC) {
			continue
		}
		if w.isGateway(s) {
			gateway()
		}
		for _, v := range n.vips {
			if v.Addr == s.Addr && v.Device == w.device {
				report(v, s)
			}
		}
	}
}

// read waits for a frame and reads as much of it as fits.
func (w *wire) read(raw syscall.RawConn, b []byte) (n int, err error) {
	waited := raw.Read(func(fd uintptr) bool {
		w.reading.Store(true)
		for {
			n, err = unix.Read(int(fd), b)
			switch {
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				w.reading.Store(false)
				return false
			default:
				return true
			}
		}
	})
	if waited != nil || err != nil {
		w.reading.Store(false)
	}
	return n, errors.Join(waited, err)
}

// Pending reports whether a frame has come that has not been reported yet.
func (n *Neighbours) Pending() bool { return slices.ContainsFunc(n.wires, (*wire).pending) }

func (w *wire) pending() bool {
	unread := false
	if conn := w.current(); conn != nil {
		if raw, err := conn.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) {
				_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
				unread = err == nil
			})
		}
	}
	return unread || w.reading.Load() // in this order: who reads says so first
}

// ownMACs lists the addresses of every device of this host: two of them may
// be on one LAN.
func ownMACs() []MAC {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil // the wire's own frames are not heard anyway
	}
	var own []MAC
	for _, i := range interfaces {
		if len(i.HardwareAddr) == 6 {
			own = append(own, MAC(i.HardwareAddr))
		}
	}
	return own
}

// Ask asks who has each VIP. The answers come through Run.
func (n *Neighbours) Ask() error {
	var errs []error
	for _, v := range n.vips {
		errs = append(errs, n.AskFor(v))
	}
	return errors.Join(errs...)
}

// AskFor asks who has v, one of the VIPs.
func (n *Neighbours) AskFor(v VIP) error {
	return n.speak(v, func(mac MAC) [][]byte { return [][]byte{probe(mac, v.Addr)} })
}

// Announce tells every neighbour of each VIP that this host has it.
func (n *Neighbours) Announce() error {
	var errs []error
	for _, v := range n.vips {
		errs = append(errs, n.speak(v, func(mac MAC) [][]byte { return announcements(mac, v.Addr) }))
	}
	return errors.Join(errs...)
}

// MAC is this host's address on the VIP's link, or zero while it is down or
// where v is none of the VIPs.
func (n *Neighbours) MAC(v VIP) MAC {
	w := n.wire(v)
	if w == nil {
		return MAC{}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mac
}

func (n *Neighbours) speak(v VIP, frames func(MAC) [][]byte) error {
	w := n.wire(v)
	if w == nil {
		return fmt.Errorf("speak of %s: not one of the VIPs", v)
	}
	if err := w.send(frames); err != nil {
		return fmt.Errorf("speak of %s: %w", v, err)
	}
	return nil
}

// send writes frames now or not at all. There is no deadline: a host that is
// held up for longer than any would lose what it has not even tried.
func (w *wire) send(frames func(MAC) [][]byte) error {
	w.mu.Lock()
	conn, mac := w.conn, w.mac
	w.mu.Unlock()
	if conn == nil {
		return errors.New("the device is down or missing")
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) {
		for _, frame := range frames(mac) {
			sent = errors.Join(sent, unix.Send(int(fd), frame, unix.MSG_DONTWAIT))
		}
	})
	return errors.Join(err, sent)
}

func (w *wire) current() *packet.Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.conn
}

// open opens the wire's socket unless it is open.
func (w *wire) open() (*packet.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != nil {
		return w.conn, nil
	}
	device, err := net.InterfaceByName(w.device)
	if err != nil {
		return nil, fmt.Errorf("find device %s: %w", w.device, err)
	}
	if len(device.HardwareAddr) != 6 {
		return nil, fmt.Errorf("device %s has no Ethernet address", w.device)
	}
	var config packet.Config
	if w.protocol == etherIPv6 {
		config.Filter = neighbourDiscovery
	}
	conn, err := packet.Listen(device, packet.Raw, int(w.protocol), &config)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket on %s: %w", w.device, err)
	}
	for _, group := range w.groups {
		if err := conn.JoinGroup(group[:]); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("listen to group %s on %s: %w", group, w.device, err)
		}
	}
	w.conn, w.mac = conn, MAC(device.HardwareAddr)
	return conn, nil
}

// close closes conn if it is the wire's.
func (w *wire) close(conn *packet.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if conn != nil && w.conn == conn {
		_ = conn.Close()
		w.conn = nil
	}
}

// neighbourDiscovery lets only solicitations and advertisements through.
var neighbourDiscovery = func() []bpf.RawInstruction {
	program, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: etherHeader + 6, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: protoICMPv6, SkipTrue: 4},
		bpf.LoadAbsolute{Off: etherHeader + ipv6Header, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: ndSolicitation, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: ndAdvertisement, SkipTrue: 1},
		bpf.RetConstant{Val: 256},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		panic(err) // a constant program
	}
	return program
}()
