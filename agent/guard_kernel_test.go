//go:build kernel

package agent

import (
	"context"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"lvstun/sysctl"
	"lvstun/tunnel"
	"lvstun/tunnel/guard"
)

func said(t *testing.T, words ...string) string {
	t.Helper()
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(words, " "), err, out)
	}
	return string(out)
}

// The guard's table is in place with the tunnel side, and again soon after somebody's flush, on the
// kernel's word.
func TestGuardIsKept(t *testing.T) {
	makeLAN(t)
	vip := netip.MustParseAddr("10.0.0.59")
	h := newGuardedHost(t)
	s, _ := h.apply(t.Context(), byIPIP(vip), directors, rip)
	if !s.ok() || len(s.guard.counters) == 0 {
		t.Fatalf("tunnel side: %+v", s)
	}
	table := said(t, "nft", "list", "table", "inet", guard.Name)
	for _, part := range []string{"192.168.7.1", "10.0.0.59", `"tunl0"`, "maxseg size set 1440"} {
		if !strings.Contains(table, part) {
			t.Errorf("the table lacks %s:\n%s", part, table)
		}
	}
	if _, changes := h.apply(t.Context(), byIPIP(vip), directors, rip); len(changes) != 0 {
		t.Errorf("a second time: %v", changes)
	}

	ctx, cancel := context.WithCancel(t.Context())
	drifts, done := make(chan struct{}, 1), make(chan error)
	watchers := h.watchers()
	for _, watch := range watchers {
		go func() { done <- watch(ctx, func() { nudge(drifts) }) }()
	}
	time.Sleep(200 * time.Millisecond) // until they listen
	begin := time.Now()
	said(t, "nft", "flush", "ruleset")
	select {
	case <-drifts:
	case <-time.After(5 * time.Second):
		t.Fatal("no word from the kernel")
	}
	s, changes := h.apply(t.Context(), byIPIP(vip), directors, rip)
	if diff := cmp.Diff([]change{{"nftables table lvstun", "missing", "present"}}, changes, cmp.AllowUnexported(change{})); diff != "" || !s.ok() {
		t.Errorf("after a flush: %+v, changes (-want +got):\n%s", s, diff)
	}
	t.Logf("repaired %v after the flush", time.Since(begin))
	said(t, "nft", "list", "table", "inet", guard.Name)
	cancel()
	for range watchers {
		must(t, <-done)
	}
}

// hostState is all of this namespace that an agent may change.
func hostState(t *testing.T) map[string]string {
	t.Helper()
	state := map[string]string{}
	for _, command := range []string{"ip -o link", "ip -o address", "ip route show table all", "ip -6 route show table all", "ip rule", "ip fou show", "nft list ruleset"} {
		state[command] = strings.ReplaceAll(said(t, strings.Fields(command)...), " tentative", "")
	}
	for _, root := range []string{"/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf"} {
		must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if text, err := os.ReadFile(path); err == nil { // stable_secret cannot be read
				state[path] = string(text)
			}
			return nil
		}))
	}
	return state
}

// Whatever was built, teardown leaves the host as it was, and a second one finds nothing to do; but what a
// person has changed since is left, and said.
func TestTeardownLeavesTheHostAsItWas(t *testing.T) {
	makeLAN(t)
	for _, name := range []string{"tunl0", "sit0", "gre0"} {
		must(t, netlink.LinkSetUp(linkOf(t, name))) // the first time, some get their IPv6 settings, and keep them
		must(t, netlink.LinkSetDown(linkOf(t, name)))
	}
	setting(t, "all/arp_ignore", "0")
	setting(t, "all/arp_announce", "0")
	setting(t, "tunl0/rp_filter", "0")
	said(t, "nft", "add", "table", "inet", "somebody")
	defer said(t, "nft", "delete", "table", "inet", "somebody")
	before := hostState(t)

	records := t.TempDir()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	undo := func() Undone {
		t.Helper()
		u, err := teardown(t.Context(), socket, undoing{
			tunnel: func(ctx context.Context) (tunnel.Report, error) {
				return tunnel.Undo(ctx, filepath.Join(records, tunnelFile))
			},
			guard: guard.New().Remove,
			settings: func() sysctl.Report {
				return sysctl.Restore(sysctl.Proc, filepath.Join(records, settingsFile), slog.New(slog.DiscardHandler))
			},
		})
		must(t, err)
		return u
	}
	vip4, vip6 := netip.MustParseAddr("10.0.0.60"), netip.MustParseAddr("2001:db8::60")
	receivers := []tunnel.Receiver{
		{VIP: vip4, RIP: rip, Type: tunnel.GRE},
		{VIP: vip4, RIP: rip, Type: tunnel.GUE, Port: 6080},
		{VIP: vip4, RIP: rip, Type: tunnel.IPIP},
		{VIP: vip6, RIP: rip, Type: tunnel.IPIP},
	}
	build := func() {
		t.Helper()
		h := newKernelHost(records)
		h.apply(t.Context(), receivers, directors, rip)
		if s, _ := h.apply(t.Context(), receivers, directors, rip); !s.ok() || len(s.held) != len(receivers) {
			t.Fatalf("tunnel side: %+v", s)
		}
	}
	build()
	if cmp.Equal(before, hostState(t)) {
		t.Fatal("nothing was built, so this test proves nothing")
	}
	if u := undo(); len(u.Left) != 0 {
		t.Errorf("left: %q", u.Left)
	}
	if diff := cmp.Diff(before, hostState(t)); diff != "" {
		t.Errorf("the host (-before +after):\n%s", diff)
	}
	if u := undo(); len(u.Changes)+len(u.Left) != 0 {
		t.Errorf("a second time: %+v", u)
	}

	build()
	setting(t, "all/arp_announce", "1")
	if u := undo(); len(u.Left) != 1 || !strings.HasPrefix(u.Left[0], "net.ipv4.conf.all.arp_announce is 1, which somebody else has made it") {
		t.Errorf("left: %q", u.Left)
	}
	setting(t, "all/arp_announce", "0")
	if diff := cmp.Diff(before, hostState(t)); diff != "" {
		t.Errorf("the host but for that (-before +after):\n%s", diff)
	}
}
