package ipvs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// states are tables a director may want one after the other, each as the kernel's text.
var (
	web, web6, dns, mark = tcp("10.0.0.50:80"), tcp("[2001:db8::50]:80"), udp("10.0.0.50:53"), FWMarkKey(7, IPv6)

	foreign = wlc(tcp("203.0.113.1:443"), tun("203.0.113.2:443", 5))

	foreignText = `203.0.113.1:443/tcp wlc
  203.0.113.2:443 tunnel weight=5 ipip
`
	states = []struct {
		want []Service
		text string
	}{
		{nil, ``},
		{[]Service{wlc(web)}, `10.0.0.50:80/tcp wlc
`},
		{[]Service{wlc(web, tun("192.168.1.100:80", 1), tun("192.168.1.200:80", 1))}, `10.0.0.50:80/tcp wlc
  192.168.1.100:80 tunnel weight=1 ipip
  192.168.1.200:80 tunnel weight=1 ipip
`},
		{[]Service{wlc(web, tun("192.168.1.100:80", 0), tun("192.168.1.200:80", 1))}, `10.0.0.50:80/tcp wlc
  192.168.1.100:80 tunnel weight=0 ipip
  192.168.1.200:80 tunnel weight=1 ipip
`},
		{[]Service{
			{Key: web, Scheduler: "sh", SchedFlags: SchedFallback, Destinations: []Destination{tun("192.168.1.200:80", 65535)}},
			{Key: mark, Scheduler: "rr", Destinations: []Destination{tun("[2001:db8:1::100]:80", 1)}},
			{Key: web6, Scheduler: "mh", Persistent: 300e9, PersistenceMask: 64, Destinations: []Destination{tun("192.168.1.100:80", 1)}},
		}, `10.0.0.50:80/tcp sh flags=1
  192.168.1.200:80 tunnel weight=65535 ipip
[2001:db8::50]:80/tcp mh persistent=5m0s/64
  192.168.1.100:80 tunnel weight=1 ipip
fwmark 7 of IPv6 rr
  [2001:db8:1::100]:80 tunnel weight=1 ipip
`},
		{[]Service{
			{Key: dns, Scheduler: "rr", OnePacket: true, Destinations: []Destination{
				{Addr: netip.MustParseAddrPort("192.168.1.100:53"), Method: MethodTunnel, Weight: 2, Upper: 9, Lower: 4,
					Tunnel: Tunnel{Type: GUE, Port: 6080, Flags: Csum}},
				{Addr: netip.MustParseAddrPort("192.168.1.200:53"), Method: MethodTunnel, Tunnel: Tunnel{Type: GRE}}}},
			wlc(web6, tun("[2001:db8:1::100]:80", 1)),
		}, `10.0.0.50:53/udp rr one-packet
  192.168.1.100:53 tunnel weight=2 gue port 6080 csum upper=9 lower=4
  192.168.1.200:53 tunnel weight=0 gre
[2001:db8::50]:80/tcp wlc
  [2001:db8:1::100]:80 tunnel weight=1 ipip
`},
	}
	ours = owned(web, web6, dns, mark)
)

func mustApply(t *testing.T, h *Handle, want []Service) Report {
	t.Helper()
	r, err := h.Apply(t.Context(), want, ours)
	if err != nil {
		t.Fatalf("Apply: %v", err)
	}
	return r
}

func checkText(t *testing.T, f *fakeKernel, want string) {
	t.Helper()
	want += foreignText
	if d := cmp.Diff(sortedText(want), sortedText(f.String())); d != "" {
		t.Fatalf("table (-want +got)\n%s", d)
	}
}

// sortedText lets the expected texts name the foreign service last.
func sortedText(s string) map[string]bool {
	m := map[string]bool{}
	service := ""
	for line := range strings.Lines(s) {
		if !strings.HasPrefix(line, " ") {
			service = line
		}
		m[service+line] = true
	}
	return m
}

