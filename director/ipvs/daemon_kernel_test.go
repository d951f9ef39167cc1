//go:build kernel

package ipvs

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The kernel takes what the model takes, keeps it, and ipvsadm sees the same.
func TestKernelSyncDaemons(t *testing.T) {
	h, c := newKernel(t)
	for i, name := range []string{"eth0", "eth1"} {
		dev := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: name}}
		must(t, netlink.LinkAdd(dev))
		must(t, netlink.AddrAdd(dev, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 9, byte(i), 1), Mask: net.CIDRMask(24, 32)}}))
		must(t, netlink.LinkSetUp(dev))
	}
	for range 2 {
		for i, s := range syncStates {
			mustSync(t, h, s.want...)
			got, err := h.SyncDaemons(t.Context())
			must(t, err)
			text := ""
			for _, d := range got {
				text += d.String() + "\n"
			}
			if d := cmp.Diff(s.text, text); d != "" {
				t.Fatalf("state %d: daemons (-want +got)\n%s", i, d)
			}
			list := ipvsadm(t, "", "--list", "--daemon")
			for _, d := range got {
				if line := fmt.Sprintf("%s sync daemon (mcast=%s, syncid=%d, maxlen=%d, group=%s, port=%d, ttl=%d)",
					d.State, d.Device, d.ID, d.MaxLen, d.Group, d.Port, d.TTL); !strings.Contains(list, line) {
					t.Errorf("ipvsadm says\n%snot %s", list, line)
				}
			}
			c.writes = nil
			if r := mustSync(t, h, s.want...); r.Changed() || len(c.writes) != 0 {
				t.Errorf("state %d again: %d writes: %v", i, len(c.writes), r.Ops)
			}
		}
	}
	mustSync(t, h)
	ipvsadm(t, "", "--start-daemon", "master", "--mcast-interface", "eth0", "--syncid", "50")
	if r := mustSync(t, h, master); r.Changed() {
		t.Errorf("what ipvsadm started was not adopted: %v", r.Ops)
	}
}

// A daemon may be stopped before its thread has run once, to which the kernel gives no answer.
func TestKernelSyncFlaps(t *testing.T) {
	l := newLAN(t)
	h := l.table[l.active]
	unanswered := 0
	for range 8 {
		mustSync(t, h, backup)
		unanswered += mustSync(t, h).Rounds - 1
		if got, err := h.SyncDaemons(t.Context()); err != nil || len(got) != 0 {
			t.Fatalf("%v run: %v", got, err)
		}
	}
	t.Logf("%d of 8 stops went unanswered", unanswered)
}

func TestKernelSyncRefusals(t *testing.T) {
	l := newLAN(t)
	h := l.table[l.active]
	refused := func(d SyncDaemon, errno error, want string) {
		t.Helper()
		_, err := h.ApplySync(t.Context(), []SyncDaemon{d})
		if diff := cmp.Diff("start "+d.String()+": "+want, fmt.Sprint(err)); diff != "" || !errors.Is(err, errno) {
			t.Errorf("error (-want +got)\n%s", diff)
		}
		mustSync(t, h)
	}
	refused(SyncDaemon{State: Master, Device: "eth7"}, unix.ENODEV, "there is no network device eth7 here, or it does not do IP multicast")
	l.active.do(func() error {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 8848})
		if err == nil {
			defer c.Close()
			refused(backup, unix.EADDRINUSE, "UDP port 8848 of 224.0.0.81 is taken by another program")
		}
		return err
	})
	must(t, l.active.nl.LinkSetDown(l.active.eth0))
	refused(master, unix.ENETUNREACH, "no route leads to 224.0.0.81 through eth0 (is it up, and has it an address?)")
	must(t, l.active.nl.LinkSetUp(l.active.eth0))
	_, err := h.Apply(t.Context(), []Service{wlc(web6, tun("10.9.0.100:80", 1))}, nil)
	must(t, err)
	refused(backup, unix.EINVAL, "a virtual service has a real server of another family than its own, which the kernel cannot have beside a sync daemon: take that real server out, or go without sync")
}

// defaults are what the kernel starts with.
var defaults = []Setting{
	{Key: "net.ipv4.vs.sync_threshold", Value: "3 50"}, {Key: "net.ipv4.vs.sync_refresh_period", Value: "0"},
	{Key: "net.ipv4.vs.sync_retries", Value: "0"}, {Key: "net.ipv4.vs.sloppy_tcp", Value: "0"},
	{Key: "net.ipv4.vs.expire_nodest_conn", Value: "0"},
}

