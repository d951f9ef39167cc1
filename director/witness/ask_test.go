package witness

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const standbyAddr = "10.0.0.2:40000"

func witnessAt(i int) Witness {
	return Witness{
		Name: fmt.Sprintf("rs%d", i), Key: key(byte(i)),
		Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, 1, byte(100 + i)}), Port),
	}
}

// answerAs makes a socket answer every question as reply says, which may be not at all.
func answerAs(t *testing.T, s *socket, reply func(q message, from netip.AddrPort)) {
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, Size+1)
		for {
			n, from, err := s.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			q, _, drop := decode(b[:n], key(1), key(2), key(3), key(4), key(5))
			if drop != Kept || q.kind != question || q.asker != "vs_bk" {
				t.Errorf("asked %+v, %v", q, drop)
			}
			reply(q, from)
		}
	})
	t.Cleanup(func() { s.Close(); wg.Wait() })
}

func (s *socket) say(m message, k [32]byte, to netip.AddrPort) {
	b := encode(&m, k)
	_, _ = s.WriteToUDPAddrPort(b[:], to)
}

// saysActive is a true answer to q.
func saysActive(q message) message {
	return message{kind: reached, role: Active, term: 7, nonce: q.nonce, asker: q.asker}
}

func said(i int, s Standing) Answer {
	return Answer{Witness: witnessAt(i).Name, Answered: true, Standing: s}
}

func silent(i int) Answer { return Answer{Witness: witnessAt(i).Name} }

