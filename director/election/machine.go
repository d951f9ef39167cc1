package election

import (
	"math"
	"time"
)

// Config is what a machine needs to know.
type Config struct {
	Self     ID
	Alone    bool          // no peer is configured
	Interval time.Duration // between beats
	Dead     time.Duration // silence after which the peer counts as dead
	Lease    time.Duration // how long the kernel keeps a VIP that is not renewed
}

// How often a held claim is asked again once the holder has outlived every
// lease, and how long a director waits after the kernel refused a claim.
const (
	slowAsk    = time.Second
	refusalFor = time.Second
)

// Never is the deadline of a machine that waits for events only.
const Never = time.Duration(math.MaxInt64)

// silence is the time without a beat after which the peer counts as dead: a
// quarter of an interval over Dead, so that the last beat in time may be late.
func (c Config) silence() time.Duration { return c.Dead + c.Interval/4 }

// confirm is the time a claim waits for answers: at most 75 ms, and less
// where Dead is tuned below 300 ms, but never less than a slow LAN needs.
func (c Config) confirm() time.Duration {
	return min(max(c.Dead/4, 10*time.Millisecond), 75*time.Millisecond)
}

// questions is how many must go unanswered in a row before a claim, so that a
// few lost frames cannot make two holders.
const questions = 5

// leaseSlack is how far the end of a lease may be from the last beat of its
// holder and a lease: the kernel's timer ends it up to a quarter of a second
// early (ADDRCONF_TIMER_FUZZ in net/ipv4/devinet.c), and the last renewal may
// be as far from the last beat.
const leaseSlack = 300 * time.Millisecond

// closeConfirm is the time a claim waits for answers while the lease of a
// holder that answered until now must end.
const closeConfirm = 10 * time.Millisecond

// resendEvery is the time between two offers of a released VIP.
func (c Config) resendEvery() time.Duration {
	return min(max(c.Interval/4, 5*time.Millisecond), 25*time.Millisecond)
}

// Machine is one director's half of the election. It is a value: Step leaves
// it as it was and returns the next. Times are durations since any one
// moment, read from a clock that never steps.
type Machine struct {
	cfg     Config
	started bool
	role    Role
	term    uint64 // of the holding while active, else the highest one known
	since   time.Duration
	reason  string
	fault   string // what forbids holding the VIPs, or empty

	stepped  time.Duration // time of the last event
	doubtEnd time.Duration // until then this director has just woken up

	peer      Beat          // the last one
	known     bool          // there was a last one
	gone      bool          // the peer said goodbye since
	beatAt    time.Duration // when it came
	heard     time.Duration // the same, or later where listening began later
	deaf      time.Duration // since when the peer is heard but hears nothing, or Never
	contested bool          // the peer was active at the last beat, and lost

	around surroundings

	askAt     time.Duration // confirming: the next question, or the claim
	asked     int           // confirming: questions since the last answer
	heldSince time.Duration // confirming: the first answer of a row, or Never
	answering bool          // confirming: the peer answered for a VIP

	leaseEnd time.Duration // active: when the kernel lets the VIPs go
	rivalAt  time.Duration // active: when the peer, unheard, was first seen to hold them too, or Never
	retryAt  time.Duration // fault: when a refused claim may be tried again

	leaving departure
}

// departure is a holding being given to the standby.
type departure struct {
	on       bool
	stop     bool          // the director ends with it
	released bool          // the VIPs are off their devices
	resendAt time.Duration // the next offer
	giveUpAt time.Duration
}

// New makes the machine of a director that has not started.
func New(cfg Config) Machine {
	return Machine{cfg: cfg, reason: "not started", deaf: Never, heldSince: Never, rivalAt: Never, around: surroundings{lookAt: Never}}
}

// Role is what the director is.
func (m Machine) Role() Role { return m.role }

// Term is the number of the holding while active, else the highest known.
func (m Machine) Term() uint64 { return m.term }

// Since is when the role was taken.
func (m Machine) Since() time.Duration { return m.since }

// Reason says why the role is what it is.
func (m Machine) Reason() string { return m.reason }

