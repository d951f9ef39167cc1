// Package witness carries the question of a director that no longer hears its
// peer to a few real servers - is another director active? - and their answers.
//
// A real server is asked because it sees the other director over the very
// network that clients use, where the heartbeat may have paths of its own. Its
// answer is worth something only if it is fresh: the real server renews its
// lease at the other director while the question waits.
package witness

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// Port is the UDP port on the real server's own address that is asked.
const Port = 3638

// Size is the length of every datagram in bytes. An answer is no longer than
// its question, so nobody can use real servers to amplify.
const Size = 128

// Version is the version of the datagrams this package speaks.
const Version = 1

// MaxName is the longest name of a director in bytes, as in the heartbeat.
const MaxName = 64

// MaxWait is the longest time that a real server looks for an answer. It
// travels in whole milliseconds, of which it has at least one.
const MaxWait = 60 * time.Millisecond

// magic begins every datagram, so that another program's is told from a forged
// one.
const magic = 0x4c565357 // "LVSW"

// Role is what a director is. Its numbers are those of the wire.
type Role uint8

// The roles.
const (
	Unknown    Role = iota // it has not said, or in no word known here
	Standby                // hears the active director
	Confirming             // about to take over
	Active                 // holds the VIPs
	Fault                  // must not hold them
	roles                  // how many there are
)

var roleNames = [roles]string{"unknown", "standby", "confirming", "active", "fault"}

func (r Role) String() string {
	if r >= roles {
		return fmt.Sprintf("role(%d)", uint8(r))
	}
	return roleNames[r]
}

// ParseRole is the role of that name, Unknown for any other.
func ParseRole(name string) Role { return Role(max(0, slices.Index(roleNames[:], name))) }

// kind is what a datagram is.
type kind uint8

const (
	question  kind = iota + 1 // asks for a director other than the asker
	unreached                 // none of them answered in time
	reached                   // one answered, of this role and term
)

// nonce ties an answer to its question.
type nonce [16]byte

// message is one datagram.
//
// On the wire, big endian, in this order: magic (4), version (1), kind (1), role
// (1), wait in milliseconds (1), nonce (16), term (8), the asking director's
// name (64, padded with zeros), HMAC-SHA256 of all before it under the key of
// the real server that is asked (32). A question has no role and no term, an
// answer no wait, and one that reached nobody none of the three; then they are
// zero. An answer repeats its question's nonce and name.
type message struct {
	kind  kind
	role  Role
	wait  time.Duration // from the question's arrival
	nonce nonce
	term  uint64
	asker string
}

// offsets of the message's fields.
const (
	offVersion = 4
	offKind    = 5
	offRole    = 6
	offWait    = 7
	offNonce   = 8
	offTerm    = 24
	offAsker   = 32
	offMAC     = 96
)

// sound reports whether the fields fit together.
func (m *message) sound() bool {
	waits := m.wait >= time.Millisecond && m.wait <= MaxWait
	silent := m.role == Unknown && m.term == 0
	switch m.kind {
	case question:
		return waits && silent
	case unreached:
		return m.wait == 0 && silent
	case reached:
		return m.wait == 0 && m.role < roles
	}
	return false
}

// encode writes m, which must be sound and have a name of 1 to MaxName bytes.
func encode(m *message, key [32]byte) (b [Size]byte) {
	binary.BigEndian.PutUint32(b[:], magic)
	b[offVersion], b[offKind], b[offRole] = Version, byte(m.kind), byte(m.role)
	b[offWait] = byte(m.wait / time.Millisecond)
	copy(b[offNonce:], m.nonce[:])
	binary.BigEndian.PutUint64(b[offTerm:], m.term)
	copy(b[offAsker:offMAC], m.asker)
	copy(b[offMAC:], sign(b[:offMAC], key))
	return b
}

// decode reads b, which must be authentic under one of the keys, and returns
// that key. It looks into no field but the version before that is proven.
func decode(b []byte, keys ...[32]byte) (m message, key [32]byte, d Drop) {
	switch {
	case len(b) < Size:
		return m, key, Short
	case len(b) > Size:
		return m, key, Long
	case binary.BigEndian.Uint32(b) != magic:
		return m, key, Alien
	case b[offVersion] != Version:
		return m, key, Skewed
	}
	i := slices.IndexFunc(keys, func(k [32]byte) bool { return hmac.Equal(sign(b[:offMAC], k), b[offMAC:]) })
	if i < 0 {
		return m, key, Forged
	}
	asker, ok := unpad(b[offAsker:offMAC])
	m = message{
		kind:  kind(b[offKind]),
		role:  Role(b[offRole]),
		wait:  time.Duration(b[offWait]) * time.Millisecond,
		nonce: nonce(b[offNonce:offTerm]),
		term:  binary.BigEndian.Uint64(b[offTerm:]),
		asker: string(asker),
	}
	if !ok || !m.sound() {
		return message{}, key, Malformed
	}
	return m, keys[i], Kept
}

func sign(b []byte, key [32]byte) []byte {
	mac := hmac.New(sha256.New, key[:])
	mac.Write(b)
	return mac.Sum(nil)
}

// validName is true for 1 to MaxName bytes, none of them a blank or a control
// character: what a heartbeat can carry.
func validName(name string) bool {
	got, ok := unpad([]byte(name))
	return ok && len(got) == len(name) && len(name) <= MaxName
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
