package witness

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const realServerAddr = "192.168.1.101:3638"

// served is a real server with a Responder in a bubble, and a director's socket.
type served struct {
	*Responder
	lan      *lan
	director *socket
	rs       *socket
	asked    atomic.Int64
	stop     func() error
}

// serve runs a responder that knows key 1 and 10.0.0.1 and 10.0.0.2.
func serve(t *testing.T, reach func(ctx context.Context, asker string) (Standing, bool)) *served {
	l := newLAN()
	s := &served{lan: l, director: l.open(t, standbyAddr), rs: l.open(t, realServerAddr)}
	s.Responder = &Responder{
		Keys: func() [][32]byte { return [][32]byte{key(1)} },
		Directors: func() []netip.Addr {
			return []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
		},
		Reach: func(ctx context.Context, asker string) (Standing, bool) {
			s.asked.Add(1)
			return reach(ctx, asker)
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { err = s.Serve(ctx, s.rs) })
	s.stop = func() error { cancel(); wg.Wait(); return err }
	t.Cleanup(func() { _ = s.stop() })
	return s
}

func reachesActive(context.Context, string) (Standing, bool) { return Standing{true, Active, 7}, true }

// reachesNobody looks until its time is over.
func reachesNobody(ctx context.Context, _ string) (Standing, bool) {
	<-ctx.Done()
	return Standing{}, true
}

// heard is what has come back to the director since the last call, as messages.
func (s *served) heard(t *testing.T) (all []message) {
	t.Helper()
	for {
		select {
		case d := <-s.director.inbox:
			m, _, drop := decode(d.b, key(1))
			if drop != Kept || d.from != s.rs.addr {
				t.Errorf("from %v came %+v, %v", d.from, m, drop)
			}
			all = append(all, m)
		default:
			return all
		}
	}
}

func asksWith(n byte) message {
	m := asks()
	m.nonce[0] = n
	return m
}

// cmpMessage compares all fields.
var cmpMessage = cmp.AllowUnexported(message{})

func TestServe(t *testing.T) {
	nobody := asks()
	nobody.kind, nobody.wait = unreached, 0
	tests := []struct {
		name  string
		reach func(context.Context, string) (Standing, bool)
		want  []message
		takes time.Duration
	}{
		{"reached", reachesActive, []message{answers()}, 0},
		{"nobody", reachesNobody, []message{nobody}, 30 * ms},
		{"knows no other director", func(context.Context, string) (Standing, bool) { return Standing{true, Active, 7}, false }, nil, 0},
		{"role and term of nobody", func(context.Context, string) (Standing, bool) { return Standing{false, Active, 7}, true }, []message{nobody}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var asker string
				s := serve(t, func(ctx context.Context, who string) (Standing, bool) {
					asker = who
					return tt.reach(ctx, who)
				})
				s.director.say(asks(), key(1), s.rs.addr)
				if tt.takes > 0 {
					time.Sleep(tt.takes - ms)
					synctest.Wait()
					if got := s.heard(t); got != nil {
						t.Errorf("too early: %+v", got)
					}
					time.Sleep(ms)
				}
				synctest.Wait()
				if diff := cmp.Diff(tt.want, s.heard(t), cmpMessage); diff != "" {
					t.Errorf("answers (-want +got):\n%s", diff)
				}
				if asker != "vs_bk" {
					t.Errorf("looked for others than %q", asker)
				}
				want := map[string]uint64{}
				if tt.want == nil {
					want["alone"] = 1
					s.director.say(asks(), key(1), s.rs.addr)
					synctest.Wait()
					if got := s.heard(t); got != nil {
						t.Errorf("a copy was answered: %+v", got)
					}
				}
				wantDropped(t, &s.Tally, want)
				if got := s.Tally.Kept(); got != uint64(len(tt.want)) {
					t.Errorf("%d answered, want %d", got, len(tt.want))
				}
			})
		})
	}
}

