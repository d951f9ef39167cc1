package client

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lvstun/httpcheck"
)

func soundRegistration() Registration {
	return Registration{
		Address: netip.MustParseAddr("192.168.1.100"),
		Session: 1,
		Services: []ServiceReport{
			{Name: "HTTP", Weight: 10, State: Ready},
			{Name: "DNS", State: Down, Reason: "connection refused"},
		},
		Tunnel: TunnelReport{OK: true},
	}
}

func soundAnswer() Answer {
	return Answer{
		Director: "vs", Role: "active", Term: 3, Lease: Duration(3 * time.Second),
		Directors: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")},
		Services: []ServiceDefinition{{
			Name: "HTTP", VIP: netip.MustParseAddr("10.0.0.50"), Port: 80, Protocol: "tcp",
			Encapsulation: Encapsulation{Type: "ipip"}, Weight: 1,
			Check: httpcheck.Spec{Kind: httpcheck.HTTP}.WithDefaults(),
		}},
	}
}

func many[T any](n int, make func(i int) T) (out []T) {
	for i := range n {
		out = append(out, make(i))
	}
	return out
}

func TestRegistrationValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Registration)
		want   []string
	}{
		{"sound", func(*Registration) {}, nil},
		{"greatest weight", func(r *Registration) { r.Services[0].Weight = 65535 }, nil},
		{"longest reason", func(r *Registration) { r.Services[0].Reason = strings.Repeat("é", 256) }, nil},
		{"most services", func(r *Registration) {
			r.Services = many(64, func(i int) ServiceReport { return ServiceReport{Name: fmt.Sprint(i), State: Ready} })
		}, nil},
		{"nothing", func(r *Registration) { *r = Registration{} }, []string{
			"address: no address given",
			"session: 0, want the nanoseconds since 1970 at the agent's start",
			"services: 0 given, want 1 to 64",
		}},
		{"wildcard", func(r *Registration) { r.Address = netip.IPv6Unspecified() }, []string{"address: :: is a wildcard: name the real server's own address"}},
		{"weight too great", func(r *Registration) { r.Services[0].Weight = 65536 }, []string{"service HTTP: weight: 65536, want 0 to 65535"}},
		{"weight below zero", func(r *Registration) { r.Services[0].Weight = -1 }, []string{"service HTTP: weight: -1, want 0 to 65535"}},
		{"unknown state", func(r *Registration) { r.Services[1].State = "up" }, []string{`service DNS: state "up", want ready, draining or down`}},
		{"no state", func(r *Registration) { r.Services[1].State = "" }, []string{`service DNS: state "", want ready, draining or down`}},
		{"service twice", func(r *Registration) { r.Services[1].Name = "HTTP" }, []string{"service HTTP: given twice"}},
		{"name that is none", func(r *Registration) { r.Services[1].Name = "a b" }, []string{`service: name: "a b" holds ' '; letters, digits, '.', '-' and '_' are allowed`}},
		{"reason too long", func(r *Registration) { r.Services[1].Reason = strings.Repeat("x", 513) }, []string{"service DNS: reason: 513 bytes long, the most is 512"}},
		{"reason with an escape sequence", func(r *Registration) { r.Services[1].Reason = "\x1b[2J" }, []string{`service DNS: reason: holds '\x1b', which does not print`}},
		{"reason that turns the text's direction", func(r *Registration) { r.Services[1].Reason = "a\u202eb" }, []string{`service DNS: reason: holds '\u202e', which does not print`}},
		{"reason that is not UTF-8", func(r *Registration) { r.Services[1].Reason = "a\xff" }, []string{`service DNS: reason: holds '�', which does not print`}},
		{"too many services", func(r *Registration) {
			r.Services = many(65, func(int) ServiceReport { return ServiceReport{} })
		}, []string{"services: 65 given, want 1 to 64"}},
		{"too many problems", func(r *Registration) {
			r.Tunnel.Problems = many(33, func(int) string { return "\x00" })
		}, []string{"tunnel: problems: 33 given, want 0 to 32"}},
		{"problem that does not print", func(r *Registration) { r.Tunnel.Problems = []string{"ok", "\n"} }, []string{`tunnel: problem: holds '\n', which does not print`}},
		{"all at once", func(r *Registration) { r.Session, r.Services[0].Weight, r.Services[1].State = 0, -1, "x" }, []string{
			"session: 0, want the nanoseconds since 1970 at the agent's start",
			"service HTTP: weight: -1, want 0 to 65535",
			`service DNS: state "x", want ready, draining or down`,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := soundRegistration()
			tt.change(&r)
			checkFaults(t, tt.want, r.Validate())
			if errs := r.printable().Validate(); len(tt.want) == 1 && strings.Contains(tt.want[0], "print") && len(errs) > 0 {
				t.Errorf("made printable it is still refused: %v", errs)
			}
		})
	}
}

