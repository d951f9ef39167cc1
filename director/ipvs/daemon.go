package ipvs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// SyncState is what a sync daemon does, in the kernel's numbers (IP_VS_STATE_MASTER and IP_VS_STATE_BACKUP).
type SyncState uint8

// The two states. A network namespace runs at most one daemon of each, and may run both; neither hears the other, for
// the kernel's socket does not loop. One for the role is still the rule: with both, net.ipv4.vs.backup_only stops the
// director from forwarding, and a master without the VIP has nothing to say.
const (
	Master SyncState = 1 // tells the group of the flows this host forwards
	Backup SyncState = 2 // takes in what it hears
)

// String returns "master" or "backup".
func (s SyncState) String() string {
	switch s {
	case Master:
		return "master"
	case Backup:
		return "backup"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// SyncDaemon is a connection sync daemon of the kernel. Its messages are neither encrypted nor proven: the network of
// Device must be one that is trusted.
type SyncDaemon struct {
	State  SyncState
	Device string // the network device of the multicast; it must be up, with an IPv4 address for an IPv4 Group

	// ID tells the clusters of one network apart: 0–255. A backup with 0 takes the messages of every ID.
	ID int

	// MaxLen is the size of a full message in bytes, 1 to 65507 (65487 where Group is IPv6); 0 is the kernel's
	// default, 1472 for a master. The backup's must be at least the master's; the kernel raises it to 1024.
	//
	// A master sends a message when the next entry has no more room in it, and one that does not fill up only after
	// two to three seconds: see PromptMaxLen.
	MaxLen int

	Group netip.Addr // the multicast group; the zero Addr is 224.0.0.81
	Port  uint16     // the UDP port of the first of the net.ipv4.vs.sync_ports threads; 0 is 8848
	TTL   uint8      // of the messages; 0 is 1, the own network
}

// PromptMaxLen is the MaxLen of a master that keeps its standby up to date: no message has room for a second entry, so
// that each entry sends the one before. Only the very last waits for the two to three seconds of the kernel
// (IPVS_SYNC_FLUSH_TIME). The price is one datagram of 44 bytes for every entry where a full message holds 40 of them.
const PromptMaxLen = 1

// The kernel's defaults and bounds (start_sync_thread in ip_vs_sync.c).
const (
	defaultSyncPort  = 8848
	defaultSyncTTL   = 1
	minBackupMaxLen  = 1024
	defaultSyncMTU   = 1500
	maxDeviceName    = unix.IFNAMSIZ - 1
	headersIPv4      = 20 + 8
	headersIPv6      = 40 + 8
	longestSyncFrame = 65535
)

var defaultSyncGroup = netip.AddrFrom4([4]byte{224, 0, 0, 81})

// normal fills in the kernel's defaults, except for MaxLen, which depends on the device.
func (d SyncDaemon) normal() SyncDaemon {
	if !d.Group.IsValid() {
		d.Group = defaultSyncGroup
	}
	if d.Port == 0 {
		d.Port = defaultSyncPort
	}
	if d.TTL == 0 {
		d.TTL = defaultSyncTTL
	}
	return d
}

// headers is what IP and UDP take of a packet.
func (d SyncDaemon) headers() int {
	if d.Group.Is6() {
		return headersIPv6
	}
	return headersIPv4
}

// runs tells whether the daemon have, as the kernel reports it, is what starting want would give. A backup's default
// MaxLen is what its device could carry when it was started.
func (want SyncDaemon) runs(have SyncDaemon) bool {
	want, have = want.normal(), have.normal()
	usual := defaultSyncMTU - want.headers()
	switch {
	case have.MaxLen == 0: // a kernel before 4.3 does not say
		want.MaxLen = 0
	case want.MaxLen == 0 && want.State == Backup:
		want.MaxLen = max(have.MaxLen, usual)
	case want.MaxLen == 0:
		want.MaxLen = usual
	case want.State == Backup:
		want.MaxLen = max(want.MaxLen, minBackupMaxLen)
	}
	return want == have
}

// String returns "sync daemon master on eth0 (id 50)" and, where they are not the usual, group, port, TTL and size.
func (d SyncDaemon) String() string {
	s := fmt.Sprintf("sync daemon %s on %s (id %d", d.State, d.Device, d.ID)
	n := d.normal()
	if n.Group != defaultSyncGroup || n.Port != defaultSyncPort {
		s += ", to " + netip.AddrPortFrom(n.Group, n.Port).String()
	}
	if n.TTL != defaultSyncTTL {
		s += fmt.Sprintf(", ttl %d", n.TTL)
	}
	if n.MaxLen != 0 && n.MaxLen != defaultSyncMTU-n.headers() {
		s += fmt.Sprintf(", messages of %d bytes", n.MaxLen)
	}
	return s + ")"
}

// Validate returns what the kernel would refuse about the daemon, or quietly change: each a sentence of its own.
func (d SyncDaemon) Validate() []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if d.State != Master && d.State != Backup {
		bad("%s: must be master or backup", d.State)
	}
	if n := len(d.Device); n == 0 || n > maxDeviceName || strings.ContainsAny(d.Device, "/ \t\n\x00") {
		bad("device %q: must be the name of a network device, of at most %d bytes", d.Device, maxDeviceName)
	}
	if d.ID < 0 || d.ID > 255 {
		bad("id %d: must be between 0 and 255", d.ID)
	}
	if most := longestSyncFrame - d.headers(); d.MaxLen < 0 || d.MaxLen > most {
		bad("message size %d: must be between 1 and %d bytes, or 0 for the kernel's own", d.MaxLen, most)
	}
	switch {
	case !d.Group.IsValid():
	case d.Group.Zone() != "":
		bad("group %s has a zone: leave it out, the device says it", d.Group)
	case d.Group.Is4In6(), !d.Group.IsMulticast():
		bad("group %s is not a multicast address", d.Group)
	}
	return errs
}

// SyncDaemons returns the sync daemons that run in the network namespace, the master first.
func (h *Handle) SyncDaemons(ctx context.Context) ([]SyncDaemon, error) {
	msgs, err := h.dump(ctx, cmdGetDaemon, nil)
	if err != nil {
		return nil, fmt.Errorf("read the sync daemons: %w", err)
	}
	daemons := make([]SyncDaemon, 0, len(msgs))
	for _, m := range msgs {
		d, err := decodeDaemon(m)
		if err != nil {
			return nil, err
		}
		daemons = append(daemons, d)
	}
	return daemons, nil
}

// SyncReport says what an ApplySync did.
type SyncReport struct {
	Ops    []string // every start and stop the kernel took, in order, in words
	Rounds int      // how often the daemons were read; above 1 where someone else started one meanwhile, or an answer was lost
}

// Changed tells whether the ApplySync started or stopped anything.
func (r SyncReport) Changed() bool { return len(r.Ops) > 0 }

// syncOp starts or stops a daemon.
type syncOp struct {
	stop   bool
	daemon SyncDaemon
}

func (o syncOp) String() string {
	if o.stop {
		return "stop " + o.daemon.String()
	}
	return "start " + o.daemon.String()
}

// diffSync returns what makes want of have. A change of role starts the new daemon before it stops the old, which the
// kernel permits, so that no flow is made unheard. A daemon whose settings change must stop first.
func diffSync(have, want []SyncDaemon) []syncOp {
	var ops []syncOp
	inState := func(list []SyncDaemon, s SyncState) int {
		return slices.IndexFunc(list, func(d SyncDaemon) bool { return d.State == s })
	}
	for _, w := range want {
		at := inState(have, w.State)
		if at >= 0 && w.runs(have[at]) {
			continue
		}
		if at >= 0 {
			ops = append(ops, syncOp{stop: true, daemon: have[at]})
		}
		ops = append(ops, syncOp{daemon: w})
	}
	for _, d := range have {
		if inState(want, d.State) < 0 {
			ops = append(ops, syncOp{stop: true, daemon: d})
		}
	}
	return ops
}

// ApplySync makes the kernel run exactly the desired sync daemons, at most one of each state, and writes nothing where
// it already does. What a daemon does not set is compared with the kernel's default. An operation that fails does not
// stop the others. Nothing is written where a desired daemon does not validate.
//
// A master that stops drops the entries it has not sent, up to three seconds of them: at a planned handover, SendFlows.
//
// The master's socket, and with it sync_ports and sync_sock_size of net.ipv4.vs, is made at the start; set those before.
func (h *Handle) ApplySync(ctx context.Context, desired []SyncDaemon) (SyncReport, error) {
	var r SyncReport
	if err := validateSync(desired); err != nil {
		return r, err
	}
	for {
		have, err := h.SyncDaemons(ctx)
		if err != nil {
			return r, err
		}
		r.Rounds++
		stale, err := h.runSync(ctx, diffSync(have, desired), &r)
		if !stale || r.Rounds == applyRounds {
			return r, err
		}
	}
}

func validateSync(desired []SyncDaemon) error {
	var errs []error
	seen := make(map[SyncState]bool)
	for _, d := range desired {
		if seen[d.State] {
			errs = append(errs, fmt.Errorf("sync daemon %s: listed more than once, and the kernel runs one of each state", d.State))
		}
		seen[d.State] = true
		for _, err := range d.Validate() {
			errs = append(errs, fmt.Errorf("sync daemon %s: %w", d.State, err))
		}
	}
	return errors.Join(errs...)
}

// runSync executes the operations and tells whether one of them met other daemons than those it was made for.
func (h *Handle) runSync(ctx context.Context, ops []syncOp, r *SyncReport) (stale bool, err error) {
	var errs []error
	var staying SyncState // could not be stopped, so that no other can be started
	for _, o := range ops {
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
		if !o.stop && o.daemon.State == staying {
			continue
		}
		cmd, attrs := uint8(cmdNewDaemon), encodeDaemon(o.daemon)
		if o.stop {
			cmd, attrs = cmdDelDaemon, encodeDaemonState(o.daemon.State)
		}
		switch err := h.t.do(cmd, attrs); {
		case err == nil:
			r.Ops = append(r.Ops, o.String())
		case o.stop && errors.Is(err, unix.ESRCH): // it has stopped by another hand
		default:
			if o.stop {
				staying = o.daemon.State
			}
			stale = stale || errors.Is(err, unix.EEXIST) || isUnanswered(err)
			errs = append(errs, fmt.Errorf("%s: %w", o, explainSync(o.daemon, err)))
		}
	}
	return stale, errors.Join(errs...)
}

// isUnanswered tells errors that leave open whether the operation was done. A daemon that is stopped before its thread
// has run once is the usual one: kthread_stop is then interrupted, the daemon gone, and no answer comes.
func isUnanswered(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOBUFS)
}

