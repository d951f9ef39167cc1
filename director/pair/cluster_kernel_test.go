//go:build kernel

package pair

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"lvstun/director/vip"
)

// The kernel tests run real directors, each a process of this binary in a
// network namespace of its own, on a bridge.

const directorEnv = "LVSTUN_TEST_DIRECTOR" // "name local peer file", of a child; its file is read again on SIGHUP

// settings are what a child's file changes.
type settings struct {
	VIPs           []netip.Addr  // instead of the two usual ones
	Interval, Dead time.Duration // 0: the defaults
}

func TestMain(m *testing.M) {
	if args := os.Getenv(directorEnv); args != "" {
		if err := director(strings.Fields(args)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// director is a child: it runs until it is told to stop.
func director(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	cfg, err := childConfig(args)
	if err != nil {
		return err
	}
	p, err := New(cfg, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	go func() {
		for range hangup {
			cfg, err := childConfig(args)
			if err == nil {
				err = p.Reload(ctx, cfg)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}()
	return p.Run(ctx)
}

func childConfig(args []string) (Config, error) {
	cfg := configOf(args[0], netip.MustParseAddr(args[1]), netip.MustParseAddr(args[2]))
	text, err := os.ReadFile(args[3])
	if err != nil {
		return Config{}, err
	}
	var s settings
	if err := json.Unmarshal(text, &s); err != nil {
		return Config{}, err
	}
	cfg.Interval, cfg.Dead, cfg.Digest = s.Interval, s.Dead, sha256.Sum256(text)
	cfg.VIPs = nil
	for _, addr := range s.VIPs {
		cfg.VIPs = append(cfg.VIPs, vip.VIP{Addr: addr, Device: "eth0"})
	}
	return cfg, nil
}

var theIPv6 = netip.MustParseAddr("2001:db8::50")

// machine is a host of the test: a namespace with eth0 on the bridge.
type machine struct {
	name, addr, peer string
	ns               netns.NsHandle
	nl               *netlink.Handle
	port             netlink.Link // the bridge's end of its cable
	child            *exec.Cmd
	file             string // its settings
	log              *strings.Builder
}

type cluster struct {
	bridge   *netlink.Handle
	br       netlink.Link
	machines [2]*machine

	mu    sync.Mutex // guards the samples
	holds [2]bool
	since time.Time // of the state below
	state int       // how many hold the VIP now
	gap   time.Duration
	both  time.Duration
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	own, err := netns.Get()
	must(t, err)
	t.Cleanup(func() { must(t, netns.Set(own)) })
	c := &cluster{}
	lan, err := netns.New()
	must(t, err)
	t.Cleanup(func() { _ = lan.Close() })
	c.bridge, err = netlink.NewHandleAt(lan)
	must(t, err)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	must(t, c.bridge.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	c.br, err = c.bridge.LinkByName("br0")
	must(t, err)
	must(t, c.bridge.LinkSetUp(c.br))
	for i := range c.machines {
		m := &machine{
			name: []string{"vs", "vs_bk"}[i], addr: []string{"10.0.0.1", "10.0.0.2"}[i], peer: []string{"10.0.0.2", "10.0.0.1"}[i],
			log: &strings.Builder{},
		}
		c.machines[i] = m
		m.file = filepath.Join(t.TempDir(), m.name)
		m.set(t, settings{VIPs: []netip.Addr{theIP, theIPv6}})
		m.ns, err = netns.New()
		must(t, err)
		m.nl, err = netlink.NewHandleAt(m.ns)
		must(t, err)
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "eth0"
		must(t, m.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: m.name, PeerNamespace: netlink.NsFd(lan)}))
		eth0, err := m.nl.LinkByName("eth0")
		must(t, err)
		must(t, m.nl.LinkSetUp(eth0))
		addr, err := netlink.ParseAddr(m.addr + "/24")
		must(t, err)
		must(t, m.nl.AddrAdd(eth0, addr))
		m.port, err = c.bridge.LinkByName(m.name)
		must(t, err)
		must(t, c.bridge.LinkSetMaster(m.port, c.br))
		must(t, c.bridge.LinkSetUp(m.port))
		t.Cleanup(func() {
			m.kill()
			_ = m.ns.Close()
			if t.Failed() {
				t.Logf("log of %s:\n%s", m.name, m.log)
			}
		})
	}
	must(t, netns.Set(own))
	time.Sleep(200 * ms) // the cables come up
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		c.sample(t, done)
	}()
	t.Cleanup(func() { close(done); <-stopped })
	return c
}

// sample watches what the kernels hold, every millisecond or so.
func (c *cluster) sample(t *testing.T, done chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-time.After(ms):
		}
		var holds [2]bool
		for i, m := range c.machines {
			holds[i] = m.holdsVIP(t)
		}
		c.mu.Lock()
		n := 0
		for _, h := range holds {
			if h {
				n++
			}
		}
		now := time.Now()
		if n != c.state || c.since.IsZero() {
			c.state, c.since = n, now
		}
		switch n {
		case 0:
			c.gap = max(c.gap, now.Sub(c.since))
		case 2:
			c.both = max(c.both, now.Sub(c.since))
		}
		c.holds = holds
		c.mu.Unlock()
	}
}

func (m *machine) holdsVIP(t *testing.T) bool {
	eth0, err := m.nl.LinkByName("eth0")
	if err != nil {
		t.Error(err)
		return false
	}
	addrs, err := m.nl.AddrList(eth0, netlink.FAMILY_V4)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		t.Error(err)
	}
	for _, a := range addrs {
		if a.IP.Equal(theIP.AsSlice()) {
			return true
		}
	}
	return false
}

// reset begins to measure anew.
func (c *cluster) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gap, c.both, c.since = 0, 0, time.Time{}
}

