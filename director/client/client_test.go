package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"lvstun/director/trust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var key = trust.GenerateKey()

func mint(t *testing.T, k trust.ClusterKey) trust.Token {
	t.Helper()
	token, err := k.Mint(trust.Claims{
		Name: "rs1", Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Services: []string{"HTTP"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// director serves h as one with key does and returns a client for it.
func director(t *testing.T, o Options, h http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	tlsConfig, err := key.ServerTLS()
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = tlsConfig
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	c, err := New(server.Listener.Addr().String(), mint(t, key), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); server.Close() })
	return c
}

func answer(t *testing.T, w http.ResponseWriter, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		t.Error(err)
	}
}

func TestRegister(t *testing.T) {
	c := director(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "PUT" || r.URL.Path != "/v1/realservers/rs1" || r.ProtoMajor != 1 {
			t.Errorf("asked %s %s over %s", r.Method, r.URL, r.Proto)
		}
		if _, err := key.Verify(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")); err != nil {
			t.Errorf("token: %v", err)
		}
		got, err := DecodeRegistration(r.Body)
		if err != nil {
			t.Error(err)
		}
		want := soundRegistration()
		want.Services[0].Reason = "a  b"
		if diff := cmp.Diff(want, got, cmpAddr); diff != "" {
			t.Errorf("registration (-want +got):\n%s", diff)
		}
		answer(t, w, soundAnswer())
	})
	r := soundRegistration()
	r.Services[0].Reason = "a\r\nb" // as a service may have answered
	got, err := c.Register(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(soundAnswer(), got, cmpAddr); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

func TestRegisterRefusesWhatIsUnsoundUnsent(t *testing.T) {
	c := director(t, Options{}, func(http.ResponseWriter, *http.Request) { t.Error("it was sent") })
	r := soundRegistration()
	r.Services[0].Weight = -1
	if _, err := c.Register(t.Context(), r); err == nil || !strings.Contains(err.Error(), "weight: -1") {
		t.Errorf("error %v, want one about the weight", err)
	}
}

func TestLeave(t *testing.T) {
	c := director(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "DELETE" || r.URL.String() != "/v1/realservers/rs1?session=18446744073709551615" {
			t.Errorf("asked %s %s", r.Method, r.URL)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	if err := c.Leave(t.Context(), 1<<64-1); err != nil {
		t.Error(err)
	}
}

func TestOneConnectionForAll(t *testing.T) {
	var mu sync.Mutex
	from := map[string]bool{}
	c := director(t, Options{LocalAddr: netip.MustParseAddr("127.0.0.9")}, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		from[r.RemoteAddr] = true
		mu.Unlock()
		answer(t, w, soundAnswer())
	})
	for range 5 {
		if _, err := c.Register(t.Context(), soundRegistration()); err != nil {
			t.Fatal(err)
		}
	}
	if len(from) != 1 {
		t.Errorf("came from %v, want one connection", from)
	}
	for addr := range from {
		if !strings.HasPrefix(addr, "127.0.0.9:") {
			t.Errorf("came from %s, want 127.0.0.9", addr)
		}
	}
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name   string
		status int
		header string
		body   string
		want   Error
	}{
		{"a sentence", 403, "", `{"error":"the token is of rs2"}`, Error{Status: 403, Sentence: "the token is of rs2"}},
		{"retry after", 429, "60", `{"error":"too many"}`, Error{Status: 429, Sentence: "too many", RetryAfter: time.Minute}},
		{"retry after ages", 503, "4294967295", `{"error":"full"}`, Error{Status: 503, Sentence: "full", RetryAfter: time.Hour}},
		{"retry after nonsense", 503, "-5", `{"error":"full"}`, Error{Status: 503, Sentence: "full"}},
		{"no sentence", 502, "", "<html>", Error{Status: 502, Sentence: "Bad Gateway"}},
		{"an escape sequence", 400, "", `{"error":"a\u001b[2Jb"}`, Error{Status: 400, Sentence: "a [2Jb"}},
		{"a long sentence", 400, "", `{"error":"` + strings.Repeat("x", 5000) + `"}`, Error{Status: 400, Sentence: strings.Repeat("x", 1024)}},
		{"a redirection", 307, "", "", Error{Status: 307, Sentence: "Temporary Redirect"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			asked := 0
			c := director(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
				asked++
				if tt.header != "" {
					w.Header().Set("Retry-After", tt.header)
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.body)
			})
			_, err := c.Register(t.Context(), soundRegistration())
			var got *Error
			if !errors.As(err, &got) {
				t.Fatalf("error %v, want an *Error", err)
			}
			if diff := cmp.Diff(tt.want, *got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if asked != 1 {
				t.Errorf("asked %d times, want once", asked)
			}
		})
	}
}

func TestNonsenseFromADirector(t *testing.T) {
	endless := soundAnswer()
	endless.Lease = Duration(time.Nanosecond)
	tests := []struct {
		name  string
		serve http.HandlerFunc
		want  string
	}{
		{"not JSON", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }, "cannot be read"},
		{"an answer that is unsound", func(w http.ResponseWriter, _ *http.Request) { answer(t, w, endless) }, "lease: 1ns"},
		{"an endless answer", func(w http.ResponseWriter, _ *http.Request) {
			chunk := make([]byte, 64<<10)
			for range 100 {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, "longer than 1048576 bytes"},
		{"a header without end", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 64<<10))
		}, "header"},
		{"silence", func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			panic(http.ErrAbortHandler) // to return would be to answer, and the client may not be gone yet
		}, "deadline exceeded"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := director(t, Options{Timeout: time.Second}, tt.serve)
			if _, err := c.Register(t.Context(), soundRegistration()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// An answer with fields of a later version is read for what is known.
func TestAnswerOfALaterVersion(t *testing.T) {
	c := director(t, Options{}, func(w http.ResponseWriter, _ *http.Request) {
		b, err := json.Marshal(soundAnswer())
		if err != nil {
			t.Error(err)
		}
		io.WriteString(w, strings.Replace(string(b), "{", `{"from_the_future":1,`, 1))
	})
	if _, err := c.Register(t.Context(), soundRegistration()); err != nil {
		t.Error(err)
	}
}

func TestWrongPin(t *testing.T) {
	c := director(t, Options{}, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent to a stranger") })
	c.transport.TLSClientConfig = trust.PinnedClient(mint(t, trust.GenerateKey()).Pin)
	if _, err := c.Register(t.Context(), soundRegistration()); !errors.Is(err, trust.ErrWrongPin) {
		t.Errorf("error %v, want %v", err, trust.ErrWrongPin)
	}
}

func TestNothingSecretInErrors(t *testing.T) {
	token := mint(t, key)
	c, err := New("127.0.0.1:1", token, Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Register(t.Context(), soundRegistration())
	if err == nil || strings.Contains(err.Error(), token.Bearer()) {
		t.Errorf("error %v", err)
	}
	if !strings.HasPrefix(err.Error(), "register rs1: dial tcp 127.0.0.1:1: ") {
		t.Errorf("error %v does not say what failed where, once", err)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New("10.0.0.1", mint(t, key), Options{}); err == nil || !strings.Contains(err.Error(), "want host:port") {
		t.Errorf("no port: error %v", err)
	}
	if _, err := New("10.0.0.1:3637", trust.Token{}, Options{}); err == nil || !strings.Contains(err.Error(), "no token") {
		t.Errorf("no token: error %v", err)
	}
}

func TestLocalStatus(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	c := Local(path)
	defer c.Close()
	if _, err := c.Status(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "ask the director at "+path) {
		t.Errorf("nobody there: error %v", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	want := Status{Name: "vs", Role: "active", Term: 7, Problems: []string{"one"}}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/status" || r.Header.Get("Authorization") != "" {
			t.Errorf("asked %s with %q", r.URL, r.Header.Get("Authorization"))
		}
		answer(t, w, want)
	})}
	done := make(chan error)
	go func() { done <- server.Serve(l) }()
	got, err := c.Status(t.Context())
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if err := server.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	<-done
}
