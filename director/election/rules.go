package election

import (
	"fmt"
	"time"
)

// take applies one event to what is known, and the rules that hang on the
// event itself. What hangs on time and on what is known is in settle.
func (s *step) take(ev Event) {
	switch ev := ev.(type) {
	case Beat:
		s.beat(ev)
	case Goodbye:
		s.term = s.grown(ev.Term)
		s.gone, s.peer.Role = true, Standby
	case Released:
		s.offered(ev)
	case Answer:
		s.answered(ev)
	case Sign:
		s.around.gateway = true
		s.sign()
	case Witnessed:
		s.witnessed(ev)
	case Reconfigured:
		s.cfg = ev.Config
		s.around.lookAt = s.now
		s.heard = max(s.heard, s.now-s.cfg.silence()+s.cfg.confirm())
	case Renewed:
		if s.role == Active {
			s.leaseEnd = ev.Until
		}
	case Refused:
		s.refused(ev)
	case Condition:
		s.fault = ev.Fault
		s.around.unanswered = 0 // that nobody was heard had its reason
	case Handover:
		if s.role == Active && s.standbyReady() {
			s.leave(ev.Why, false)
		}
	case Stop:
		s.stop()
	}
}

// refused asks anew where a claim came late, and else waits: the kernel will
// not have another opinion at once.
func (s *step) refused(ev Refused) {
	switch {
	case s.role != Active:
	case ev.Late:
		s.do(Release{})
		s.become(Confirming, ev.Why)
		s.confirmAnew()
	default:
		s.retryAt = s.now + refusalFor
		s.do(Release{}, Send{MessageBeat})
		s.become(Fault, ev.Why)
	}
}

// grown is the term to know after a peer spoke of term t. The active's own
// term grows only with Beat, where the peer's role is known.
func (s *step) grown(t uint64) uint64 {
	if s.role == Active {
		return s.term
	}
	return max(s.term, t)
}

func (s *step) beat(b Beat) {
	switch {
	case b.HearsUs:
		s.deaf = Never
	case s.deaf == Never || s.silent(s.now):
		s.deaf = s.now
	}
	s.news = !s.known || s.peer.Role != b.Role || s.peer.From != b.From || s.beatAt <= s.since
	s.peer, s.known, s.gone, s.heard, s.beatAt = b, true, false, s.now, s.now
	s.met()
	s.rivalAt = Never
	s.term = s.grown(b.Term)
	if s.role != Active {
		return
	}
	if b.Role == Active {
		s.meet(b)
		return
	}
	// The peer holds nothing. That it knows a higher term means that this
	// director forgot its own by a restart.
	s.term = max(s.term, b.Term)
	if s.contested {
		s.contested = false
		s.do(Announce{})
	}
}

// meet settles two active directors: the higher term wins, then the lower
// address. A winner whom the loser cannot hear must yield all the same, for
// it is the only one that can.
func (s *step) meet(b Beat) {
	switch {
	case b.Term > s.term:
		s.term = b.Term
		s.release(fmt.Sprintf("peer %s is active in the later term %d", b.From.Name, b.Term))
	case b.Term == s.term && !s.lower():
		s.release(fmt.Sprintf("peer %s is active in the same term and has the lower address", b.From.Name))
	case s.deaf != Never && s.now-s.deaf >= s.cfg.silence():
		s.release(fmt.Sprintf("peer %s is active and hears nothing of this director", b.From.Name))
	case !s.contested:
		s.contested = true
		s.do(Announce{})
	}
}

// offered takes over at once what the peer has released: nobody else can
// hold it. A director that has just woken up asks first, for the offer may
// have waited for it too long.
func (s *step) offered(ev Released) {
	s.term = s.grown(ev.Term)
	s.peer.Role = Standby
	switch {
	case s.role != Standby && s.role != Confirming:
	case s.now < s.doubtEnd:
		s.gone = true
	default:
		s.heard = s.now
		s.claim("the peer released the VIPs to this director")
	}
}