func TestServeDrops(t *testing.T) {
	q, a := asks(), answers()
	good, answer, foreign := encode(&q, key(1)), encode(&a, key(1)), encode(&q, key(2))
	tests := []struct {
		name, from string
		b          []byte
		want       string
	}{
		{"from no director", "10.0.0.3:40000", good[:], "source"},
		{"from no director, forged", "10.0.0.3:40000", foreign[:], "source"},
		{"short", standbyAddr, good[:Size-1], "short"},
		{"long", standbyAddr, append(bytes.Clone(good[:]), 0), "long"},
		{"alien", standbyAddr, make([]byte, Size), "alien"},
		{"later version", standbyAddr, resign(q, offVersion, 2), "version"},
		{"another's key", standbyAddr, foreign[:], "forged"},
		{"no wait", standbyAddr, resign(q, offWait, 0), "malformed"},
		{"an answer", standbyAddr, answer[:], "stray"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := serve(t, reachesActive)
				from := s.director
				if tt.from != standbyAddr {
					from = s.lan.open(t, tt.from)
				}
				_, _ = from.WriteToUDPAddrPort(tt.b, s.rs.addr)
				synctest.Wait()
				wantDropped(t, &s.Tally, map[string]uint64{tt.want: 1})
				if sent := s.lan.wire(s.rs.addr); len(sent) != 0 || s.asked.Load() != 0 {
					t.Errorf("sent %d datagrams, looked %d times", len(sent), s.asked.Load())
				}
			})
		})
	}
}

// An answer goes to the address that asked, from a director's address in
// whatever form a socket gives it, under the key that the question had.
func TestServeAnswersWhoAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, reachesActive)
		s.Keys = func() [][32]byte { return [][32]byte{key(9), key(1)} }
		mapped := s.lan.open(t, "[::ffff:10.0.0.1]:5000")
		mapped.say(asks(), key(1), s.rs.addr)
		synctest.Wait()
		select {
		case d := <-mapped.inbox:
			if m, _, drop := decode(d.b, key(1)); drop != Kept || m != answers() {
				t.Errorf("answered %+v, %v", m, drop)
			}
		default:
			t.Error("no answer")
		}
	})
}

func TestACopyIsAnsweredOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, reachesActive)
		for i, want := range [][]message{{answers()}, {answers()}, nil, nil} {
			s.director.say(asks(), key(1), s.rs.addr)
			synctest.Wait()
			if diff := cmp.Diff(want, s.heard(t), cmpMessage); diff != "" {
				t.Errorf("copy %d (-want +got):\n%s", i+1, diff)
			}
		}
		wantDropped(t, &s.Tally, map[string]uint64{"replayed": 2})
		if n := s.asked.Load(); n != 1 {
			t.Errorf("looked %d times, want once", n)
		}
	})
}

func TestACopyOfAQuestionInWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, reachesNobody)
		s.director.say(asks(), key(1), s.rs.addr)
		time.Sleep(15 * ms)
		late := asks()
		late.wait = 15 * ms
		s.director.say(late, key(1), s.rs.addr)
		time.Sleep(15 * ms)
		synctest.Wait()
		if got := s.heard(t); len(got) != 1 || s.asked.Load() != 1 {
			t.Errorf("looked %d times, answered %+v; want once", s.asked.Load(), got)
		}
		wantDropped(t, &s.Tally, map[string]uint64{})
	})
}

// A question recorded by somebody is worth nothing for as long as it is
// remembered, and a copy of one forgotten is bounded as any question is.
func TestRemembersTheLast256(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, reachesActive)
		ask := func(i int) {
			m := asks()
			m.nonce = nonce{byte(i), byte(i >> 8)}
			s.director.say(m, key(1), s.rs.addr)
			time.Sleep(time.Second / perSecond)
			synctest.Wait()
		}
		for i := range remembered + 1 {
			ask(i)
		}
		if got := s.asked.Load(); got != remembered+1 {
			t.Fatalf("looked %d times", got)
		}
		for range 2 {
			for i := 1; i <= remembered; i++ {
				ask(i)
			}
		}
		if got := s.asked.Load(); got != remembered+1 {
			t.Errorf("looked %d times for copies", got-remembered-1)
		}
		wantDropped(t, &s.Tally, map[string]uint64{"replayed": remembered})
		ask(0)
		if got := s.asked.Load(); got != remembered+2 {
			t.Error("the oldest is still remembered")
		}
		ask(2)
		ask(1) // it made room
		if got := s.asked.Load(); got != remembered+3 {
			t.Errorf("looked %d times, want once for the one that made room", got-remembered-2)
		}
	})
}

