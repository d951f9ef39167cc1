package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"lvstun/director/client"
	"lvstun/director/witness"
)

const ms = time.Millisecond

// within is a context of one question.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestReachAnother(t *testing.T) {
	t.Parallel()
	active := witness.Standing{Reached: true, Role: witness.Active, Term: 1}
	tests := []struct {
		name   string
		change func(vs, bk *fakeDirector) // after both have answered
		asker  string
		want   witness.Standing
		wantOK bool
		takes  time.Duration
	}{
		{name: "the peer is active", change: func(_, _ *fakeDirector) {}, asker: "vs_bk", want: active, wantOK: true},
		{
			name: "the peer is slow, but in time", asker: "vs_bk", want: active, wantOK: true, takes: 29 * ms,
			change: func(vs, _ *fakeDirector) { vs.takes = 29 * ms },
		},
		{
			name: "the peer is too slow", asker: "vs_bk", wantOK: true, takes: 30 * ms,
			change: func(vs, _ *fakeDirector) { vs.takes = 31 * ms },
		},
		{
			name: "the peer refuses connections", asker: "vs_bk", wantOK: true,
			change: func(vs, _ *fakeDirector) { vs.answer = nil },
		},
		{
			name: "the peer has become standby", asker: "vs_bk", wantOK: true, want: witness.Standing{Reached: true, Role: witness.Standby, Term: 3},
			change: func(vs, _ *fakeDirector) { vs.answer = answer("vs", "standby", 3) },
		},
		{
			name: "the asker is not asked in turn", asker: "vs_bk", wantOK: true, want: witness.Standing{Reached: true, Role: witness.Standby, Term: 3},
			change: func(vs, bk *fakeDirector) { vs.answer, bk.takes = answer("vs", "standby", 3), time.Hour },
		},
		{
			name: "the peer's role has a new name", asker: "vs_bk", wantOK: true, want: witness.Standing{Reached: true, Role: witness.Unknown, Term: 3},
			change: func(vs, _ *fakeDirector) { vs.answer = answer("vs", "pondering", 3) },
		},
		{
			name: "the asker's own word does not count", asker: "vs", wantOK: true,
			change: func(_, bk *fakeDirector) { bk.answer = nil },
		},
		{
			name: "a director that nobody knows asks: the active one counts", asker: "vs3", want: active, wantOK: true,
			change: func(vs, bk *fakeDirector) { vs.takes, bk.answer = 5*ms, answer("vs_bk", "standby", 9) }, takes: 5 * ms,
		},
		{
			name: "without an active one the latest term counts", asker: "vs3", wantOK: true, takes: 5 * ms,
			want: witness.Standing{Reached: true, Role: witness.Fault, Term: 9},
			change: func(vs, bk *fakeDirector) {
				vs.answer, bk.answer = answer("vs", "standby", 2), answer("vs_bk", "fault", 9)
				bk.takes = 5 * ms
			},
		},
		{
			name: "the latest term counts, not the last answer", asker: "vs3", wantOK: true, takes: 5 * ms,
			want: witness.Standing{Reached: true, Role: witness.Fault, Term: 9},
			change: func(vs, bk *fakeDirector) {
				vs.answer, bk.answer = answer("vs", "standby", 2), answer("vs_bk", "fault", 9)
				vs.takes = 5 * ms
			},
		},
		{
			name: "the active one answers while another is silent", asker: "vs3", want: active, wantOK: true,
			change: func(_, bk *fakeDirector) { bk.takes = time.Hour },
		},
		{
			name: "the other turns out to be the asker too", asker: "vs_bk",
			change: func(vs, _ *fakeDirector) { vs.answer = answer("vs_bk", "active", 9) },
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				vs, bk := pair()
				b, stop := start(t, vs, bk)
				defer stop()
				settled()
				vs.take()
				vs.set(func(vs *fakeDirector) { bk.set(func(bk *fakeDirector) { tt.change(vs, bk) }) })
				begin := time.Now()
				got, ok := b.agent.reachAnother(within(t, 30*ms), tt.asker)
				if got != tt.want || ok != tt.wantOK {
					t.Errorf("%+v, %v; want %+v, %v", got, ok, tt.want, tt.wantOK)
				}
				if took := time.Since(begin); took != tt.takes {
					t.Errorf("took %v, want %v", took, tt.takes)
				}
			})
		})
	}
}

// An agent that never reached the other director tries all the same; one that
// has no other is no witness.
func TestReachAnotherAtTheStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vs, bk := pair()
		vs.answer = nil
		b, stop := start(t, vs, bk)
		defer stop()
		settled()
		if got, ok := b.agent.reachAnother(within(t, 30*ms), "vs_bk"); got.Reached || !ok {
			t.Errorf("of one that never answered: %+v, %v", got, ok)
		}
		vs.set(func(d *fakeDirector) { d.answer = answer("vs", "active", 4) })
		if got, ok := b.agent.reachAnother(within(t, 30*ms), "vs_bk"); !got.Reached || got.Term != 4 || !ok {
			t.Errorf("of one that answers for the first time: %+v, %v", got, ok)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		vs, _ := pair()
		b, stop := start(t, vs)
		defer stop()
		settled()
		if got, ok := b.agent.reachAnother(within(t, 30*ms), "vs"); ok {
			t.Errorf("without another director: %+v", got)
		}
	})
}