// answered holds a claim while somebody has a VIP. Of two that ask, the one
// with the lower MAC goes first where no heartbeat can settle it.
func (s *step) answered(ev Answer) {
	s.sign()
	switch {
	case s.role == Active && ev.Peer && !ev.Asks && s.missing(s.now):
		s.rivalled(ev)
	case s.role != Confirming || ev.Asks && (!ev.First || !s.silent(s.now)):
	case ev.Asks && s.heldSince != Never:
		s.asked = 0 // who holds it says more than who asks
	default:
		s.answering = s.answering || ev.Peer && !ev.Asks
		s.hold(ev.Who)
	}
}

// rivalled settles two directors that hold the VIPs and share a LAN again: the
// lower MAC stays. The heartbeat has the first word, should it be back as
// well, and what was said before the claim has none.
func (s *step) rivalled(ev Answer) {
	switch {
	case s.now-s.since < s.cfg.silence():
	case s.rivalAt == Never:
		s.rivalAt = s.now
		s.do(Send{MessageBeat})
	case s.now-s.rivalAt < s.cfg.confirm():
	case ev.First:
		s.peer.Role = Active
		s.release(ev.Who + ", the peer whose MAC is the lower")
	default:
		s.do(Announce{})
	}
}

// hold puts a claim off, and lets the questions begin anew.
func (s *step) hold(why string) {
	if s.heldSince == Never {
		s.heldSince = s.now
	}
	s.reason = "held: " + why
	s.asked = 0
	if s.now-s.heldSince > 2*s.cfg.Lease {
		s.askAt = s.now + slowAsk
	}
}

// settle applies the rules that hang on time and on what is known. It runs
// after every event.
func (s *step) settle() {
	if !s.started {
		return
	}
	s.checkFitness()
	s.lookAround()
	if s.role != Standby && s.role != Confirming {
		return
	}
	why := s.vacancy()
	if why == "" {
		s.listen()
		return
	}
	if s.role == Standby {
		s.become(Confirming, why)
		s.confirmAnew()
		return
	}
	switch {
	case s.now < s.askAt || !s.all:
	case s.now >= s.askAt+s.cfg.confirm(): // this director was out meanwhile
		s.question()
	case s.asked >= questions && (s.blind(s.now, 1) || s.overlooked() || s.now < s.leaseOver(s.now)-leaseSlack):
		s.question()
	case s.asked >= questions:
		s.claim(why + ", and nobody answered for the VIPs")
	default:
		s.ask()
	}
}

// isolation is the reason of a director that hears nobody.
const isolation = "isolated: neither the peer nor the gateway nor any real server answers"

// checkFitness moves into the fault role and out of it.
func (s *step) checkFitness() {
	fault := s.fault
	if fault == "" && s.blind(s.now, blindness) {
		fault = isolation
	}
	switch {
	case fault != "" && s.role == Fault:
		s.reason, s.retryAt = fault, Never
	case fault != "":
		if s.role == Active {
			s.do(Release{})
		}
		s.retryAt = Never
		s.become(Fault, fault)
		s.do(Send{MessageBeat})
	case s.role == Fault && (s.retryAt == Never || s.now >= s.retryAt):
		s.heard = max(s.heard, s.now-s.cfg.silence()+s.cfg.confirm())
		s.become(Standby, "fit again: listening for the peer")
		s.do(Send{MessageBeat})
	}
}

// vacancy says why this director should become active, or nothing.
func (s *step) vacancy() string {
	switch {
	case s.cfg.Alone:
		return "no peer is configured"
	case s.gone:
		return "the peer said goodbye"
	case s.silent(s.now) && (s.all || s.role == Confirming):
		return fmt.Sprintf("the peer is silent for %v", s.cfg.silence())
	case !s.known || s.peer.Role == Active:
		return ""
	case s.peer.Role == Fault:
		return "the peer is in fault"
	case s.deaf == Never && s.lower():
		return "nobody is active and this director has the lower address"
	}
	return ""
}

