//go:build kernel

package tuning

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"lvstun/sysctl"
)

// everything is a director for which every setting matters. The values of sync are not the kernel's own.
var everything = Facts{
	Devices: []string{"eth0", "eth0.100"}, IPv4: true, IPv6: true, Schedulers: []string{"mh"}, Persistent: true, OwnServers: true,
	Neighbours4: 4000, Neighbours6: 4000,
	Sync: []sysctl.Setting{
		{Key: "net.ipv4.vs.sync_threshold", Value: "0 1", Set: true},
		{Key: "net.ipv4.vs.sync_refresh_period", Value: "4", Set: true},
		{Key: "net.ipv4.vs.sync_retries", Value: "1", Set: true},
		{Key: "net.ipv4.vs.sync_ports", Value: "2", Set: true},
	},
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// devices makes the network of the tests, once a process.
func devices(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/proc/sys/net/ipv4/conf/eth0"); err == nil {
		return
	}
	for _, line := range []string{
		"link set lo up",
		"link add eth0 type veth peer name other", "link set eth0 up", "link set other up",
		"link add link eth0 name eth0.100 type vlan id 100",
		"addr add 10.9.0.1/24 dev eth0",
	} {
		run(t, "ip", strings.Fields(line)...)
	}
}

// snapshot reads all of net.*.
func snapshot(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir("/proc/sys/net", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if text, err := os.ReadFile(path); err == nil { // some are only written
			all[path] = string(text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func keeper(file string) *sysctl.Keeper {
	return sysctl.New(sysctl.Options{File: file, Log: slog.New(slog.DiscardHandler)})
}

// Every setting is there, takes its value, is repaired, and afterwards all of net.* is as before, after a crash too.
func TestKernelUndoDo(t *testing.T) {
	devices(t)
	file := filepath.Join(t.TempDir(), "state.json")
	wanted := Wanted(everything)
	before := snapshot(t)
	k := keeper(file)
	report := k.Apply(wanted)
	for _, f := range report.Findings {
		switch {
		case strings.Contains(f.Key, ".neigh.default."):
			if f.State != sysctl.Missing { // only the initial network namespace has them
				t.Errorf("%s is %s in a network namespace", f.Key, f.State)
			}
		case f.Set && !f.Serves(), !f.Set && f.State == sysctl.Missing:
			t.Errorf("%s: %s", f.State, f)
		}
	}
	changed := len(report.Changes)
	if len(report.Problems) > 0 || changed < 10 {
		t.Errorf("%d settings were changed: %q", changed, report.Problems)
	}
	after := snapshot(t)
	if n := differ(before, after); n != changed {
		t.Errorf("%d settings differ, %d were changed\n%s", n, changed, cmp.Diff(before, after))
	}
	run(t, "sysctl", "-q", "net.ipv4.conf.all.arp_ignore=8")
	report = k.Apply(wanted)
	if d := cmp.Diff(after, snapshot(t)); d != "" || report.Drifts != 1 {
		t.Errorf("%d drifts repaired, left (-want +got)\n%s", report.Drifts, d)
	}
	k = keeper(file) // after a crash
	if report := k.Apply(wanted); len(report.Changes) != 0 {
		t.Errorf("after a crash there was something to change: %v", report.Changes)
	}
	for range 2 {
		if report := sysctl.Restore(sysctl.Proc, file, slog.New(slog.DiscardHandler)); len(report.Problems)+len(report.Left) > 0 {
			t.Errorf("put back: %+v", report)
		}
		if d := cmp.Diff(before, snapshot(t)); d != "" {
			t.Errorf("net.* afterwards (-before +after)\n%s", d)
		}
	}
}

func differ(a, b map[string]string) int {
	n := 0
	for key, v := range b {
		if a[key] != v {
			n++
		}
	}
	return n
}

// A user without privileges but CAP_NET_ADMIN, as the service runs, may set everything (net_ctl_permissions in
// net/sysctl_net.c); one without may not, and says so in one sentence.
func TestKernelCapability(t *testing.T) {
	devices(t)
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t)
	for _, capable := range []bool{true, false} {
		problems := make(chan []string)
		go func() { // its thread dies with it
			runtime.LockOSThread()
			if err := unprivileged(capable); err != nil {
				problems <- []string{err.Error()}
				return
			}
			k := keeper(filepath.Join(dir, "state.json"))
			done := k.Apply(Wanted(everything))
			undone := k.Apply(nil)
			if (len(done.Changes) > 10) != capable || len(done.Changes) != len(undone.Changes) {
				t.Errorf("capable %v: %d changes, %d undone", capable, len(done.Changes), len(undone.Changes))
			}
			problems <- append(done.Problems, undone.Problems...)
		}()
		got := <-problems
		var want []string
		if !capable {
			want = []string{"kernel settings cannot be set: the capability CAP_NET_ADMIN is missing"}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("capable %v: problems (-want +got)\n%s", capable, d)
		}
		if d := cmp.Diff(before, snapshot(t)); d != "" {
			t.Errorf("capable %v: net.* afterwards (-before +after)\n%s", capable, d)
		}
	}
}

// unprivileged makes this thread's user nobody, with CAP_NET_ADMIN or nothing.
func unprivileged(capable bool) error {
	const nobody = 65534
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
		return errno
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if capable {
		data[0].Effective, data[0].Permitted = 1<<unix.CAP_NET_ADMIN, 1<<unix.CAP_NET_ADMIN
	}
	return unix.Capset(&header, &data[0])
}

// A port that a client uses again, of a flow that the director knows as FIN_WAIT: with conn_reuse_mode 1 it goes to
// the same real server although the other one is due, with 3 to the other one.
func TestKernelConnReuse(t *testing.T) {
	devices(t)
	run(t, "ip", "addr", "replace", "10.9.0.50/32", "dev", "lo")
	run(t, "ipvsadm", "-A", "-t", "10.9.0.50:80", "-s", "rr")
	defer run(t, "ipvsadm", "-C")
	for _, rs := range []string{"10.9.0.100", "10.9.0.101"} {
		run(t, "ipvsadm", "-a", "-t", "10.9.0.50:80", "-r", rs, "-i")
		run(t, "ip", "neigh", "replace", rs, "lladdr", "02:00:00:00:00:01", "dev", "eth0")
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(s)
	for i, tt := range []struct {
		mode  int
		moves bool
	}{{1, false}, {3, true}} {
		run(t, "sysctl", "-q", fmt.Sprintf("net.ipv4.vs.conn_reuse_mode=%d", tt.mode))
		port := uint16(40000 + i)
		for _, flags := range []byte{syn, ack, fin | ack} {
			send(t, s, port, flags)
		}
		state, first := flow(t, port)
		send(t, s, port, syn)
		_, second := flow(t, port)
		if state != "FIN_WAIT" || (first != second) != tt.moves {
			t.Errorf("conn_reuse_mode %d: in %s from %s to %s", tt.mode, state, first, second)
		}
	}
}

const fin, syn, ack = 1, 2, 16

var client, vip = netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("10.9.0.50")

// send sends a TCP segment from the client's port to the service, through this host's own IPVS.
func send(t *testing.T, s int, port uint16, flags byte) {
	t.Helper()
	p := make([]byte, 40)
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_TCP // length, id and checksum are the kernel's
	copy(p[12:], client.AsSlice())
	copy(p[16:], vip.AsSlice())
	tcp := p[20:]
	binary.BigEndian.PutUint16(tcp, port)
	binary.BigEndian.PutUint16(tcp[2:], 80)
	tcp[12], tcp[13] = 5<<4, flags
	sum := uint32(unix.IPPROTO_TCP + 20)
	for _, half := range [][]byte{p[12:20], tcp} {
		for i := 0; i < len(half); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(half[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	if err := unix.Sendto(s, p, 0, &unix.SockaddrInet4{Addr: vip.As4()}); err != nil && err != syscall.EPERM {
		t.Fatal(err)
	}
}

var flowLine = regexp.MustCompile(`(?m)^TCP \S+ ([0-9A-F]{4}) \S+ \S+ (\S+) \S+ (\S+)`)

// flow finds the client's flow in the kernel's table.
func flow(t *testing.T, port uint16) (state, realServer string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/net/ip_vs_conn")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range flowLine.FindAllStringSubmatch(string(text), -1) {
		if m[1] == fmt.Sprintf("%04X", port) {
			return m[3], m[2]
		}
	}
	t.Fatalf("no flow from port %d in\n%s", port, text)
	return "", ""
}
