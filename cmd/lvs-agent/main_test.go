package main

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"lvstun/agent"
	"lvstun/director/trust"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"lvs-agent": main,
		// bare runs lvs-agent with every capability given away, as an unprivileged user would.
		"bare": func() {
			runtime.LockOSThread() // capabilities are a thread's
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var none [2]unix.CapUserData
			if err := unix.Capset(&header, &none[0]); err != nil {
				panic(err)
			}
			main()
		},
	})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"token": writeToken,
		},
	})
}

// writeToken writes a token for 127.0.0.1 and the service HTTP to the named file.
func writeToken(ts *testscript.TestScript, _ bool, args []string) {
	token, err := trust.GenerateKey().Mint(trust.Claims{Name: "rs1", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Services: []string{"HTTP"}})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(token.Bearer()+"\n"), 0o600))
}

// The whole program: it runs, answers for its status, and leaves on a signal. Its one director never
// answers, so it changes nothing on this host.
func TestRunUntilStopped(t *testing.T) {
	if err := privileged(); err != nil {
		t.Skip(err) // what happens then is in the script
	}
	dir := t.TempDir()
	token, err := trust.GenerateKey().Mint(trust.Claims{Name: "rs1", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Services: []string{"HTTP"}})
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config := write("agent.yaml", "directors: [\"127.0.0.1:1\"]\ntoken_file: "+write("token", token.Bearer(), 0o600)+"\n", 0o644)
	socket := filepath.Join(dir, "agent.sock")

	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	var out, errs bytes.Buffer
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"run", "--config", config, "--socket", socket}, &out, &errs) }()

	status := waitForStatus(t, socket, code, &errs)
	if status.Name != "rs1" || len(status.Directors) != 1 || len(status.Services) != 1 {
		t.Errorf("status %+v", status)
	}
	if got, want := status.Services[0].Reason, "no director has said what this service is"; got != want {
		t.Errorf("reason %q, want %q", got, want)
	}
	var second bytes.Buffer
	if got := run(t.Context(), []string{"run", "--config", config, "--socket", socket}, &second, &second); got != 1 {
		t.Errorf("a second agent ended with %d: %s", got, &second)
	}
	var refused bytes.Buffer
	if got := run(t.Context(), []string{"teardown", "--socket", socket}, &refused, &refused); got != 1 || !strings.Contains(refused.String(), "stop it first") {
		t.Errorf("teardown beside an agent ended with %d: %s", got, &refused)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case got := <-code:
		if got != 0 {
			t.Errorf("ended with %d: %s", got, &errs)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("still running 10 s after SIGTERM")
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func waitForStatus(t *testing.T, socket string, ended <-chan int, errs *bytes.Buffer) agent.Status {
	t.Helper()
	for range 500 {
		select {
		case code := <-ended:
			t.Fatalf("ended with %d: %s", code, errs)
		case <-time.After(20 * time.Millisecond):
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		s, err := agent.FetchStatus(ctx, socket)
		cancel()
		if err == nil && len(s.Directors) == 1 && s.Directors[0].Error != "" {
			return s
		}
	}
	t.Fatal("no status within 10 s")
	return agent.Status{}
}

// The example is what a person starts from: it must be valid as it is.
func TestExampleIsValid(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if code := run(t.Context(), []string{"check", "../../deploy/examples/agent.yaml"}, &out, &out); code != 0 {
		t.Errorf("check ended with %d: %s", code, &out)
	}
}

func TestPrintUndone(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		undone agent.Undone
		all    bool
		want   string
	}{
		{want: ""},
		{all: true, want: "nothing of the agent's is on this host\n"},
		{
			undone: agent.Undone{Changes: []agent.Change{{What: "tunl0", Old: "up", New: "down"}}, Left: []string{"x is 1, which somebody else has made it"}}, all: true,
			want: "tunl0: up → down\nLEFT x is 1, which somebody else has made it\n",
		},
	} {
		var out bytes.Buffer
		printUndone(&out, tt.undone, tt.all)
		if diff := cmp.Diff(tt.want, out.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestPrintStatus(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := agent.Status{
		Name: "rs1", Address: netip.MustParseAddr("192.168.1.100"), Since: now.Add(-time.Hour),
		Tunnel: agent.TunnelStatus{
			VIPs: []netip.Addr{netip.MustParseAddr("10.0.0.50")}, Changes: 7,
			Problems: []string{"setting x: read-only"},
			Recent:   []agent.Change{{At: now.Add(-time.Second), What: "tunl0", Old: "down", New: "up"}},
		},
		Directors: []agent.DirectorStatus{
			{Address: "10.0.0.1:3637", Registered: true, Name: "vs", Role: "active", Term: 3, LastSuccess: now.Add(-time.Second)},
			{Address: "10.0.0.2:3637", Error: "connection refused"},
		},
		Services: []agent.ServiceStatus{
			{Name: "HTTP", VIP: netip.MustParseAddr("10.0.0.50"), Port: 80, Protocol: "tcp", State: "ready", Since: now.Add(-90 * time.Minute)},
			{Name: "DNS", State: "down", Reason: "no director has said what this service is", Weight: 5, Since: now},
		},
		Guard: agent.GuardStatus{
			Counters: map[string]uint64{"decapsulated": 120, "not_from_directors": 3}, Refused: 3,
			Problem: "guard: the kernel has no nftables",
		},
		Witness:     agent.WitnessStatus{Answered: 4, Problem: "listen for witness questions: 192.168.1.100 is not an address of this host"},
		Differences: []string{"service HTTP: vs and vs_bk want different things"},
	}
	var out bytes.Buffer
	if err := printStatus(&out, s, now); err != nil {
		t.Fatal(err)
	}
	want := `real server  rs1  192.168.1.100, up 1h0m
tunnel side  not right, VIPs: 10.0.0.50, 7 changes made
  PROBLEM setting x: read-only
  2026-01-02 03:04:04  tunl0: down → up
guard        3 packets refused, decapsulated: 120, not_from_directors: 3
  PROBLEM guard: the kernel has no nftables
witness      4 questions of directors answered
  PROBLEM listen for witness questions: 192.168.1.100 is not an address of this host

DIRECTOR       NAME  ROLE    TERM  LAST ANSWER  PROBLEM
10.0.0.1:3637  vs    active  3     1s ago       
10.0.0.2:3637  -     -       0     never        connection refused

SERVICE  AT                STATE  FOR    WEIGHT      REASON
HTTP     10.0.0.50:80/tcp  ready  1h30m  operator's  
DNS      -                 down   0s     5           no director has said what this service is

DIRECTORS DIFFER service HTTP: vs and vs_bk want different things
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("page (-want +got):\n%s", diff)
	}
}
