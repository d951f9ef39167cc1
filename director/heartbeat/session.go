package heartbeat

import (
	"net/netip"
	"time"
)

// remembered is how many of its own sequence numbers a session knows the time
// of, to tell whether the peer hears it.
const remembered = 64

// Session is one director's view of the other: what it may believe and what
// it has to echo. It is pure: times are durations since any one moment, from
// a clock that never steps.
//
// A packet is believed only if it echoes this start's incarnation, so nothing
// recorded before it can be replayed, and no clock has to agree. Within one
// incarnation of the peer its sequence must grow on each path. Another
// incarnation of the peer must echo a later sequence than any before it, so
// that a dead incarnation cannot come back either.
type Session struct {
	name        string
	addr        netip.Addr
	incarnation uint64
	dead        time.Duration // how old an echo may be
	answerEvery time.Duration

	sequence uint64
	sentAt   [remembered]time.Duration

	peer      uint64         // its proven incarnation, 0 for none
	newest    uint64         // its newest sequence on any path
	last      map[int]uint64 // the same by path
	echoed    uint64         // the highest own sequence it has echoed
	heardInc  uint64         // what to echo while nothing is proven
	heardSeq  uint64
	answered  time.Duration
	hasAnswer bool
}

// NewSession begins a session of a director called name. The incarnation must
// be random and not zero. Tune must follow.
func NewSession(name string, incarnation uint64) *Session {
	return &Session{name: name, incarnation: incarnation, last: map[int]uint64{}}
}

// Tune sets what may change while the session lasts: addr is the lowest
// heartbeat address, an echo younger than dead shows that the peer hears this
// director, and packets that prove nothing are answered at most once in
// answerEvery.
func (s *Session) Tune(addr netip.Addr, dead, answerEvery time.Duration) {
	s.addr, s.dead, s.answerEvery = addr, dead, answerEvery
}

// Forget drops what was known of a path that is no more.
func (s *Session) Forget(path int) { delete(s.last, path) }

// Next is the packet to send on every path now; the caller adds what it
// carries besides who sends it, its sequence and its echo.
func (s *Session) Next(kind Kind, now time.Duration) Packet {
	s.sequence++
	s.sentAt[s.sequence%remembered] = now
	p := Packet{
		Kind: kind, Incarnation: s.incarnation, Sequence: s.sequence,
		EchoOf: s.peer, EchoSeq: s.newest, Addr: s.addr, Name: s.name,
	}
	if s.heardInc != 0 {
		p.EchoOf, p.EchoSeq = s.heardInc, s.heardSeq
		s.heardInc = 0
	}
	return p
}

// Verdict is what a session makes of an authentic packet.
type Verdict struct {
	Drop    Drop
	Answer  bool // send a packet at once: the peer waits for an echo
	Newest  bool // nothing newer was heard: what it says counts
	HearsUs bool // the peer has heard what was sent within the dead time
}

// Receive judges a packet that came on a path, which any number may name.
func (s *Session) Receive(p *Packet, path int, now time.Duration) Verdict {
	switch {
	case p.Incarnation == s.incarnation:
		return Verdict{Drop: Self}
	case p.Name == s.name:
		return Verdict{Drop: SameName}
	case p.EchoOf != s.incarnation, p.EchoSeq > s.sequence:
		return s.unproven(p, now)
	case p.Incarnation != s.peer && p.EchoSeq <= s.echoed:
		return s.unproven(p, now)
	}
	fresh := p.Incarnation != s.peer
	if fresh {
		s.peer, s.newest = p.Incarnation, 0
		clear(s.last)
	}
	if p.Sequence <= s.last[path] || p.Sequence+remembered < s.newest {
		return Verdict{Drop: Replayed}
	}
	s.last[path] = p.Sequence
	v := Verdict{
		Answer:  fresh, // it cannot prove us before it is echoed
		Newest:  p.Sequence > s.newest,
		HearsUs: s.sequence-p.EchoSeq < remembered && now-s.sentAt[p.EchoSeq%remembered] < s.dead,
	}
	s.newest = max(s.newest, p.Sequence)
	s.echoed = max(s.echoed, p.EchoSeq)
	return v
}

// unproven lets a packet that may be a replay provoke an answer that echoes
// it, and nothing more.
func (s *Session) unproven(p *Packet, now time.Duration) Verdict {
	if s.hasAnswer && now-s.answered < s.answerEvery {
		return Verdict{Drop: Unproven}
	}
	s.hasAnswer, s.answered = true, now
	s.heardInc, s.heardSeq = p.Incarnation, p.Sequence
	return Verdict{Drop: Unproven, Answer: true}
}