// report prints what was measured, and holds it against bounds.
func (c *cluster) report(t *testing.T, what string, gap, both time.Duration) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	t.Logf("%s: longest without a holder %v, longest with two %v", what, c.gap.Round(ms), c.both.Round(ms))
	if c.gap > gap {
		t.Errorf("%s: nobody held the VIP for %v, at most %v", what, c.gap, gap)
	}
	if c.both > both {
		t.Errorf("%s: two held the VIP for %v, at most %v", what, c.both, both)
	}
}

// only waits until exactly machine i holds the VIP.
func (c *cluster) only(t *testing.T, i int, most time.Duration) {
	t.Helper()
	began := time.Now()
	for {
		c.mu.Lock()
		ok := c.holds[i] && !c.holds[1-i]
		c.mu.Unlock()
		if ok {
			return
		}
		if time.Since(began) > most {
			t.Fatalf("%s is not the only holder within %v", c.machines[i].name, most)
		}
		time.Sleep(ms)
	}
}

// holder waits until there is exactly one holder, and returns it.
func (c *cluster) holder(t *testing.T, most time.Duration) int {
	t.Helper()
	for began := time.Now(); time.Since(began) < most; time.Sleep(ms) {
		c.mu.Lock()
		holds := c.holds
		c.mu.Unlock()
		if holds[0] != holds[1] {
			if holds[0] {
				return 0
			}
			return 1
		}
	}
	t.Fatalf("not exactly one holder within %v", most)
	return 0
}

// set writes the machine's settings; a director that runs takes them up.
func (m *machine) set(t *testing.T, s settings) {
	t.Helper()
	text, err := json.Marshal(s)
	must(t, err)
	must(t, os.WriteFile(m.file, text, 0o600))
	if m.child != nil {
		m.signal(t, syscall.SIGHUP)
	}
}

// has reports whether the machine's kernel has an address on eth0.
func (m *machine) has(t *testing.T, addr netip.Addr) bool {
	t.Helper()
	eth0, err := m.nl.LinkByName("eth0")
	must(t, err)
	addrs, err := m.nl.AddrList(eth0, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		t.Fatal(err)
	}
	return slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IP.Equal(addr.AsSlice()) })
}

// address gives both machines addresses for their heartbeat, on a device.
func (c *cluster) address(t *testing.T, device string, addrs [2]string, bits int) {
	t.Helper()
	for i, m := range c.machines {
		link, err := m.nl.LinkByName(device)
		must(t, err)
		addr, err := netlink.ParseAddr(fmt.Sprintf("%s/%d", addrs[i], bits))
		must(t, err)
		if strings.Contains(addrs[i], ":") {
			addr.Flags = unix.IFA_F_NODAD
		}
		must(t, m.nl.AddrAdd(link, addr))
		m.addr, m.peer = addrs[i], addrs[1-i]
	}
}

// start runs a director on the machine.
func (m *machine) start(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	m.child = exec.Command(self)
	m.child.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s %s", directorEnv, m.name, m.addr, m.peer, m.file))
	m.child.Stderr = m.log
	own, err := netns.Get()
	must(t, err)
	defer own.Close()
	must(t, netns.Set(m.ns)) // this thread is the test's, and a child is born where its parent stands
	err = m.child.Start()
	must(t, netns.Set(own))
	must(t, err)
}

func (m *machine) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	must(t, m.child.Process.Signal(sig))
}

// kill ends the director, however it is, and waits for it.
func (m *machine) kill() {
	if m.child == nil {
		return
	}
	_ = m.child.Process.Signal(unix.SIGKILL)
	_ = m.child.Wait()
	m.child = nil
}

// stop asks the director to end and waits for it.
func (m *machine) stop(t *testing.T) {
	t.Helper()
	m.signal(t, unix.SIGTERM)
	if err := m.child.Wait(); err != nil {
		t.Errorf("%s: %v", m.name, err)
	}
	m.child = nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
