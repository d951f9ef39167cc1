package box

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestSignal(t *testing.T) {
	for in, want := range map[string]syscall.Signal{"TERM": syscall.SIGTERM, "SIGKILL": syscall.SIGKILL, "usr1": syscall.SIGUSR1, "9": syscall.SIGKILL} {
		if got, err := Signal(in); err != nil || got != want {
			t.Errorf("Signal(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "0", "65", "-9", "NOPE"} {
		if got, err := Signal(in); err == nil {
			t.Errorf("Signal(%q) = %v, want an error", in, got)
		}
	}
}

func TestStatus(t *testing.T) {
	tests := []struct {
		script string
		want   int
	}{{"exit 0", 0}, {"exit 3", 3}, {"kill -15 $$", 143}}
	for _, tt := range tests {
		if got, err := Status(exec.Command("sh", "-c", tt.script).Run()); err != nil || got != tt.want {
			t.Errorf("Status of %q = %d, %v; want %d", tt.script, got, err, tt.want)
		}
	}
	// A child in the background keeps the output open.
	cmd := exec.Command("sh", "-c", "sleep 5 & exit 0")
	cmd.Stdout = discard{}
	cmd.WaitDelay = 10 * time.Millisecond
	if got, err := Status(cmd.Run()); err != nil || got != 0 {
		t.Errorf("Status with an output left open = %d, %v; want 0", got, err)
	}
	if _, err := Status(exec.Command("/no/such/program").Run()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Status of no program: %v", err)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func TestAlive(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if !alive(pid) {
		t.Error("a running process is not alive")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); alive(pid); time.Sleep(time.Millisecond) { // nobody has reaped it
		if time.Now().After(end) {
			t.Fatal("a dead process that is not reaped is alive")
		}
	}
	cmd.Wait()
	if alive(pid) {
		t.Error("a reaped process is alive")
	}
}

func TestInit(t *testing.T) {
	if os.Getenv("BOX_TEST_INIT") != "" {
		os.Exit(Init(os.Args[len(os.Args)-3:], os.Stdin, false))
	}
	// The command leaves a child behind, which dies first; Init must return the command's own status.
	cmd := exec.Command(os.Args[0], "-test.run=^TestInit$", "--", "sh", "-c", "(exit 9) & sleep 0.2; exit 5")
	cmd.Env = append(os.Environ(), "BOX_TEST_INIT=1")
	if got, err := Status(cmd.Run()); err != nil || got != 5 {
		t.Errorf("Init = %d, %v; want 5", got, err)
	}
}
