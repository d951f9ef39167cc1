package holders

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
)

// receiveBuffer takes some seconds of an address that is renewed every few milliseconds.
const receiveBuffer = 1 << 20

// Watch writes a line when it starts and whenever this node gets or loses the address, as the kernel tells it, until
// ctx ends.
func Watch(ctx context.Context, addr netip.Addr, w io.Writer) error {
	done := make(chan struct{})
	defer close(done)
	failed := make(chan error, 1)
	updates := make(chan netlink.AddrUpdate, 64)
	// Told of changes first and asked for the present state then: nothing falls in between.
	err := netlink.AddrSubscribeWithOptions(updates, done, netlink.AddrSubscribeOptions{
		ReceiveBufferSize: receiveBuffer,
		ErrorCallback: func(err error) {
			select {
			case failed <- err:
			default: // the first one is told
			}
		},
	})
	if err != nil {
		return fmt.Errorf("subscribe to addresses: %w", err)
	}
	on, err := devices(addr)
	if err != nil {
		return err
	}
	last := ""
	for {
		if state := stateOf(on); state != last {
			if _, err := fmt.Fprintln(w, time.Now().UnixMicro(), state); err != nil {
				return err
			}
			last = state
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("changes of addresses: %w", err)
		case u, ok := <-updates:
			if !ok {
				return fmt.Errorf("changes of addresses: the kernel's stream has ended")
			}
			if got, ok := netip.AddrFromSlice(u.LinkAddress.IP); ok && got.Unmap() == addr {
				on[u.LinkIndex] = u.NewAddr
			}
		}
	}
}

// devices are those that have the address now, by index.
func devices(addr netip.Addr) (map[int]bool, error) {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	on := map[int]bool{}
	for _, a := range list {
		if got, ok := netip.AddrFromSlice(a.IP); ok && got.Unmap() == addr {
			on[a.LinkIndex] = true
		}
	}
	return on, nil
}

func stateOf(on map[int]bool) string {
	for _, here := range on {
		if here {
			return held
		}
	}
	return free
}
