package main

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"lvstun/director/config"
	"lvstun/director/tuning"
	"lvstun/sysctl"
)

func TestFacts(t *testing.T) {
	t.Parallel()
	own := []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("2001:db8::1/64"), netip.MustParsePrefix("127.0.0.1/8")}
	service := func(vip, device, scheduler string, servers ...string) config.Service {
		s := config.Service{VIP: addr(vip), Device: device, Scheduler: scheduler}
		for _, a := range servers {
			s.Servers = append(s.Servers, config.Server{Address: addr(a)})
		}
		return s
	}
	persistent := service("10.0.0.50", "eth0", "wlc")
	persistent.Persistent = time.Minute
	registering := func(from string) config.Service {
		s := service("10.0.0.50", "eth0", "wlc")
		s.Register.From = []netip.Prefix{netip.MustParsePrefix(from)}
		return s
	}
	for _, tt := range []struct {
		name     string
		services []config.Service
		want     tuning.Facts
	}{
		{"nothing", nil, tuning.Facts{}},
		{
			"two families, three devices",
			[]config.Service{service("10.0.0.50", "eth1", "wlc"), service("2001:db8::50", "eth0.7", "mh"), service("10.0.0.51", "eth1", "rr")},
			tuning.Facts{Devices: []string{"eth0.7", "eth1"}, IPv4: true, IPv6: true, Schedulers: []string{"wlc", "mh", "rr"}},
		},
		{"persistence", []config.Service{persistent}, tuning.Facts{Devices: []string{"eth0"}, IPv4: true, Schedulers: []string{"wlc"}, Persistent: true}},
		{
			"real servers on our networks and elsewhere, each once",
			[]config.Service{
				service("10.0.0.50", "eth0", "wlc", "10.0.0.100", "10.0.0.101", "192.168.1.100"),
				service("2001:db8::50", "eth0", "wlc", "10.0.0.100", "2001:db8::100", "2001:db8:1::100"),
			},
			tuning.Facts{Devices: []string{"eth0"}, IPv4: true, IPv6: true, Schedulers: []string{"wlc", "wlc"}, Neighbours4: 2, Neighbours6: 1},
		},
		{
			"this host is a real server",
			[]config.Service{service("10.0.0.50", "eth0", "wlc", "10.0.0.100", "10.0.0.1")},
			tuning.Facts{Devices: []string{"eth0"}, IPv4: true, Schedulers: []string{"wlc"}, Neighbours4: 1, OwnServers: true},
		},
		{"this host may register", []config.Service{registering("10.0.0.0/24")}, tuning.Facts{Devices: []string{"eth0"}, IPv4: true, Schedulers: []string{"wlc"}, OwnServers: true}},
		{"others may", []config.Service{registering("10.0.1.0/24")}, tuning.Facts{Devices: []string{"eth0"}, IPv4: true, Schedulers: []string{"wlc"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if d := cmp.Diff(tt.want, facts(&config.Config{Services: tt.services}, own)); d != "" {
				t.Errorf("facts (-want +got)\n%s", d)
			}
		})
	}
}

// The sync daemon's settings are wanted, and may be set, where it is configured.
func TestSyncSettingsAreWanted(t *testing.T) {
	t.Parallel()
	for _, device := range []string{"", "eth0"} {
		found := false
		for _, s := range wantedSettings(&config.Config{Sync: config.Sync{Device: device}}, nil) {
			if strings.HasSuffix(s.Key, "sync_threshold") {
				found = true
				want := sysctl.Setting{Key: s.Key, Value: "0 1", Severity: sysctl.Loss, Set: true}
				if d := cmp.Diff(want, s, cmpopts.IgnoreFields(sysctl.Setting{}, "Why")); d != "" {
					t.Errorf("(-want +got)\n%s", d)
				}
			}
		}
		if found != (device != "") {
			t.Errorf("sync on %q: sync_threshold wanted: %t", device, found)
		}
	}
}

// A tuner sets, says what does not serve, follows a reload to audit and back, and puts back.
func TestTuner(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	key := filepath.Join(root, "net/ipv4/vs/conn_reuse_mode")
	write := func(value string) { // at once, as the kernel takes it
		t.Helper()
		next := filepath.Join(root, "next")
		if err := errors.Join(os.WriteFile(next, []byte(value), 0o600), os.Rename(next, key)); err != nil {
			t.Fatal(err)
		}
	}
	waitFor := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("never: %s", what)
			}
		}
	}
	is := func(want string) func() bool {
		return func() bool { got, _ := os.ReadFile(key); return strings.TrimSpace(string(got)) == want }
	}
	if err := os.MkdirAll(filepath.Dir(key), 0o700); err != nil {
		t.Fatal(err)
	}
	write("1\n")
	tuner := newTuner(sysctl.Tree(root), filepath.Join(root, "state.json"), slog.New(slog.DiscardHandler))
	tuner.follow(&config.Config{Sysctls: config.KeepSysctls}, nil)
	stop := tuner.start()
	if !is("3")() {
		t.Error("start returns before the settings are set")
	}
	write("0\n")
	waitFor("repaired", func() bool { return is("3")() && tuner.drifts() == 1 })
	about := func() string { // the other settings are not there
		for _, p := range tuner.problems() {
			if strings.Contains(p, "conn_reuse_mode") {
				return p
			}
		}
		return ""
	}
	if p := about(); p != "" {
		t.Errorf("a problem: %s", p)
	}
	tuner.follow(&config.Config{Sysctls: config.AuditSysctls}, nil)
	waitFor("put back and said", func() bool {
		return is("1")() && strings.HasPrefix(about(), "net.ipv4.vs.conn_reuse_mode is 1, should be 3 or 2: ")
	})
	tuner.follow(&config.Config{Sysctls: config.KeepSysctls}, nil)
	waitFor("set again", is("3"))
	stop()
	if !is("1")() {
		t.Error("stop returns before the settings are put back")
	}
	if _, err := os.Stat(filepath.Join(root, "state.json")); !os.IsNotExist(err) {
		t.Errorf("the record stays: %v", err)
	}
}
