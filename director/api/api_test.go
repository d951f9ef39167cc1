package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"lvstun/director/client"
	"lvstun/director/trust"
	"lvstun/httpcheck"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	key     = trust.GenerateKey()
	home    = netip.MustParseAddr("127.0.0.1")
	away    = netip.MustParseAddr("127.0.0.2")
	cmpAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
)

func claims() trust.Claims {
	return trust.Claims{Name: "rs1", Addresses: []netip.Addr{home}, Services: []string{"HTTP", "DNS"}}
}

func mint(t testing.TB, k trust.ClusterKey, c trust.Claims) trust.Token {
	t.Helper()
	token, err := k.Mint(c)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func registration() client.Registration {
	return client.Registration{
		Address: home, Session: 7,
		Services: []client.ServiceReport{{Name: "HTTP", Weight: 10, State: client.Ready}},
		Tunnel:   client.TunnelReport{OK: true},
	}
}

func answer() client.Answer {
	return client.Answer{
		Director: "vs", Role: "active", Term: 3, Lease: client.Duration(3 * time.Second), Directors: []netip.Addr{home},
		Services: []client.ServiceDefinition{{
			Name: "HTTP", VIP: netip.MustParseAddr("10.0.0.50"), Port: 80, Protocol: "tcp", Weight: 1,
			Encapsulation: client.Encapsulation{Type: "ipip"}, Check: httpcheck.Spec{Kind: httpcheck.TCP}.WithDefaults(),
		}},
	}
}

// backend records what it is asked.
type backend struct {
	mu    sync.Mutex // guards what follows
	calls []any
	err   error
	block chan struct{}

	handover error
}

type (
	registered struct {
		Claims trust.Claims
		R      client.Registration
	}
	left struct {
		Claims  trust.Claims
		Session uint64
	}
)

func (b *backend) call(c any) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, c)
	return b.err
}

func (b *backend) Register(_ context.Context, c trust.Claims, r client.Registration) (client.Answer, error) {
	if b.block != nil {
		<-b.block
	}
	return answer(), b.call(registered{c, r})
}

func (b *backend) Leave(_ context.Context, c trust.Claims, session uint64) error {
	return b.call(left{c, session})
}

func (b *backend) Handover(context.Context) error { return b.handover }

func (b *backend) Status() client.Status {
	return client.Status{Name: "vs", Role: "active", Term: 3, Version: "1"}
}

func (b *backend) recorded() []any {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls
}

// lines is a log that is read while it is written.
type lines struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// served is a server that runs for the length of a test.
type served struct {
	*Server
	backend *backend
	log     *lines
	tls     string // host:port
	web     string
	socket  string
	stop    func() error // waits for Run to return
}

func serve(t *testing.T, change func(*Server)) *served {
	t.Helper()
	identity, err := key.ServerTLS()
	if err != nil {
		t.Fatal(err)
	}
	out := &served{backend: &backend{}, log: &lines{}, socket: filepath.Join(t.TempDir(), "s")}
	cfg := Config{TLS: identity, Tokens: key, Backend: out.backend, Socket: out.socket}
	listen := func(addr *string) net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*addr = l.Addr().String()
		return l
	}
	cfg.Listeners.TLS, cfg.Listeners.Web = listen(&out.tls), listen(&out.web)
	out.Server = New(cfg, slog.New(slog.NewTextHandler(out.log, nil)))
	if change != nil {
		change(out.Server)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- out.Run(ctx) }()
	out.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := out.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-out.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("not ready after 10 s")
	}
	return out
}

// call sends one request over a connection of its own, from the given address.
func (s *served) call(t *testing.T, from netip.Addr, req *http.Request) (status int, header http.Header, body string) {
	t.Helper()
	pin, err := key.Pin()
	if err != nil {
		t.Fatal(err)
	}
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	transport := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: trust.PinnedClient(pin), DisableKeepAlives: true,
		ExpectContinueTimeout: 10 * time.Second}
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
	return resp.StatusCode, resp.Header, string(b)
}

// refusedAlone checks that the named reason, and no other, was counted n times.
func (s *served) refusedAlone(t *testing.T, reason reason, n uint64) {
	t.Helper()
	got := s.Refusals()
	maps.DeleteFunc(got, func(_ string, n uint64) bool { return n == 0 })
	want := map[string]uint64{string(reason): n}
	if n == 0 {
		want = map[string]uint64{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("refusals (-want +got):\n%s", diff)
	}
}

// put is a sound registration's request, to be spoilt.
func (s *served) put(t *testing.T) *http.Request {
	t.Helper()
	b, err := json.Marshal(registration())
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPut, "https://"+s.tls+"/v1/realservers/rs1", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+mint(t, key, claims()).Bearer())
	req.Header.Set("Content-Type", "application/json")
	return req
}

