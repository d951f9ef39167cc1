package api

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lvstun/director/client"
)

func TestLocalSocket(t *testing.T) {
	s := serve(t, nil)
	info, err := os.Stat(s.socket)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o660 {
		t.Errorf("mode %v, want 0660", info.Mode())
	}
	s.refused.record(refusal{reason: badToken}, home, "")
	c := client.Local(s.socket)
	defer c.Close()
	got, err := c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "vs" || got.Counters["bad_token"] != 1 {
		t.Errorf("status %+v, want that of vs with one wrong token", got)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestHandover(t *testing.T) {
	s := serve(t, nil)
	c := client.Local(s.socket)
	defer c.Close()
	if err := c.Handover(t.Context()); err != nil {
		t.Errorf("handover: %v", err)
	}
	s.backend.handover = errors.New("no standby is ready")
	var refused *client.Error
	if err := c.Handover(t.Context()); !errors.As(err, &refused) || refused.Status != http.StatusConflict || refused.Sentence != "no standby is ready" {
		t.Errorf("error %v, want the backend's sentence and 409", err)
	}
	// The page and the agents have no such thing.
	web := httptest.NewServer(s.webHandler())
	defer web.Close()
	resp, err := http.Post(web.URL+"/v1/handover", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode/100 != 4 {
		t.Errorf("the page's listener answers %s to a handover", resp.Status)
	}
}

func TestSocketThatIsThereAlready(t *testing.T) {
	path := func(t *testing.T) string { return filepath.Join(t.TempDir(), "s") }
	t.Run("stale", func(t *testing.T) {
		p := path(t)
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: p})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false)
		dead.Close()
		l, err := listenUnix(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	})
	t.Run("alive", func(t *testing.T) {
		p := path(t)
		alive, err := net.Listen("unix", p)
		if err != nil {
			t.Fatal(err)
		}
		defer alive.Close()
		if _, err := listenUnix(t.Context(), p); err == nil || !strings.Contains(err.Error(), "another director answers on "+p) {
			t.Errorf("error %v", err)
		}
		if conn, err := net.Dial("unix", p); err != nil {
			t.Errorf("the living socket was taken away: %v", err)
		} else {
			conn.Close()
		}
	})
	t.Run("a file", func(t *testing.T) {
		p := path(t)
		if err := os.WriteFile(p, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := listenUnix(t.Context(), p); err == nil || !strings.Contains(err.Error(), "is no socket") {
			t.Errorf("error %v", err)
		}
		if b, _ := os.ReadFile(p); string(b) != "precious" {
			t.Error("the file was changed")
		}
	})
	t.Run("no folder", func(t *testing.T) {
		if _, err := listenUnix(t.Context(), filepath.Join(t.TempDir(), "none", "s")); err == nil {
			t.Error("no error")
		}
	})
}

func get(t *testing.T, url, host string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		req.Host = host
	}
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestWeb(t *testing.T) {
	s := serve(t, nil)
	tests := []struct {
		path   string
		status int
		want   string
	}{
		{"/", 200, "<h1>vs</h1>"},
		{"/healthz", 200, "ok"},
		{"/metrics", 200, `lvstun_director_role{role="active"} 1`},
		{"/v1/status", 200, `"name":"vs"`},
		{"/v1/realservers/rs1", 404, ""},
	}
	for _, tt := range tests {
		status, body := get(t, "http://"+s.web+tt.path, "")
		if status != tt.status || !strings.Contains(body, tt.want) {
			t.Errorf("%s: %d, want %d and %q in:\n%.400s", tt.path, status, tt.status, tt.want, body)
		}
	}
	// The page is not served to agents, nor is a registration taken from readers.
	for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodPost} {
		req, err := http.NewRequest(method, "http://"+s.web+"/v1/realservers/rs1", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if status, _, _ := s.call(t, home, req); status < 400 {
			t.Errorf("%s on the page's address: %d", method, status)
		}
	}
	if calls := s.backend.recorded(); calls != nil {
		t.Errorf("the director heard of it: %v", calls)
	}
}

// A name that somebody points at 127.0.0.1 reads nothing through a browser here.
func TestForeignNamesOnLoopback(t *testing.T) {
	s := serve(t, nil)
	for host, want := range map[string]int{
		"evil.example":      421,
		"evil.example:3636": 421,
		"localhost":         200,
		"localhost:3636":    200,
		"127.0.0.1":         200,
		"[::1]:3636":        200,
	} {
		if status, _ := get(t, "http://"+s.web+"/v1/status", host); status != want {
			t.Errorf("Host %s: %d, want %d", host, status, want)
		}
	}
	s.refusedAlone(t, wrongHost, 2)
}

func fullStatus() client.Status {
	rs1, rs2 := netip.MustParseAddr("192.168.1.100"), netip.MustParseAddr("192.168.1.101")
	return client.Status{
		Name: "vs", Version: "1.2", Role: "active", Term: 5, Problems: []string{"one"}, Drifts: 3,
		Pair: client.PairStatus{Paths: []client.PathStatus{{
			Local: home, Peer: away, State: "up", Sent: 10, Received: 9, Dropped: map[string]uint64{"forged": 2, "replay": 1},
		}}},
		VIPs: []client.VIPStatus{{Addr: netip.MustParseAddr("10.0.0.50"), Device: "eth0", Held: true}},
		Services: []client.ServiceStatus{{Name: "HTTP", Destinations: []client.DestinationStatus{
			{Name: "rs1", Address: rs1, Weight: 3, InUse: true, State: "ready", ActiveConns: 4, InactiveConns: 5, Stats: client.Stats{Conns: 6, InBytes: 7}},
			{Address: rs2, State: "down"},
		}}},
		Leases:   []client.LeaseStatus{{Name: "rs1"}, {Name: "rs3", Gone: true}},
		Counters: map[string]uint64{"bad_token": 8},
	}
}

func TestMetrics(t *testing.T) {
	scrape := func(status func() client.Status) (int, string) {
		w := httptest.NewRecorder()
		metricsHandler(status).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		return w.Code, w.Body.String()
	}
	code, body := scrape(fullStatus)
	if code != http.StatusOK {
		t.Fatalf("status %d: %s", code, body)
	}
	for _, want := range []string{
		`build_info{version="1.2"} 1`,
		`role{role="active"} 1`,
		`term 5`,
		`problems 1`,
		`setting_drifts_total 3`,
		`vip_held{device="eth0",vip="10.0.0.50"} 1`,
		`leases{state="running"} 1`,
		`leases{state="gone"} 1`,
		`heartbeat_path_up{local="127.0.0.1",peer="127.0.0.2"} 1`,
		`heartbeats_sent_total{local="127.0.0.1",peer="127.0.0.2"} 10`,
		`heartbeats_received_total{local="127.0.0.1",peer="127.0.0.2"} 9`,
		`heartbeats_dropped_total{local="127.0.0.1",peer="127.0.0.2",reason="forged"} 2`,
		`heartbeats_dropped_total{local="127.0.0.1",peer="127.0.0.2",reason="replay"} 1`,
		`requests_refused_total{reason="bad_token"} 8`,
		`destination_weight{address="192.168.1.100",rs="rs1",service="HTTP"} 3`,
		`destination_state{address="192.168.1.101",rs="",service="HTTP",state="down"} 1`,
		`destination_active_connections{address="192.168.1.100",rs="rs1",service="HTTP"} 4`,
		`destination_inactive_connections{address="192.168.1.100",rs="rs1",service="HTTP"} 5`,
		`destination_connections_total{address="192.168.1.100",rs="rs1",service="HTTP"} 6`,
		`destination_in_bytes_total{address="192.168.1.100",rs="rs1",service="HTTP"} 7`,
	} {
		if !strings.Contains(body, "\nlvstun_director_"+want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	if strings.Contains(body, `destination_weight{address="192.168.1.101"`) {
		t.Error("a weight for what IPVS does not have")
	}
	// One bad value hides no other.
	_, body = scrape(func() client.Status {
		s := fullStatus()
		s.Services[0].Name = "\xff"
		return s
	})
	if !strings.Contains(body, "\nlvstun_director_term 5\n") {
		t.Errorf("a bad label hides the rest:\n%.300s", body)
	}
}

// Every reason is there from the start, so that a first refusal shows as a rise.
func TestEveryReasonIsCounted(t *testing.T) {
	s := New(Config{Backend: &backend{}}, slog.New(slog.DiscardHandler))
	counts := s.Refusals()
	for _, reason := range reasons {
		if n, ok := counts[string(reason)]; !ok || n != 0 {
			t.Errorf("%s: %d, %t", reason, n, ok)
		}
	}
	if len(counts) != len(reasons) {
		t.Errorf("%d reasons are counted, %d are listed", len(counts), len(reasons))
	}
}
