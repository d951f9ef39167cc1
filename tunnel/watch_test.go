package tunnel

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a subscription that says what it is told to.
type socket struct {
	says   chan error // of the next message
	closed chan struct{}
	once   sync.Once
}

func (s *socket) Receive() ([]syscall.NetlinkMessage, *unix.SockaddrNetlink, error) {
	select {
	case err := <-s.says:
		return nil, nil, err
	case <-s.closed:
		return nil, nil, errors.New("use of closed file")
	}
}

func (s *socket) Close() { s.once.Do(func() { close(s.closed) }) }

func TestWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		says := make(chan error)
		var looks, sockets atomic.Int32
		var refuse atomic.Bool
		done := make(chan error, 1)
		go func() {
			done <- watch(ctx, func() { looks.Add(1) }, func() (subscription, error) {
				if refuse.Load() {
					return nil, unix.EMFILE
				}
				sockets.Add(1)
				return &socket{says: says, closed: make(chan struct{})}, nil
			})
		}()
		expect := func(when string, wantLooks, wantSockets int32) {
			t.Helper()
			synctest.Wait()
			if l, s := looks.Load(), sockets.Load(); l != wantLooks || s != wantSockets {
				t.Errorf("%s: %d looks, %d sockets; want %d and %d", when, l, s, wantLooks, wantSockets)
			}
		}
		for n, err := range []error{nil, unix.ENOBUFS, unix.EINTR, nil} {
			says <- err
			expect(fmt.Sprintf("message %d, %v", n, err), int32(n+1), 1)
		}
		refuse.Store(true)
		says <- unix.EBADF
		time.Sleep(10 * time.Second)
		expect("no socket", 4, 1)
		refuse.Store(false)
		time.Sleep(2 * time.Second)
		expect("a new socket", 5, 2)
		says <- nil
		expect("its first message", 6, 2)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestWatchWithoutASocket(t *testing.T) {
	t.Parallel()
	err := watch(t.Context(), func() {}, func() (subscription, error) { return nil, unix.EMFILE })
	if text(err) != "subscribe to rtnetlink: too many open files" {
		t.Error(err)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- Watch(ctx, func() {}) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
