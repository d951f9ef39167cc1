package ipvs

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// keyAttr is the nested service attribute with what identifies the service.
func keyAttr(k Key) *nl.RtAttr {
	a := nl.NewRtAttr(attrService|unix.NLA_F_NESTED, nil)
	a.AddRtAttr(svcAF, nl.Uint16Attr(uint16(k.family())))
	if k.FWMark != 0 {
		a.AddRtAttr(svcFWMark, nl.Uint32Attr(k.FWMark))
		return a
	}
	a.AddRtAttr(svcProtocol, nl.Uint16Attr(uint16(k.Protocol)))
	a.AddRtAttr(svcAddr, addrBytes(k.Addr.Addr()))
	a.AddRtAttr(svcPort, nl.BEUint16Attr(k.Addr.Port()))
	return a
}

// encodeKey is what commands that only name a service carry.
func encodeKey(k Key) []byte { return keyAttr(k).Serialize() }

// encodeService is what NEW_SERVICE and SET_SERVICE carry. Without a name the kernel takes the persistence engine
// away; flags outside our mask stay as they are.
func encodeService(s Service) []byte {
	a := keyAttr(s.Key)
	a.AddRtAttr(svcSchedName, nl.ZeroTerminated(s.Scheduler))
	if s.PEName != "" {
		a.AddRtAttr(svcPEName, nl.ZeroTerminated(s.PEName))
	}
	flags := uint32(s.SchedFlags) << flagSchedShift
	if s.Persistent >= time.Second {
		flags |= flagPersistent
	}
	if s.OnePacket {
		flags |= flagOnePacket
	}
	a.AddRtAttr(svcFlags, append(nl.Uint32Attr(flags), nl.Uint32Attr(flagsOurs)...))
	a.AddRtAttr(svcTimeout, nl.Uint32Attr(uint32(s.Persistent/time.Second)))
	a.AddRtAttr(svcNetmask, netmaskBytes(s.PersistenceMask, s.family()))
	return a.Serialize()
}

// encodeDestination is what NEW_DEST, SET_DEST and, of which the kernel then only reads the address, DEL_DEST carry.
func encodeDestination(k Key, d Destination) []byte {
	a := nl.NewRtAttr(attrDest|unix.NLA_F_NESTED, nil)
	a.AddRtAttr(destAddrFamily, nl.Uint16Attr(uint16(familyOf(d.Addr.Addr()))))
	a.AddRtAttr(destAddr, addrBytes(d.Addr.Addr()))
	a.AddRtAttr(destPort, nl.BEUint16Attr(d.Addr.Port()))
	a.AddRtAttr(destFwdMethod, nl.Uint32Attr(uint32(d.Method)))
	a.AddRtAttr(destWeight, nl.Uint32Attr(uint32(int32(d.Weight))))
	a.AddRtAttr(destUThresh, nl.Uint32Attr(d.Upper))
	a.AddRtAttr(destLThresh, nl.Uint32Attr(d.Lower))
	if d.Method == MethodTunnel {
		a.AddRtAttr(destTunType, nl.Uint8Attr(uint8(d.Tunnel.Type)))
		a.AddRtAttr(destTunPort, nl.BEUint16Attr(d.Tunnel.Port))
		a.AddRtAttr(destTunFlags, nl.Uint16Attr(uint16(d.Tunnel.Flags)))
	}
	return append(encodeKey(k), a.Serialize()...)
}

// decodeService reads the attributes of one message of a service dump.
func decodeService(msg []byte) (Service, error) {
	var (
		s       Service
		addr    []byte
		netmask []byte
		flags   uint32
		timeout uint32
		stats64 bool
	)
	err := nested(msg, attrService, func(typ uint16, v []byte) (err error) {
		switch typ {
		case svcAF:
			s.Family, err = family(v)
		case svcProtocol:
			var n uint16
			n, err = u16(v)
			s.Protocol = Protocol(n)
		case svcAddr:
			addr = v
		case svcPort:
			var port uint16
			port, err = be16(v)
			s.Addr = netip.AddrPortFrom(netip.Addr{}, port)
		case svcFWMark:
			s.FWMark, err = u32(v)
		case svcSchedName:
			s.Scheduler = text(v)
		case svcFlags:
			if len(v) != 8 {
				return errLength(v, 8)
			}
			flags = binary.NativeEndian.Uint32(v) // the mask is all ones
		case svcTimeout:
			timeout, err = u32(v)
		case svcNetmask:
			netmask = v
		case svcPEName:
			s.PEName = text(v)
		case svcStats, svcStats64:
			err = preferStats64(v, typ == svcStats64, &stats64, &s.Stats)
		}
		return err
	})
	if err != nil {
		return Service{}, fmt.Errorf("read a service from the kernel: %w", err)
	}
	if s.Family == 0 || (s.FWMark == 0) == (addr == nil) {
		return Service{}, fmt.Errorf("read a service from the kernel: it has no family, or not one of address and fwmark")
	}
	if s.FWMark == 0 {
		a, err := address(addr, s.Family)
		if err != nil {
			return Service{}, fmt.Errorf("read a service from the kernel: %w", err)
		}
		s.Addr, s.Family = netip.AddrPortFrom(a, s.Addr.Port()), 0
	}
	s.OnePacket = flags&flagOnePacket != 0
	s.SchedFlags = SchedFlags(flags >> flagSchedShift & 0x7)
	if flags&flagPersistent != 0 {
		s.Persistent = time.Duration(timeout) * time.Second
		if s.PersistenceMask, err = netmaskPrefix(netmask, s.family()); err != nil {
			return Service{}, fmt.Errorf("read a service from the kernel: %w", err)
		}
	}
	return s, nil
}