// The agent's client and the server meet over real TLS.
func TestAnAgentsLife(t *testing.T) {
	s := serve(t, nil)
	c, err := client.New(s.tls, mint(t, key, claims()), client.Options{LocalAddr: home})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		got, err := c.Register(t.Context(), registration())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(answer(), got, cmpAddr); diff != "" {
			t.Errorf("answer (-want +got):\n%s", diff)
		}
	}
	if err := c.Leave(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	want := []any{registered{claims(), registration()}, registered{claims(), registration()}, left{claims(), 7}}
	if diff := cmp.Diff(want, s.backend.recorded(), cmpAddr); diff != "" {
		t.Errorf("the director heard (-want +got):\n%s", diff)
	}
	s.refusedAlone(t, "", 0)
}

func TestRefusals(t *testing.T) {
	body := func(text string) func(*testing.T, *http.Request) {
		return func(_ *testing.T, r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		}
	}
	token := func(text string) func(*testing.T, *http.Request) {
		return func(_ *testing.T, r *http.Request) { r.Header.Set("Authorization", text) }
	}
	claiming := func(change func(*trust.Claims)) func(*testing.T, *http.Request) {
		return func(t *testing.T, r *http.Request) {
			c := claims()
			change(&c)
			r.Header.Set("Authorization", "Bearer "+mint(t, key, c).Bearer())
		}
	}
	reporting := func(change func(*client.Registration)) func(*testing.T, *http.Request) {
		return func(t *testing.T, r *http.Request) {
			reg := registration()
			change(&reg)
			b, err := json.Marshal(reg)
			if err != nil {
				t.Fatal(err)
			}
			body(string(b))(t, r)
		}
	}
	tests := []struct {
		name   string
		spoil  func(*testing.T, *http.Request)
		from   netip.Addr
		status int
		reason reason
		want   string // of the sentence
	}{
		{"path", func(_ *testing.T, r *http.Request) { r.URL.Path = "/v2/realservers/rs1" }, home, 404, notFound, "nothing at this path"},
		{"path of all", func(_ *testing.T, r *http.Request) { r.URL.Path = "/v1/realservers/" }, home, 404, notFound, "nothing at this path"},
		{"method", func(_ *testing.T, r *http.Request) { r.Method = http.MethodPost }, home, 405, wrongMethod, "takes PUT and DELETE"},
		{"method of the status", func(_ *testing.T, r *http.Request) { r.URL.Path = "/v1/status" }, home, 405, wrongMethod, "takes GET"},
		{"huge body that says so", func(t *testing.T, r *http.Request) {
			body(strings.Repeat(" ", maxBody+1))(t, r)
			r.Header.Set("Expect", "100-continue")
		}, home, 413, bodyTooLarge, "larger than 65536 bytes"},
		{"huge body that does not", func(_ *testing.T, r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(strings.Repeat(" ", maxBody+1))), -1
		}, home, 413, bodyTooLarge, "larger than 65536 bytes"},
		{"huge body without token", func(_ *testing.T, r *http.Request) {
			r.Header.Del("Authorization")
			r.Header.Set("Expect", "100-continue") // or the refusal meets a body under way, and the answer may be lost
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(strings.Repeat(" ", maxBody+1))), maxBody+1
		}, home, 413, bodyTooLarge, "larger than 65536 bytes"},
		{"no token", func(_ *testing.T, r *http.Request) { r.Header.Del("Authorization") }, home, 401, noToken, "has no token"},
		{"another scheme", token("Basic cnMxOnJzMQ=="), home, 401, noToken, "has no token"},
		{"empty token", token("Bearer "), home, 401, noToken, "has no token"}, // net/http trims the header
		{"nonsense for a token", token("Bearer x"), home, 401, badToken, "must begin with lvstun1."},
		{"another cluster's token", func(t *testing.T, r *http.Request) {
			r.Header.Set("Authorization", "Bearer "+mint(t, trust.GenerateKey(), claims()).Bearer())
		}, home, 401, badToken, "not made with this cluster's key"},
		{"another's token", claiming(func(c *trust.Claims) { c.Name = "rs2" }), home, 403, wrongName, `the token is of rs2, not of "rs1"`},
		{"a stolen token", func(*testing.T, *http.Request) {}, away, 403, wrongSource, "the token of rs1 is worth nothing from 127.0.0.2: it is for 127.0.0.1"},
		{"content type", func(_ *testing.T, r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, home, 415, wrongType, `not "text/plain"`},
		{"no content type", func(_ *testing.T, r *http.Request) { r.Header.Del("Content-Type") }, home, 415, wrongType, "is application/json"},
		{"no body", body(""), home, 400, malformed, "it is empty"},
		{"not JSON", body("hello"), home, 400, malformed, "invalid character"},
		{"unknown field", body(`{"admin":true}`), home, 400, malformed, `unknown field "admin"`},
		{"two bodies", body(`{} {}`), home, 400, malformed, "more follows after its end"},
		{"two faults", reporting(func(r *client.Registration) { r.Session, r.Services[0].Weight = 0, 70000 }), home, 400, invalid, "session: 0, want the nanoseconds since 1970 at the agent's start; service HTTP: weight: 70000, want 0 to 65535"},
		{"another's address", reporting(func(r *client.Registration) { r.Address = away }), home, 403, wrongAddress, "is for 127.0.0.2 but came from 127.0.0.1"},
		{"a service that is not claimed", reporting(func(r *client.Registration) { r.Services[0].Name = "SSH" }), home, 403, wrongService, "does not name service SSH"},
		{"leave without session", func(_ *testing.T, r *http.Request) { r.Method = http.MethodDelete }, home, 400, invalid, `session: ""`},
		{"leave with nonsense", func(_ *testing.T, r *http.Request) {
			r.Method, r.URL.RawQuery = http.MethodDelete, "session=-1"
		}, home, 400, invalid, `session: "-1"`},
		{"leave with a stolen token", func(_ *testing.T, r *http.Request) {
			r.Method, r.URL.RawQuery = http.MethodDelete, "session=7"
		}, away, 403, wrongSource, "is worth nothing from 127.0.0.2"},
		{"status without token", func(_ *testing.T, r *http.Request) {
			r.Method, r.URL.Path = http.MethodGet, "/v1/status"
			r.Header.Del("Authorization")
		}, home, 401, noToken, "has no token"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, nil)
			req := s.put(t)
			tt.spoil(t, req)
			status, header, body := s.call(t, tt.from, req)
			var said struct{ Error string }
			if err := json.Unmarshal([]byte(body), &said); err != nil {
				t.Errorf("the answer %q is not JSON: %v", body, err)
			}
			if status != tt.status || !strings.Contains(said.Error, tt.want) {
				t.Errorf("%d %q, want %d and %q", status, said.Error, tt.status, tt.want)
			}
			if got := header.Get("WWW-Authenticate"); (got != "") != (status == 401) {
				t.Errorf("WWW-Authenticate: %q with %d", got, status)
			}
			if calls := s.backend.recorded(); calls != nil {
				t.Errorf("the director heard of it: %v", calls)
			}
			s.refusedAlone(t, tt.reason, 1)
			if token := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer "); len(token) > 20 && strings.Contains(s.log.String()+body, token) {
				t.Error("the token is in the log or the answer")
			}
			if n := strings.Count(s.log.String(), "msg=refused reason="+string(tt.reason)+" source="+tt.from.String()); n != 1 {
				t.Errorf("logged %d times, want once:\n%s", n, s.log)
			}
		})
	}
}