func TestApplyStates(t *testing.T) {
	f := &fakeKernel{table: newTable(foreign)}
	h := &Handle{t: f}
	step := func(i int) {
		mustApply(t, h, states[i].want)
		checkText(t, f, states[i].text)
		f.writes = 0
		if r := mustApply(t, h, states[i].want); r.Changed() || f.writes != 0 || r.Rounds != 1 {
			t.Fatalf("state %d again: %d writes in %d rounds: %v", i, f.writes, r.Rounds, r.Ops)
		}
	}
	for i := range states {
		step(i)
	}
	for range 200 {
		f.repeat = rand.IntN(2) == 0
		step(rand.IntN(len(states)))
	}
}

func TestApplyReport(t *testing.T) {
	f := &fakeKernel{table: newTable(wlc(web, tun("192.168.1.1:80", 1), tun("192.168.1.2:80", 1)), wlc(dns))}
	r := mustApply(t, &Handle{t: f}, []Service{
		{Key: web, Scheduler: "rr", Destinations: []Destination{tun("192.168.1.1:80", 2), tun("192.168.1.3:80", 1)}},
		wlc(web6),
	})
	want := Report{
		Added: Count{1, 1}, Edited: Count{1, 1}, Deleted: Count{1, 1}, Rounds: 1,
		Ops: []string{
			"edit virtual service 10.0.0.50:80/tcp (scheduler wlc → rr)",
			"add real server 192.168.1.3:80 to 10.0.0.50:80/tcp",
			"edit real server 192.168.1.1:80 of 10.0.0.50:80/tcp (weight 1 → 2)",
			"delete real server 192.168.1.2:80 of 10.0.0.50:80/tcp",
			"add virtual service [2001:db8::50]:80/tcp",
			"delete virtual service 10.0.0.50:53/udp",
		},
	}
	if d := cmp.Diff(want, r); d != "" {
		t.Errorf("report (-want +got)\n%s", d)
	}
}

// Whatever call fails, the rest is done, the foreign service stays, nobody who served is left without a server, and
// the next Apply finishes.
func TestApplyWithEveryCallFailing(t *testing.T) {
	for from := range states {
		for to := range states {
			for k, failed := 1, true; failed; k++ {
				f := &fakeKernel{table: newTable(foreign)}
				h := &Handle{t: f}
				mustApply(t, h, states[from].want)

				first := f.calls
				failed = false
				f.fail = func(call int, _ uint8) error {
					if call-first != k {
						return nil
					}
					failed = true
					return unix.EIO
				}
				before, after := newTable(states[from].want...), newTable(states[to].want...)
				check := func(int, uint8) {
					for _, key := range someKeys {
						if before.usable(key) > 0 && after.usable(key) > 0 && f.usable(key) == 0 {
							t.Errorf("from %d to %d, call %d failing: nobody serves %s", from, to, k, key)
						}
					}
				}
				f.before = check
				_, err := h.Apply(t.Context(), states[to].want, ours)
				check(0, 0)
				if failed != (err != nil) {
					t.Fatalf("from %d to %d, call %d failing: error %v", from, to, k, err)
				}
				if err != nil && !errors.Is(err, unix.EIO) {
					t.Fatalf("the cause is lost: %v", err)
				}
				f.fail, f.before = nil, nil
				mustApply(t, h, states[to].want)
				checkText(t, f, states[to].text)
			}
		}
	}
}

