package ipvs

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// syncThreads is a model of start_sync_thread and stop_sync_thread in net/netfilter/ipvs/ip_vs_sync.c.
type syncThreads struct {
	running map[SyncState]SyncDaemon
	mixed   bool           // a real server is of another family than its service
	mtu     map[string]int // of the devices there are; none where nil is eth0 and eth1 with 1500
	old     bool           // a kernel before 4.3, which knows state, device and id only
}

func (k *syncThreads) do(cmd uint8, b []byte) error {
	if !has(b, attrDaemon, daemonState) {
		return unix.EINVAL
	}
	d, err := decodeDaemon(b)
	if err != nil {
		return unix.EINVAL
	}
	if cmd == cmdDelDaemon {
		if _, ok := k.running[d.State]; !ok {
			return unix.ESRCH
		}
		delete(k.running, d.State)
		return nil
	}
	mtus := k.mtu
	if mtus == nil {
		mtus = map[string]int{"eth0": 1500, "eth1": 1500}
	}
	mtu, known := mtus[d.Device]
	_, running := k.running[d.State]
	switch {
	case !has(b, attrDaemon, daemonDevice, daemonID):
		return unix.EINVAL
	case d.Group.IsValid() && !d.Group.IsMulticast():
		return unix.EINVAL
	case k.mixed:
		return unix.EINVAL
	case !known:
		return unix.ENODEV
	case running:
		return unix.EEXIST
	}
	d = d.normal()
	least := 1
	if d.State == Master {
		mtu = 1500
	} else {
		mtu, least = min(max(mtu, 1500), 65535), 1024
	}
	if d.MaxLen == 0 {
		d.MaxLen = mtu - d.headers()
	}
	d.MaxLen = min(max(d.MaxLen, least), 65535-d.headers())
	if k.running == nil {
		k.running = make(map[SyncState]SyncDaemon)
	}
	k.running[d.State] = d
	return nil
}

func (k *syncThreads) dump() (msgs [][]byte) {
	for _, s := range []SyncState{Master, Backup} {
		d, ok := k.running[s]
		if !ok {
			continue
		}
		b := encodeDaemon(d)
		if k.old {
			b = b[:4+8+4+(len(d.Device)+1+3)/4*4+8]
			b[0] = byte(len(b))
		}
		msgs = append(msgs, b)
	}
	return msgs
}

// String is the running daemons as text, the master first.
func (k *syncThreads) String() string {
	var lines []string
	for _, d := range k.running {
		lines = append(lines, d.String()+"\n")
	}
	slices.Sort(lines)
	slices.Reverse(lines)
	return strings.Join(lines, "")
}
