package pair

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"lvstun/director/election"
	"lvstun/director/heartbeat"
)

// recent is how long a foreign host's word for a VIP, or a dropped packet
// that hints at a mistake, counts as a problem.
const recent = 10 * time.Second

// alive reports whether the peer was heard within the dead time.
func (b *board) alive(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return now.Sub(b.shown.Peer.LastHeard) < b.dead
}

// status is a copy of all that is shown, as of now.
func (b *board) status(now time.Time) Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.shown
	s.Peer.Alive = now.Sub(s.Peer.LastHeard) < b.dead
	s.Peer.HearsUs = s.Peer.Alive && b.hears
	s.Peer.Differs = slices.Clone(s.Peer.Differs)
	for _, shown := range b.paths {
		p := shown.PathStatus
		p.Dropped = maps.Clone(p.Dropped)
		if p.State != PathUnbound {
			p.State = PathSilent
			if now.Sub(p.LastHeard) < b.dead {
				p.State = PathUp
			}
		}
		s.Paths = append(s.Paths, p)
	}
	for _, shown := range b.vips {
		v := VIPStatus{VIP: shown.VIP, Held: b.on && now.Before(b.until), Until: b.until}
		if now.Sub(shown.at) <= recent {
			v.Foreign = shown.foreign
		}
		s.VIPs = append(s.VIPs, v)
	}
	s.Transitions = slices.Clone(s.Transitions)
	s.Problems = b.complaints(s, now)
	return s
}

// complaints are what a person should look at.
func (b *board) complaints(s Status, now time.Time) []string {
	var list []string
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	for _, text := range b.problems {
		add("%s", text)
	}
	for _, v := range b.unleased {
		add("%s was there before this director started, without a lease: take it out of the host's network configuration", v)
	}
	if s.Role == election.Fault {
		add("this director holds no VIP: %s", s.Reason)
	}
	if !s.Peer.DigestMatches {
		what := "another configuration"
		if len(s.Peer.Differs) > 0 {
			what += " (differs in: " + strings.Join(s.Peer.Differs, ", ") + ")"
		}
		add("director %s runs %s: bring the two files in line", s.Peer.Name, what)
	}
	if s.Peer.Alive && !s.Peer.HearsUs {
		add("director %s is heard but does not hear this one", s.Peer.Name)
	}
	for _, p := range s.Paths {
		switch {
		case p.Err != "":
			add("heartbeat path %s → %s: %s", p.Local, p.Peer, p.Err)
		case p.State == PathSilent && s.Peer.Alive:
			add("heartbeat path %s → %s is silent, another carries on", p.Local, p.Peer)
		}
	}
	for _, v := range s.VIPs {
		if v.Foreign != "" && v.Held {
			add("%s is claimed by %s as well", v.Addr, v.Foreign)
		}
	}
	for drop, text := range map[heartbeat.Drop]string{
		heartbeat.SameName: "another director goes by this one's name: names must differ",
		heartbeat.Forged:   "heartbeats come with a wrong key: the cluster keys differ, or somebody forges them",
		heartbeat.Skewed:   "the peer speaks another version of the heartbeat",
	} {
		if at, ok := b.dropAt[drop]; ok && now.Sub(at) < recent {
			add("%s", text)
		}
	}
	slices.Sort(list)
	return list
}