// decodeDestination reads the attributes of one message of a destination dump of a service of family f.
func decodeDestination(msg []byte, f Family) (Destination, error) {
	var (
		d       Destination
		addr    []byte
		port    uint16
		stats64 bool
	)
	err := nested(msg, attrDest, func(typ uint16, v []byte) (err error) {
		var n uint32
		switch typ {
		case destAddr:
			addr = v
		case destPort:
			port, err = be16(v)
		case destFwdMethod:
			n, err = u32(v)
			d.Method = Method(n & fwdMask)
		case destWeight:
			n, err = u32(v)
			d.Weight = int(int32(n))
		case destUThresh:
			d.Upper, err = u32(v)
		case destLThresh:
			d.Lower, err = u32(v)
		case destActiveConns:
			d.ActiveConns, err = u32(v)
		case destInactConns:
			d.InactiveConns, err = u32(v)
		case destPersistConns:
			d.PersistConns, err = u32(v)
		case destAddrFamily:
			f, err = family(v)
		case destTunType:
			if len(v) != 1 {
				return errLength(v, 1)
			}
			d.Tunnel.Type = TunnelType(v[0])
		case destTunPort:
			d.Tunnel.Port, err = be16(v)
		case destTunFlags:
			var flags uint16
			flags, err = u16(v)
			d.Tunnel.Flags = TunnelFlags(flags)
		case destStats, destStats64:
			err = preferStats64(v, typ == destStats64, &stats64, &d.Stats)
		}
		return err
	})
	if err != nil {
		return Destination{}, fmt.Errorf("read a destination from the kernel: %w", err)
	}
	a, err := address(addr, f)
	if err != nil {
		return Destination{}, fmt.Errorf("read a destination from the kernel: %w", err)
	}
	d.Addr = netip.AddrPortFrom(a, port)
	if d.Method != MethodTunnel {
		d.Tunnel = Tunnel{} // what an earlier method left there
	}
	return d, nil
}

// preferStats64 reads statistics unless the wider ones were read before.
func preferStats64(b []byte, wide bool, seen *bool, s *Stats) error {
	if *seen && !wide {
		return nil
	}
	*seen = wide
	return attrs(b, func(typ uint16, v []byte) error {
		var dst *uint64
		switch typ {
		case statsConns:
			dst = &s.Conns
		case statsInPkts:
			dst = &s.InPkts
		case statsOutPkts:
			dst = &s.OutPkts
		case statsInBytes:
			dst = &s.InBytes
		case statsOutBytes:
			dst = &s.OutBytes
		case statsCPS:
			dst = &s.CPS
		case statsInPPS:
			dst = &s.InPPS
		case statsOutPPS:
			dst = &s.OutPPS
		case statsInBPS:
			dst = &s.InBPS
		case statsOutBPS:
			dst = &s.OutBPS
		default:
			return nil // padding
		}
		switch len(v) {
		case 4:
			*dst = uint64(binary.NativeEndian.Uint32(v))
		case 8:
			*dst = binary.NativeEndian.Uint64(v)
		default:
			return errLength(v, 8)
		}
		return nil
	})
}

// addrBytes is an address as the kernel's union nf_inet_addr holds it.
func addrBytes(a netip.Addr) []byte {
	b := make([]byte, 16)
	copy(b, a.AsSlice())
	return b
}

func address(v []byte, f Family) (netip.Addr, error) {
	if len(v) != 16 {
		return netip.Addr{}, fmt.Errorf("address: %w", errLength(v, 16))
	}
	a, _ := netip.AddrFromSlice(v[:f.bits()/8])
	return a, nil
}

// netmaskBytes is a PersistenceMask on the wire.
func netmaskBytes(mask int, f Family) []byte {
	if mask == 0 {
		mask = f.bits()
	}
	switch {
	case f == IPv6:
		return nl.Uint32Attr(uint32(mask))
	case mask < 0:
		return nl.BEUint32Attr(uint32(^mask))
	}
	return nl.BEUint32Attr(^uint32(0) << (32 - min(mask, 32)))
}

// netmaskPrefix turns it back.
func netmaskPrefix(v []byte, f Family) (int, error) {
	n, err := u32(v)
	if err != nil {
		return 0, fmt.Errorf("netmask: %w", err)
	}
	if f == IPv6 {
		if n < 1 || n > 128 {
			return 0, fmt.Errorf("netmask: prefix length %d", n)
		}
		return int(n) % 128, nil
	}
	n = binary.BigEndian.Uint32(v)
	ones := bits.LeadingZeros32(^n)
	if ones == 0 || n != ^uint32(0)<<(32-ones) {
		return ^int(n), nil
	}
	return ones % 32, nil
}