func TestTheLastThatServesStays(t *testing.T) {
	f := &fakeKernel{table: newTable(wlc(web, tun("192.168.1.1:80", 1), tun("192.168.1.2:80", 1), tun("192.168.1.3:80", 1)))}
	f.fail = func(_ int, cmd uint8) error {
		if cmd == cmdNewDest {
			return unix.EINVAL
		}
		return nil
	}
	_, err := (&Handle{t: f}).Apply(t.Context(), []Service{wlc(web, tun("192.168.1.9:80", 1), tun("192.168.1.3:80", 0))}, ours)
	want := `add real server 192.168.1.9:80 to 10.0.0.50:80/tcp: 192.168.1.9 is not a unicast address here, or this network namespace has no address at all (is lo up?)
delete real server 192.168.1.2:80 of 10.0.0.50:80/tcp: it is the last that serves, and the one to serve instead could not be set`
	if d := cmp.Diff(want, fmt.Sprint(err)); d != "" {
		t.Errorf("error (-want +got)\n%s", d)
	}
	if d := cmp.Diff("10.0.0.50:80/tcp wlc\n  192.168.1.2:80 tunnel weight=1 ipip\n  192.168.1.3:80 tunnel weight=0 ipip\n", f.String()); d != "" {
		t.Errorf("table (-want +got)\n%s", d)
	}

	// It may still change as long as it serves.
	if _, err = (&Handle{t: f}).Apply(t.Context(), []Service{wlc(web, tun("192.168.1.9:80", 1), tun("192.168.1.2:80", 7))}, ours); err == nil {
		t.Error("no error")
	}
	if d := cmp.Diff("10.0.0.50:80/tcp wlc\n  192.168.1.2:80 tunnel weight=7 ipip\n", f.String()); d != "" {
		t.Errorf("table (-want +got)\n%s", d)
	}
	// And where none shall serve it goes, whatever else fails.
	if _, err = (&Handle{t: f}).Apply(t.Context(), []Service{wlc(web, tun("192.168.1.9:80", 0))}, ours); err == nil {
		t.Error("no error")
	}
	if d := cmp.Diff("10.0.0.50:80/tcp wlc\n", f.String()); d != "" {
		t.Errorf("table (-want +got)\n%s", d)
	}
}

// Others take away and add what Apply is about to work on; it looks again.
func TestApplyMeetsOthers(t *testing.T) {
	one, two := tun("192.168.1.100:80", 1), tun("192.168.1.200:80", 1)
	tests := []struct {
		name       string
		have, want Service
		cmd        uint8 // the command before which the other acts
		other      Op
	}{
		{"adds the service", foreign, wlc(web, one), cmdNewService, Op{Kind: AddService, Service: Service{Key: web, Scheduler: "rr"}}},
		{"adds the destination", wlc(web), wlc(web, one), cmdNewDest, Op{Kind: AddDestination, Service: wlc(web), Destination: tun("192.168.1.100:80", 7)}},
		{"deletes the service before an edit", wlc(web, one), wlc(web, tun("192.168.1.100:80", 0)), cmdSetDest, Op{Kind: DelService, Service: wlc(web)}},
		{"deletes the service after the dump", wlc(web, one), wlc(web, one, two), cmdGetDest, Op{Kind: DelService, Service: wlc(web)}},
		{"deletes the destination", wlc(web, one), wlc(web, tun("192.168.1.100:80", 0)), cmdSetDest, Op{Kind: DelDestination, Service: wlc(web), Destination: one}},
		{"deletes the same destination", wlc(web, one, two), wlc(web, two), cmdDelDest, Op{Kind: DelDestination, Service: wlc(web), Destination: one}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeKernel{table: newTable(tt.have)}
			acted := false
			f.before = func(_ int, cmd uint8) {
				if cmd == tt.cmd && !acted {
					acted = true
					if err := f.apply(tt.other); err != nil {
						t.Fatal(err)
					}
				}
			}
			r, err := (&Handle{t: f}).Apply(t.Context(), []Service{tt.want}, ours)
			if err != nil {
				t.Fatal(err)
			}
			if r.Rounds != 2 {
				t.Errorf("%d rounds, want 2", r.Rounds)
			}
			want := newTable(tt.want)
			if got := f.find(tt.want.Key); got == nil || newTable(*got).String() != want.String() {
				t.Errorf("want %s, got table\n%s", want, f)
			}
		})
	}
}

