package ipvs

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSave(t *testing.T) {
	sctp := wlc(Key{Protocol: 132, Addr: netip.MustParseAddrPort("10.0.0.50:80")})
	other := wlc(Key{Protocol: 50, Addr: netip.MustParseAddrPort("10.0.0.50:80")})
	oddTunnel := tun("192.168.1.9:80", 1)
	oddTunnel.Tunnel.Type = 9
	local := Destination{Addr: netip.MustParseAddrPort("10.0.0.1:80"), Method: MethodLocalNode, Weight: 1}
	limited := tun("192.168.1.1:80", 1)
	limited.Upper, limited.Lower = 100, 50
	nocsum := tun("192.168.1.1:80", 1)
	nocsum.Tunnel = Tunnel{Type: GRE}
	tests := []struct {
		name     string
		services []Service
		want     string
	}{
		{"nothing", nil, ""},
		{"the seed's table", []Service{wlc(web, tun("192.168.1.200:80", 1), tun("192.168.1.100:80", 1))}, `
-A -t 10.0.0.50:80 -s wlc
-a -t 10.0.0.50:80 -r 192.168.1.100:80 -i -w 1 --tun-type ipip
-a -t 10.0.0.50:80 -r 192.168.1.200:80 -i -w 1 --tun-type ipip
`},
		{"every kind", everyKind(), `
-A -t 10.0.0.50:80 -s wlc
-a -t 10.0.0.50:80 -r 192.168.1.100:80 -i -w 1 --tun-type ipip
-a -t 10.0.0.50:80 -r 192.168.1.200:80 -i -w 1 --tun-type ipip
-A -t 10.0.0.51:0 -s wrr -p 1
-A -u 10.0.0.50:53 -s mh -o -b mh-fallback,mh-port
-a -u 10.0.0.50:53 -r 192.168.1.100:53 -i -w 3 --tun-type gue --tun-port 6080 --tun-remcsum
-a -u 10.0.0.50:53 -r 192.168.1.101:53 -i -w 70000 --tun-type gre --tun-csum
-a -u 10.0.0.50:53 -r 192.168.1.102:53 -g -w 1
-a -u 10.0.0.50:53 -r 192.168.1.103:5353 -m -w 0
-A -u 10.0.0.50:5060 -s rr -p 300 -M 255.255.255.0 --pe sip
-A -t [2001:db8::50]:80 -s sh -p 3600 -M 64 -b sh-port
-a -t [2001:db8::50]:80 -r 192.168.1.100:80 -i -w 1 --tun-type ipip
-a -t [2001:db8::50]:80 -r [2001:db8:1::100]:80 -i -w 1 --tun-type ipip
-A -f 7 -s lc
-a -f 7 -r 192.168.1.100:0 -i -w 1 --tun-type ipip
-A -f 7 -6 -s lc
-a -f 7 -6 -r [2001:db8:1::100]:0 -i -w 1 --tun-type ipip
`},
		{"what others may have made", []Service{
			sctp, other, wlc(web, oddTunnel, local, limited),
			{Key: tcp("10.0.0.60:80"), Scheduler: "none", SchedFlags: 7, Persistent: 60e9, PersistenceMask: -1},
			{Key: tcp("10.0.0.61:80"), Scheduler: "mh", SchedFlags: SchedFlag3, Persistent: 60e9, PersistenceMask: ^0xff00ff00},
			wlc(FWMarkKey(1<<32-1, IPv4), nocsum), wlc(tcp("[::1:2]:80")), wlc(tcp("[::1]:80")),
		}, `
-A -f -1 -s wlc
-a -f -1 -r 192.168.1.1:80 -i -w 1 --tun-type gre --tun-nocsum
-A -t 10.0.0.50:80 -s wlc
-a -t 10.0.0.50:80 -r 192.168.1.1:80 -i -w 1 --tun-type ipip
-a -t 10.0.0.50:80 -r 192.168.1.9:80 -i -w 1
-a -t 10.0.0.50:80 -r 10.0.0.1:80 -g -w 1
-A -t 10.0.0.60:80 -s none -p 60 -M 0.0.0.0 -b flag-1,flag-2,flag-3
-A -t 10.0.0.61:80 -s mh -p 60 -M 255.0.255.0 -b 
-A --xxx-service 10.0.0.50:80 -s wlc
-A --sctp-service 10.0.0.50:80 -s wlc
-A -t [::1]:80 -s wlc
-A -t [::0.1.0.2]:80 -s wlc
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := slices.Clone(tt.services)
			var got strings.Builder
			if err := Save(&got, tt.services); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), got.String()); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if d := cmp.Diff(before, tt.services, cmpAddrs); d != "" {
				t.Errorf("Save changed its input (-before +after)\n%s", d)
			}
		})
	}
}

// In libipvs's order every address comes before the next half of all addresses, all the way round, so three of them can
// stand in a circle; then the order they come in decides.
func TestSaveOrderIsACircle(t *testing.T) {
	a, b, c := tun("10.0.0.1:80", 1), tun("100.0.0.1:80", 1), tun("200.0.0.1:80", 1)
	order := func(ds ...Destination) (got []string) {
		for _, d := range mergeSort(ds, compareDestinations) {
			got = append(got, d.Addr.Addr().String())
		}
		return got
	}
	for _, tt := range []struct{ in, want []string }{
		{order(a, b, c), []string{"10.0.0.1", "100.0.0.1", "200.0.0.1"}},
		{order(c, a, b), []string{"200.0.0.1", "10.0.0.1", "100.0.0.1"}},
		{order(b, c, a), []string{"100.0.0.1", "200.0.0.1", "10.0.0.1"}},
		{order(a, tun("[a00:1::5]:80", 1)), []string{"10.0.0.1", "a00:1::5"}}, // the same as far as the first goes
	} {
		if d := cmp.Diff(tt.want, tt.in); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
	}
}

type brokenWriter struct{}

var errBroken = errors.New("broken")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestSaveSaysThatItCouldNotWrite(t *testing.T) {
	if err := Save(brokenWriter{}, everyKind()); !errors.Is(err, errBroken) {
		t.Errorf("Save: %v", err)
	}
}
