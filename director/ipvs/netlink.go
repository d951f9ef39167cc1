package ipvs

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The IPVS generic netlink family, as include/uapi/linux/ip_vs.h numbers it.
const (
	familyName    = "IPVS"
	familyVersion = 1
)

// Commands. The kernel answers a GET with the NEW of the same object.
const (
	cmdNewService = 1
	cmdSetService = 2
	cmdDelService = 3
	cmdGetService = 4
	cmdNewDest    = 5
	cmdSetDest    = 6
	cmdDelDest    = 7
	cmdGetDest    = 8 // a dump only; empty where the service is missing
)

// Attributes of a command; both are nested.
const (
	attrService = 1
	attrDest    = 2
)

// Attributes of a service.
const (
	svcAF        = 1  // u16
	svcProtocol  = 2  // u16
	svcAddr      = 3  // 16 bytes for both families, in network order; IPv4 is the first four
	svcPort      = 4  // u16 in network order
	svcFWMark    = 5  // u32, instead of protocol, address and port
	svcSchedName = 6  // string with its NUL, 16 bytes at most
	svcFlags     = 7  // u32 flags, u32 mask
	svcTimeout   = 8  // u32 seconds
	svcNetmask   = 9  // IPv4: the mask in network order; IPv6: the prefix length as u32
	svcStats     = 10 // nested; the counts in 32 bits
	svcPEName    = 11 // string with its NUL, 16 bytes at most
	svcStats64   = 12 // nested; everything in 64 bits, since Linux 4.1
)

// Attributes of a destination.
const (
	destAddr         = 1  // as svcAddr
	destPort         = 2  // u16 in network order
	destFwdMethod    = 3  // u32
	destWeight       = 4  // u32 on the wire, an int in the kernel
	destUThresh      = 5  // u32
	destLThresh      = 6  // u32
	destActiveConns  = 7  // u32
	destInactConns   = 8  // u32
	destPersistConns = 9  // u32
	destStats        = 10 // as svcStats
	destAddrFamily   = 11 // u16, since Linux 3.18; without it the service's
	destStats64      = 12 // as svcStats64
	destTunType      = 13 // u8
	destTunPort      = 14 // u16 in network order
	destTunFlags     = 15 // u16
)

// Attributes of statistics.
const (
	statsConns    = 1
	statsInPkts   = 2
	statsOutPkts  = 3
	statsInBytes  = 4
	statsOutBytes = 5
	statsCPS      = 6
	statsInPPS    = 7
	statsOutPPS   = 8
	statsInBPS    = 9
	statsOutBPS   = 10
)

// Flags of a service. The kernel keeps further ones of its own there.
const (
	flagPersistent = 0x1
	flagOnePacket  = 0x4
	flagSchedShift = 3 // SchedFlags are the three bits from here

	flagsOurs = flagPersistent | flagOnePacket | 0x7<<flagSchedShift
)

const fwdMask = 0x7 // IP_VS_CONN_F_FWD_MASK: the part of the connection flags that is the Method

// nested calls f for every attribute inside the attribute of type outer.
func nested(msg []byte, outer uint16, f func(typ uint16, v []byte) error) error {
	found := false
	err := attrs(msg, func(typ uint16, v []byte) error {
		if typ != outer {
			return nil
		}
		found = true
		return attrs(v, f)
	})
	if err == nil && !found {
		return fmt.Errorf("attribute %d is missing", outer)
	}
	return err
}

// attrs calls f for every netlink attribute in b. (nl.ParseRouteAttr panics where the padding of the last is cut off.)
func attrs(b []byte, f func(typ uint16, v []byte) error) error {
	for len(b) >= unix.SizeofRtAttr {
		size, typ := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])&nl.NLA_TYPE_MASK
		if size < unix.SizeofRtAttr || size > len(b) {
			return fmt.Errorf("attribute %d is %d bytes long where %d are left", typ, size, len(b))
		}
		if err := f(typ, b[unix.SizeofRtAttr:size]); err != nil {
			return fmt.Errorf("attribute %d: %w", typ, err)
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return nil
}

func errLength(v []byte, want int) error { return fmt.Errorf("%d bytes, want %d", len(v), want) }

func u16(v []byte) (uint16, error) {
	if len(v) != 2 {
		return 0, errLength(v, 2)
	}
	return binary.NativeEndian.Uint16(v), nil
}

func be16(v []byte) (uint16, error) {
	if len(v) != 2 {
		return 0, errLength(v, 2)
	}
	return binary.BigEndian.Uint16(v), nil
}

func u32(v []byte) (uint32, error) {
	if len(v) != 4 {
		return 0, errLength(v, 4)
	}
	return binary.NativeEndian.Uint32(v), nil
}

func family(v []byte) (Family, error) {
	n, err := u16(v)
	if err == nil && n != unix.AF_INET && n != unix.AF_INET6 {
		err = fmt.Errorf("address family %d", n)
	}
	return Family(n), err
}

func text(v []byte) string {
	s, _, _ := strings.Cut(string(v), "\x00")
	return s
}