func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, reachesNobody)
		for i := range maxInWork + 3 {
			s.director.say(asksWith(byte(i)), key(1), s.rs.addr)
		}
		synctest.Wait()
		wantDropped(t, &s.Tally, map[string]uint64{"busy": 3})
		time.Sleep(30 * ms)
		synctest.Wait()
		if got := len(s.heard(t)); got != maxInWork {
			t.Errorf("%d answers, want %d", got, maxInWork)
		}
		// One that was dropped is answered when it comes again.
		s.director.say(asksWith(maxInWork), key(1), s.rs.addr)
		time.Sleep(30 * ms)
		synctest.Wait()
		if got := s.heard(t); len(got) != 1 {
			t.Errorf("the one that came again was answered %d times", len(got))
		}
	})
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, reachesActive)
		flood := func() int64 {
			before := s.asked.Load()
			for i := range 100 {
				m := asks()
				m.nonce = nonce{byte(i), byte(before), byte(before >> 8), 1}
				s.director.say(m, key(1), s.rs.addr)
				synctest.Wait()
			}
			return s.asked.Load() - before
		}
		if got := flood(); got != perSecond {
			t.Errorf("answered %d at once, want %d", got, perSecond)
		}
		time.Sleep(time.Second / 2)
		if got := flood(); got != perSecond/2 {
			t.Errorf("answered %d after half a second, want %d", got, perSecond/2)
		}
		time.Sleep(time.Hour)
		if got := flood(); got != perSecond {
			t.Errorf("answered %d after an hour, want %d", got, perSecond)
		}
		s.heard(t)
	})
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, reachesNobody)
		s.director.say(asks(), key(1), s.rs.addr)
		synctest.Wait()
		begin := time.Now()
		if err := s.stop(); err != nil {
			t.Errorf("stopped with %v", err)
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("stopping took %v", took)
		}
		if got := s.heard(t); got != nil {
			t.Errorf("a search that was cut short was answered: %+v", got)
		}
	})
}

func TestABrokenSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serve(t, reachesNobody)
		s.director.say(asks(), key(1), s.rs.addr)
		synctest.Wait()
		s.rs.Close()
		time.Sleep(time.Second)
		err := s.stop()
		if !errors.Is(err, net.ErrClosed) || !strings.HasPrefix(err.Error(), "receive witness questions: ") {
			t.Errorf("ended with %v", err)
		}
	})
}

// TestOverLoopback puts both sides together over real sockets.
func TestOverLoopback(t *testing.T) {
	var ws []Witness
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer wg.Wait()
	defer cancel()
	reach := []func(context.Context, string) (Standing, bool){
		reachesActive,
		func(context.Context, string) (Standing, bool) { return Standing{}, true },
	}
	for i, addr := range []string{"127.0.0.101", "127.0.0.102"} {
		c, err := Listen(netip.AddrPortFrom(netip.MustParseAddr(addr), 0))
		if err != nil {
			t.Fatal(err)
		}
		w := Witness{Name: addr, Addr: c.LocalAddr().(*net.UDPAddr).AddrPort(), Key: key(byte(i))}
		ws = append(ws, w)
		r := Responder{
			Keys: func() [][32]byte { return [][32]byte{w.Key} },
			Directors: func() []netip.Addr {
				return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")}
			},
			Reach: reach[i],
		}
		wg.Go(func() {
			if err := r.Serve(ctx, c); err != nil {
				t.Error(err)
			}
		})
		if _, err := Listen(w.Addr); err == nil || !strings.Contains(err.Error(), "another program has the UDP port") {
			t.Errorf("a second listener: %v", err)
		}
	}
	a := Asker{Name: "vs_bk", From: netip.MustParseAddr("127.0.0.2")}
	got, err := a.Ask(ctx, ws)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b Answer) int { return strings.Compare(a.Witness, b.Witness) })
	want := []Answer{{"127.0.0.101", true, Standing{true, Active, 7}}, {"127.0.0.102", true, Standing{}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answers (-want +got):\n%s", diff)
	}
	stranger := Asker{Name: "vs_bk", From: netip.MustParseAddr("127.0.0.3")}
	got, err = stranger.Ask(ctx, ws[:1])
	if err != nil || got[0].Answered {
		t.Errorf("a stranger was answered %+v, error %v", got, err)
	}
	// A socket of IPv6 that takes IPv4 as well gives its addresses another form.
	anywhere := Asker{Name: "vs_bk"}
	got, err = anywhere.Ask(ctx, ws[:1])
	if err != nil || !got[0].Answered {
		t.Errorf("by the kernel's choice of address: %+v, error %v", got, err)
	}
	if _, err := Listen(netip.MustParseAddrPort("192.0.2.1:3638")); err == nil || !strings.Contains(err.Error(), "192.0.2.1 is not an address of this host") {
		t.Errorf("on another host's address: %v", err)
	}
}
