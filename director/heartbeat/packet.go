package heartbeat

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"net/netip"
)

// Size is the length of every packet in bytes.
const Size = 192

// Version is the version of the packet this package speaks.
const Version = 1

// MaxName is the longest name of a director in bytes: that of a Linux host.
const MaxName = 64

// DigestSize is the length of a configuration's digest in bytes.
const DigestSize = 24

// magic begins every packet, so that another program's datagram is told from
// a forged one.
const magic = 0x4c565354 // "LVST"

// Kind is what a packet is for.
type Kind uint8

// The kinds of packets.
const (
	Beat     Kind = iota + 1 // the sender lives
	Goodbye                  // the sender stops
	Handover                 // the sender asks the active peer for the VIPs
	Released                 // the sender holds the VIPs no more, the peer shall take them
)

// Packet is what one director tells the other.
//
// On the wire, big endian, in this order: magic (4), version (1), kind (1),
// role (1), sync state (1), incarnation (8), sequence (8), echoed incarnation
// (8), echoed sequence (8), term (8), digest (24), MAC (6), zeros (2), address
// (16, IPv4 mapped), name (64, padded with zeros), HMAC-SHA256 of all before
// it (32).
type Packet struct {
	Kind        Kind
	Role        uint8            // as package election numbers them
	Sync        uint8            // state of the connection sync daemon; 0 is off
	Incarnation uint64           // random, new with every start
	Sequence    uint64           // grows with every round of packets
	EchoOf      uint64           // the receiver's incarnation as last heard, 0 for none
	EchoSeq     uint64           // its last sequence heard
	Term        uint64           // of the holding while active, else the highest known
	Digest      [DigestSize]byte // of the configuration both must share
	MAC         [6]byte          // of the sender on the lowest VIP's link, or zero
	Addr        netip.Addr       // the lowest of the sender's heartbeat addresses: settles ties
	Name        string           // the sender's name, 1 to MaxName bytes
}

// offsets of the packet's fields.
const (
	offVersion = 4
	offKind    = 5
	offRole    = 6
	offSync    = 7
	offInc     = 8
	offSeq     = 16
	offEchoInc = 24
	offEchoSeq = 32
	offTerm    = 40
	offDigest  = 48
	offHost    = 72
	offSpare   = 78
	offAddr    = 80
	offName    = 96
	offMAC     = 160
)

// Drop says why a packet was thrown away. Zero means that it was not.
type Drop uint8

// The reasons, in the order in which they are found.
const (
	Kept      Drop = iota
	Source         // not from the peer's address and port
	Short          // fewer bytes than a packet
	Long           // more bytes than a packet
	Alien          // not a packet of this protocol
	Skewed         // of another version of this protocol
	Forged         // the HMAC is wrong: another cluster's key, or an attack
	Malformed      // authentic, and yet its fields make no sense
	Self           // our own packet, come back
	SameName       // a peer that has this director's name
	Unproven       // does not echo this director's incarnation; answered
	Replayed       // its sequence does not grow
	drops          // how many there are
)

var dropNames = [drops]string{
	"kept", "source", "short", "long", "alien", "version", "forged",
	"malformed", "self", "same_name", "unproven", "replayed",
}

func (d Drop) String() string {
	if d >= drops {
		return fmt.Sprintf("drop(%d)", uint8(d))
	}
	return dropNames[d]
}

// Drops lists every reason for which a packet may be dropped.
func Drops() []Drop {
	all := make([]Drop, 0, drops-1)
	for d := Source; d < drops; d++ {
		all = append(all, d)
	}
	return all
}

// Codec writes and reads packets under one key. It is not for concurrent use.
type Codec struct {
	mac hash.Hash
	sum [sha256.Size]byte
}

// NewCodec makes a Codec for key.
func NewCodec(key [32]byte) *Codec {
	return &Codec{mac: hmac.New(sha256.New, key[:])}
}

func (c *Codec) sign(b []byte) []byte {
	c.mac.Reset()
	c.mac.Write(b)
	return c.mac.Sum(c.sum[:0])
}

// Encode writes p. Its Name must be 1 to MaxName bytes long.
func (c *Codec) Encode(p *Packet) [Size]byte {
	var b [Size]byte
	binary.BigEndian.PutUint32(b[:], magic)
	b[offVersion], b[offKind], b[offRole], b[offSync] = Version, byte(p.Kind), p.Role, p.Sync
	binary.BigEndian.PutUint64(b[offInc:], p.Incarnation)
	binary.BigEndian.PutUint64(b[offSeq:], p.Sequence)
	binary.BigEndian.PutUint64(b[offEchoInc:], p.EchoOf)
	binary.BigEndian.PutUint64(b[offEchoSeq:], p.EchoSeq)
	binary.BigEndian.PutUint64(b[offTerm:], p.Term)
	copy(b[offDigest:], p.Digest[:])
	copy(b[offHost:], p.MAC[:])
	addr := p.Addr.As16()
	copy(b[offAddr:], addr[:])
	copy(b[offName:offMAC], p.Name)
	copy(b[offMAC:], c.sign(b[:offMAC]))
	return b
}

// Decode reads b into p, whose fields mean nothing unless Kept is returned.
// It looks into no field but the version before the HMAC is proven, and
// allocates only where the name differs from p.Name.
func (c *Codec) Decode(b []byte, p *Packet) Drop {
	switch {
	case len(b) < Size:
		return Short
	case len(b) > Size:
		return Long
	case binary.BigEndian.Uint32(b) != magic:
		return Alien
	case b[offVersion] != Version:
		return Skewed
	case !hmac.Equal(c.sign(b[:offMAC]), b[offMAC:]):
		return Forged
	}
	p.Kind, p.Role, p.Sync = Kind(b[offKind]), b[offRole], b[offSync]
	p.Incarnation = binary.BigEndian.Uint64(b[offInc:])
	p.Sequence = binary.BigEndian.Uint64(b[offSeq:])
	p.EchoOf = binary.BigEndian.Uint64(b[offEchoInc:])
	p.EchoSeq = binary.BigEndian.Uint64(b[offEchoSeq:])
	p.Term = binary.BigEndian.Uint64(b[offTerm:])
	copy(p.Digest[:], b[offDigest:])
	copy(p.MAC[:], b[offHost:])
	p.Addr = netip.AddrFrom16([16]byte(b[offAddr:])).Unmap()
	name, ok := unpad(b[offName:offMAC])
	spare := b[offSpare]|b[offSpare+1] == 0
	if !ok || !spare || p.Kind < Beat || p.Kind > Released || p.Incarnation == 0 || p.Sequence == 0 {
		return Malformed
	}
	if p.Name != string(name) {
		p.Name = string(name)
	}
	return Kept
}

// unpad cuts the zeros off a name; what follows the first zero must be zero.
func unpad(b []byte) ([]byte, bool) {
	n := len(b)
	for n > 0 && b[n-1] == 0 {
		n--
	}
	for _, c := range b[:n] {
		if c <= ' ' || c == 0x7f {
			return nil, false
		}
	}
	return b[:n], n > 0
}
