package pair

import (
	"slices"
	"sync"
	"time"

	"lvstun/director/election"
	"lvstun/director/heartbeat"
	"lvstun/director/vip"
)

// keptTransitions is how many changes of role are shown.
const keptTransitions = 20

// board is what the pair shows. Its mutex is held only to copy.
type board struct {
	mu       sync.Mutex // guards everything below
	cfg      Config
	dead     time.Duration
	shown    Status // but for what is made up from the rest
	paths    []*shownPath
	vips     []shownVIP
	on       bool // the VIPs are held
	until    time.Time
	hears    bool
	unleased []vip.VIP
	dropAt   map[heartbeat.Drop]time.Time
	problems map[string]string
}

type shownPath struct {
	id int
	PathStatus
}

type shownVIP struct {
	vip.VIP
	foreign string // the last MAC that spoke for it
	at      time.Time
}

func (b *board) init(cfg Config) {
	b.dropAt, b.problems = map[heartbeat.Drop]time.Time{}, map[string]string{}
	b.shown.Reason, b.shown.Peer.DigestMatches = "not started", true
	b.shown.Witnesses.On = cfg.AskWitnesses != nil && len(cfg.Paths) > 0
	b.reload(cfg)
}

// reload shows another configuration; what is still true of the last stays.
func (b *board) reload(cfg Config) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cfg = cfg
	var vips []shownVIP
	for _, v := range cfg.VIPs {
		if i := slices.IndexFunc(b.vips, func(s shownVIP) bool { return s.VIP == v }); i >= 0 {
			vips = append(vips, b.vips[i])
		} else {
			vips = append(vips, shownVIP{VIP: v})
		}
	}
	b.vips = vips
}

func (b *board) tune(t timing) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dead = t.dead + t.interval/4
}

// problem shows a lasting problem under a key.
func (b *board) problem(key, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems[key] = text
}

// permanent shows the VIPs that are on this host without a lease.
func (b *board) permanent(vips []vip.VIP) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.unleased = vips
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

func (b *board) addPath(id int, p Path) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.paths = append(b.paths, &shownPath{id, PathStatus{
		Local: p.Local, Peer: p.Peer, State: PathUnbound, Dropped: map[string]uint64{},
	}})
}

func (b *board) dropPath(id int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.paths = slices.DeleteFunc(b.paths, func(p *shownPath) bool { return p.id == id })
}

// path is the one of an id, or one that nobody looks at. The caller holds mu.
func (b *board) path(id int) *shownPath {
	for _, p := range b.paths {
		if p.id == id {
			return p
		}
	}
	return &shownPath{PathStatus: PathStatus{Dropped: map[string]uint64{}}}
}

func (b *board) bound(id int, err string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.path(id)
	p.State, p.Err = PathSilent, err
	if err != "" {
		p.State = PathUnbound
	}
}

func (b *board) sent(id int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.path(id)
	p.Err = ""
	if err != nil {
		p.Err = err.Error()
		return
	}
	p.Sent++
}

// dropped counts a datagram that was thrown away, and reports whether it is
// the first for its reason on the path.
func (b *board) dropped(id int, drop heartbeat.Drop) bool {
	if drop == heartbeat.Kept {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dropAt[drop] = time.Now()
	counts := b.path(id).Dropped
	counts[drop.String()]++
	return counts[drop.String()] == 1
}

func (b *board) heard(id int, p *heartbeat.Packet, hearsUs bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	at := b.path(id)
	at.Received++
	at.LastHeard = now
	b.hears = hearsUs
	peer := &b.shown.Peer
	peer.Name, peer.Role, peer.Term, peer.LastHeard = p.Name, Role(p.Role), p.Term, now
}

// compared shows whether the peer has the same configuration, or in which
// parts it differs.
func (b *board) compared(same bool, differs []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shown.Peer.DigestMatches, b.shown.Peer.Differs = same, differs
}

func (b *board) held(on bool, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.on, b.until = on, until
}

// foreign notes another host's word for a VIP, and reports whether that is
// news.
func (b *board) foreign(v vip.VIP, mac string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.vips {
		if s := &b.vips[i]; s.VIP == v {
			news := s.foreign != mac || now.Sub(s.at) > recent
			s.foreign, s.at = mac, now
			return news
		}
	}
	return false
}

func (b *board) witnessed(report WitnessReport, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.shown.Witnesses.Last, b.shown.Witnesses.At = report, now
}
