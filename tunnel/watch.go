package tunnel

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// subscription is a socket on which the kernel tells of changes.
type subscription interface {
	Receive() ([]syscall.NetlinkMessage, *unix.SockaddrNetlink, error)
	Close()
}

// Watch calls changed whenever the kernel says that a link, an address or one of the settings it tells
// about (rp_filter among them) has changed, in any way and on any device; also when messages were lost
// (ENOBUFS), and when the socket failed and was replaced, for which it tries once a second. The kernel
// does not tell of the UDP ports for GUE.
//
// It returns nil when ctx ends, and an error if there is no socket to begin with.
func Watch(ctx context.Context, changed func()) error {
	return watch(ctx, changed, subscribe)
}

func subscribe() (subscription, error) {
	return nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_NETCONF)
}

func watch(ctx context.Context, changed func(), open func() (subscription, error)) error {
	s, err := open()
	if err != nil {
		return fmt.Errorf("subscribe to rtnetlink: %w", err)
	}
	for {
		hear(ctx, s, changed)
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Second):
			}
			if s, err = open(); err == nil {
				break
			}
		}
		changed() // what happened meanwhile, nobody told
	}
}

// hear returns when s fails or ctx ends, and closes it.
func hear(ctx context.Context, s subscription, changed func()) {
	defer s.Close()
	stop := context.AfterFunc(ctx, s.Close)
	defer stop()
	for {
		_, _, err := s.Receive()
		if ctx.Err() != nil || err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return
		}
		changed()
	}
}