func TestApplyGivesUpOnSomeoneWhoNeverStops(t *testing.T) {
	f := &fakeKernel{table: newTable(wlc(web, tun("192.168.1.100:80", 1)))}
	f.before = func(_ int, cmd uint8) {
		if cmd == cmdSetDest {
			f.services[0].Destinations = nil
		}
		if cmd == cmdGetService {
			f.services[0].Destinations = []Destination{tun("192.168.1.100:80", 1)}
		}
	}
	r, err := (&Handle{t: f}).Apply(t.Context(), []Service{wlc(web, tun("192.168.1.100:80", 0))}, ours)
	if !errors.Is(err, unix.ENOENT) || r.Rounds != applyRounds {
		t.Errorf("after %d rounds: %v", r.Rounds, err)
	}
}

func TestApplyErrors(t *testing.T) {
	one := tun("192.168.1.100:80", 1)
	masq6 := Destination{Addr: netip.MustParseAddrPort("[2001:db8::1]:80")}
	tests := []struct {
		name   string
		want   []Service
		cmd    uint8
		errno  error
		text   string
		rounds int
		writes int
	}{
		{name: "scheduler", want: []Service{{Key: web, Scheduler: "xx", Destinations: []Destination{one}}, wlc(dns)}, rounds: 1, writes: 2,
			text: `add virtual service 10.0.0.50:80/tcp: scheduler "xx" is not in this kernel (modprobe ip_vs_xx)`},
		{name: "engine", want: []Service{{Key: web, Scheduler: "rr", PEName: "xx"}}, rounds: 1, writes: 1,
			text: `add virtual service 10.0.0.50:80/tcp: scheduler "rr" or persistence engine "xx" is not in this kernel (modprobe ip_vs_rr ip_vs_pe_xx)`},
		{name: "several", want: []Service{wlc(web, tun("192.168.1.1:80", -1), one, masq6)}, rounds: 1, writes: 4,
			text: `add real server 192.168.1.1:80 to 10.0.0.50:80/tcp: weight -1 is below 0, or lower threshold 0 is above upper 0
add real server [2001:db8::1]:80 to 10.0.0.50:80/tcp: a real server of another family than the virtual service needs a tunnel, not masq`},
		{name: "sync daemon", want: []Service{wlc(web6, one)}, cmd: cmdNewDest, errno: unix.EINVAL, rounds: 1, writes: 2,
			text: `add real server 192.168.1.100:80 to [2001:db8::50]:80/tcp: a real server of another family than the virtual service cannot be beside a sync daemon; or 192.168.1.100 is not a unicast address here, or this network namespace has no address at all (is lo up?)`},
		{name: "broadcast", want: []Service{wlc(web, one)}, cmd: cmdNewDest, errno: unix.EINVAL, rounds: 1, writes: 2,
			text: `add real server 192.168.1.100:80 to 10.0.0.50:80/tcp: 192.168.1.100 is not a unicast address here, or this network namespace has no address at all (is lo up?)`},
		{name: "service refused", want: []Service{wlc(web, one)}, cmd: cmdNewService, errno: unix.EINVAL, rounds: 1, writes: 1,
			text: `add virtual service 10.0.0.50:80/tcp: invalid argument`},
		{name: "no IPv6", want: []Service{wlc(web6)}, cmd: cmdNewService, errno: unix.EAFNOSUPPORT, rounds: 1, writes: 1,
			text: `add virtual service [2001:db8::50]:80/tcp: IPv6 is switched off in this kernel`},
		{name: "no right to write", want: []Service{wlc(web)}, cmd: cmdNewService, errno: unix.EPERM, rounds: 1, writes: 1,
			text: `add virtual service 10.0.0.50:80/tcp: IPVS needs CAP_NET_ADMIN in the initial user namespace`},
		{name: "no right to read", want: []Service{wlc(web)}, cmd: cmdGetService, errno: unix.EPERM,
			text: `read the virtual services: IPVS needs CAP_NET_ADMIN in the initial user namespace`},
		{name: "module gone", want: []Service{wlc(web)}, cmd: cmdGetService, errno: ErrNoModule,
			text: `read the virtual services: the kernel module ip_vs is not loaded (modprobe ip_vs)`},
		{name: "destinations unreadable", want: []Service{wlc(web, one)}, cmd: cmdGetDest, errno: unix.EIO,
			text: `read the real servers of 203.0.113.1:443/tcp: input/output error`},
		{name: "dump never whole", want: []Service{wlc(web, one)}, cmd: cmdGetService, errno: nl.ErrDumpInterrupted,
			text: `read the virtual services: ` + nl.ErrDumpInterrupted.Error()},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeKernel{table: newTable(foreign)}
			f.fail = func(_ int, cmd uint8) error {
				if cmd == tt.cmd {
					return tt.errno
				}
				return nil
			}
			r, err := (&Handle{t: f}).Apply(t.Context(), tt.want, ours)
			if d := cmp.Diff(tt.text, fmt.Sprint(err)); d != "" {
				t.Errorf("error (-want +got)\n%s", d)
			}
			if tt.errno != nil && !errors.Is(err, tt.errno) {
				t.Errorf("the cause is lost in %v", err)
			}
			if r.Rounds != tt.rounds || f.writes != tt.writes {
				t.Errorf("%d rounds with %d writes, want %d with %d", r.Rounds, f.writes, tt.rounds, tt.writes)
			}
		})
	}
}

