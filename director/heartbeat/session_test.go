package heartbeat

import (
	"net/netip"
	"testing"
	"time"
)

const ms = time.Millisecond

func session(name, addr string, incarnation uint64) *Session {
	s := NewSession(name, incarnation)
	s.Tune(netip.MustParseAddr(addr), 300*ms, 25*ms)
	return s
}

// ends are two sessions that talk to each other.
func ends() (a, b *Session) {
	a = session("vs", "10.0.0.1", 0xa)
	b = session("vs_bk", "10.0.0.2", 0xb)
	return a, b
}

// give takes a packet from one session to the other and wants the verdict.
func give(t *testing.T, to *Session, p Packet, path int, now time.Duration, want Verdict) {
	t.Helper()
	if got := to.Receive(&p, path, now); got != want {
		t.Errorf("at %v: %+v, want %+v", now, got, want)
	}
}

// meet proves a and b to each other: two packets and an answer.
func meet(t *testing.T, a, b *Session, now time.Duration) {
	t.Helper()
	give(t, b, a.Next(Beat, now), 0, now, Verdict{Drop: Unproven, Answer: true})
	give(t, a, b.Next(Beat, now), 0, now, Verdict{Answer: true, Newest: true, HearsUs: true})
	give(t, b, a.Next(Beat, now), 0, now, Verdict{Answer: true, Newest: true, HearsUs: true})
}

func TestMeetIn3Packets(t *testing.T) {
	a, b := ends()
	meet(t, a, b, 0)
	give(t, a, b.Next(Beat, 100*ms), 0, 100*ms, Verdict{Newest: true, HearsUs: true})
}

func TestReplay(t *testing.T) {
	a, b := ends()
	meet(t, a, b, 0)
	old := a.Next(Beat, 100*ms)
	give(t, b, old, 0, 100*ms, Verdict{Newest: true, HearsUs: true})
	give(t, b, old, 0, 101*ms, Verdict{Drop: Replayed})
	give(t, b, old, 1, 102*ms, Verdict{HearsUs: true}) // the copy on the other path
	give(t, b, old, 1, 103*ms, Verdict{Drop: Replayed})
	for range remembered {
		give(t, b, a.Next(Beat, 200*ms), 0, 200*ms, Verdict{Newest: true, HearsUs: true})
	}
	stale := old
	stale.Sequence++
	give(t, b, stale, 0, 300*ms, Verdict{Drop: Replayed})
}

func TestOldNewsOnASlowPath(t *testing.T) {
	a, b := ends()
	meet(t, a, b, 0)
	first, second := a.Next(Beat, 100*ms), a.Next(Beat, 200*ms)
	give(t, b, second, 0, 200*ms, Verdict{Newest: true, HearsUs: true})
	give(t, b, first, 1, 250*ms, Verdict{HearsUs: true}) // the path lives, what it says is old
}

func TestRestart(t *testing.T) {
	a, b := ends()
	meet(t, a, b, 0)
	before := b.Next(Beat, 50*ms) // never delivered in time
	b2 := session("vs_bk", "10.0.0.2", 0xb2)
	// What was said to the first life proves nothing to the second.
	give(t, b2, a.Next(Beat, 100*ms), 0, 100*ms, Verdict{Drop: Unproven, Answer: true})
	give(t, a, b2.Next(Beat, 100*ms), 0, 100*ms, Verdict{Answer: true, Newest: true, HearsUs: true})
	give(t, b2, a.Next(Beat, 101*ms), 0, 101*ms, Verdict{Answer: true, Newest: true, HearsUs: true})
	// A packet of the first life, held back by the network, does not bring it back.
	give(t, a, before, 0, 200*ms, Verdict{Drop: Unproven, Answer: true})
	give(t, a, b2.Next(Beat, 201*ms), 0, 201*ms, Verdict{Newest: true, HearsUs: true})
}

func TestEarlierLifeOfOurs(t *testing.T) {
	a, b := ends()
	meet(t, a, b, 0)
	recorded := b.Next(Beat, 50*ms)
	a2 := session("vs", "10.0.0.1", 0xa2)
	give(t, a2, recorded, 0, 100*ms, Verdict{Drop: Unproven, Answer: true})
}

func TestOneWay(t *testing.T) {
	a, b := ends()
	meet(t, a, b, 0)
	for now := 100 * ms; now < 300*ms; now += 100 * ms { // a's packets are lost, b's arrive
		a.Next(Beat, now)
		give(t, a, b.Next(Beat, now), 0, now, Verdict{Newest: true, HearsUs: true})
	}
	give(t, a, b.Next(Beat, 300*ms), 0, 300*ms, Verdict{Newest: true})
}

func TestSelf(t *testing.T) {
	a, _ := ends()
	give(t, a, a.Next(Beat, 0), 0, 0, Verdict{Drop: Self})
	twin := session("vs", "10.0.0.2", 0xc)
	give(t, a, twin.Next(Beat, 0), 0, 0, Verdict{Drop: SameName})
}

func TestEchoOfTheFuture(t *testing.T) {
	a, b := ends()
	meet(t, a, b, 0)
	p := b.Next(Beat, 100*ms)
	p.EchoSeq = 1000
	give(t, a, p, 0, 100*ms, Verdict{Drop: Unproven, Answer: true})
}

// TestNoStorm plays packets that prove nothing at a director: its answers are
// bounded, and so are those of two that answer each other.
func TestNoStorm(t *testing.T) {
	a, b := ends()
	p := b.Next(Beat, 0)
	answers := 0
	for now := time.Duration(0); now < time.Second; now += ms {
		if a.Receive(&p, 0, now).Answer {
			answers++
		}
	}
	if answers != 40 {
		t.Errorf("%d answers to 1000 packets in a second, want 40", answers)
	}

	a, b = ends()
	sent := 0
	queue := []struct {
		to *Session
		p  Packet
	}{{b, a.Next(Beat, 0)}, {a, b.Next(Beat, 0)}}
	for len(queue) > 0 && sent < 1000 {
		next := queue[0]
		queue = queue[1:]
		if next.to.Receive(&next.p, 0, 0).Answer {
			sent++
			other := a
			if next.to == a {
				other = b
			}
			queue = append(queue, struct {
				to *Session
				p  Packet
			}{other, next.to.Next(Beat, 0)})
		}
	}
	if sent > 6 {
		t.Errorf("two directors that meet answer each other %d times", sent)
	}
}

// TestPathsChange holds that a path's number may be used again by another
// path, and that Tune changes what counts as heard.
func TestPathsChange(t *testing.T) {
	a, b := ends()
	meet(t, a, b, 0)
	p := a.Next(Beat, 100*ms)
	give(t, b, p, 0, 100*ms, Verdict{Newest: true, HearsUs: true})
	b.Forget(0)
	give(t, b, p, 0, 101*ms, Verdict{HearsUs: true})
	b.Tune(netip.MustParseAddr("10.0.0.9"), 50*ms, 25*ms)
	give(t, b, a.Next(Beat, 150*ms), 0, 150*ms, Verdict{Newest: true})
	if got := b.Next(Beat, 150*ms).Addr; got != netip.MustParseAddr("10.0.0.9") {
		t.Errorf("address %v", got)
	}
}