func TestAsk(t *testing.T) {
	active := Standing{true, Active, 7}
	tests := []struct {
		name string
		// behave makes witnesses 1 and 2 of what they are.
		behave  func(t *testing.T, l *lan, one, two *socket)
		want    []Answer
		takes   time.Duration
		sent    int // datagrams, if not 0
		dropped map[string]uint64
	}{
		{
			name: "both answer at once",
			behave: func(t *testing.T, _ *lan, one, two *socket) {
				answerAs(t, one, func(q message, to netip.AddrPort) { one.say(saysActive(q), key(1), to) })
				answerAs(t, two, func(q message, to netip.AddrPort) {
					two.say(message{kind: unreached, nonce: q.nonce, asker: q.asker}, key(2), to)
				})
			},
			want: []Answer{said(1, active), said(2, Standing{})},
			sent: 2,
		},
		{
			name:   "nobody answers",
			behave: func(*testing.T, *lan, *socket, *socket) {},
			want:   []Answer{silent(1), silent(2)},
			takes:  40 * ms,
		},
		{
			name: "the first question is lost",
			behave: func(t *testing.T, l *lan, one, two *socket) {
				begin := time.Now()
				l.pass = func(datagram) (int, time.Duration) {
					if time.Since(begin) < 10*ms {
						return 0, 0
					}
					return 1, 0
				}
				for i, s := range []*socket{one, two} {
					answerAs(t, s, func(q message, to netip.AddrPort) { s.say(saysActive(q), key(byte(i+1)), to) })
				}
			},
			want:  []Answer{said(1, active), said(2, active)},
			takes: 15 * ms, // half of three quarters of 40 ms
		},
		{
			name: "one is slow, one too slow",
			behave: func(t *testing.T, _ *lan, one, two *socket) {
				answerAs(t, one, func(q message, to netip.AddrPort) {
					time.Sleep(30 * ms)
					one.say(saysActive(q), key(1), to)
				})
				answerAs(t, two, func(q message, to netip.AddrPort) {
					time.Sleep(50 * ms)
					two.say(saysActive(q), key(2), to)
				})
			},
			want:  []Answer{said(1, active), silent(2)},
			takes: 40 * ms,
		},
		{
			name: "one speaks for the other, with its own key",
			behave: func(t *testing.T, l *lan, one, two *socket) {
				liar := l.open(t, "192.168.1.66:3638")
				answerAs(t, one, func(q message, to netip.AddrPort) {
					one.say(message{kind: unreached, nonce: q.nonce, asker: q.asker}, key(1), to)
					liar.addr = witnessAt(2).Addr // it spoofs
					liar.say(saysActive(q), key(1), to)
				})
			},
			want:    []Answer{said(1, Standing{}), silent(2)},
			takes:   40 * ms,
			dropped: map[string]uint64{"forged": 1},
		},
		{
			name: "answers from elsewhere",
			behave: func(t *testing.T, l *lan, one, two *socket) {
				port, host := l.open(t, "192.168.1.101:3639"), l.open(t, "192.168.1.66:3638")
				answerAs(t, one, func(q message, to netip.AddrPort) {
					port.say(saysActive(q), key(1), to)
					host.say(saysActive(q), key(1), to)
				})
				answerAs(t, two, func(q message, to netip.AddrPort) { two.say(saysActive(q), key(2), to) })
			},
			want:    []Answer{silent(1), said(2, active)},
			takes:   40 * ms,
			dropped: map[string]uint64{"source": 4}, // the question came twice
		},
		{
			name: "an old answer, another's, and the question itself come back",
			behave: func(t *testing.T, _ *lan, one, two *socket) {
				answerAs(t, one, func(q message, to netip.AddrPort) {
					old := saysActive(q)
					old.nonce[0]++
					one.say(old, key(1), to)
					other := saysActive(q)
					other.asker = "vs"
					one.say(other, key(1), to)
					one.say(q, key(1), to)
				})
				answerAs(t, two, func(q message, to netip.AddrPort) { two.say(saysActive(q), key(2), to) })
			},
			want:    []Answer{silent(1), said(2, active)},
			takes:   40 * ms,
			dropped: map[string]uint64{"stray": 6},
		},
		{
			name: "noise, then every answer twice",
			behave: func(t *testing.T, l *lan, one, two *socket) {
				l.pass = func(d datagram) (int, time.Duration) { return 2, ms }
				answerAs(t, one, func(q message, to netip.AddrPort) {
					_, _ = one.WriteToUDPAddrPort([]byte("hello"), to)
					_, _ = one.WriteToUDPAddrPort(make([]byte, Size+100), to)
					one.say(saysActive(q), key(1), to)
				})
				answerAs(t, two, func(q message, to netip.AddrPort) {
					time.Sleep(5 * ms)
					two.say(saysActive(q), key(2), to)
				})
			},
			want:    []Answer{said(1, active), said(2, active)},
			takes:   7 * ms,
			dropped: map[string]uint64{"short": 4, "long": 4, "replayed": 3},
		},
		{
			name: "it changes its mind",
			behave: func(t *testing.T, _ *lan, one, two *socket) {
				answerAs(t, one, func(q message, to netip.AddrPort) {
					one.say(saysActive(q), key(1), to)
					one.say(message{kind: unreached, nonce: q.nonce, asker: q.asker}, key(1), to)
				})
			},
			want:    []Answer{said(1, active), silent(2)},
			takes:   40 * ms,
			sent:    3, // only who was silent is asked again
			dropped: map[string]uint64{"replayed": 1},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLAN()
				ws := []Witness{witnessAt(1), witnessAt(2)}
				tt.behave(t, l, l.open(t, ws[0].Addr.String()), l.open(t, ws[1].Addr.String()))
				ctx, cancel := context.WithTimeout(t.Context(), 40*ms)
				defer cancel()
				begin := time.Now()
				a := Asker{Name: "vs_bk"}
				asker := netip.MustParseAddrPort(standbyAddr)
				got := a.ask(ctx, l.open(t, standbyAddr), ws)
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("answers (-want +got):\n%s", diff)
				}
				if took := time.Since(begin); took != tt.takes {
					t.Errorf("took %v, want %v", took, tt.takes)
				}
				if sent := len(l.wire(asker)); tt.sent != 0 && sent != tt.sent {
					t.Errorf("sent %d datagrams, want %d", sent, tt.sent)
				}
				wantDropped(t, &a.Tally, tt.dropped)
			})
		})
	}
}

