package ui

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lvstun/director/client"
)

func status() client.Status {
	now := time.Now()
	addr := netip.MustParseAddr
	return client.Status{
		Name: "vs", Version: "0.1", Role: "active", RoleReason: "no answer from vs_bk for 300ms", Term: 12, RoleSince: now.Add(-3 * time.Minute),
		Problems: []string{"vs_bk is not heard on 10.0.0.1 ↔ 10.0.0.2"},
		Pair: client.PairStatus{
			Peer: client.PeerStatus{Name: "vs_bk", Alive: true, Role: "standby", Term: 12},
			Paths: []client.PathStatus{
				{Local: addr("10.0.0.1"), Peer: addr("10.0.0.2"), State: "silent", LastHeard: now.Add(-5 * time.Second), Dropped: map[string]uint64{"forged": 2, "short": 1}, Error: "network is unreachable"},
				{Local: addr("192.168.1.2"), Peer: addr("192.168.1.3"), State: "up", LastHeard: now},
			},
			Transitions: []client.Transition{
				{At: now.Add(-time.Hour), From: "standby", To: "fault", Reason: "eth0 is down"},
				{At: now.Add(-3 * time.Minute), From: "standby", To: "active", Reason: "peer dead"},
			},
		},
		VIPs: []client.VIPStatus{{Addr: addr("10.0.0.50"), Device: "eth0", Held: true}},
		Services: []client.ServiceStatus{
			{Name: "HTTP", VIP: addr("10.0.0.50"), Port: 80, Protocol: "tcp", Scheduler: "wlc", Destinations: []client.DestinationStatus{
				{Name: "rs1.yubo.org", Address: addr("192.168.1.100"), Weight: 10, InUse: true, State: "ready", Source: "agent", ActiveConns: 412, InactiveConns: 1093, Stats: client.Stats{Conns: 1048223}},
				{Name: "rs2.yubo.org", Address: addr("192.168.1.101"), InUse: true, State: "draining", Source: "agent", ActiveConns: 3, Reason: "the operator drains it"},
				{Name: "rs3.yubo.org", Address: addr("192.168.1.102"), State: "down", Source: "check", Reason: "connection refused"},
				{Address: addr("2001:db8::64"), State: "unknown", Source: "check"},
			}},
			{Name: "DNS6", VIP: addr("2001:db8::50"), Port: 53, Protocol: "udp", Scheduler: "rr"},
			{Name: "mail", FWMark: 25, Scheduler: "sh"},
		},
		Leases: []client.LeaseStatus{
			{Name: "rs1.yubo.org", Address: addr("192.168.1.100"), Since: now.Add(-50 * time.Hour), Renewed: now, Services: []client.ServiceReport{{Name: "HTTP", State: client.Ready}}},
			{Name: "rs4.yubo.org", Address: addr("192.168.1.103"), Gone: true, GoneReason: "lease ended", Since: now.Add(-2 * time.Hour), Renewed: now.Add(-4 * time.Second),
				Services: []client.ServiceReport{{Name: "HTTP", State: client.Down}}, Tunnel: client.TunnelReport{Problems: []string{"tunl0 is down"}}},
		},
		Counters: map[string]uint64{"bad_token": 3, "wrong_source": 41, "invalid": 0},
	}
}

func ask(t *testing.T, h http.Handler, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

var (
	tags   = regexp.MustCompile(`(?s)<style.*?</style>|<[^>]*>`)
	blanks = regexp.MustCompile(`\s+`)
)

// text is what a reader of the page sees.
func text(html string) string {
	return strings.TrimSpace(blanks.ReplaceAllString(tags.ReplaceAllString(html, " "), " "))
}

func TestPageShowsEverything(t *testing.T) {
	w := ask(t, Handler(status), http.MethodGet, "/")
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	got := text(w.Body.String())
	for _, want := range []string{
		"vs · active · lvstun",
		"director · 0.1",
		"active 3 min ago · term 12 no answer from vs_bk for 300ms",
		"1 thing to look at vs_bk is not heard",
		"10.0.0.50 eth0 held here",
		"vs_bk standby term 12",
		"its configuration is not the same as here",
		"10.0.0.1 ↔ 10.0.0.2 silent heard 5 s ago · 3 dropped network is unreachable",
		"192.168.1.2 ↔ 192.168.1.3 up heard now · 0 dropped",
		"HTTP 10.0.0.50:80/tcp wlc",
		"rs1.yubo.org 192.168.1.100 ready 10 412 1093 1048223 agent",
		"rs2.yubo.org 192.168.1.101 draining the operator drains it 0 3 0 0 agent",
		"rs3.yubo.org 192.168.1.102 down connection refused – – – – check",
		"2001:db8::64 unknown – – – – check",
		"DNS6 [2001:db8::50]:53/udp rr no real server",
		"mail firewall mark 25 sh",
		"rs1.yubo.org 192.168.1.100 runs now 2 days ago HTTP ready",
		"rs4.yubo.org 192.168.1.103 lease ended 4 s ago 2 h ago HTTP down tunl0 is down",
		"Changes of role 3 min ago standby → active peer dead 1 h ago standby → fault eth0 is down",
		"Refused requests wrong_source 41 bad_token 3",
	} {
		if !strings.Contains(got, strings.ReplaceAll(want, "'", "&#39;")) {
			t.Errorf("%q is not in the page:\n%s", want, got)
		}
	}
	if strings.Contains(got, "invalid") {
		t.Error("a counter that stands at zero is shown")
	}
}

func TestPageOfAnEmptyStatus(t *testing.T) {
	w := ask(t, Handler(func() client.Status { return client.Status{} }), http.MethodGet, "/")
	got := text(w.Body.String())
	for _, want := range []string{"this director has none", "no virtual service is configured", "none is configured"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in the page: %s", want, got)
		}
	}
}

