package ipvs

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestDiff(t *testing.T) {
	web, dns := tcp("10.0.0.50:80"), udp("10.0.0.50:53")
	a, b := tun("192.168.1.100:80", 1), tun("192.168.1.200:80", 1)
	quiesced := tun("192.168.1.100:80", 0)
	limited := a
	limited.Upper, limited.Lower = 100, 50
	gue := a
	gue.Tunnel = Tunnel{Type: GUE, Port: 6080, Flags: Csum}
	direct := a
	direct.Method = MethodDirect
	masqTunnel := Destination{Addr: a.Addr, Method: MethodMasq, Tunnel: gue.Tunnel}
	sticky := Service{Key: web, Scheduler: "sh", SchedFlags: SchedPort, Persistent: time.Minute, PersistenceMask: 24}
	mapped := Key{Protocol: TCP, Addr: netip.MustParseAddrPort("[::ffff:10.0.0.50]:80")}

	tests := []struct {
		name       string
		have, want []Service
		ours       map[Key]bool
		ops        []string
	}{
		{name: "nothing"},
		{
			name: "new", want: []Service{wlc(web, a, b)},
			ops: []string{"add virtual service 10.0.0.50:80/tcp",
				"add real server 192.168.1.100:80 to 10.0.0.50:80/tcp", "add real server 192.168.1.200:80 to 10.0.0.50:80/tcp"},
		},
		{name: "the same in another order", have: []Service{wlc(web, a, b), wlc(dns)}, want: []Service{wlc(dns), wlc(web, b, a)}},
		{name: "foreign stays", have: []Service{wlc(web, a)}},
		{name: "foreign stays whatever ours says of others", have: []Service{wlc(web, a)}, ours: map[Key]bool{dns: true, web: false}},
		{name: "ours goes whole", have: []Service{wlc(web, a)}, ours: owned(web), ops: []string{"delete virtual service 10.0.0.50:80/tcp"}},
		{
			name: "a wanted service that was there is ours inside", have: []Service{wlc(web, a)}, want: []Service{wlc(web, b)},
			ops: []string{"add real server 192.168.1.200:80 to 10.0.0.50:80/tcp", "delete real server 192.168.1.100:80 of 10.0.0.50:80/tcp"},
		},
		{
			name: "quiesce is an edit", have: []Service{wlc(web, a)}, want: []Service{wlc(web, quiesced)},
			ops: []string{"edit real server 192.168.1.100:80 of 10.0.0.50:80/tcp (weight 1 → 0)"},
		},
		{
			name: "the weight moves up before it moves down",
			have: []Service{wlc(web, a, tun("192.168.1.200:80", 0))}, want: []Service{wlc(web, quiesced, b)},
			ops: []string{"edit real server 192.168.1.200:80 of 10.0.0.50:80/tcp (weight 0 → 1)",
				"edit real server 192.168.1.100:80 of 10.0.0.50:80/tcp (weight 1 → 0)"},
		},
		{
			name: "thresholds", have: []Service{wlc(web, a)}, want: []Service{wlc(web, limited)},
			ops: []string{"edit real server 192.168.1.100:80 of 10.0.0.50:80/tcp (upper 0 → 100, lower 0 → 50)"},
		},
		{
			name: "tunnel", have: []Service{wlc(web, a)}, want: []Service{wlc(web, gue)},
			ops: []string{"edit real server 192.168.1.100:80 of 10.0.0.50:80/tcp (tunnel ipip → gue port 6080 csum)"},
		},
		{
			name: "method", have: []Service{wlc(web, a)}, want: []Service{wlc(web, direct)},
			ops: []string{"edit real server 192.168.1.100:80 of 10.0.0.50:80/tcp (method tunnel → direct)"},
		},
		{
			name: "the tunnel of another method is nothing", have: []Service{wlc(web, masqTunnel)},
			want: []Service{wlc(web, Destination{Addr: a.Addr, Method: MethodMasq})},
		},
		{
			name: "scheduler and persistence are one edit", have: []Service{wlc(web, a)},
			want: []Service{{Key: web, Scheduler: "sh", SchedFlags: SchedPort, Persistent: time.Minute, PersistenceMask: 24, Destinations: []Destination{a}}},
			ops:  []string{"edit virtual service 10.0.0.50:80/tcp (scheduler wlc → sh, scheduler flags 0 → 2, persistent 0s → 1m0s, persistence mask 0 → 24)"},
		},
		{
			name: "one packet and engine", have: []Service{wlc(dns)}, want: []Service{{Key: dns, Scheduler: "wlc", OnePacket: true, PEName: "sip"}},
			ops: []string{"edit virtual service 10.0.0.50:53/udp (one packet false → true, persistence engine  → sip)"},
		},
		{
			name: "spelled otherwise, the same",
			have: []Service{{Key: web, Scheduler: "wlc", Persistent: time.Minute}, wlc(FWMarkKey(7, IPv4)), wlc(dns)},
			want: []Service{{Key: mapped, Scheduler: "wlc", Persistent: time.Minute + time.Millisecond, PersistenceMask: 32},
				wlc(Key{FWMark: 7}), {Key: dns, Scheduler: "wlc", PersistenceMask: 24}},
		},
		{
			name: "ours spelled otherwise", have: []Service{wlc(web)}, ours: owned(mapped),
			ops: []string{"delete virtual service 10.0.0.50:80/tcp"},
		},
		{
			name: "the first of two counts", have: []Service{wlc(web, a)}, want: []Service{wlc(web, a, quiesced), sticky},
		},
		{
			name: "services are deleted last", have: []Service{wlc(web, a)}, want: []Service{wlc(dns)}, ours: owned(web, dns),
			ops: []string{"add virtual service 10.0.0.50:53/udp", "delete virtual service 10.0.0.50:80/tcp"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, o := range Diff(tt.have, tt.want, tt.ours) {
				got = append(got, o.String())
			}
			if d := cmp.Diff(tt.ops, got); d != "" {
				t.Errorf("operations (-want +got)\n%s", d)
			}
		})
	}
}

