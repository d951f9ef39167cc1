package ipvs

import (
	"net/netip"
	"testing"
)

func TestSource(t *testing.T) {
	t.Parallel()
	own := netip.MustParseAddr("127.0.0.1")
	if got, err := Source(own); err != nil || got != own {
		t.Errorf("Source(%s) = %v, %v", own, got, err)
	}
	if got, err := Source(netip.MustParseAddr("240.0.0.1")); err == nil && (got.IsUnspecified() || !got.Is4()) {
		t.Errorf("the source of what goes nowhere is %v", got)
	}
}
