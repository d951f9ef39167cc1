package vip

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// linkPoll is how often links are looked at besides the kernel's word that
// one changed.
const linkPoll = time.Second

// LinkFault says what keeps the devices of vips from carrying them, or nothing.
func LinkFault(vips []VIP) string {
	var seen []string
	for _, v := range vips {
		if slices.Contains(seen, v.Device) {
			continue
		}
		seen = append(seen, v.Device)
		link, err := netlink.LinkByName(v.Device)
		gone := netlink.LinkNotFoundError{}
		switch {
		case errors.As(err, &gone):
			return fmt.Sprintf("device %s is missing", v.Device)
		case err != nil:
			return fmt.Sprintf("device %s cannot be looked at: %v", v.Device, err)
		case link.Attrs().RawFlags&unix.IFF_UP == 0:
			return fmt.Sprintf("device %s is down", v.Device)
		case link.Attrs().RawFlags&unix.IFF_RUNNING == 0:
			return fmt.Sprintf("device %s has no carrier", v.Device)
		}
	}
	return ""
}

// WatchLinks reports LinkFault whenever it changes from known, until ctx ends.
func WatchLinks(ctx context.Context, vips []VIP, known string, report func(fault string)) error {
	updates := make(chan netlink.LinkUpdate, 64)
	done := make(chan struct{})
	if err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{}); err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	defer func() {
		close(done)
		for range updates { // until the subscription has ended
		}
	}()
	poll := time.NewTicker(linkPoll)
	defer poll.Stop()
	changes := updates
	for {
		if fault := LinkFault(vips); fault != known {
			known = fault
			report(fault)
		}
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-changes:
			if !ok { // the kernel overran us: the poll goes on
				changes = nil
			}
		case <-poll.C:
		}
	}
}
