package ipvs

import (
	"strings"
	"testing"
)

func TestSyncSettings(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range SyncSettings() {
		if !strings.HasPrefix(s.Key, "net.ipv4.vs.") || strings.Contains(s.Key, "/") || s.Value != strings.TrimSpace(s.Value) || s.Value == "" {
			t.Errorf("%+v is not a setting of IPVS", s)
		}
		if len(s.Why) < 20 {
			t.Errorf("%s has no reason", s.Key)
		}
		if seen[s.Key] {
			t.Errorf("%s is there twice", s.Key)
		}
		seen[s.Key] = true
	}
	SyncSettings()[0].Value = "changed"
	if SyncSettings()[0].Value == "changed" {
		t.Error("one caller changes another's settings")
	}
}
