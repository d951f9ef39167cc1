package ipvs

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Commands of the sync daemon.
const (
	cmdNewDaemon = 9
	cmdDelDaemon = 10
	cmdGetDaemon = 11 // a dump only
)

const attrDaemon = 3 // of a command; nested

// Attributes of a sync daemon.
const (
	daemonState  = 1 // u32
	daemonDevice = 2 // string with its NUL, 16 bytes at most
	daemonID     = 3 // u32
	daemonMaxLen = 4 // u16; this and the following since Linux 4.3
	daemonGroup  = 5 // 4 bytes in network order
	daemonGroup6 = 6 // 16 bytes in network order
	daemonPort   = 7 // u16 in the host's order
	daemonTTL    = 8 // u8
)

// encodeDaemon is what NEW_DAEMON carries.
func encodeDaemon(d SyncDaemon) []byte {
	d = d.normal()
	a := nl.NewRtAttr(attrDaemon|unix.NLA_F_NESTED, nil)
	a.AddRtAttr(daemonState, nl.Uint32Attr(uint32(d.State)))
	a.AddRtAttr(daemonDevice, nl.ZeroTerminated(d.Device))
	a.AddRtAttr(daemonID, nl.Uint32Attr(uint32(d.ID)))
	if d.MaxLen != 0 {
		a.AddRtAttr(daemonMaxLen, nl.Uint16Attr(uint16(d.MaxLen)))
	}
	group := daemonGroup
	if d.Group.Is6() {
		group = daemonGroup6
	}
	a.AddRtAttr(group, d.Group.AsSlice())
	a.AddRtAttr(daemonPort, nl.Uint16Attr(d.Port))
	a.AddRtAttr(daemonTTL, nl.Uint8Attr(d.TTL))
	return a.Serialize()
}

// encodeDaemonState is what DEL_DAEMON carries.
func encodeDaemonState(s SyncState) []byte {
	a := nl.NewRtAttr(attrDaemon|unix.NLA_F_NESTED, nil)
	a.AddRtAttr(daemonState, nl.Uint32Attr(uint32(s)))
	return a.Serialize()
}

// decodeDaemon reads the attributes of one message of a daemon dump.
func decodeDaemon(msg []byte) (SyncDaemon, error) {
	var d SyncDaemon
	err := nested(msg, attrDaemon, func(typ uint16, v []byte) (err error) {
		var n uint32
		var n16 uint16
		switch typ {
		case daemonState:
			if n, err = u32(v); err == nil && n != uint32(Master) && n != uint32(Backup) {
				err = fmt.Errorf("state %d", n)
			}
			d.State = SyncState(n)
		case daemonDevice:
			d.Device = text(v)
		case daemonID:
			n, err = u32(v)
			d.ID = int(n)
		case daemonMaxLen:
			n16, err = u16(v)
			d.MaxLen = int(n16)
		case daemonGroup, daemonGroup6:
			want := 4
			if typ == daemonGroup6 {
				want = 16
			}
			if len(v) != want {
				return errLength(v, want)
			}
			d.Group, _ = netip.AddrFromSlice(v)
		case daemonPort:
			d.Port, err = u16(v)
		case daemonTTL:
			if len(v) != 1 {
				return errLength(v, 1)
			}
			d.TTL = v[0]
		}
		return err
	})
	if err == nil && d.State == 0 {
		err = fmt.Errorf("it has no state")
	}
	if err != nil {
		return SyncDaemon{}, fmt.Errorf("read a sync daemon from the kernel: %w", err)
	}
	return d, nil
}
