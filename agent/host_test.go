package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lvstun/sysctl"
)

func TestSettings(t *testing.T) {
	t.Parallel()
	or := []int{2, 8}
	want := []sysctl.Setting{
		{Key: "net/ipv4/conf/all/arp_ignore", Value: 1, Or: or},
		{Key: "net/ipv4/conf/all/arp_announce", Value: 2},
		{Key: "net/ipv4/conf/eth0.100/arp_ignore", Value: 1, Or: or},
		{Key: "net/ipv4/conf/eth0.100/arp_announce", Value: 2},
	}
	if diff := cmp.Diff(want, arpSettings("eth0.100")); diff != "" {
		t.Errorf("ARP (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[:2], arpSettings("")); diff != "" {
		t.Errorf("ARP without a device (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]sysctl.Setting{{Key: "net/ipv4/conf/tunl0/rp_filter", Value: 2}}, tunnelSettings()); diff != "" {
		t.Errorf("tunnel (-want +got):\n%s", diff)
	}
}

// The kernel's rule for rp_filter, arp_ignore and arp_announce is the larger of `all` and the device. With
// ours set, whatever the other one may be, the outcome must be right.
func TestSettingsHoldWhateverTheOtherValue(t *testing.T) {
	t.Parallel()
	for all := range 3 {
		if effective := max(all, tunnelSettings()[0].Value); effective == 1 {
			t.Errorf("rp_filter %d on all: strict", all)
		}
	}
	for _, s := range arpSettings("eth0") {
		for _, a := range append([]int{s.Value}, s.Or...) {
			for _, b := range append([]int{s.Value}, s.Or...) {
				if effective := max(a, b); s.Value == 1 && effective != 1 && effective != 2 && effective != 8 {
					t.Errorf("%s: %d and %d make %d, which answers for the VIP", s.Key, a, b, effective)
				}
			}
		}
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
