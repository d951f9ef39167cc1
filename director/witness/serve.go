package witness

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// The bounds of what a real server does for those who ask.
const (
	maxInWork   = 16  // questions at once
	perSecond   = 32  // questions, after as many at once
	remembered  = 256 // questions, to tell a copy
	copiesTaken = 2   // of a question: it is sent twice at most
)

// Responder answers the questions to one real server. Its functions are called
// concurrently.
type Responder struct {
	// Keys are those that directors have given this real server: one, or two
	// while the cluster key changes. Every question is tried with each.
	Keys func() [][32]byte
	// Directors are the addresses that directors ask from.
	Directors func() []netip.Addr
	// Reach finds out how the directors other than the one called asker stand
	// now, until ctx ends: after MaxWait at most. ok is false if there are none
	// that could be asked: then this real server is no witness and says nothing.
	Reach func(ctx context.Context, asker string) (s Standing, ok bool)
	Tally Tally // of the datagrams that came

	mu     sync.Mutex  // guards what follows
	recent []*exchange // the last questions, a ring
	oldest int         // in recent, once it is full
	inWork int
	credit float64   // questions that may be answered at once
	filled time.Time // when credit was last added to
}

// exchange is a question and what became of it.
type exchange struct {
	nonce  nonce
	copies int
	answer []byte // nil while it is in work, or if there was none
}

// Serve answers over c until ctx ends, then closes c and returns nil. Any other
// end is an error.
func (r *Responder) Serve(ctx context.Context, c Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	b := make([]byte, Size+1)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			_ = c.Close()
			return fmt.Errorf("receive witness questions: %w", err)
		}
		m, key, drop := r.judge(b[:n], from)
		if drop != Kept {
			r.Tally.add(drop)
			continue
		}
		e, fresh, drop := r.admit(m.nonce)
		switch {
		case drop != Kept:
			r.Tally.add(drop)
		case fresh:
			work.Go(func() { r.answer(ctx, c, e, m, key, from) })
		default:
			r.repeat(c, e, from)
		}
	}
}

// judge finds out whether b is a director's question.
func (r *Responder) judge(b []byte, from netip.AddrPort) (message, [32]byte, Drop) {
	if !slices.Contains(r.Directors(), plain(from.Addr())) {
		return message{}, [32]byte{}, Source
	}
	m, key, drop := decode(b, r.Keys()...)
	if drop == Kept && m.kind != question {
		drop = Stray
	}
	return m, key, drop
}

// admit finds the exchange of a nonce, or begins a fresh one if there is room.
func (r *Responder) admit(n nonce) (e *exchange, fresh bool, d Drop) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.IndexFunc(r.recent, func(e *exchange) bool { return e.nonce == n }); i >= 0 {
		e = r.recent[i]
		if e.copies == copiesTaken {
			return nil, false, Replayed
		}
		e.copies++
		return e, false, Kept
	}
	now := time.Now()
	r.credit = min(perSecond, r.credit+perSecond*now.Sub(r.filled).Seconds())
	r.filled = now
	if r.credit < 1 || r.inWork == maxInWork {
		return nil, false, Busy
	}
	r.credit--
	r.inWork++
	e = &exchange{nonce: n, copies: 1}
	if len(r.recent) < remembered {
		r.recent = append(r.recent, e)
	} else {
		r.recent[r.oldest] = e
		r.oldest = (r.oldest + 1) % remembered
	}
	return e, true, Kept
}

// answer does the work for a fresh question.
func (r *Responder) answer(ctx context.Context, c Conn, e *exchange, q message, key [32]byte, from netip.AddrPort) {
	looking, cancel := context.WithTimeout(ctx, q.wait)
	defer cancel()
	s, ok := r.Reach(looking, q.asker)
	r.mu.Lock()
	r.inWork--
	if ok && ctx.Err() == nil {
		m := message{kind: unreached, nonce: q.nonce, asker: q.asker}
		if s.Reached {
			m.kind, m.role, m.term = reached, s.Role, s.Term
		}
		b := encode(&m, key)
		e.answer = b[:]
	}
	r.mu.Unlock()
	if !ok {
		r.Tally.add(Alone)
		return
	}
	r.repeat(c, e, from)
}

// repeat sends the answer of e, if there is one yet.
func (r *Responder) repeat(c Conn, e *exchange, to netip.AddrPort) {
	r.mu.Lock()
	b := e.answer
	r.mu.Unlock()
	if b == nil {
		return
	}
	r.Tally.add(Kept)
	_, _ = c.WriteToUDPAddrPort(b, to) // who does not hear it asks again
}
