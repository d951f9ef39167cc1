package pair

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"lvstun/director/vip"
)

// host is the kernel this process runs on.
type host struct {
	*vip.Holder
	changed chan struct{} // has room for one: the VIPs are others

	mu         sync.Mutex // guards what follows
	vips       []vip.VIP
	neighbours *vip.Neighbours
}

var _ kernel = (*host)(nil)

func newHost() *host {
	return &host{changed: make(chan struct{}, 1), neighbours: vip.NewNeighbours(nil)}
}

func (h *host) Open(vips []vip.VIP) error {
	holder, err := vip.OpenHolder()
	if err != nil {
		return err
	}
	h.Holder = holder
	if err := h.Use(vips); err != nil {
		holder.Close()
		return err
	}
	<-h.changed // Run begins with these
	return nil
}

// Use opens what the new VIPs need before it lets go of what the old ones had,
// so that nothing is missed.
func (h *host) Use(vips []vip.VIP) error {
	if len(vips) > 0 {
		err := errors.Join(capable(unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "to put VIPs on their devices"),
			capable(unix.CAP_NET_RAW, "CAP_NET_RAW", "to ask for VIPs and announce them"))
		if err != nil {
			return err
		}
	}
	neighbours := vip.NewNeighbours(vips)
	if err := neighbours.Open(); err != nil {
		return err
	}
	h.mu.Lock()
	old := h.neighbours
	h.vips, h.neighbours = vips, neighbours
	h.mu.Unlock()
	old.Close()
	select {
	case h.changed <- struct{}{}:
	default:
	}
	return nil
}

func (h *host) Close() {
	_, neighbours := h.current()
	neighbours.Close()
	h.Holder.Close()
}

func (h *host) current() ([]vip.VIP, *vip.Neighbours) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.vips, h.neighbours
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

func (h *host) Ask() error {
	_, neighbours := h.current()
	return neighbours.Ask()
}

func (h *host) AskFor(v vip.VIP) error {
	_, neighbours := h.current()
	return neighbours.AskFor(v)
}

func (h *host) AskGateway() bool {
	_, neighbours := h.current()
	return neighbours.AskGateway()
}

func (h *host) Announce() error {
	_, neighbours := h.current()
	return neighbours.Announce()
}

func (h *host) MAC(v vip.VIP) vip.MAC {
	_, neighbours := h.current()
	return neighbours.MAC(v)
}

func (h *host) Pending() bool {
	_, neighbours := h.current()
	return neighbours.Pending()
}

func (h *host) LinkFault(vips []vip.VIP) string { return vip.LinkFault(vips) }

func (h *host) Run(ctx context.Context, known string, hear hearing) {
	for ctx.Err() == nil {
		known = h.listen(ctx, known, hear)
	}
}

// listen hears of the VIPs until ctx ends or they are others, and returns the
// link's fault as it is then.
func (h *host) listen(ctx context.Context, known string, hear hearing) string {
	vips, neighbours := h.current()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { neighbours.Run(ctx, hear.sighted, hear.gateway) })
	wg.Go(func() {
		err := vip.WatchLinks(ctx, vips, known, func(fault string) { known = fault; hear.fault(fault) })
		if err != nil {
			hear.deaf(err)
		}
	})
	select {
	case <-h.changed:
	case <-ctx.Done():
	}
	cancel()
	wg.Wait()
	return known
}
