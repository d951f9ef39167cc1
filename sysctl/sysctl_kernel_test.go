//go:build kernel

package sysctl

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The settings of a device go and come with it, under a name with a dot.
func TestKernelDeviceGoesAndComes(t *testing.T) {
	link := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "lan0.100"}}
	must(t, netlink.LinkAdd(link))
	t.Cleanup(func() { _ = netlink.LinkDel(link) })
	const key = "net/ipv4/conf/lan0.100/arp_ignore"
	wanted := []Setting{{Key: "net.ipv4.conf.lan0/100.arp_ignore", Value: "1", Set: true}, {Key: "net/ipv4/conf/all/rp_filter", Value: "2", Set: true}}
	must(t, Proc.write(key, "8"))
	must(t, Proc.write("net/ipv4/conf/all/rp_filter", "1"))
	k := New(Options{File: filepath.Join(t.TempDir(), "state.json"), Log: slog.New(slog.DiscardHandler)})
	state := func(round int, want State, problems int) {
		t.Helper()
		report := k.Apply(wanted)
		if got := report.Findings[0].State; got != want || len(report.Problems) != problems {
			t.Errorf("round %d: %s, want %s: %q", round, got, want, report.Problems)
		}
		if report.Findings[1].State != Changed {
			t.Errorf("round %d: the other one is %s", round, report.Findings[1].State)
		}
	}
	state(1, Changed, 0)
	must(t, netlink.LinkDel(link))
	state(2, Missing, 0)
	must(t, netlink.LinkAdd(link))
	must(t, Proc.write(key, "2"))
	state(3, Changed, 0)
	k.Apply(nil)
	Proc.holds(t, key, "2")
	Proc.holds(t, "net/ipv4/conf/all/rp_filter", "1")
}

// Where /proc/sys is read-only, the settings are looked at, and one sentence says why they are not set.
func TestKernelReadOnly(t *testing.T) {
	must(t, Proc.write("net/ipv4/conf/all/rp_filter", "1"))
	must(t, unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""))
	defer func() { must(t, unix.Unmount("/proc/sys", unix.MNT_DETACH)) }()
	must(t, unix.Mount("", "/proc/sys", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	file := filepath.Join(t.TempDir(), "state.json")
	k := New(Options{File: file, Log: slog.New(slog.DiscardHandler)})
	report := k.Apply([]Setting{{Key: "net/ipv4/conf/all/rp_filter", Value: "2", Set: true}, {Key: "net/ipv4/conf/all/arp_announce", Value: "2", Set: true}})
	if len(report.Problems) != 1 || report.Findings[0].State != Refused || len(report.Changes) != 0 {
		t.Errorf("%+v", report)
	}
	if report := k.Apply(nil); len(report.Problems) != 0 {
		t.Errorf("nothing was changed, and yet: %+v", report)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the record stays: %v", err)
	}
}
