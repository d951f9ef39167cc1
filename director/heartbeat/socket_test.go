package heartbeat

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func path(local, peer string) Path {
	return Path{Local: netip.MustParseAddr(local), Peer: netip.MustParseAddr(peer)}
}

func TestSocket(t *testing.T) {
	const port = 25539
	a, err := Listen(path("127.0.0.1", "127.0.0.2"), port)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := Listen(path("127.0.0.2", "127.0.0.1"), port)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := Listen(path("127.0.0.3", "127.0.0.1"), port)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	for _, from := range []*Socket{b, stranger} {
		if err := from.Send([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, Size+1)
		n, fromPeer, err := a.Receive(buf)
		if err != nil || string(buf[:n]) != "hello" || fromPeer != (from == b) {
			t.Errorf("%q, from the peer: %v, %v", buf[:n], fromPeer, err)
		}
	}
	time.AfterFunc(10*time.Millisecond, func() { _ = b.Close() })
	if _, _, err := b.Receive(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("receive on a closed socket: %v", err)
	}
	if err := a.Send([]byte("nobody is there")); err != nil {
		t.Errorf("send to a closed port: %v", err)
	}
	if err := a.Send([]byte("still nobody")); err != nil {
		t.Errorf("an ICMP answer became an error: %v", err)
	}
	if _, err := Listen(path("127.0.0.1", "127.0.0.2"), port); err == nil || errors.Is(err, ErrNoAddress) {
		t.Errorf("second listener: %v", err)
	}
	if _, err := Listen(path("192.0.2.1", "192.0.2.2"), port); !errors.Is(err, ErrNoAddress) {
		t.Errorf("an address of another host: %v", err)
	}
}

func TestSocketIPv6(t *testing.T) {
	for _, zone := range []string{"", "lo"} {
		self := netip.IPv6Loopback().WithZone(zone)
		s, err := Listen(Path{Local: self, Peer: self}, 25540)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Send([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, Size)
		if n, fromPeer, err := s.Receive(buf); err != nil || string(buf[:n]) != "hello" || !fromPeer {
			t.Errorf("%q, from the peer: %v, %v", buf[:n], fromPeer, err)
		}
		_ = s.Close()
	}
	if _, err := Listen(path("::1", "fe80::1%nodev0"), 25540); err == nil {
		t.Error("took a device that is not there")
	}
}

// TestHeldUp holds that a packet is sent however long this host was held up
// before: here by others that want every processor.
func TestHeldUp(t *testing.T) {
	s, err := Listen(path("127.0.0.1", "127.0.0.2"), 25541)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
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
	for began := time.Now(); time.Since(began) < 200*ms; {
		if err := s.Send([]byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPending holds that a datagram is pending from its arrival until the next one is waited for.
func TestPending(t *testing.T) {
	a, err := Listen(path("127.0.0.1", "127.0.0.2"), 25542)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := Listen(path("127.0.0.2", "127.0.0.1"), 25542)
	if err != nil {
		t.Fatal(err)
	}
	if b.Pending() {
		t.Error("pending before anything came")
	}
	if err := a.Send([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if !b.Pending() {
		t.Error("not pending though it has come")
	}
	buf := make([]byte, Size)
	if _, _, err := b.Receive(buf); err != nil {
		t.Fatal(err)
	}
	if !b.Pending() {
		t.Error("not pending though nobody has dealt with it")
	}
	done := make(chan error, 1)
	go func() {
		_, _, err := b.Receive(buf)
		done <- err
	}()
	for b.Pending() {
		time.Sleep(time.Millisecond)
	}
	_ = b.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed socket receives: %v", err)
	}
}