// wantDropped wants these drops and no other.
func wantDropped(t *testing.T, tally *Tally, want map[string]uint64) {
	t.Helper()
	got := map[string]uint64{}
	for reason, n := range tally.Dropped() {
		if n > 0 {
			got[reason] = n
		}
	}
	if want == nil {
		want = map[string]uint64{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("dropped (-want +got):\n%s", diff)
	}
}

// What goes on the wire: two copies at most, with what is left of the time.
func TestAskSendsTwice(t *testing.T) {
	tests := []struct {
		name  string
		limit time.Duration
		waits []time.Duration
	}{
		{"40 ms", 40 * ms, []time.Duration{30 * ms, 15 * ms}},
		{"no limit", time.Hour, []time.Duration{60 * ms, 30 * ms}},
		{"hardly any", 2 * ms, []time.Duration{ms, ms}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLAN()
				c := l.open(t, standbyAddr)
				ctx, cancel := context.WithTimeout(t.Context(), tt.limit)
				defer cancel()
				begin := time.Now()
				(&Asker{Name: "vs_bk"}).ask(ctx, c, []Witness{witnessAt(1)})
				if took, want := time.Since(begin), min(tt.limit, 80*ms); took != want {
					t.Errorf("took %v, want %v", took, want)
				}
				var waits []time.Duration
				for _, d := range l.wire(c.addr) {
					m, _, drop := decode(d.b, key(1))
					if drop != Kept || m.kind != question {
						t.Errorf("sent %+v, %v", m, drop)
					}
					waits = append(waits, m.wait)
				}
				if diff := cmp.Diff(tt.waits, waits); diff != "" {
					t.Errorf("waits (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestNoncesDiffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLAN()
		var a Asker
		a.Name = "vs_bk"
		from := netip.MustParseAddrPort(standbyAddr)
		for range 2 {
			a.ask(t.Context(), l.open(t, standbyAddr), []Witness{witnessAt(1)})
		}
		sent := l.wire(from)
		first, _, _ := decode(sent[0].b, key(1))
		copied, _, _ := decode(sent[1].b, key(1))
		second, _, _ := decode(sent[2].b, key(1))
		if first.nonce != copied.nonce || first.nonce == second.nonce {
			t.Errorf("nonces %x, its copy's %x, the next %x", first.nonce, copied.nonce, second.nonce)
		}
	})
}

func TestChoose(t *testing.T) {
	var all []Witness
	for i := range 20 {
		all = append(all, witnessAt(i))
	}
	chosen := map[string]int{}
	for range 200 {
		one := map[string]bool{}
		for _, w := range choose(all) {
			chosen[w.Name]++
			one[w.Name] = true
		}
		if len(one) != MaxWitnesses {
			t.Fatalf("%d different ones were chosen", len(one))
		}
	}
	if len(chosen) != 20 {
		t.Errorf("only %d of 20 were ever chosen", len(chosen))
	}
	if all[0].Name != "rs0" || all[19].Name != "rs19" {
		t.Error("the caller's list was changed")
	}
	if got := choose(all[:2]); len(got) != 2 {
		t.Errorf("of two were chosen %d", len(got))
	}
}

func TestAskRefuses(t *testing.T) {
	ws := []Witness{witnessAt(1)}
	for _, name := range []string{"", "a b", strings.Repeat("n", 65), "a\x00"} {
		if _, err := (&Asker{Name: name}).Ask(t.Context(), ws); err == nil || !strings.Contains(err.Error(), "1 to 64 bytes") {
			t.Errorf("as %q: error %v", name, err)
		}
	}
	a := Asker{Name: "vs", From: netip.MustParseAddr("192.0.2.1")}
	if _, err := a.Ask(t.Context(), ws); err == nil || !strings.HasPrefix(err.Error(), "ask witnesses: ") {
		t.Errorf("from another host's address: error %v", err)
	}
	if got, err := a.Ask(t.Context(), nil); got != nil || err != nil {
		t.Errorf("nobody to ask: %v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a.From = netip.Addr{}
	got, err := a.Ask(ctx, []Witness{{Name: "rs1", Addr: netip.MustParseAddrPort("127.0.0.1:1")}})
	if diff := cmp.Diff([]Answer{{Witness: "rs1"}}, got); diff != "" || err != nil {
		t.Errorf("after the end: error %v, answers (-want +got):\n%s", err, diff)
	}
}