// set gives both directors settings and starts their daemons anew, with messages of maxLen.
func (l *lan) set(maxLen int, settings ...Setting) {
	l.t.Helper()
	for _, d := range []*host{l.active, l.standby} {
		l.sync(d)
		d.sysctl(settings...)
	}
	l.sync(l.active, SyncDaemon{State: Master, Device: "eth0", ID: 50, MaxLen: maxLen})
	l.sync(l.standby, backup)
}

// A new namespace has the defaults and takes every setting as it is written.
func TestKernelSyncSettings(t *testing.T) {
	l := newLAN(t)
	check := func(settings []Setting) {
		t.Helper()
		for _, s := range settings {
			l.active.do(func() error {
				b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(s.Key, ".", "/"))
				if got := strings.Join(strings.Fields(string(b)), " "); got != s.Value {
					t.Errorf("%s is %q, want %q", s.Key, got, s.Value)
				}
				return err
			})
		}
	}
	check(defaults)
	l.active.sysctl(SyncSettings()...)
	check(SyncSettings())
}

// How old a flow is when the standby knows it.
func TestKernelSyncDelay(t *testing.T) {
	t.Parallel()
	const slow = 250 * time.Millisecond
	for _, tt := range []struct {
		name        string
		settings    []Setting
		maxLen      int
		every       time.Duration
		least, most time.Duration // most 0 is never, within 4 s
	}{
		{"defaults, nothing sent", defaults, 0, 0, 0, 0},
		{"defaults, slow", defaults, 0, slow, 1500 * time.Millisecond, 4 * time.Second},
		{"settings, slow", SyncSettings(), 0, slow, 1200 * time.Millisecond, 4 * time.Second},
		{"settings and prompt, nothing sent", SyncSettings(), PromptMaxLen, 0, 1200 * time.Millisecond, 4 * time.Second},
		{"settings and prompt, slow", SyncSettings(), PromptMaxLen, slow, 400 * time.Millisecond, 1500 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLAN(t)
			l.moveVIP(nil, l.active)
			l.set(tt.maxLen, tt.settings...)
			age := l.heardOf(l.standby, l.connect(), tt.every, 4*time.Second)
			t.Logf("known after %s", age)
			if known := age > 0; known != (tt.most > 0) || known && (age < tt.least || age > tt.most) {
				t.Errorf("the standby knew after %s, want between %s and %s", age, tt.least, tt.most)
			}
		})
	}
	t.Run("in company a flow that sends nothing does not wait", func(t *testing.T) {
		l := newLAN(t)
		l.moveVIP(nil, l.active)
		l.set(PromptMaxLen, SyncSettings()...)
		f := l.connect()
		if l.knows(l.standby, f) {
			t.Error("the standby knew a flow before another came")
		}
		l.connect()
		if age := l.heardOf(l.standby, f, 0, time.Second); age == 0 {
			t.Error("the standby did not know a flow after another came")
		}
	})
}

// takeover moves the VIPs to the standby as directors do: the new role's daemon, then the address.
func (l *lan) takeover() {
	l.t.Helper()
	l.sync(l.standby, prompt)
	l.sync(l.active, backup)
	l.moveVIP(l.active, l.standby)
	l.active, l.standby = l.standby, l.active
}

// A flow older than a second does not feel that the VIP moves, there and back. With the defaults it ends.
func TestKernelFlowOutlivesMove(t *testing.T) {
	l := newLAN(t)
	l.moveVIP(nil, l.active)
	l.set(PromptMaxLen, SyncSettings()...)
	for _, d := range []*host{l.active, l.standby} { // which would save it
		d.sysctl(Setting{Key: "net.ipv4.vs.sloppy_tcp", Value: "0"})
	}
	f := l.connect()
	for move := range 3 {
		for range 5 {
			time.Sleep(200 * time.Millisecond)
			must(t, f.ping())
		}
		count, err := CountFlows(bytes.NewReader(l.connections(l.standby)), func(a netip.Addr) bool { return a == l.vip.Addr() })
		if err != nil || count.Established() != 1 {
			t.Errorf("move %d: the standby counts %+v: %v", move, count, err)
		}
		l.takeover()
		if err := f.ping(); err != nil {
			t.Fatalf("move %d: %v", move, err)
		}
	}

	l.set(0, defaults...)
	f = l.connect()
	for range 5 {
		time.Sleep(200 * time.Millisecond)
		must(t, f.ping())
	}
	l.takeover()
	if err := f.ping(); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("with the defaults: %v, want a reset", err)
	}
}