// Whatever a name or a reason holds, it is text on the page and nothing else.
func TestPageEscapes(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>`
	s := status()
	s.Name, s.Version, s.Role, s.RoleReason = evil, evil, evil, evil
	s.Problems = []string{evil}
	s.Pair.Peer.Name, s.Pair.Peer.Role = evil, evil
	s.Pair.Paths[0].State, s.Pair.Paths[0].Error = evil, evil
	s.Pair.Transitions[0] = client.Transition{From: evil, To: evil, Reason: evil}
	s.VIPs[0].Device, s.VIPs[0].Error = evil, evil
	s.Services[0].Name, s.Services[0].Protocol, s.Services[0].Scheduler = evil, evil, evil
	s.Services[0].Destinations[0] = client.DestinationStatus{Name: evil, State: evil, Reason: evil, Source: evil}
	s.Leases[0].Name, s.Leases[0].Services[0] = evil, client.ServiceReport{Name: evil, State: client.State(evil)}
	s.Leases[1].GoneReason, s.Leases[1].Tunnel.Problems = evil, []string{evil}
	s.Counters[evil] = 1
	w := ask(t, Handler(func() client.Status { return s }), http.MethodGet, "/")
	body := w.Body.String()
	if n := strings.Count(body, "<script"); n != 1 { // the page's own
		t.Errorf("%d scripts in the page", n)
	}
	if strings.Contains(body, "<img") {
		t.Error("an element got in")
	}
	if n := strings.Count(body, "&lt;script&gt;"); n < 20 {
		t.Errorf("only %d values were shown", n)
	}
}

func TestHeadersAndMethods(t *testing.T) {
	h := Handler(status)
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/style.css": "text/css; charset=utf-8",
		"/app.js": "text/javascript; charset=utf-8", "/icon.svg": "image/svg+xml",
	} {
		w := ask(t, h, http.MethodGet, path)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != kind {
			t.Errorf("%s: %d %s, want %s", path, w.Code, w.Header().Get("Content-Type"), kind)
		}
		if got := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'; ") || strings.Contains(got, "unsafe") {
			t.Errorf("%s: policy %q", path, got)
		}
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
			if w := ask(t, h, method, path); w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d, want 405", method, path, w.Code)
			}
		}
	}
	for _, path := range []string{"/page.html", "/ui.go", "/none"} {
		if w := ask(t, h, http.MethodGet, path); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d, want 404", path, w.Code)
		}
	}
}

// The page loads nothing from elsewhere, and needs nothing its policy forbids.
func TestPageKeepsToItsPolicy(t *testing.T) {
	h := Handler(status)
	for _, path := range []string{"/", "/style.css", "/app.js"} {
		body := ask(t, h, http.MethodGet, path).Body.String()
		for _, bad := range []string{"http://", "https://", "style=", "onclick=", "<style", "@import", "url("} {
			if strings.Contains(body, bad) {
				t.Errorf("%s holds %s", path, bad)
			}
		}
	}
}

func TestAgo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for d, want := range map[time.Duration]string{
			-time.Second: "now", 0: "now", time.Second: "1 s ago", 59 * time.Second: "59 s ago", time.Minute: "1 min ago",
			59 * time.Minute: "59 min ago", time.Hour: "1 h ago", 47 * time.Hour: "47 h ago", 48 * time.Hour: "2 days ago",
		} {
			if got := ago(time.Now().Add(-d)); got != want {
				t.Errorf("%v: %q, want %q", d, got, want)
			}
		}
	})
	if got := ago(time.Time{}); got != "never" {
		t.Errorf("no time: %q, want never", got)
	}
}