// The generators stay within few keys, so that tables meet.

var someKeys = []Key{tcp("10.0.0.50:80"), udp("10.0.0.50:80"), tcp("10.0.0.51:443"), tcp("[2001:db8::50]:80"),
	FWMarkKey(7, IPv4), FWMarkKey(7, IPv6)}

func genDestination(k Key) *rapid.Generator[Destination] {
	return rapid.Custom(func(t *rapid.T) Destination {
		net := "192.168.1.%d:80"
		if k.family() == IPv6 && rapid.Bool().Draw(t, "same family") {
			net = "[2001:db8:1::%d]:80"
		}
		d := tun(fmt.Sprintf(net, rapid.IntRange(1, 4).Draw(t, "host")), rapid.IntRange(0, 2).Draw(t, "weight"))
		d.Upper = rapid.Uint32Range(0, 2).Draw(t, "upper")
		d.Lower = rapid.Uint32Range(0, d.Upper).Draw(t, "lower")
		if familyOf(d.Addr.Addr()) == k.family() {
			d.Method = rapid.SampledFrom([]Method{MethodTunnel, MethodDirect, MethodMasq}).Draw(t, "method")
		}
		if d.Method == MethodTunnel {
			d.Tunnel = rapid.SampledFrom([]Tunnel{{}, {Type: GUE, Port: 6080}, {Type: GUE, Port: 6081, Flags: RemCsum},
				{Type: GRE, Flags: Csum}}).Draw(t, "tunnel")
		}
		return d
	})
}

func genService(k Key) *rapid.Generator[Service] {
	return rapid.Custom(func(t *rapid.T) Service {
		s := Service{
			Key:        k,
			Scheduler:  rapid.SampledFrom(Schedulers).Draw(t, "scheduler"),
			SchedFlags: SchedFlags(rapid.IntRange(0, 7).Draw(t, "flags")),
			OnePacket:  rapid.Bool().Draw(t, "one packet"),
			PEName:     rapid.SampledFrom([]string{"", "sip"}).Draw(t, "engine"),
		}
		if rapid.Bool().Draw(t, "persistent") {
			s.Persistent = time.Duration(rapid.IntRange(1, 1e6).Draw(t, "seconds")) * time.Second
			s.PersistenceMask = rapid.IntRange(0, k.family().bits()-1).Draw(t, "mask")
		}
		s.Destinations = rapid.SliceOfNDistinct(genDestination(k), 0, 5,
			func(d Destination) netip.AddrPort { return d.Addr }).Draw(t, "destinations")
		return s
	})
}

func genTable() *rapid.Generator[[]Service] {
	return rapid.Custom(func(t *rapid.T) []Service {
		var services []Service
		for _, k := range rapid.SliceOfDistinct(rapid.SampledFrom(someKeys), func(k Key) Key { return k }).Draw(t, "keys") {
			services = append(services, genService(k).Draw(t, k.String()))
		}
		return services
	})
}

func TestDiffReachesWhatIsWanted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, want := genTable().Draw(t, "have"), genTable().Draw(t, "want")
		ours := owned(rapid.SliceOfDistinct(rapid.SampledFrom(someKeys), func(k Key) Key { return k }).Draw(t, "ours")...)

		expected := newTable(want...)
		serving := make(map[Key]bool) // services that take connections before and after
		for _, s := range have {
			if !ours[s.Key] && expected.find(s.Key) == nil {
				expected.services = append(expected.services, &s)
			}
			serving[s.Key] = newTable(have...).usable(s.Key) > 0 && expected.usable(s.Key) > 0
		}

		kernel := newTable(have...)
		added, deleted := map[string]bool{}, map[string]bool{}
		for _, o := range Diff(have, want, ours) {
			if err := kernel.apply(o); err != nil {
				t.Fatalf("%s: %v", o, err)
			}
			for k, is := range serving {
				if is && kernel.usable(k) == 0 {
					t.Fatalf("after %q nobody serves %s", o, k)
				}
			}
			name := o.Service.Key.String() + " " + o.Destination.Addr.String()
			switch o.Kind {
			case AddService, AddDestination:
				added[name] = true
			case DelService, DelDestination:
				deleted[name] = true
			}
			if added[name] && deleted[name] {
				t.Fatalf("%s is both added and deleted", name)
			}
		}
		if d := cmp.Diff(expected.String(), kernel.String()); d != "" {
			t.Fatalf("table (-want +got)\n%s", d)
		}
		for _, s := range kernel.services {
			rand.Shuffle(len(s.Destinations), func(i, j int) {
				s.Destinations[i], s.Destinations[j] = s.Destinations[j], s.Destinations[i]
			})
		}
		var reached []Service
		for _, s := range kernel.services {
			reached = append(reached, *s)
		}
		slices.Reverse(reached)
		if ops := Diff(reached, want, ours); len(ops) != 0 {
			t.Fatalf("the wanted table still differs: %v", ops)
		}
	})
}