// listen is what a director does that has no reason to become active.
func (s *step) listen() {
	changed := s.role != Standby
	if changed || s.news {
		s.become(Standby, s.outlook())
	}
	if changed {
		s.do(Send{MessageBeat})
	}
}

// outlook says what a standby waits for.
func (s *step) outlook() string {
	switch {
	case !s.known:
		return s.reason
	case s.peer.Role == Active:
		return fmt.Sprintf("peer %s is active", s.peer.From.Name)
	default:
		return fmt.Sprintf("peer %s is about to become active", s.peer.From.Name)
	}
}

// confirmAnew begins a confirmation.
func (s *step) confirmAnew() {
	s.heldSince, s.answering = Never, false
	s.question()
	s.do(Send{MessageBeat})
}

// question begins to ask, from the first question on.
func (s *step) question() {
	s.asked = 0
	s.ask()
}

// ask asks once more. With the second question, when the first had no answer,
// the director looks around.
func (s *step) ask() {
	s.asked++
	s.askAt = s.now + s.askEvery(s.now)
	s.do(Ask{})
	if s.asked == 2 && !s.cfg.Alone {
		s.look()
	}
}

func (s *step) claim(why string) {
	s.term = max(s.term, s.peer.Term) + 1
	s.leaseEnd = s.now + s.cfg.Lease
	s.become(Active, why)
	s.do(Claim{Term: s.term, Before: s.now + s.cfg.confirm()}, Send{MessageBeat})
}

// release lets the VIPs go and listens again.
func (s *step) release(why string) {
	s.heard = max(s.heard, s.now-s.cfg.silence()+s.cfg.confirm())
	s.become(Standby, why)
	s.do(Release{}, Send{MessageBeat})
}

// standbyReady reports whether the peer can take the VIPs now.
func (s *step) standbyReady() bool {
	return s.known && !s.gone && s.now-s.beatAt < s.cfg.silence() && s.deaf == Never &&
		(s.peer.Role == Standby || s.peer.Role == Confirming)
}

func (s *step) stop() {
	if s.leaving.on {
		s.leaving.stop = true
		return
	}
	if s.role == Active && s.standbyReady() {
		s.leave("stopping", true)
		return
	}
	s.goodbye()
}

// goodbye ends. VIPs still held stay for the rest of their lease, so that a
// director that comes back in time loses nothing.
func (s *step) goodbye() {
	s.do(Send{MessageGoodbye}, Done{})
	s.started = false
}

// leave begins to give the VIPs to the standby: the kernel lets them go, the
// standby is told until it is active.
func (s *step) leave(why string, stop bool) {
	s.leaving = departure{on: true, stop: stop, giveUpAt: s.now + departFor}
	s.become(Standby, why+": giving the VIPs to the standby")
	s.do(Release{Handover: true})
}

// departFor is how long a departure waits for the kernel, and then for the
// standby. They need milliseconds, whatever the timing of the heartbeat.
const departFor = 300 * time.Millisecond

// depart carries a departure on.
func (s *step) depart(ev Event) {
	l := &s.leaving
	switch ev := ev.(type) {
	case Withdrawn:
		if ev.Err == "" {
			l.released, l.giveUpAt, l.resendAt = true, s.now+departFor, s.now
		} else {
			l.giveUpAt = s.now // the lease will end what the kernel would not
		}
	case Beat:
		if ev.Role == Active {
			s.departed(fmt.Sprintf("peer %s has taken over", ev.From.Name))
			return
		}
	case Goodbye:
		s.departed("the standby stops as well")
		return
	}
	switch {
	case s.now >= l.giveUpAt:
		s.departed("the standby did not take the VIPs")
	case l.released && s.now >= l.resendAt:
		l.resendAt = s.now + s.cfg.resendEvery()
		s.do(Send{MessageReleased})
	}
}

func (s *step) departed(why string) {
	stop := s.leaving.stop
	s.leaving = departure{}
	s.become(Standby, why)
	if stop {
		s.goodbye()
		return
	}
	s.settle()
}