// attempts are when a director was asked, since its making.
func attempts(d *fakeDirector) (at []string) {
	for _, h := range d.take() {
		when, _, _ := strings.Cut(h, " ")
		at = append(at, when)
	}
	return at
}

// lone starts an agent with one director that has answered once, and returns its registrar.
func lone(t *testing.T) (*fakeDirector, *registrar, func()) {
	d := newDirector(answer("vs", "active", 1))
	b, stop := start(t, d)
	settled()
	d.take()
	d.begin = time.Now()
	return d, b.agent.registrars[0], stop
}

func TestReachWaitsForTheAttemptUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, r, stop := lone(t)
		defer stop()
		d.set(func(d *fakeDirector) { d.takes = 50 * ms })
		r.board.write(client.Registration{Address: rip, Session: 1}) // it is sent at once
		time.Sleep(30 * ms)
		d.set(func(d *fakeDirector) { d.takes = time.Hour })
		if a, err := r.reach(within(t, 25*ms)); err != nil || a.Director != "vs" {
			t.Errorf("%+v, %v", a, err)
		}
		if diff := cmp.Diff([]string{"50ms"}, attempts(d)); diff != "" {
			t.Errorf("attempts ended (-want +got):\n%s", diff)
		}
	})
}

func TestReachTriesAgainAfterAFailureUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, r, stop := lone(t)
		defer stop()
		living := d.answer
		d.set(func(d *fakeDirector) { d.takes, d.answer = 50*ms, nil })
		r.board.write(client.Registration{Address: rip, Session: 1})
		time.Sleep(30 * ms)
		d.set(func(d *fakeDirector) { d.takes, d.answer = 5*ms, living })
		if a, err := r.reach(within(t, 30*ms)); err != nil || a.Director != "vs" {
			t.Errorf("%+v, %v", a, err)
		}
		if diff := cmp.Diff([]string{"50ms", "55ms"}, attempts(d)); diff != "" {
			t.Errorf("attempts ended (-want +got):\n%s", diff)
		}
	})
}

func TestQuestionsShareAnAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, r, stop := lone(t)
		defer stop()
		d.set(func(d *fakeDirector) { d.takes = 10 * ms })
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := r.reach(within(t, 30*ms)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := attempts(d); len(got) == 0 || len(got) > 2 {
			t.Errorf("%d attempts for ten questions: %v", len(got), got)
		}
	})
}

func TestReachDoesNotWaitOutABackoff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, r, stop := lone(t)
		defer stop()
		living := d.answer
		d.set(func(d *fakeDirector) { d.answer = nil })
		time.Sleep(10 * time.Second) // the pause between attempts has grown
		d.take()
		d.set(func(d *fakeDirector) { d.answer = living })
		if _, err := r.reach(within(t, ms)); err != nil {
			t.Error(err)
		}
	})
}

func TestReachLeavesADirectorThatWantsQuiet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d, r, stop := lone(t)
		defer stop()
		d.set(func(d *fakeDirector) {
			d.answer, d.err = nil, &client.Error{Status: 429, Sentence: "slow down", RetryAfter: 20 * time.Second}
		})
		time.Sleep(2 * time.Second)
		d.take()
		if _, err := r.reach(within(t, 30*ms)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if got := attempts(d); got != nil {
			t.Errorf("asked at %v", got)
		}
	})
}

