package witness

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// MaxWitnesses is how many real servers are asked at once.
const MaxWitnesses = 5

// maxAsk bounds Ask: MaxWait and the time that the datagrams travel.
const maxAsk = MaxWait * 4 / 3

// Witness is a real server that can be asked.
type Witness struct {
	Name string         // of the real server
	Addr netip.AddrPort // its RIP and Port
	Key  [32]byte       // trust.ClusterKey.WitnessKey of its name
}

// Standing is what a real server found out.
type Standing struct {
	Reached bool   // a director other than the asker has answered it just now
	Role    Role   // of that director; Unknown if none was reached
	Term    uint64 // that it spoke of
}

// Answer is what one witness had to say.
type Answer struct {
	Witness  string // its name
	Answered bool   // else the rest is empty
	Standing
}

// Asker asks witnesses on behalf of one director. It is safe for concurrent use.
type Asker struct {
	Name  string     // this director's, as its answers to registrations give it; at most MaxName bytes
	From  netip.Addr // the DIP to ask from, which real servers must know; zero: the kernel's choice
	Tally Tally      // of the datagrams that came back
}

// Ask asks at most MaxWitnesses of the witnesses, chosen by chance, whether they
// reach another director now. It returns when all have answered, when ctx ends,
// or after 80 ms, with an Answer for each that was asked. A real server that
// looks in vain answers after three quarters of that time.
//
// The error means that nobody was asked: the name cannot be sent, or there is
// no socket. A witness that cannot be reached is no error; it does not answer.
func (a *Asker) Ask(ctx context.Context, witnesses []Witness) ([]Answer, error) {
	if !validName(a.Name) {
		return nil, fmt.Errorf("ask witnesses as %q: a director's name is 1 to %d bytes without blanks", a.Name, MaxName)
	}
	if len(witnesses) == 0 {
		return nil, nil
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.From, 0)))
	if err != nil {
		return nil, fmt.Errorf("ask witnesses: %w", err)
	}
	return a.ask(ctx, conn, choose(witnesses)), nil
}

// choose picks MaxWitnesses by chance, so that no few real servers decide alone.
func choose(witnesses []Witness) []Witness {
	chosen := slices.Clone(witnesses)
	mathrand.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
	return chosen[:min(len(chosen), MaxWitnesses)]
}

// heard is an answer of the i-th witness.
type heard struct {
	i int
	Standing
}

// ask asks all of the witnesses over c and closes it.
func (a *Asker) ask(ctx context.Context, c Conn, witnesses []Witness) []Answer {
	ctx, cancel := context.WithTimeout(ctx, maxAsk)
	defer cancel()
	end, _ := ctx.Deadline()
	wait := time.Until(end) * 3 / 4
	answerBy := time.Now().Add(wait)

	q := message{kind: question, asker: a.Name}
	rand.Read(q.nonce[:]) // never fails: crypto/rand ends the program instead
	answers := make([]Answer, len(witnesses))
	for i, w := range witnesses {
		answers[i].Witness = w.Name
	}
	send := func() {
		q.wait = max(time.Until(answerBy).Truncate(time.Millisecond), time.Millisecond)
		for i, w := range witnesses {
			if !answers[i].Answered {
				b := encode(&q, w.Key)
				_, _ = c.WriteToUDPAddrPort(b[:], w.Addr) // one that cannot be asked does not answer
			}
		}
	}

	var reading sync.WaitGroup
	defer reading.Wait()
	defer c.Close()
	incoming := make(chan heard, len(witnesses))
	reading.Go(func() { a.read(c, &q.nonce, witnesses, incoming) })
	send()
	again := time.NewTimer(wait / 2) // a network may lose a datagram
	defer again.Stop()
	for left := len(witnesses); left > 0; {
		select {
		case <-ctx.Done():
			return answers
		case <-again.C:
			send()
		case h := <-incoming:
			answers[h.i].Answered, answers[h.i].Standing = true, h.Standing
			left--
		}
	}
	return answers
}

// read hears every witness once, or until c is closed.
func (a *Asker) read(c Conn, n *nonce, witnesses []Witness, incoming chan<- heard) {
	answered := make([]bool, len(witnesses))
	b := make([]byte, Size+1)
	for left := len(witnesses); left > 0; {
		size, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return // closed, or as good as silent
		}
		i, m, drop := judgeAnswer(b[:size], from, witnesses)
		switch {
		case drop != Kept:
		case m.nonce != *n || m.asker != a.Name:
			drop = Stray
		case answered[i]:
			drop = Replayed
		default:
			answered[i] = true
			left--
			incoming <- heard{i, Standing{m.kind == reached, m.role, m.term}}
		}
		a.Tally.add(drop)
	}
}

// judgeAnswer finds out which of the witnesses an answer is from.
func judgeAnswer(b []byte, from netip.AddrPort, witnesses []Witness) (int, message, Drop) {
	from = netip.AddrPortFrom(plain(from.Addr()), from.Port())
	i := slices.IndexFunc(witnesses, func(w Witness) bool { return w.Addr == from })
	if i < 0 {
		return 0, message{}, Source
	}
	m, _, drop := decode(b, witnesses[i].Key)
	if drop == Kept && m.kind == question {
		drop = Stray
	}
	return i, m, drop
}
