package nearest

import (
	"strings"
	"testing"
)

func TestHint(t *testing.T) {
	known := []string{"name", "vip", "device", "persistence_mask"}
	for unknown, want := range map[string]string{
		"Name":                   "did you mean name?",
		"nmae":                   "did you mean name?",
		"weight":                 "known here are name, vip, device, persistence_mask",
		"nam":                    "did you mean name?",
		"vipp":                   "did you mean vip?",
		"devices":                "did you mean device?",
		"persistance_msk":        "did you mean persistence_mask?",
		"":                       "known here are name, vip, device, persistence_mask",
		strings.Repeat("x", 1e6): "known here are name, vip, device, persistence_mask",
	} {
		if got := Hint(unknown, known); got != want {
			t.Errorf("%.20s: got %s, want %s", unknown, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "ab", 2}, {"ab", "", 2}, {"kitten", "sitting", 3}, {"rr", "wrr", 1}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("%s → %s: %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
