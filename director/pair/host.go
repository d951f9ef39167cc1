package pair

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"lvstun/director/vip"
)

// host is the kernel this process runs on.
type host struct {
	*vip.Holder
	*vip.Neighbours
	vips  []vip.VIP
	lease time.Duration
}

var _ kernel = (*host)(nil)

func newHost(vips []vip.VIP, lease time.Duration) *host {
	return &host{Neighbours: vip.NewNeighbours(vips), vips: vips, lease: lease}
}

func (h *host) Open() error {
	var errs []error
	if len(h.vips) > 0 {
		errs = append(errs, capable(unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "to put VIPs on their devices"),
			capable(unix.CAP_NET_RAW, "CAP_NET_RAW", "to ask for VIPs and announce them"))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	holder, err := vip.OpenHolder(h.lease)
	if err != nil {
		return err
	}
	h.Holder = holder
	if err := h.Neighbours.Open(); err != nil {
		holder.Close()
		return err
	}
	return nil
}

func (h *host) Close() {
	h.Neighbours.Close()
	h.Holder.Close()
}

// capable returns an error that names the capability if the process lacks it.
func capable(number int, name, why string) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read this process's capabilities: %w", err)
	}
	if data[number/32].Effective&(1<<(number%32)) == 0 {
		return fmt.Errorf("the capability %s is missing: it is needed %s (run as root, or see the systemd unit)", name, why)
	}
	return nil
}

func (h *host) LinkFault() string { return vip.LinkFault(h.vips) }

func (h *host) Run(ctx context.Context, known string, sighted func(vip.VIP, vip.Sighting), fault func(string)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { h.Neighbours.Run(ctx, sighted) })
	return vip.WatchLinks(ctx, h.vips, known, fault)
}
