package vip

import (
	"encoding/binary"
	"net/netip"
)

// MAC is an Ethernet address.
type MAC [6]byte

var broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func (m MAC) String() string {
	const digits = "0123456789abcdef"
	var b [17]byte
	for i, c := range m {
		if i > 0 {
			b[3*i-1] = ':'
		}
		b[3*i], b[3*i+1] = digits[c>>4], digits[c&15]
	}
	return string(b[:])
}

const (
	etherHeader = 14
	etherIPv6   = 0x86dd
	etherARP    = 0x0806
)

func ether(to, from MAC, protocol uint16, payload int) []byte {
	b := make([]byte, etherHeader, etherHeader+payload)
	copy(b, to[:])
	copy(b[6:], from[:])
	binary.BigEndian.PutUint16(b[12:], protocol)
	return b
}

// ARP operations (RFC 826).
const (
	arpRequest = 1
	arpReply   = 2
)

// arpFrame is an ARP packet for IPv4 on Ethernet (RFC 826), to everybody.
func arpFrame(op uint16, sender MAC, senderIP netip.Addr, target MAC, targetIP netip.Addr) []byte {
	b := ether(broadcast, sender, etherARP, 28)
	b = binary.BigEndian.AppendUint16(b, 1)      // hardware: Ethernet
	b = binary.BigEndian.AppendUint16(b, 0x0800) // protocol: IPv4
	b = append(b, 6, 4)
	b = binary.BigEndian.AppendUint16(b, op)
	b = append(append(b, sender[:]...), senderIP.AsSlice()...)
	return append(append(b, target[:]...), targetIP.AsSlice()...)
}

// arpProbe asks who has addr without claiming anything (RFC 5227 §2.1.1).
func arpProbe(from MAC, addr netip.Addr) []byte {
	return arpFrame(arpRequest, from, netip.IPv4Unspecified(), MAC{}, addr)
}

// arpAnnouncements tells everybody that from has addr: as a request (RFC 5227
// §2.3) and as a reply (RFC 5944 §4.6), for there are hosts that heed only
// the one or only the other.
func arpAnnouncements(from MAC, addr netip.Addr) [][]byte {
	return [][]byte{
		arpFrame(arpRequest, from, addr, MAC{}, addr),
		arpFrame(arpReply, from, addr, from, addr),
	}
}

// Neighbour discovery (RFC 4861).
const (
	ndSolicitation  = 135
	ndAdvertisement = 136
	ipv6Header      = 40
	protoICMPv6     = 58
	optionTargetMAC = 2
	flagOverride    = 0x20
)

var allNodes = netip.MustParseAddr("ff02::1")

// solicitedNode is the group in which whoever has addr listens (RFC 4291
// §2.7.1).
func solicitedNode(addr netip.Addr) netip.Addr {
	a := addr.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]})
}

// groupMAC is the Ethernet address of an IPv6 group (RFC 2464 §7).
func groupMAC(group netip.Addr) MAC {
	a := group.As16()
	return MAC{0x33, 0x33, a[12], a[13], a[14], a[15]}
}

// ndFrame is an ICMPv6 message with hop limit 255 to a group.
func ndFrame(from MAC, source, group netip.Addr, message []byte) []byte {
	b := ether(groupMAC(group), from, etherIPv6, ipv6Header+len(message))
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(message)))
	b = append(b, protoICMPv6, 255)
	b = append(append(b, source.AsSlice()...), group.AsSlice()...)
	binary.BigEndian.PutUint16(message[2:], checksum(b[etherHeader+8:], message))
	return append(b, message...)
}

// checksum is that of an ICMPv6 message (RFC 4443 §2.3): over both addresses,
// the length, the protocol and the message.
func checksum(addresses, message []byte) uint16 {
	sum := uint32(len(message)) + protoICMPv6
	for _, part := range [][]byte{addresses, message} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// ndProbe asks who has addr without claiming anything, as duplicate address
// detection does (RFC 4862 §5.4.2); the answer goes to all nodes.
func ndProbe(from MAC, addr netip.Addr) []byte {
	message := append([]byte{ndSolicitation, 0, 0, 0, 0, 0, 0, 0}, addr.AsSlice()...)
	return ndFrame(from, netip.IPv6Unspecified(), solicitedNode(addr), message)
}

// ndAnnouncement tells everybody that from has addr, whatever they knew
// before (unsolicited, override: RFC 4861 §7.2.6).
func ndAnnouncement(from MAC, addr netip.Addr) []byte {
	message := append([]byte{ndAdvertisement, 0, 0, 0, flagOverride, 0, 0, 0}, addr.AsSlice()...)
	message = append(append(message, optionTargetMAC, 1), from[:]...)
	return ndFrame(from, addr, allNodes, message)
}

// probe and announcements choose by the address's family.
func probe(from MAC, addr netip.Addr) []byte {
	if addr.Is4() {
		return arpProbe(from, addr)
	}
	return ndProbe(from, addr)
}

func announcements(from MAC, addr netip.Addr) [][]byte {
	if addr.Is4() {
		return arpAnnouncements(from, addr)
	}
	return [][]byte{ndAnnouncement(from, addr)}
}

// Sighting is a frame that concerns an address: its sender has the address,
// or with Asks asks for it as one does that is about to take it.
type Sighting struct {
	Addr netip.Addr
	MAC  MAC
	Asks bool
}

// sight reads a frame. It reports false for whatever is not a well-formed
// sighting.
func sight(b []byte) (Sighting, bool) {
	if len(b) < etherHeader {
		return Sighting{}, false
	}
	switch binary.BigEndian.Uint16(b[12:]) {
	case etherARP:
		return sightARP(b[etherHeader:])
	case etherIPv6:
		return sightND(MAC(b[6:12]), b[etherHeader:])
	}
	return Sighting{}, false
}

func sightARP(b []byte) (Sighting, bool) {
	if len(b) < 28 || [6]byte(b) != [6]byte{0, 1, 8, 0, 6, 4} {
		return Sighting{}, false
	}
	op := binary.BigEndian.Uint16(b[6:])
	sender, _ := netip.AddrFromSlice(b[14:18])
	target, _ := netip.AddrFromSlice(b[24:28])
	mac := MAC(b[8:14])
	switch {
	case op != arpRequest && op != arpReply:
		return Sighting{}, false
	case !sender.IsUnspecified():
		return Sighting{Addr: sender, MAC: mac}, true
	case op == arpRequest:
		return Sighting{Addr: target, MAC: mac, Asks: true}, true
	}
	return Sighting{}, false
}

func sightND(from MAC, b []byte) (Sighting, bool) {
	if len(b) < ipv6Header+24 || b[0]>>4 != 6 || b[6] != protoICMPv6 || b[7] != 255 {
		return Sighting{}, false
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	if length < 24 || len(b) < ipv6Header+length {
		return Sighting{}, false
	}
	message := b[ipv6Header : ipv6Header+length]
	if length%2 != 0 || checksum(b[8:ipv6Header], message) != 0 { // options come in 8 bytes
		return Sighting{}, false
	}
	source, _ := netip.AddrFromSlice(b[8:24])
	target, _ := netip.AddrFromSlice(message[8:24])
	switch message[0] {
	case ndAdvertisement:
		return Sighting{Addr: target, MAC: from}, true
	case ndSolicitation:
		if source.IsUnspecified() {
			return Sighting{Addr: target, MAC: from, Asks: true}, true
		}
	}
	return Sighting{}, false
}
