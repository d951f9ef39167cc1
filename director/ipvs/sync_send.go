package ipvs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SendFlows tells a standby of the flows of this host, as the kernel's master does and in its words: it reads the
// connection table and sends each flow to the group of the sync daemon to, from the first address of to.Device. So the
// standby also knows what no master tells it: flows that are still being opened (ip_vs_sync_conn_needed passes over
// them), the last entries of a master, which wait for company, and every flow of which no packet has come since the
// standby started. to.State and to.MaxLen do not matter; a datagram fills the device's MTU, and at most 1500 bytes.
//
// want is asked for every flow, in the table's order; what it accepts is sent, of that what the kernel's table still has
// a real server for. Flows that the director translates (MethodMasq) are left to the kernel, for the table does not show
// the corrections of their sequence numbers, and an entry without them would take them away.
//
// No more than pace flows go out in a second, in bursts of 5 ms, so that the standby's socket can hold them; nothing is
// sent twice. SendFlows ends with ctx, and then sends what it has in hand. It must be called in the network namespace of
// the Handle, and returns how many flows it sent also beside an error.
//
// A flow that the standby knows is updated: state, timeout, and the real server where it is another. One whose real server
// the standby did not have when it learned the flow is bound to it now; until then it would drop the flow's packets
// (__ip_vs_get_out_rt). A state that goes backwards, because a packet came between the reading and the sending, does no
// harm, for a flow is forwarded in every state, and its next packet moves it on. The timeout of a flow is what is left of
// it, so that it ends on both hosts at the same time; that of a template is its service's, for the kernel renews a template
// by what it was made with.
func (h *Handle) SendFlows(ctx context.Context, to SyncDaemon, pace int, want func(Flow) bool) (sent int, err error) {
	sent, err = h.sendFlows(ctx, to, pace, want)
	if err != nil {
		err = fmt.Errorf("tell the flows to %s, of which %d went out: %w", to.normal().Group, sent, err)
	}
	return sent, err
}

func (h *Handle) sendFlows(ctx context.Context, to SyncDaemon, pace int, want func(Flow) bool) (int, error) {
	if err := errors.Join(to.Validate()...); err != nil {
		return 0, err
	}
	table, err := os.Open("/proc/thread-self/net/ip_vs_conn")
	if err != nil {
		return 0, err
	}
	defer table.Close()
	conn, size, err := to.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	routes, err := h.routes(ctx)
	if err != nil {
		return 0, err
	}
	out := &flowWriter{to: conn, message: newSyncMessage(to.ID, size), perFlow: time.Second / time.Duration(pace)}
	return out.copy(ctx, table, routes, want)
}

// dial makes the socket of a master (make_send_sock in net/netfilter/ipvs/ip_vs_sync.c) and tells how long a message to
// it may be. A host does not hear itself.
func (d SyncDaemon) dial(ctx context.Context) (*groupConn, int, error) {
	d = d.normal()
	dev, err := net.InterfaceByName(d.Device)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", d.Device, err)
	}
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if failed := c.Control(func(fd uintptr) { err = d.setMulticast(int(fd), dev.Index) }); failed != nil {
			return failed
		}
		return err
	}}
	if d.Group.Is4() {
		from, err := sourceOf(dev)
		if err != nil {
			return nil, 0, err
		}
		dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	c, err := dialer.DialContext(ctx, "udp", netip.AddrPortFrom(d.Group, d.Port).String())
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", d.Device, err)
	}
	return &groupConn{c}, min(dev.MTU, defaultSyncMTU) - d.headers(), nil
}

// setMulticast sets a socket's device, TTL, and that neither this host hears it nor a smaller MTU on the way stops it.
func (d SyncDaemon) setMulticast(fd, index int) error {
	if d.Group.Is4() {
		return errors.Join(
			unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(index)}),
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, int(d.TTL)),
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 0),
			unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT))
	}
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, index),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, int(d.TTL)),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT))
}

// sourceOf is the address that a master binds to: the first of the device that is good beyond the link.
func sourceOf(dev *net.Interface) (netip.Addr, error) {
	addrs, err := dev.Addrs()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s: %w", dev.Name, err)
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Is4() && !prefix.Addr().IsLinkLocalUnicast() {
			return prefix.Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s has no IPv4 address", dev.Name)
}

// groupConn is a socket whose writes do not wait for long: a datagram that cannot go now is no use later.
type groupConn struct{ net.Conn }

const writeTimeout = 100 * time.Millisecond

func (c *groupConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// flowWriter sends flows, not faster than one every perFlow but for a burst.
type flowWriter struct {
	to      io.Writer
	message *syncMessage
	perFlow time.Duration
	due     time.Time // when all that was sent is, at that pace
	sent    int
}

// burst is how much may go out at once: 640 flows of the 128,000 a second of a handover are 16 datagrams, where the
// kernel's usual socket buffer holds some 90.
const burst = 5 * time.Millisecond

// copy sends what is wanted of a table until it ends or ctx does.
func (w *flowWriter) copy(ctx context.Context, table io.Reader, routes *routes, want func(Flow) bool) (int, error) {
	err := w.fill(ctx, table, routes, want)
	return w.sent, errors.Join(err, w.flush())
}

func (w *flowWriter) fill(ctx context.Context, table io.Reader, routes *routes, want func(Flow) bool) error {
	for f, err := range ReadFlows(table) {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		if !f.tellable() || !want(f) {
			continue
		}
		e, ok, err := routes.entry(ctx, f)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if !w.message.fits(e) {
			if err := w.flush(); err != nil {
				return err
			}
			w.pause(ctx)
		}
		w.message.add(e)
	}
	return nil
}

// flush sends what is in the message.
func (w *flowWriter) flush() error {
	n := w.message.entries
	if n == 0 {
		return nil
	}
	defer w.message.reset()
	if _, err := w.to.Write(w.message.datagram()); err != nil {
		return err
	}
	w.sent += n
	if now := time.Now(); w.due.Before(now) { // what was not used of the pace is not made up for
		w.due = now
	}
	w.due = w.due.Add(time.Duration(n) * w.perFlow)
	return nil
}

// pause waits when a burst is out, or for ctx.
func (w *flowWriter) pause(ctx context.Context) {
	if ahead := time.Until(w.due); ahead >= burst {
		select {
		case <-ctx.Done():
		case <-time.After(ahead):
		}
	}
}
