package pair

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"lvstun/director/heartbeat"
	"lvstun/director/vip"
)

// lan is the wire and the kernels of a test: hosts with addresses, and
// datagrams between them.
type lan struct {
	mu      sync.Mutex // guards everything below
	hosts   map[string]*fakeHost
	sockets map[netip.Addr]*fakeSocket
	cut     map[netip.Addr]bool // what this address sends is lost
	parted  bool                // hosts hear nothing of each other's VIPs
	foreign map[netip.Addr]vip.MAC
	missing map[netip.Addr]bool // not an address of its host yet
	busy    netip.Addr          // another program has its port
}

func newLAN() *lan {
	return &lan{
		hosts: map[string]*fakeHost{}, sockets: map[netip.Addr]*fakeSocket{},
		cut: map[netip.Addr]bool{}, foreign: map[netip.Addr]vip.MAC{}, missing: map[netip.Addr]bool{},
	}
}

// fakeHost is a kernel with one VIP device.
type fakeHost struct {
	lan       *lan
	mac       vip.MAC
	until     map[netip.Addr]time.Time
	labels    map[netip.Addr]string // as it was put there first
	permanent map[netip.Addr]bool
	putErr    error
	putErrOf  netip.Addr // only this one fails
	removeErr error
	slow      time.Duration // of every Put
	down      bool          // off the LAN
	link      string
	missing   string // a device that is not there
	mute      int    // so many announcements fail
	gateway   bool   // there is one, and it answers
	hearing
	vips      []vip.VIP
	announced int
	asked     int
	looked    int // for the gateway
}

var _ kernel = (*fakeHost)(nil)

func (h *fakeHost) Open(vips []vip.VIP) error { return h.Use(vips) }
func (h *fakeHost) Close()                    {}

func (h *fakeHost) Use(vips []vip.VIP) error {
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	h.vips = vips
	return nil
}

func (h *fakeHost) Put(v vip.VIP, lease time.Duration) error {
	h.lan.mu.Lock()
	slow := h.slow
	h.lan.mu.Unlock()
	time.Sleep(slow)
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	err := h.putErr
	if h.putErrOf == v.Addr {
		err = errors.New("no")
	}
	if err == nil {
		if !h.has(v.Addr) {
			h.labels[v.Addr] = v.Label
		}
		h.until[v.Addr] = time.Now().Add(lease)
	}
	return err
}

func (h *fakeHost) Remove(v vip.VIP) error {
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	if h.removeErr == nil {
		delete(h.until, v.Addr)
	}
	return h.removeErr
}

// has reports whether the kernel answers for addr; the caller holds lan.mu.
func (h *fakeHost) has(addr netip.Addr) bool {
	return !h.down && (h.permanent[addr] || time.Now().Before(h.until[addr]))
}

func (h *fakeHost) Find(vips []vip.VIP) ([]vip.Presence, error) {
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	presence := make([]vip.Presence, len(vips))
	for i, v := range vips {
		switch {
		case h.permanent[v.Addr]:
			presence[i] = vip.Permanent
		case h.has(v.Addr):
			presence[i] = vip.Leased
		}
	}
	return presence, nil
}

func (h *fakeHost) Ask() error {
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	h.asked++
	if h.down || h.sighted == nil {
		return errors.New("no link")
	}
	for _, v := range h.vips {
		for _, other := range h.lan.hosts {
			if other == h || other.down || h.lan.parted {
				continue
			}
			if other.has(v.Addr) {
				go h.sighted(v, vip.Sighting{Addr: v.Addr, MAC: other.mac})
			} else if other.sighted != nil {
				go other.sighted(v, vip.Sighting{Addr: v.Addr, MAC: h.mac, Asks: true})
			}
		}
		if mac, ok := h.lan.foreign[v.Addr]; ok {
			go h.sighted(v, vip.Sighting{Addr: v.Addr, MAC: mac})
		}
	}
	return nil
}

// AskFor asks for one VIP as Ask asks for all.
func (h *fakeHost) AskFor(vip.VIP) error { return h.Ask() }

func (h *fakeHost) AskGateway() bool {
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	h.looked++
	if h.gateway && !h.down && h.hearing.gateway != nil {
		go h.hearing.gateway()
	}
	return h.gateway
}

func (h *fakeHost) Announce() error {
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	if h.mute > 0 {
		h.mute--
		return errors.New("speak of 10.0.0.50: no buffer space")
	}
	h.announced++
	return nil
}

func (h *fakeHost) Pending() bool { return false }

func (h *fakeHost) MAC(vip.VIP) vip.MAC { return h.mac }

func (h *fakeHost) LinkFault(vips []vip.VIP) string {
	h.lan.mu.Lock()
	defer h.lan.mu.Unlock()
	for _, v := range vips {
		if v.Device == h.missing {
			return "device " + h.missing + " is missing"
		}
	}
	return h.link
}

func (h *fakeHost) Run(ctx context.Context, _ string, hear hearing) {
	h.lan.change(func() { h.hearing = hear })
	<-ctx.Done()
	h.lan.change(func() { h.hearing = hearing{} })
}

// fakeSocket is an address on the LAN.
type fakeSocket struct {
	lan   *lan
	path  Path
	in    chan fakeDatagram
	stall chan struct{} // the reader is held up till it is closed
	busy  atomic.Bool
	close sync.Once
	ended chan struct{}
}

type fakeDatagram struct {
	from netip.Addr
	b    []byte
}

// listen opens an address that is not missing.
func (l *lan) listen(path Path, _ uint16) (socket, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.missing[path.Local] {
		return nil, fmt.Errorf("listen for heartbeats: %s is %w", path.Local, heartbeat.ErrNoAddress)
	}
	if path.Local == l.busy {
		return nil, fmt.Errorf("listen for heartbeats on %s: another program has the port", path.Local)
	}
	if s := l.sockets[path.Local]; s != nil {
		select {
		case <-s.ended:
		default:
			return nil, fmt.Errorf("listen for heartbeats on %s: it is open", path.Local)
		}
	}
	s := &fakeSocket{lan: l, path: path, in: make(chan fakeDatagram, 64), ended: make(chan struct{})}
	l.sockets[path.Local] = s
	return s, nil
}

func (s *fakeSocket) Send(b []byte) error {
	s.lan.inject(s.path.Local, s.path.Peer, b)
	return nil
}

// inject puts a datagram on the LAN, whoever wrote it.
func (l *lan) inject(from, to netip.Addr, b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	peer := l.sockets[to]
	if peer == nil || l.cut[from] {
		return
	}
	select {
	case peer.in <- fakeDatagram{from, append([]byte(nil), b...)}:
	default:
	}
}

func (s *fakeSocket) Receive(b []byte) (int, bool, error) {
	s.busy.Store(false)
	select {
	case d := <-s.in:
		s.busy.Store(true)
		s.lan.mu.Lock()
		stall := s.stall
		s.lan.mu.Unlock()
		if stall != nil {
			<-stall
		}
		return copy(b, d.b), d.from == s.path.Peer, nil
	case <-s.ended:
		return 0, false, net.ErrClosed
	}
}

func (s *fakeSocket) Pending() bool { return len(s.in) > 0 || s.busy.Load() }

func (s *fakeSocket) Close() error {
	s.close.Do(func() { close(s.ended) })
	return nil
}
