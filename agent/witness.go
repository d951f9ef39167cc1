package agent

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"lvstun/director/client"
	"lvstun/director/witness"
)

// listenRetry is between two attempts to open the witness's socket.
const listenRetry = time.Second

// witness answers directors that ask whether another director is active, until ctx ends. Where it cannot,
// it says so and tries again: the address may come later, and everything else goes on without.
func (a *Agent) witness(ctx context.Context) {
	for {
		conn, err := a.listen()
		if err == nil {
			a.hearing("")
			err = a.responder.Serve(ctx, conn)
		}
		if ctx.Err() != nil {
			return
		}
		a.hearing(err.Error())
		select {
		case <-ctx.Done():
			return
		case <-time.After(listenRetry):
		}
	}
}

// hearing keeps why no question can be answered, "" if one can, and logs it when it changes.
func (a *Agent) hearing(why string) {
	a.mu.Lock()
	old := a.muteWhy
	a.muteWhy = why
	a.mu.Unlock()
	switch {
	case why == old:
	case why == "":
		a.opts.Log.Info("witness questions are answered again")
	default:
		a.opts.Log.Warn("no witness question is answered", "reason", why)
	}
}

// answers are the last ones of the directors that ever answered.
func (a *Agent) answers() (all []*client.Answer) {
	for _, r := range a.registrars {
		if last := r.read().answer; last != nil {
			all = append(all, last)
		}
	}
	return all
}

// witnessKeys are those that the directors gave, each once.
func (a *Agent) witnessKeys() (keys [][32]byte) {
	for _, last := range a.answers() {
		if k := [32]byte(last.WitnessKey); k != ([32]byte{}) && !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}

// directorAddresses are those the directors named as theirs, and those this agent registers at; sorted, each once.
func (a *Agent) directorAddresses() []netip.Addr {
	var all []netip.Addr
	for _, last := range a.answers() {
		all = append(all, last.Directors...)
	}
	for _, r := range a.registrars {
		if at, err := netip.ParseAddrPort(r.address); err == nil {
			all = append(all, at.Addr().Unmap())
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// reachAnother renews the lease at every director but the one called asker and tells what they are: the
// active one among those that answered before ctx ended, else the one with the highest term. Nothing known
// from before counts but the directors' names. ok is false if there is none but the asker.
func (a *Agent) reachAnother(ctx context.Context, asker string) (best witness.Standing, ok bool) {
	var asking sync.WaitGroup
	defer asking.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		answer client.Answer
		err    error
	}
	results := make(chan result, len(a.registrars))
	asked := 0
	for _, r := range a.registrars {
		if last := r.read().answer; last != nil && last.Director == asker {
			continue
		}
		asked++
		asking.Go(func() {
			answer, err := r.reach(ctx)
			results <- result{answer, err}
		})
	}
	for range asked {
		r := <-results
		if r.err == nil && r.answer.Director == asker {
			continue // only now it says who it is
		}
		ok = true
		if r.err != nil {
			continue
		}
		s := witness.Standing{Reached: true, Role: witness.ParseRole(r.answer.Role), Term: r.answer.Term}
		if s.Role == witness.Active {
			return s, true
		}
		if !best.Reached || s.Term > best.Term {
			best = s
		}
	}
	return best, ok
}
