package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"lvstun/director/ipvs"
	"lvstun/httpcheck"
)

func seed(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

var (
	vs   = addr("10.0.0.1")
	vsBk = addr("10.0.0.2")
)

func seedConfig(local, peer netip.Addr) *Config {
	return &Config{
		Path:           "lvs.cf",
		Name:           "vs",
		ClusterKeyFile: "/etc/lvstun/cluster.key",
		Heartbeat: Heartbeat{Paths: []Path{{Local: local, Peer: peer}}, Port: 539,
			Interval: 6 * time.Second, Dead: 18 * time.Second},
		VIPLease: 2 * time.Second,
		Sysctls:  KeepSysctls,
		API:      ":3637",
		Web:      "127.0.0.1:3636",
		Services: []Service{{
			Name: "HTTP", VIP: addr("10.0.0.50"), Device: "eth0", Label: "eth0:1", Port: 80, Protocol: ipvs.TCP,
			Scheduler: "wlc",
			Check: httpcheck.Spec{Kind: httpcheck.SendExpect, Network: "tcp", Send: "GET / HTTP/1.0\r\n\r\n", Expect: "HTTP",
				Interval: httpcheck.Duration(6 * time.Second), Timeout: httpcheck.Duration(6 * time.Second), Rise: 2, Fall: 1},
			Servers: []Server{
				{Name: "rs1.yubo.com", Address: addr("192.168.1.100"), Port: 80, Weight: 1},
				{Name: "rs2.yubo.com", Address: addr("192.168.1.200"), Port: 80, Weight: 1},
			},
		}},
	}
}

var (
	addresses    = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})
	ignoreDigest = cmpopts.IgnoreFields(Config{}, "Digest")
)