// A standby that starts late learns a flow that goes on; with the defaults not before its 53rd packet.
func TestKernelLateStandby(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		settings []Setting
		maxLen   int
		learns   bool
	}{{"settings", SyncSettings(), PromptMaxLen, true}, {"defaults", defaults, 0, false}} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLAN(t)
			l.moveVIP(nil, l.active)
			l.set(tt.maxLen, tt.settings...)
			l.sync(l.standby)
			f := l.connect()
			if age := l.heardOf(l.standby, f, 400*time.Millisecond, 4*time.Second); age != 0 { // in 4 s all that waited is sent
				t.Errorf("a standby without a daemon knew the flow after %s", age)
			}
			l.sync(l.standby, backup)
			age := l.heardOf(l.standby, f, 400*time.Millisecond, 8500*time.Millisecond)
			if (age > 0) != tt.learns {
				t.Errorf("the late standby knew after %s", age)
			}
			t.Logf("a flow %s old, daemon started at 4s", age)
		})
	}
}

// What a master has not sent is lost when it stops.
func TestKernelMasterStops(t *testing.T) {
	l := newLAN(t)
	l.moveVIP(nil, l.active)
	l.set(0, SyncSettings()...)
	f := l.connect()
	l.sync(l.active)
	if age := l.heardOf(l.standby, f, 0, 4*time.Second); age != 0 {
		t.Errorf("the standby knew a flow %s old", age)
	}
}

// Without any sync, sloppy_tcp and a hashing scheduler save a flow; neither does alone what both do.
func TestKernelSloppyTCP(t *testing.T) {
	l := newLAN(t)
	l.moveVIP(nil, l.active)
	for _, sloppy := range []string{"0", "1"} {
		for _, d := range []*host{l.active, l.standby} {
			d.sysctl(Setting{Key: "net.ipv4.vs.sloppy_tcp", Value: sloppy})
			l.serve(d, "sh")
		}
		f := l.connect()
		must(t, f.ping())
		l.moveVIP(l.active, l.standby)
		l.active, l.standby = l.standby, l.active
		if err := f.ping(); (err == nil) != (sloppy == "1") || err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("sloppy_tcp %s: %v", sloppy, err)
		}
	}
}

// A flow whose real server is deleted ends at once, or hangs.
func TestKernelExpireNodest(t *testing.T) {
	l := newLAN(t)
	l.moveVIP(nil, l.active)
	for _, expire := range []string{"0", "1"} {
		l.active.sysctl(Setting{Key: "net.ipv4.vs.expire_nodest_conn", Value: expire})
		l.serve(l.active, "wlc")
		f := l.connect()
		must(t, f.ping())
		l.serve(l.active, "wlc", tun("10.9.0.101:80", 1))
		err := f.ping()
		if reset := errors.Is(err, unix.ECONNRESET); err == nil || reset != (expire == "1") {
			t.Errorf("expire_nodest_conn %s: %v", expire, err)
		}
	}
}

// A director that runs both daemons does not hear itself, and forwards unless backup_only is set.
func TestKernelBothDaemons(t *testing.T) {
	l := newLAN(t)
	l.moveVIP(nil, l.active)
	l.set(PromptMaxLen, SyncSettings()...)
	l.sync(l.active, prompt, backup)
	l.sync(l.standby, prompt, backup)
	here, there := received(l.active), received(l.standby)
	for range 5 {
		must(t, l.connect().ping())
	}
	time.Sleep(500 * time.Millisecond)
	here, there = received(l.active)-here, received(l.standby)-there
	if here != 0 || there < 4 {
		t.Errorf("the active heard %d messages, the standby %d, of at least 4", here, there)
	}
	l.active.sysctl(Setting{Key: "net.ipv4.vs.backup_only", Value: "1"})
	l.client.do(func() error {
		if c, err := net.DialTimeout("tcp4", l.vip.String(), 2*time.Second); !errors.Is(err, unix.ECONNREFUSED) {
			if err == nil {
				c.Close()
			}
			t.Errorf("with backup_only a connect says %v, want refused", err)
		}
		return nil
	})
	l.sync(l.active, prompt)
	must(t, l.connect().ping())
}

// received is how many UDP datagrams the host has taken in; nothing but its sync daemon takes any.
func received(h *host) (n int) {
	h.t.Helper()
	h.do(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		m := regexp.MustCompile(`(?m)^Udp: (\d+)`).FindSubmatch(b)
		if m == nil {
			return errors.New("no UDP counters")
		}
		n, err = strconv.Atoi(string(m[1]))
		return err
	})
	return n
}
