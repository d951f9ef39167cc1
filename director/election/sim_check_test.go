package election

import (
	"fmt"
	"time"
)

// checker watches a run and notes the first thing that must not be.
type checker struct {
	sim       *sim
	violation string

	both       time.Duration // since when both kernels hold the VIP, or never
	parted     time.Duration // when both held it last
	oneLAN     time.Duration // since when both daemons run on a LAN that carries questions
	wasOneLAN  bool
	connected  time.Duration // since when both daemons can hear each other
	wasBoth    bool
	wasTalking bool

	claims     int           // a kernel took a VIP it did not hold
	holdersBad time.Duration // the last moment without exactly one holder
	gapSince   time.Duration
	longestGap time.Duration // since the last time it was set to zero
}

func (c *checker) fail(format string, args ...any) {
	if c.violation == "" {
		c.violation = fmt.Sprintf("at %.3fs: ", c.sim.now.Seconds()) + fmt.Sprintf(format, args...)
		c.sim.logf("VIOLATION %s", c.violation)
	}
}

func (n *node) awake() bool { return n.daemon && !n.frozen && n.host }

// talking reports whether both daemons run and some path carries beats both
// ways without trouble.
func (s *sim) talking() bool {
	if !s.nodes[0].awake() || !s.nodes[1].awake() {
		return false
	}
	for i := range s.paths {
		if s.paths[i][0].clean() && s.paths[i][1].clean() {
			return true
		}
	}
	return false
}

// thawedLately says that a daemon may not have got round to what happened
// while it was frozen.
func (s *sim) thawedLately(n *node) bool { return n.thawed > 0 && s.now-n.thawed < 20*ms }

// look runs after every item.
func (c *checker) look() {
	s := c.sim
	a, b := s.nodes[0], s.nodes[1]
	both := a.vip && b.vip && a.host && b.host
	if both && !c.wasBoth {
		c.both = s.now
	}
	if c.wasBoth && !both {
		c.parted = s.now
	}
	c.wasBoth = both
	if !a.vip && !b.vip && c.parted > 0 && s.now-c.parted < 100*ms && s.now-s.lastFault > 300*ms && a.awake() && b.awake() {
		c.fail("both let go of the VIP")
	}
	talking := s.talking()
	if talking && !c.wasTalking {
		c.connected = s.now
	}
	c.wasTalking = talking
	// Two that can talk must not both hold: they meet at the next beat.
	if both && talking && s.now-max(c.both, c.connected) > 2*s.Interval+60*ms {
		c.fail("two holders in a connected pair since %.3fs", c.both.Seconds())
	}
	oneLAN := a.awake() && b.awake() && s.lan[0].clean() && s.lan[1].clean()
	if oneLAN && !c.wasOneLAN {
		c.oneLAN = s.now
	}
	c.wasOneLAN = oneLAN
	// Two that share a LAN must not both hold: they find each other's MAC, or
	// the one that hears the other yields.
	if both && oneLAN && a.peerInc != 0 && b.peerInc != 0 && s.now-max(c.both, c.oneLAN, a.metAt, b.metAt) > s.silence()+2*s.Interval+6*min(s.Dead, lookSoon)+60*ms {
		c.fail("two holders on one LAN since %.3fs", c.both.Seconds())
	}
	for _, n := range s.nodes {
		if n.daemon && !n.frozen && n.fault != "" && n.vip && s.now-n.faultSince > 20*ms && !s.thawedLately(n) {
			c.fail("%s holds the VIP in fault", n.id.Name)
		}
	}
	if (a.vip && a.host) == (b.vip && b.host) {
		c.holdersBad = s.now
		if c.gapSince == 0 {
			c.gapSince = s.now
		}
		c.longestGap = max(c.longestGap, s.now-c.gapSince)
	} else {
		c.gapSince = 0
	}
}

// taking runs just before a kernel takes or renews the VIP.
func (c *checker) taking(n *node) {
	s := c.sim
	other := s.nodes[1-n.index]
	if n.vip || !n.host {
		return
	}
	c.claims++
	quiet := func(l *link) bool { return l.clean() && s.now-l.changed > 200*ms }
	if other.vip && other.host && quiet(&s.lan[0]) && quiet(&s.lan[1]) {
		c.fail("%s took the VIP that %s held, over a LAN that carries questions", n.id.Name, other.id.Name)
	}
	if other.vip && other.host && n.m.known && n.heldAt > n.m.beatAt+s.silence() && s.now < n.m.beatAt+s.Lease-leaseSlack && !n.offered {
		c.fail("%s took the VIP that %s answered for at %.3fs, and the lease could not be over", n.id.Name, other.id.Name, n.heldAt.Seconds())
	}
	if other.vip && other.awake() && other.m.role == Active && s.now-max(other.m.since, other.thawed) > 200*ms && s.seen() && !n.m.gone && !n.offered {
		c.fail("%s took the VIP though most real servers saw %s hold it", n.id.Name, other.id.Name)
	}
	if s.isolated(n) && !n.m.gone && s.now-n.m.beatAt >= s.silence() {
		c.fail("%s took the VIP and heard nobody", n.id.Name)
	}
	if s.foreign > 0 && s.now-s.foreignSince > 200*ms && quiet(&s.lan[n.index]) && !n.offered {
		c.fail("%s took the VIP that a foreign host held", n.id.Name)
	}
}

// claimed runs when a daemon decides to claim.
func (c *checker) claimed(n *node, term uint64, because Event) {
	_, n.offered = because.(Released)
	if _, resumed := because.(Start); resumed {
		return
	}
	if term <= n.knew {
		c.fail("%s claims term %d and knew of %d", n.id.Name, term, n.knew)
	}
	n.knew = term
}

// settled runs at the end of a run, which has been quiet since lastFault.
func (c *checker) settled() {
	s := c.sim
	if limit := s.lastFault + s.allowance; c.holdersBad > limit {
		c.fail("not exactly one holder at %.3fs, %v after the last fault; allowed %v",
			c.holdersBad.Seconds(), c.holdersBad-s.lastFault, s.allowance)
	}
	if allowed := 1 + s.faults; c.claims > allowed {
		c.fail("%d claims in %d faults: it flaps", c.claims, s.faults)
	}
}