// Next is when a Tick is due besides that of every Interval, or Never.
func (m Machine) Next() time.Duration {
	if !m.started {
		return Never
	}
	if m.leaving.on {
		if m.leaving.released {
			return min(m.leaving.resendAt, m.leaving.giveUpAt)
		}
		return m.leaving.giveUpAt
	}
	switch m.role {
	case Standby:
		return min(m.heard+m.cfg.silence(), m.around.lookAt)
	case Confirming:
		return m.askAt
	case Active:
		return min(m.leaseEnd, m.around.lookAt)
	default:
		return min(m.retryAt, m.around.lookAt)
	}
}

// silent reports whether the peer must be taken for dead.
func (m Machine) silent(now time.Duration) bool {
	return m.cfg.Alone || m.gone || now-m.heard >= m.cfg.silence()
}

// leaseOver is when the lease of a silent peer that still answered for a VIP
// is over for sure, or nearly so: no daemon of its has renewed it since its
// last beat. It is zero where it did not answer, or is heard.
func (m Machine) leaseOver(now time.Duration) time.Duration {
	if !m.answering || !m.known || !m.silent(now) {
		return 0
	}
	return m.beatAt + m.cfg.Lease
}

// askEvery is the time from one question to the next, and from the last to
// the claim. It is short while the lease of a peer that fell silent must end:
// the VIP is nobody's from then on.
func (m Machine) askEvery(now time.Duration) time.Duration {
	if end := m.leaseOver(now); end > 0 && now >= end-leaseSlack && now < end+leaseSlack {
		return min(m.cfg.confirm(), closeConfirm) / questions
	}
	return m.cfg.confirm() / questions
}

// lower reports whether this director wins ties with its peer.
func (m Machine) lower() bool { return m.cfg.Self.Compare(m.peer.From) < 0 }

// step is one Step under way.
type step struct {
	Machine
	now     time.Duration
	all     bool // all that came before has been heard
	news    bool // the peer is another, or is something else, than when the role was taken or at its last beat
	actions []Action
}

// Step takes one event at the time now and returns the machine that follows
// and what has to be done. An event before Start, and a second Start, change
// nothing.
func (m Machine) Step(ev Event, now time.Duration) (Machine, []Action) {
	s := step{Machine: m, now: now}
	if start, ok := ev.(Start); ok {
		if !m.started {
			s.start(start)
			s.settle()
		}
		return s.Machine, s.actions
	}
	if !m.started {
		return m, nil
	}
	tick, _ := ev.(Tick)
	s.all = tick.All
	s.awake()
	s.take(ev)
	if s.leaving.on {
		s.depart(ev)
	} else {
		s.settle()
	}
	return s.Machine, s.actions
}

func (s *step) start(ev Start) {
	s.started = true
	s.stepped, s.heard, s.since = s.now, s.now, s.now
	s.retryAt = Never
	s.fault = ev.Fault
	s.reason = "started: listening for the peer"
	s.around.lookAt = s.now
	switch {
	case ev.Held && ev.Fault == "":
		s.term = 1
		s.leaseEnd = s.now + s.cfg.Lease
		s.become(Active, "started: the VIPs were still here under their lease")
		s.do(Claim{Term: s.term, Before: s.now + s.cfg.confirm()})
	case ev.Held:
		s.do(Release{})
	}
	s.do(Send{MessageBeat})
}

// awake notices that this director itself was out for longer than the dead
// time: its silence then proves nothing, and what lies in its queues is old.
func (s *step) awake() {
	if s.now-s.stepped >= s.cfg.silence()+s.cfg.confirm() {
		s.doubtEnd = s.now + s.cfg.confirm()
		s.heard = max(s.heard, s.doubtEnd-s.cfg.silence())
		s.around.unanswered = 0
	}
	s.stepped = s.now
	if s.role == Active && s.now >= s.leaseEnd {
		s.release("the lease of the VIPs ended before it was renewed")
	}
}

// do appends actions.
func (s *step) do(actions ...Action) { s.actions = append(s.actions, actions...) }

// become changes the role.
func (s *step) become(r Role, reason string) {
	s.reason = reason
	if s.role == r {
		return
	}
	s.role, s.since, s.news, s.rivalAt = r, s.now, false, Never
	if r != Active {
		s.contested = false
	}
}
