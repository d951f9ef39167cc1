package agent

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lvstun/director/client"
)

func TestStatusOverTheSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "run", "agent.sock")
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listen(path); err == nil || !strings.Contains(err.Error(), "another lvs-agent is running") {
		t.Errorf("a second agent: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket's mode is %v, %v", info.Mode(), err)
	}
	want := Status{
		Name: "rs1", Address: rip, Session: 1<<63 + 1, Since: time.Unix(1, 0).UTC(),
		Tunnel:    TunnelStatus{OK: true, VIPs: []netip.Addr{netip.MustParseAddr("10.0.0.50")}},
		Directors: []DirectorStatus{{Address: "10.0.0.1:3637", Lease: client.Duration(3 * time.Second)}},
		Services:  []ServiceStatus{{Name: "HTTP", State: client.Ready, Since: time.Unix(2, 0).UTC()}},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, l, func() Status { return want }) }()
	got, err := FetchStatus(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := FetchStatus(t.Context(), path); err == nil || !strings.Contains(err.Error(), "it does not run") {
		t.Errorf("of an agent that ended: %v", err)
	}
}

func TestADeadAgentsSocketIsReplaced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agent.sock")
	old, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	old.(*net.UnixListener).SetUnlinkOnClose(false)
	old.Close()
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestFetchStatusOfSomethingElse(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/status", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	server := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(l) }()
	if _, err := FetchStatus(t.Context(), path); err == nil || !strings.Contains(err.Error(), "status 418") {
		t.Errorf("error %v", err)
	}
	server.Close()
	<-done
}

// The words of the status are read by scripts: they must not change by accident.
func TestStatusJSON(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(Status{Name: "rs1", Address: rip, Services: []ServiceStatus{{Name: "HTTP", State: client.Down, Reason: "checking"}},
		Guard:   GuardStatus{Counters: map[string]uint64{"decapsulated": 5}, Refused: 3},
		Witness: WitnessStatus{Answered: 2, Dropped: map[string]uint64{"busy": 1}}})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"name":"rs1","version":"","address":"192.168.1.100","session":0,"since":"0001-01-01T00:00:00Z",` +
		`"tunnel":{"ok":false,"vips":null,"changes":0},"guard":{"counters":{"decapsulated":5},"refused":3},"directors":null,` +
		`"services":[{"name":"HTTP","state":"down","reason":"checking","since":"0001-01-01T00:00:00Z"}],` +
		`"witness":{"answered":2,"dropped":{"busy":1}}}`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
