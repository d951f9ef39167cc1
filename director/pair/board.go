package pair

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"lvstun/director/election"
	"lvstun/director/heartbeat"
	"lvstun/director/vip"
)

const (
	keptTransitions = 20
	// recent is how long a foreign host's word for a VIP, or a dropped
	// packet that hints at a mistake, counts as a problem.
	recent = 10 * time.Second
)

// board is what the pair shows. Nothing is decided by it, and its mutex is
// held only to copy.
type board struct {
	mu       sync.Mutex // guards everything below
	dead     time.Duration
	digest   [32]byte
	shown    Status
	hears    bool
	sightAt  []time.Time // of each VIP's Foreign
	dropAt   map[heartbeat.Drop]time.Time
	problems map[string]string
}

func (b *board) init(cfg Config) {
	b.dead, b.digest = cfg.Dead+cfg.Interval/4, cfg.Digest
	b.dropAt, b.problems = map[heartbeat.Drop]time.Time{}, map[string]string{}
	b.sightAt = make([]time.Time, len(cfg.VIPs))
	b.shown.Reason, b.shown.Peer.DigestMatches = "not started", true
	for _, p := range cfg.Paths {
		b.shown.Paths = append(b.shown.Paths, PathStatus{
			Local: p.Local, Peer: p.Peer, State: PathUnbound, Dropped: map[string]uint64{},
		})
	}
	for _, v := range cfg.VIPs {
		b.shown.VIPs = append(b.shown.VIPs, VIPStatus{VIP: v})
	}
}

// status is a copy of all that is shown, as of now.
func (b *board) status(now time.Time) Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.shown
	s.Peer.Alive = now.Sub(s.Peer.LastHeard) < b.dead
	s.Peer.HearsUs = s.Peer.Alive && b.hears
	s.Paths = slices.Clone(s.Paths)
	for i := range s.Paths {
		p := &s.Paths[i]
		p.Dropped = maps.Clone(p.Dropped)
		if p.State != PathUnbound {
			p.State = PathSilent
			if now.Sub(p.LastHeard) < b.dead {
				p.State = PathUp
			}
		}
	}
	s.VIPs = slices.Clone(s.VIPs)
	for i := range s.VIPs {
		v := &s.VIPs[i]
		v.Held = v.Held && now.Before(v.Until)
		if now.Sub(b.sightAt[i]) > recent {
			v.Foreign = ""
		}
	}
	s.Transitions = slices.Clone(s.Transitions)
	s.Problems = b.complaints(s, now)
	return s
}

// complaints are what a person should look at.
func (b *board) complaints(s Status, now time.Time) []string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(b.problems)) {
		list = append(list, b.problems[key])
	}
	if s.Role == election.Fault {
		list = append(list, "this director holds no VIP: "+s.Reason)
	}
	if !s.Peer.DigestMatches {
		list = append(list, fmt.Sprintf("director %s runs another configuration: bring the two files in line", s.Peer.Name))
	}
	if s.Peer.Alive && !s.Peer.HearsUs {
		list = append(list, fmt.Sprintf("director %s is heard but does not hear this one", s.Peer.Name))
	}
	for _, p := range s.Paths {
		switch {
		case p.Err != "":
			list = append(list, fmt.Sprintf("heartbeat path %s → %s: %s", p.Local, p.Peer, p.Err))
		case p.State == PathSilent && s.Peer.Alive:
			list = append(list, fmt.Sprintf("heartbeat path %s → %s is silent, another carries on", p.Local, p.Peer))
		}
	}
	for _, v := range s.VIPs {
		if v.Foreign != "" && v.Held {
			list = append(list, fmt.Sprintf("%s is claimed by %s as well", v.Addr, v.Foreign))
		}
	}
	for drop, text := range map[heartbeat.Drop]string{
		heartbeat.SameName: "another director goes by this one's name: names must differ",
		heartbeat.Forged:   "heartbeats come with a wrong key: the cluster keys differ, or somebody forges them",
		heartbeat.Skewed:   "the peer speaks another version of the heartbeat",
	} {
		if at, ok := b.dropAt[drop]; ok && now.Sub(at) < recent {
			list = append(list, text)
		}
	}
	slices.Sort(list)
	return list
}

// problem shows a lasting problem under a key.
func (b *board) problem(key, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems[key] = text
}

func (b *board) stepped(before, after election.Machine) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &b.shown
	s.Role, s.Term, s.Reason = after.Role(), after.Term(), after.Reason()
	if before.Role() == after.Role() && !s.Since.IsZero() {
		return
	}
	s.Since = time.Now()
	if before.Role() == after.Role() {
		return
	}
	if len(s.Transitions) == keptTransitions {
		s.Transitions = slices.Delete(s.Transitions, 0, 1)
	}
	s.Transitions = append(s.Transitions, Transition{
		At: s.Since, From: before.Role(), To: after.Role(), Term: after.Term(), Reason: after.Reason(),
	})
}

func (b *board) bound(i int, err string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := &b.shown.Paths[i]
	p.State, p.Err = PathSilent, err
	if err != "" {
		p.State = PathUnbound
	}
}

func (b *board) sent(i int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := &b.shown.Paths[i]
	p.Err = ""
	if err != nil {
		p.Err = err.Error()
		return
	}
	p.Sent++
}

// dropped counts a datagram that was thrown away, and reports whether it is
// the first for its reason on the path.
func (b *board) dropped(i int, drop heartbeat.Drop) bool {
	if drop == heartbeat.Kept {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropAt[drop] = time.Now()
	counts := b.shown.Paths[i].Dropped
	counts[drop.String()]++
	return counts[drop.String()] == 1
}

func (b *board) heard(i int, p *heartbeat.Packet, hearsUs bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	at := &b.shown.Paths[i]
	at.Received++
	at.LastHeard = now
	b.hears = hearsUs
	peer := &b.shown.Peer
	peer.Name, peer.Role, peer.Term, peer.LastHeard = p.Name, Role(p.Role), p.Term, now
	peer.DigestMatches = p.Digest == b.digest
}

func (b *board) held(vips []vip.VIP, on bool, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range vips {
		b.shown.VIPs[i].Held, b.shown.VIPs[i].Until = on, until
	}
}

func (b *board) foreign(v vip.VIP, mac string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.shown.VIPs {
		if b.shown.VIPs[i].Addr == v.Addr {
			b.shown.VIPs[i].Foreign, b.sightAt[i] = mac, now
		}
	}
}