// TestWitness asks an agent over loopback as a director does.
func TestWitness(t *testing.T) {
	t.Parallel()
	vs, bk := pair()
	for i, d := range []*fakeDirector{vs, bk} {
		d.answer.Directors = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("127.0.0.%d", 11+i))}
		d.answer.WitnessKey = client.WitnessKey{1, 2, 3}
	}
	b := newBench(&fakeHost{}, vs, bk)
	conn, err := witness.Listen(netip.MustParseAddrPort("127.0.0.101:0"))
	if err != nil {
		t.Fatal(err)
	}
	rs := witness.Witness{Name: "rs1", Addr: conn.LocalAddr().(*net.UDPAddr).AddrPort(), Key: [32]byte{1, 2, 3}}
	b.agent.listen = func() (witness.Conn, error) { return conn, nil }
	stop := b.run(t)
	defer stop()
	for len(b.agent.answers()) < 2 {
		time.Sleep(ms)
	}
	ask := func(name, from string, key [32]byte) witness.Answer {
		t.Helper()
		rs := rs
		rs.Key = key
		a := witness.Asker{Name: name, From: netip.MustParseAddr(from)}
		got, err := a.Ask(t.Context(), []witness.Witness{rs})
		if err != nil || len(got) != 1 {
			t.Fatalf("%+v, %v", got, err)
		}
		return got[0]
	}
	// insist asks until there is an answer: on a busy machine one may come too late.
	insist := func() (got witness.Answer) {
		for range 20 {
			if got = ask("vs_bk", "127.0.0.12", rs.Key); got.Answered {
				break
			}
		}
		return got
	}
	want := witness.Answer{Witness: "rs1", Answered: true, Standing: witness.Standing{Reached: true, Role: witness.Active, Term: 1}}
	if got := insist(); got != want {
		t.Errorf("of a living peer: %+v, want %+v", got, want)
	}
	vs.set(func(d *fakeDirector) { d.answer = nil })
	want.Standing = witness.Standing{}
	if got := insist(); got != want {
		t.Errorf("of a dead peer: %+v, want %+v", got, want)
	}
	for name, got := range map[string]witness.Answer{
		"an address that is no director's": ask("vs_bk", "127.0.0.13", rs.Key),
		"another key":                      ask("vs_bk", "127.0.0.12", [32]byte{9}),
	} {
		if got.Answered {
			t.Errorf("from %s: %+v", name, got)
		}
	}
	s := b.agent.Status().Witness
	if s.Answered < 2 || s.Dropped["source"] == 0 || s.Dropped["forged"] == 0 || s.Problem != "" {
		t.Errorf("status %+v", s)
	}
}

func TestWitnessKeysAndAddresses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vs, bk := pair() // vs is of a version without witnesses
		vs.answer.Directors = []netip.Addr{netip.MustParseAddr("172.16.0.1"), netip.MustParseAddr("172.16.0.2")}
		b, stop := start(t, vs, bk)
		defer stop()
		settled()
		if got := b.agent.witnessKeys(); got != nil {
			t.Errorf("keys from nowhere: %d", len(got))
		}
		b.agent.registrars[1].address = "vs_bk.example.org:3637"
		if got := fmt.Sprint(b.agent.directorAddresses()); got != "[10.0.0.1 172.16.0.1 172.16.0.2]" {
			t.Errorf("directors ask from %v", got)
		}
		for i, keys := range [][2]client.WitnessKey{{{}, {2}}, {{2}, {2}}, {{1}, {2}}} {
			for j, d := range b.directors {
				a := *d.answer
				a.WitnessKey = keys[j]
				d.set(func(d *fakeDirector) { d.answer = &a })
			}
			time.Sleep(time.Second)
			want := [][][32]byte{{{2}}, {{2}}, {{1}, {2}}}[i]
			if diff := cmp.Diff(want, b.agent.witnessKeys()); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
		}
		bk.set(func(d *fakeDirector) { d.answer = nil })
		time.Sleep(time.Minute)
		if got := b.agent.witnessKeys(); len(got) != 2 {
			t.Errorf("%d keys when one of two directors is dead", len(got))
		}
	})
}

// stubborn is a socket that breaks when told to.
type stubborn struct{ broken chan struct{} }

func (s stubborn) ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error) {
	<-s.broken
	return 0, netip.AddrPort{}, errors.New("network is down")
}
func (stubborn) WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error) { return 0, nil }
func (s stubborn) Close() error {
	select {
	case <-s.broken:
	default:
		close(s.broken)
	}
	return nil
}

func TestWitnessWithoutASocket(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		vs, bk := pair()
		b := newBench(&fakeHost{}, vs, bk)
		var sockets []stubborn
		tries := 0
		b.agent.listen = func() (witness.Conn, error) {
			if tries++; tries%3 != 0 {
				return nil, errors.New("the address is not there")
			}
			sockets = append(sockets, stubborn{make(chan struct{})})
			return sockets[len(sockets)-1], nil
		}
		stop := b.run(t)
		var problems []string
		look := func() {
			synctest.Wait()
			problems = append(problems, b.agent.Status().Witness.Problem)
		}
		settled()
		look()
		time.Sleep(2 * time.Second)
		look()
		sockets[0].Close()
		look()
		time.Sleep(2 * time.Second)
		look()
		time.Sleep(time.Second)
		look()
		stop()
		want := []string{"the address is not there", "", "receive witness questions: network is down", "the address is not there", ""}
		if diff := cmp.Diff(want, problems); diff != "" {
			t.Errorf("problems (-want +got):\n%s", diff)
		}
		if heard := vs.states(); heard[len(heard)-1] != "left" {
			t.Errorf("the rest did not go on: %q", heard)
		}
		log := b.log.String()
		if n := strings.Count(log, "no witness question is answered"); n != 3 {
			t.Errorf("%d warnings, want 3:\n%s", n, log)
		}
		if n := strings.Count(log, "witness questions are answered again"); n != 2 {
			t.Errorf("%d all-clears, want 2:\n%s", n, log)
		}
	})
}