// The published text indents with non-breaking spaces and means what the files with blanks do.
func TestSeedFiles(t *testing.T) {
	t.Setenv("LVSTUN_NAME", "vs")
	var digests [][32]byte
	for _, tt := range []struct {
		name        string
		local, peer netip.Addr
		nbsp        string
	}{
		{"vs.lvs.cf", vs, vsBk, ""},
		{"vs_bk.lvs.cf", vsBk, vs, ""},
		{"published_vs.lvs.cf", vs, vsBk, "lines 15–37"},
		{"published_vs_bk.lvs.cf", vsBk, vs, "lines 15–37"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, warnings := mustParse(t, "lvs.cf", seed(t, tt.name))
			if diff := cmp.Diff(seedConfig(tt.local, tt.peer), cfg, addresses, ignoreDigest); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			digests = append(digests, cfg.Digest)
			var about []string
			for _, w := range warnings {
				if w.What == "" {
					about = append(about, w.Why)
				} else {
					about = append(about, w.What)
				}
			}
			want := []string{"serial_no", "heartbeat", "nat_nmask", "debug_level", "virtual HTTP: vip_nmask"}
			if tt.nbsp != "" {
				nbsp := "non-breaking spaces, as in text copied from a web page, are read as blanks on " + tt.nbsp
				want = []string{"serial_no", "heartbeat", "nat_nmask", "debug_level", nbsp, "virtual HTTP: vip_nmask"}
			}
			if diff := cmp.Diff(want, about); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
	for _, d := range digests {
		if d != digests[0] {
			t.Errorf("the directors' digests differ: %x and %x", digests[0], d)
		}
	}
}

func TestCRLF(t *testing.T) {
	unix := seed(t, "vs.lvs.cf")
	want, before := mustParse(t, "lvs.cf", unix)
	got, after := mustParse(t, "lvs.cf", strings.ReplaceAll(unix, "\n", "\r\n"))
	if diff := cmp.Diff(want, got, addresses); diff != "" {
		t.Errorf("(-LF +CRLF):\n%s", diff)
	}
	if len(after) != len(before)+1 || after[0].Why != "CRLF line ends are read as line ends on lines 1–38" {
		t.Errorf("warnings: %v", after)
	}
}

func TestLvsCfDefaults(t *testing.T) {
	t.Setenv("LVSTUN_NAME", "vs")
	cfg, _ := mustParse(t, "lvs.cf", `
network = tunnel
virtual web {
    active = 1
    address = 10.0.0.50 eth0
    server rs1 {
        active = 1
        address = 192.168.1.100
    }
}
virtual dns {
    active = 1
    address = 10.0.0.50 eth0
    port = domain
    protocol = udp
    pmask = 255.255.255.0
    persistent = 0x10
    fwmark = 010
    quiesce_server = 1
    scheduler = sed
    timeout = 7
    reentry = 0
    expect = *
    server rs1 {
        port = 53
        weight = 3
        address = 192.168.1.100
        active = 1
    }
}
virtual ssh {
    active = 1
    address = 10.0.0.50 eth0
    port = 22
    pmask = 255.255.255.255
    reentry = 1
    server rs1 {
        address = 192.168.1.100
        active = 1
    }
}
`)
	want := seedConfig(vs, vsBk)
	want.Heartbeat = Heartbeat{Port: 539, Interval: 2 * time.Second, Dead: 5 * time.Second}
	web := want.Services[0]
	web.Name, web.Label, web.Servers = "web", "", []Server{{Name: "rs1", Address: addr("192.168.1.100"), Port: 80, Weight: 1}}
	ten, seven := httpcheck.Duration(10*time.Second), httpcheck.Duration(7*time.Second)
	web.Check.Interval, web.Check.Timeout, web.Check.Rise = ten, ten, 18
	dns, ssh := web, web
	dns.Name, dns.Port, dns.Protocol, dns.FWMark, dns.Scheduler = "dns", 53, ipvs.UDP, 8, "sed"
	dns.Persistent, dns.PersistenceMask, dns.QuiesceOnFailure = 16*time.Second, 24, true
	dns.Check = httpcheck.Spec{Kind: httpcheck.SendExpect, Network: "udp", Expect: ".", Regex: true,
		Interval: seven, Timeout: seven, Rise: 25, Fall: 1}
	dns.Servers = []Server{{Name: "rs1", Address: addr("192.168.1.100"), Port: 53, Weight: 3}}
	ssh.Name, ssh.Port = "ssh", 22
	ssh.Check = httpcheck.Spec{Kind: httpcheck.TCP, Interval: ten, Timeout: ten, Rise: 1, Fall: 1}
	ssh.Servers = []Server{{Name: "rs1", Address: addr("192.168.1.100"), Port: 22, Weight: 1}}
	want.Services = []Service{web, dns, ssh}
	if diff := cmp.Diff(want, cfg, addresses, ignoreDigest); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Identical files, as piranha's guide wants them, and mirrored ones, as the seed has them, both end at one's own side.
func TestLocalize(t *testing.T) {
	for _, tt := range []struct {
		name    string
		own     []netip.Addr
		want    []Path
		wantErr string
	}{
		{"mine", []netip.Addr{addr("127.0.0.1"), vs, addr("10.1.0.2")}, []Path{{vs, vsBk}, {addr("10.1.0.2"), addr("10.1.0.1")}}, ""},
		{"the other's", []netip.Addr{vsBk, addr("10.1.0.1")}, []Path{{vsBk, vs}, {addr("10.1.0.1"), addr("10.1.0.2")}}, ""},
		{"neither", []netip.Addr{addr("127.0.0.1"), addr("10.0.0.3")}, []Path{{vs, vsBk}, {addr("10.1.0.1"), addr("10.1.0.2")}},
			"lvs.cf: heartbeat path 10.0.0.1–10.0.0.2: neither is an address of this host (127.0.0.1, 10.0.0.3): one must be"},
		{"both", []netip.Addr{vs, vsBk}, []Path{{vs, vsBk}, {addr("10.1.0.1"), addr("10.1.0.2")}},
			"lvs.cf: heartbeat path 10.0.0.1–10.0.0.2: both are addresses of this host: one must be the other director's"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, _ := mustParse(t, "lvs.cf", "primary_private = 10.1.0.1\nbackup_private = 10.1.0.2\n"+seed(t, "vs.lvs.cf"))
			got := ""
			if err := cfg.Localize(tt.own); err != nil {
				got = err.Error()
			}
			if got != tt.wantErr {
				t.Errorf("error %q, want %q", got, tt.wantErr)
			}
			if diff := cmp.Diff(tt.want, cfg.Heartbeat.Paths, addresses); diff != "" {
				t.Errorf("paths (-want +got):\n%s", diff)
			}
		})
	}
}
