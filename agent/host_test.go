package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lvstun/sysctl"
	"lvstun/tunnel"
)

func TestSettings(t *testing.T) {
	t.Parallel()
	lines := func(settings []sysctl.Setting) []string {
		var out []string
		for _, s := range settings {
			if s.Why == "" || !s.Set || s.Severity != sysctl.Loss {
				t.Errorf("%s: not to be set, or without a reason: %+v", s.Key, s)
			}
			out = append(out, s.Key+" = "+s.Want())
		}
		return out
	}
	want := []string{
		"net/ipv4/conf/all/arp_ignore = 1 or 2 or 8",
		"net/ipv4/conf/all/arp_announce = 2",
		"net/ipv4/conf/eth0.100/arp_ignore = 1 or 2 or 8",
		"net/ipv4/conf/eth0.100/arp_announce = 2",
	}
	if diff := cmp.Diff(want, lines(arpSettings("eth0.100"))); diff != "" {
		t.Errorf("ARP (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[:2], lines(arpSettings(""))); diff != "" {
		t.Errorf("ARP without a device (-want +got):\n%s", diff)
	}
	want = []string{
		"net/ipv4/conf/tunl0/rp_filter = 2",
		"net/ipv6/conf/sit0/disable_ipv6 = 0",
		"net/ipv4/conf/ip6tnl0/rp_filter = 2",
		"net/ipv6/conf/ip6tnl0/disable_ipv6 = 0",
		"net/ipv4/conf/gre0/rp_filter = 2",
	}
	if diff := cmp.Diff(want, lines(tunnelSettings(everyWay()))); diff != "" {
		t.Errorf("tunnel (-want +got):\n%s", diff)
	}
}

// everyWay is every kind of receiver but GRE over IPv6.
func everyWay() []tunnel.Receiver {
	vip4, vip6 := netip.MustParseAddr("10.0.0.50"), netip.MustParseAddr("2001:db8::50")
	rip6 := netip.MustParseAddr("2001:db8:1::100")
	return []tunnel.Receiver{
		{VIP: vip4, RIP: rip, Type: tunnel.IPIP},
		{VIP: vip4, RIP: rip, Type: tunnel.GUE, Port: 6080},
		{VIP: vip6, RIP: rip, Type: tunnel.IPIP},
		{VIP: vip4, RIP: rip6, Type: tunnel.IPIP},
		{VIP: vip6, RIP: rip6, Type: tunnel.GUE, Port: 6081},
		{VIP: vip4, RIP: rip, Type: tunnel.GRE},
	}
}

// The kernel's rule for rp_filter, arp_ignore and arp_announce is the larger of `all` and the device. With
// ours set, whatever the other one may be, the outcome must be right.
func TestSettingsHoldWhateverTheOtherValue(t *testing.T) {
	t.Parallel()
	for _, all := range []string{"0", "1", "2"} {
		if effective := max(all, tunnelSettings(everyWay())[0].Value); effective == "1" {
			t.Errorf("rp_filter %s on all: strict", all)
		}
	}
	for _, s := range arpSettings("eth0") {
		for _, a := range append([]string{s.Value}, s.Or...) {
			for _, b := range append([]string{s.Value}, s.Or...) {
				if effective := max(a, b); s.Value == "1" && effective != "1" && effective != "2" && effective != "8" {
					t.Errorf("%s: %s and %s make %s, which answers for the VIP", s.Key, a, b, effective)
				}
			}
		}
	}
}

func TestUnserved(t *testing.T) {
	t.Parallel()
	want := []string{"b is 0, should be 1: so", "c is missing, should be 2: so"}
	got := unserved([]sysctl.Finding{
		{Key: "a", Have: "1", State: sysctl.Held},
		{Key: "b", Have: "0", Want: "1", Why: "so", State: sysctl.Refused, Set: true},
		{Key: "c", Want: "2", Why: "so", State: sysctl.Missing, Set: true},
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestSentences(t *testing.T) {
	t.Parallel()
	err := errors.Join(errors.New("one"), errors.New("two"))
	if diff := cmp.Diff([]string{"one", "two"}, sentences(err)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := sentences(fmt.Errorf("cut short: %w", context.Canceled)); got != nil {
		t.Errorf("the end of a context is a problem: %v", got)
	}
}

func TestOwnAddress(t *testing.T) {
	t.Parallel()
	here, elsewhere := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.99")
	for _, tt := range []struct {
		claimed []netip.Addr
		want    netip.Addr
	}{
		{[]netip.Addr{here}, here},
		{[]netip.Addr{elsewhere, here}, here},
		{[]netip.Addr{elsewhere}, elsewhere},
	} {
		if got, err := ownAddress(tt.claimed); err != nil || got != tt.want {
			t.Errorf("ownAddress(%v) = %v, %v; want %v", tt.claimed, got, err, tt.want)
		}
	}
	if _, err := ownAddress(nil); err == nil {
		t.Error("a token without an address is accepted")
	}
}
