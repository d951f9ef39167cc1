package pair

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCapable(t *testing.T) {
	got := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread dies with its missing capabilities
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			t.Error(err)
		}
		got <- newHost().Open(configOf("vs", addrA, addrB).VIPs)
	}()
	err := <-got
	if err == nil || !strings.Contains(err.Error(), "CAP_NET_ADMIN is missing") || !strings.Contains(err.Error(), "CAP_NET_RAW is missing") {
		t.Errorf("without capabilities: %v", err)
	}
}