// explainSync turns the errno of a start or stop into a sentence where the kernel means something by it.
func explainSync(d SyncDaemon, err error) error {
	sentences := map[unix.Errno]string{
		unix.EPERM:         "IPVS needs CAP_NET_ADMIN in the initial user namespace",
		unix.EEXIST:        "someone else has started one meanwhile, and keeps doing so (does another program manage the sync daemon?)",
		unix.EINVAL:        "a virtual service has a real server of another family than its own, which the kernel cannot have beside a sync daemon: take that real server out, or go without sync",
		unix.ENODEV:        fmt.Sprintf("there is no network device %s here, or it does not do IP multicast", d.Device),
		unix.ENETUNREACH:   fmt.Sprintf("no route leads to %s through %s (is it up, and has it an address?)", d.normal().Group, d.Device),
		unix.EADDRINUSE:    fmt.Sprintf("UDP port %d of %s is taken by another program", d.normal().Port, d.normal().Group),
		unix.EADDRNOTAVAIL: fmt.Sprintf("%s has no address to send to %s from", d.Device, d.normal().Group),
		unix.EAFNOSUPPORT:  "IPv6 is switched off in this kernel: use an IPv4 group",
	}
	var errno unix.Errno
	if errors.As(err, &errno) && sentences[errno] != "" {
		return &kernelError{sentences[errno], errno}
	}
	return err
}