// A dump by position shows entries twice where others are added meanwhile.
func TestServicesOnce(t *testing.T) {
	f := &fakeKernel{table: newTable(everyKind()...), repeat: true}
	got, err := (&Handle{t: f}).Services(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(everyKind(), got, cmpAddrs); d != "" {
		t.Errorf("services (-want +got)\n%s", d)
	}
}

func TestDumpIsRetried(t *testing.T) {
	for _, err := range []error{nl.ErrDumpInterrupted, unix.ENOBUFS} {
		f := &fakeKernel{table: newTable(foreign)}
		f.fail = func(call int, _ uint8) error {
			if call == 1 || call == 3 {
				return err
			}
			return nil
		}
		got, e := (&Handle{t: f}).Services(t.Context())
		if e != nil {
			t.Fatalf("%v: %v", err, e)
		}
		if d := cmp.Diff([]Service{foreign}, got, cmpAddrs); d != "" {
			t.Errorf("%v: services (-want +got)\n%s", err, d)
		}
	}
}

// An answer that was lost leaves open whether the operation was done.
func TestLostAnswer(t *testing.T) {
	f := &fakeKernel{table: newTable()}
	lost := false
	f.fail = func(_ int, cmd uint8) error {
		if cmd == cmdNewService && !lost {
			lost = true
			if err := f.apply(Op{Kind: AddService, Service: wlc(web)}); err != nil {
				t.Fatal(err)
			}
			return unix.ENOBUFS
		}
		return nil
	}
	if r := mustApply(t, &Handle{t: f}, []Service{wlc(web)}); r.Rounds != 2 || r.Changed() {
		t.Errorf("%d rounds, did %v", r.Rounds, r.Ops)
	}
}

func TestApplyStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := &fakeKernel{table: newTable()}
	f.before = func(_ int, cmd uint8) {
		if cmd == cmdNewDest {
			cancel()
		}
	}
	h := &Handle{t: f}
	want := []Service{wlc(web, tun("192.168.1.100:80", 1), tun("192.168.1.200:80", 1))}
	r, err := h.Apply(ctx, want, ours)
	if !errors.Is(err, context.Canceled) || f.writes != 2 || len(r.Ops) != 2 {
		t.Errorf("%d writes, %v: %v", f.writes, r.Ops, err)
	}
	calls := f.calls
	if _, err := h.Services(ctx); !errors.Is(err, context.Canceled) || f.calls != calls {
		t.Errorf("a dead context: %d reads: %v", f.calls-calls, err)
	}
	if _, err := h.Apply(ctx, want, ours); !errors.Is(err, context.Canceled) || f.writes != 2 {
		t.Errorf("a dead context: %d writes: %v", f.writes, err)
	}
}

func TestClose(t *testing.T) {
	f := &fakeKernel{table: newTable()}
	if err := (&Handle{t: f}).Close(); err != nil || !f.closed {
		t.Errorf("Close: %v, closed %v", err, f.closed)
	}
}