func checkFaults(t *testing.T, want []string, errs []error) {
	t.Helper()
	var got []string
	for _, err := range errs {
		got = append(got, err.Error())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

func TestAnswerValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Answer)
		want   []string
	}{
		{"sound", func(*Answer) {}, nil},
		{"no services, no directors", func(a *Answer) { a.Services, a.Directors = nil, nil }, nil},
		{"firewall mark", func(a *Answer) {
			s := &a.Services[0]
			s.FWMark, s.VIP, s.Port, s.Protocol = 7, netip.Addr{}, 0, ""
		}, nil},
		{"gue", func(a *Answer) { a.Services[0].Encapsulation = Encapsulation{"gue", 6080} }, nil},
		{"no lease", func(a *Answer) { a.Lease = 0 }, []string{"lease: 0s, want 300ms to 1h0m0s"}},
		{"endless lease", func(a *Answer) { a.Lease = Duration(2 * time.Hour) }, []string{"lease: 2h0m0s, want 300ms to 1h0m0s"}},
		{"wildcard VIP", func(a *Answer) { a.Services[0].VIP = netip.IPv4Unspecified() }, []string{"service HTTP: vip: 0.0.0.0 is a wildcard: name the real server's own address"}},
		{"no VIP", func(a *Answer) { a.Services[0].VIP = netip.Addr{} }, []string{"service HTTP: vip: no address given"}},
		{"port 0", func(a *Answer) { a.Services[0].Port = 0 }, []string{"service HTTP: port: 0, want 1 to 65535"}},
		{"protocol", func(a *Answer) { a.Services[0].Protocol = "sctp" }, []string{`service HTTP: protocol "sctp", want tcp or udp`}},
		{"encapsulation", func(a *Answer) { a.Services[0].Encapsulation.Type = "vxlan" }, []string{`service HTTP: encapsulation "vxlan", want ipip, gue or gre`}},
		{"gue without port", func(a *Answer) { a.Services[0].Encapsulation.Type = "gue" }, []string{"service HTTP: encapsulation: gue has no port"}},
		{"weight", func(a *Answer) { a.Services[0].Weight = 1 << 20 }, []string{"service HTTP: weight: 1048576, want 0 to 65535"}},
		{"check", func(a *Answer) { a.Services[0].Check.Rise = 0 }, []string{"service HTTP: check: rise, 0, must be between 1 and 1000"}},
		{"service twice", func(a *Answer) { a.Services = append(a.Services, a.Services[0]) }, []string{"service HTTP: given twice"}},
		{"escape sequence", func(a *Answer) { a.Role = "\x1b[31m" }, []string{`role: holds '\x1b', which does not print`}},
		{"director that is none", func(a *Answer) { a.Directors[1] = netip.MustParseAddr("224.0.0.1") }, []string{"directors: 224.0.0.1 is not the address of one host"}},
		{"too many", func(a *Answer) {
			a.Directors = make([]netip.Addr, 65)
			a.Services = make([]ServiceDefinition, 65)
		}, []string{"directors: 65 given, want 0 to 64", "services: 65 given, want 0 to 64"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := soundAnswer()
			tt.change(&a)
			checkFaults(t, tt.want, a.Validate())
		})
	}
}

func TestPrintable(t *testing.T) {
	tests := []struct {
		in    string
		limit int
		want  string
	}{
		{"connection refused", 100, "connection refused"},
		{"a\x1b[2Jb\r\n", 100, "a [2Jb  "},
		{"a\xffb", 100, "a b"},
		{"ünü", 3, "ün"},
		{"ünü", 4, "ün"},
		{"ünü", 5, "ünü"},
		{"", 0, ""},
	}
	for _, tt := range tests {
		if got := printable(tt.in, tt.limit); got != tt.want {
			t.Errorf("printable(%q, %d) = %q, want %q", tt.in, tt.limit, got, tt.want)
		}
	}
	r := soundRegistration()
	r.Services[0].Reason = "a\n"
	r.printable()
	if r.Services[0].Reason != "a\n" {
		t.Error("the caller's registration was changed")
	}
}
