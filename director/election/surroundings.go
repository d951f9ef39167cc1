package election

import (
	"fmt"
	"time"
)

// How often a director looks around: now and then, to know what there is to
// see, and often while the peer is silent.
const (
	lookSoon  = 200 * time.Millisecond
	lookLater = 10 * time.Second
)

// blindness is how many looks in a row bring nothing to a director that is
// isolated; the answers to the last may still be on their way.
const blindness = 8

// surroundings is what a director sees of the world besides its peer.
type surroundings struct {
	gateway    bool // it has spoken since the start
	witnesses  bool // real servers have answered, and were still registered when the peer was last heard
	none       bool // at the last look no real server was registered
	round      uint64
	lookedAt   time.Duration
	lookAt     time.Duration
	unanswered int // looks since anybody was heard
}

// missing reports whether there is a peer, and it cannot be heard.
func (m Machine) missing(now time.Duration) bool { return !m.cfg.Alone && m.silent(now) }

// lonely reports whether the peer is missing and has not said goodbye. Only
// then does it matter what others see of it.
func (m Machine) lonely(now time.Duration) bool { return m.missing(now) && !m.gone }

// blind reports whether the last looks, that many, brought nothing, though
// there is a gateway and there are real servers that have answered before. A
// director that never had them cannot tell, and counts as seeing.
func (m Machine) blind(now time.Duration, looks int) bool {
	return m.lonely(now) && m.around.gateway && m.around.witnesses && m.around.unanswered >= looks
}

// look looks around. What comes of it comes in time for the claim that may
// follow three questions later. An active director that misses its peer asks for a VIP
// of its own as well: the peer may hold it too.
func (s *step) look() {
	s.around.round++
	s.around.unanswered++
	s.around.lookedAt, s.around.lookAt = s.now, s.now+lookLater
	missing := s.missing(s.now)
	if missing {
		s.around.lookAt = s.now + min(s.cfg.Dead, lookSoon)
	}
	s.do(Look{Round: s.around.round, Within: 3 * s.askEvery(s.now), VIP: missing && s.role == Active})
}

// lookAround looks when it is time. A director that confirms does so with its
// questions.
func (s *step) lookAround() {
	switch {
	case s.cfg.Alone:
		s.around.lookAt = Never
		return
	case s.role == Confirming:
		return
	case s.overlooked():
		s.around.lookAt = s.now
	case s.missing(s.now):
		s.around.lookAt = min(s.around.lookAt, s.now+min(s.cfg.Dead, lookSoon))
	}
	if s.now >= s.around.lookAt {
		s.look()
	}
}

// overlooked reports whether the peer has fallen silent since the last look,
// so that nobody was asked yet whether it is active.
func (s *step) overlooked() bool {
	return s.lonely(s.now) && s.around.lookedAt < s.heard+s.cfg.silence()
}

// sign notes that this director is not cut off.
func (s *step) sign() { s.around.unanswered = 0 }

// met notes that the peer was heard: real servers that are not registered now
// have left.
func (s *step) met() {
	s.sign()
	if s.around.none {
		s.around.witnesses = false
	}
}

// witnessed holds a claim while most of the real servers that answer say that
// the peer is active. One alone, or fewer than most of those asked, may be
// wrong while the others are cut off: they hold it for a lease at most, after
// which a peer that cannot renew has lost the VIPs.
func (s *step) witnessed(ev Witnessed) {
	switch {
	case ev.Answered > 0:
		s.around.witnesses, s.around.none = true, false
		s.sign()
	case ev.Asked == 0: // they have left, or their leases ended as nobody is heard
		s.around.none = true
	}
	if s.role != Confirming || ev.Round != s.around.round || !s.lonely(s.now) || 2*ev.PeerActive <= ev.Answered {
		return
	}
	if few := ev.PeerActive < 2 || 2*ev.PeerActive <= ev.Asked; few && s.heldSince != Never && s.now-s.heldSince >= s.cfg.Lease {
		return
	}
	s.hold(fmt.Sprintf("%d of %d real servers reach the peer and it is active", ev.PeerActive, ev.Asked))
	s.askAt = max(s.askAt, s.now+s.cfg.confirm())
}