func TestBackendErrors(t *testing.T) {
	tests := []struct {
		err      error
		status   int
		reason   reason
		sentence string
		retry    string
	}{
		{wrap(ErrUnknownService, "vs has no service HTTP"), 404, unknownService, "unknown service: vs has no service HTTP", ""},
		{wrap(ErrForbidden, "not from there"), 403, forbidden, "not allowed: not from there", ""},
		{wrap(ErrConflict, "session 8"), 409, conflict, "held by another: session 8", ""},
		{wrap(ErrFull, "65536 leases"), 503, full, "no room for more: 65536 leases", "5"},
		{io.ErrUnexpectedEOF, 500, failed, "the director could not do it; its log says why", ""},
	}
	for _, tt := range tests {
		t.Run(string(tt.reason), func(t *testing.T) {
			s := serve(t, nil)
			s.backend.err = tt.err
			leave := s.put(t)
			leave.Method, leave.URL.RawQuery, leave.Body, leave.ContentLength = http.MethodDelete, "session=7", nil, 0
			for _, req := range []*http.Request{s.put(t), leave} {
				status, header, body := s.call(t, home, req)
				if want := `{"error":"` + tt.sentence + `"}` + "\n"; status != tt.status || body != want {
					t.Errorf("%s: %d %s, want %d %s", req.Method, status, body, tt.status, want)
				}
				if got := header.Get("Retry-After"); got != tt.retry {
					t.Errorf("Retry-After %q, want %q", got, tt.retry)
				}
			}
			s.refusedAlone(t, tt.reason, 2)
			if !strings.Contains(s.log.String(), tt.err.Error()) {
				t.Errorf("the log does not say %q:\n%s", tt.err, s.log)
			}
		})
	}
}

type wrapped struct {
	error
	text string
}

func (w wrapped) Error() string { return w.error.Error() + ": " + w.text }
func (w wrapped) Unwrap() error { return w.error }

func wrap(err error, text string) error { return wrapped{err, text} }

func TestManyFaultsAreCutShort(t *testing.T) {
	s := serve(t, nil)
	req := s.put(t)
	reg := registration()
	reg.Services = nil
	for range client.MaxServices {
		reg.Services = append(reg.Services, client.ServiceReport{})
	}
	b, _ := json.Marshal(reg)
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	if _, _, body := s.call(t, home, req); !strings.HasSuffix(body, `; and 44 more"}`+"\n") {
		t.Errorf("answer %s", body)
	}
}
