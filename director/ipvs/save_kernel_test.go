//go:build kernel

package ipvs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// checkSave compares Save with ipvsadm on the table that is in the kernel.
func checkSave(t *testing.T, h *Handle) {
	t.Helper()
	var got bytes.Buffer
	if err := Save(&got, services(t, h)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(ipvsadm(t, "", "--save", "-n"), "\n"), strings.Split(got.String(), "\n")); d != "" {
		t.Fatalf("save (-ipvsadm +ours)\n%s", d)
	}
}

// What others made with ipvsadm, kinds that we never make among it, stays and is saved as ipvsadm does.
const odd = `-A -t 203.0.113.1:443 -s rr -p 300 -M 255.0.255.0
-a -t 203.0.113.1:443 -r 192.168.1.1:443 -g -w 65535 -x 100 -y 50
-a -t 203.0.113.1:443 -r 192.168.1.2:443 -i -w 0
-A -u 203.0.113.1:53 -s sh -p 60 -M 0.0.0.0 -o -b sh-port
-A -t 203.0.113.2:80 -s rr -b flag-1,flag-3
-A -t 203.0.113.3:80 -s mh -b flag-3
-A --sctp-service 203.0.113.1:80 -s nq
-a --sctp-service 203.0.113.1:80 -r 192.168.1.1:8080 -m -w 3
-A -t [::1:2]:80 -s wrr
-a -t [::1:2]:80 -r [2001:db8::1:0:0:1]:80 -i
-a -t [::1:2]:80 -r [2001:db8:0:1::]:80 -i --tun-type gue --tun-port 5555 --tun-nocsum
-a -t [::1:2]:80 -r [::2:3]:80 -i --tun-type gre --tun-csum
-a -t [::1:2]:80 -r 10.9.8.7:80 -i
-A -t [2001:db8::1]:0 -s lc -p 99 -M 48
-A -u [2001:db8::1]:5060 -s lc -p 99 --pe sip
-A -f 2147483648 -s wlc
-A -f 4294967295 -s wlc
-a -f 4294967295 -r 192.168.1.1:0 -i
-A -f 5 -6 -s wlc -p 7 -M 127
`

func TestKernelForeignStays(t *testing.T) {
	h, c := newKernel(t)
	ipvsadm(t, odd, "-R")
	before := services(t, h)
	if n := strings.Count(odd, "-A"); len(before) != n {
		t.Errorf("%d services, want %d", len(before), n)
	}
	checkSave(t, h)

	// They stay through a life of ours, though ours says nothing of them, and Diff finds nothing to do about its own reading.
	for _, want := range [][]Service{everyKind(), nil} {
		if _, err := h.Apply(t.Context(), want, owned(keysOf(everyKind())...)); err != nil {
			t.Fatal(err)
		}
		checkTable(t, h, append(want, before...)...)
		checkSave(t, h)
	}
	if ops := Diff(before, before, owned(keysOf(before)...)); len(ops) != 0 {
		t.Errorf("the table differs from itself: %v", ops)
	}
	c.writes = nil
	if _, err := h.Apply(t.Context(), before, owned(keysOf(before)...)); err != nil || len(c.writes) != 0 {
		t.Errorf("adopting the table wrote %d times: %v", len(c.writes), err)
	}
	// An adopted table can be put back, oddities and all.
	if _, err := h.Apply(t.Context(), nil, owned(keysOf(before)...)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Apply(t.Context(), before, nil); err != nil {
		t.Fatal(err)
	}
	checkTable(t, h, before...)
}

func keysOf(services []Service) (keys []Key) {
	for _, s := range services {
		keys = append(keys, s.Key)
	}
	return keys
}

// Addresses from all over stand in a circle for ipvsadm's order; only the very same sort prints them alike.
func TestKernelSaveOrder(t *testing.T) {
	h, _ := newKernel(t)
	rng := rand.New(rand.NewPCG(1, 2))
	addr := func() string {
		if rng.IntN(3) == 0 {
			return fmt.Sprintf("[2%03x:%x::%x]:80", rng.IntN(1<<12), rng.IntN(1<<16), 1+rng.IntN(1<<16))
		}
		return fmt.Sprintf("%d.%d.%d.%d:80", 1+rng.IntN(222), rng.IntN(256), rng.IntN(256), 1+rng.IntN(254))
	}
	var want []Service
	for range 60 {
		s := wlc(NewKey([]Protocol{TCP, UDP}[rng.IntN(2)], netip.MustParseAddrPort(addr())))
		for range rng.IntN(20) {
			d := tun(addr(), rng.IntN(100))
			if s.family() == IPv4 || d.Addr.Addr().Is6() || rng.IntN(2) == 0 {
				s.Destinations = append(s.Destinations, d)
			}
		}
		if errs := s.Validate(); errs != nil {
			continue
		}
		want = append(want, s)
	}
	if _, err := h.Apply(t.Context(), want, nil); err != nil {
		t.Fatal(err)
	}
	checkTable(t, h, want...)
	checkSave(t, h)
}
