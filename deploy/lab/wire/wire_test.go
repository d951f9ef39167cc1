package wire

import (
	"bytes"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ask runs a command over a pipe.
func ask(t *testing.T, req Request, in io.Reader, signals <-chan os.Signal) (status int, out, errOut string, err error) {
	t.Helper()
	client, server := net.Pipe()
	served := make(chan error)
	go func() { served <- Serve(server) }()
	var o, e bytes.Buffer
	status, err = Run(client, req, in, &o, &e, signals)
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	return status, o.String(), e.String(), err
}

func sh(script string) Request {
	return Request{Argv: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin", "X=y"}, Dir: "/"}
}

func TestRun(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 20<<10) // several frames
	tests := []struct {
		name, script, in string
		status           int
		wantOut, wantErr string
	}{
		{"files apart", "echo out; echo err >&2", "", 0, "out\n", "err\n"},
		{"status", "exit 7", "", 7, "", ""},
		{"killed", "kill -9 $$", "", 137, "", ""},
		{"environment and folder", "echo $X; pwd", "", 0, "y\n/\n", ""},
		{"input and its end", "cat", "some\ninput", 0, "some\ninput", ""},
		{"long input", "cat", long, 0, long, ""},
		{"input that nobody reads", "exit 0", long, 0, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, out, errOut, err := ask(t, sh(tt.script), strings.NewReader(tt.in), nil)
			if err != nil || status != tt.status || out != tt.wantOut || errOut != tt.wantErr {
				t.Errorf("Run = %d, %.40q, %.40q, %v; want %d, %.40q, %.40q", status, out, errOut, err, tt.status, tt.wantOut, tt.wantErr)
			}
		})
	}
}

func TestRunSignals(t *testing.T) {
	client, server := net.Pipe()
	go Serve(server)
	signals := make(chan os.Signal, 1)
	out := writerFunc(func(p []byte) (int, error) { // the script's trap is set when it says so
		signals <- syscall.SIGUSR1
		return len(p), nil
	})
	status, err := Run(client, sh(`trap 'exit 42' USR1; echo ready; while :; do sleep 0.01; done`), nil, out, io.Discard, signals)
	if err != nil || status != 42 {
		t.Errorf("Run = %d, %v; want 42", status, err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestTerminal runs a command on a terminal whose size changes, from one that this test holds the other end of.
func TestTerminal(t *testing.T) {
	client, server := net.Pipe()
	go Serve(server)
	defer client.Close()
	f := &frames{w: client}
	req := `{"Argv":["sh","-c","test -t 0 && test -t 2 && echo terminal; read x; stty size; exit 3"],"Env":["PATH=/usr/bin:/bin"],"Dir":"/","Terminal":true}`
	if err := f.write(request, []byte(req)); err != nil {
		t.Fatal(err)
	}
	go func() {
		f.write(resized, []byte{0, 33, 0, 99})
		f.write(stdin, []byte("\n"))
	}()
	var out strings.Builder
	for {
		k, p, err := readFrame(client)
		if err != nil {
			t.Fatal(err)
		}
		if k == exited {
			if p[0] != 3 {
				t.Errorf("status %d, want 3", p[0])
			}
			break
		}
		out.Write(p)
	}
	for _, want := range []string{"terminal\r\n", "33 99\r\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output %q lacks %q", out.String(), want)
		}
	}
}

func TestRunOfNothing(t *testing.T) {
	_, _, _, err := ask(t, Request{Argv: []string{"/no/such/program"}, Dir: "/"}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("Run: %v, want an error that names the program", err)
	}
}

func TestGoneClientTakesTheCommandWithIt(t *testing.T) {
	client, server := net.Pipe()
	served := make(chan error)
	go func() { served <- Serve(server) }()
	f := &frames{w: client}
	if err := f.write(request, []byte(`{"Argv":["sleep","1000"],"Dir":"/"}`)); err != nil {
		t.Fatal(err)
	}
	client.Close()
	select {
	case <-served:
	case <-time.After(10 * time.Second):
		t.Fatal("the command runs on")
	}
}

func TestServeRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind kind
		body string
	}{
		{"not JSON", request, "{"}, {"no command", request, "{}"}, {"another frame", stdin, `{"Argv":["true"]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, server := net.Pipe()
			defer client.Close()
			go (&frames{w: client}).write(tt.kind, []byte(tt.body))
			if err := Serve(server); err == nil {
				t.Error("Serve: no error")
			}
		})
	}
}

func TestRunWhenTheMachineGoes(t *testing.T) {
	client, server := net.Pipe()
	go func() {
		readFrame(server)
		server.Close()
	}()
	_, err := Run(client, sh("true"), nil, io.Discard, io.Discard, nil)
	if err == nil || err.Error() != "the machine is gone" {
		t.Errorf("Run: %v", err)
	}
}

func FuzzReadFrame(f *testing.F) {
	var b bytes.Buffer
	(&frames{w: &b}).write(stdout, []byte("hello"))
	f.Add(b.Bytes())
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0})
	f.Add([]byte{6, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		k, p, err := readFrame(bytes.NewReader(data))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := (&frames{w: &again}).write(k, p); err != nil || !bytes.HasPrefix(data, again.Bytes()) {
			t.Errorf("frame %d %q does not come back: %v", k, p, err)
		}
	})
}
