package httpcheck

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// serve accepts on a loopback port and hands every connection to handle, which need not close it.
func serve(t *testing.T, handle func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); handle(conn.(*net.TCPConn)) }()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// hang keeps the connection open and says nothing until the other side leaves.
func hang(c *net.TCPConn) { io.Copy(io.Discard, c) }

// say answers with text as soon as anything was asked, then closes.
func say(text string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		c.Read(make([]byte, 8192))
		io.WriteString(c, text)
	}
}

// drip sends text one byte every gap.
func drip(text string, gap time.Duration) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		for i := range len(text) {
			if _, err := c.Write([]byte{text[i]}); err != nil {
				return
			}
			time.Sleep(gap)
		}
		hang(c)
	}
}

func reset(c *net.TCPConn) {
	c.Read(make([]byte, 1))
	c.SetLinger(0)
}

// closed returns a loopback port that nobody listens on.
func closed(t *testing.T) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// quick is spec with defaults and a timeout that suits a test.
func quick(spec Spec) Spec {
	if spec.Timeout == 0 {
		spec.Timeout = Duration(time.Second)
	}
	return spec.WithDefaults()
}

const short = Duration(60 * time.Millisecond)

func TestProbeTCP(t *testing.T) {
	t.Parallel()
	get := "GET / HTTP/1.0\r\n\r\n"
	tests := []struct {
		name   string
		spec   Spec
		handle func(*net.TCPConn) // nil: nobody listens
		want   string             // the reason without the address; "" is up
	}{
		{name: "tcp", spec: Spec{Kind: TCP}, handle: hang},
		{name: "tcp refused", spec: Spec{Kind: TCP}, want: "connection refused"},

		{name: "http", spec: Spec{Kind: HTTP}, handle: say("HTTP/1.1 200 OK\r\n\r\nhello")},
		{name: "http refused", spec: Spec{Kind: HTTP}, want: "connection refused"},
		{name: "http status", spec: Spec{Kind: HTTP}, handle: say("HTTP/1.1 503 Busy\r\n\r\n"), want: "status 503, wanted 200"},
		{name: "http wants another status", spec: Spec{Kind: HTTP, ExpectStatus: 204}, handle: say("HTTP/1.1 204 No Content\r\n\r\n")},
		{name: "http follows no redirect", spec: Spec{Kind: HTTP}, handle: say("HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n"), want: "status 302, wanted 200"},
		{name: "http passes over early hints", spec: Spec{Kind: HTTP}, handle: say("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")},
		{name: "http early hints without end", spec: Spec{Kind: HTTP}, handle: say(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 9)), want: "no final status after five 1xx answers"},
		{name: "http body", spec: Spec{Kind: HTTP, ExpectBody: "lo w"}, handle: say("HTTP/1.0 200 OK\r\n\r\nhello world")},
		{name: "http body in chunks", spec: Spec{Kind: HTTP, ExpectBody: "hello"}, handle: say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")},
		{name: "http body missing", spec: Spec{Kind: HTTP, ExpectBody: "world"}, handle: say("HTTP/1.0 200 OK\r\n\r\nhello"), want: `status 200, but "world" is not in the body's first 5 bytes`},
		{name: "http huge body is cut", spec: Spec{Kind: HTTP, ExpectBody: "end"}, handle: say("HTTP/1.0 200 OK\r\n\r\n" + strings.Repeat("x", 1<<20) + "end"), want: `status 200, but "end" is not in the body's first 65536 bytes`},
		{name: "http body cut short", spec: Spec{Kind: HTTP, ExpectBody: "end"}, handle: say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"), want: "connection closed before the answer was complete"},
		{name: "http headers without end", spec: Spec{Kind: HTTP}, handle: say("HTTP/1.0 200 OK\r\nX: " + strings.Repeat("x", 1<<20)), want: "connection closed before the answer was complete"},
		{name: "http hang", spec: Spec{Kind: HTTP, Timeout: short}, handle: hang, want: "no answer within 60ms"},
		{name: "http slow drip", spec: Spec{Kind: HTTP, Timeout: short}, handle: drip("HTTP/1.0 200 OK\r\n\r\n", 20*time.Millisecond), want: "no answer within 60ms"},
		{name: "http early close", spec: Spec{Kind: HTTP}, handle: say(""), want: "connection closed before the answer was complete"},
		{name: "http reset", spec: Spec{Kind: HTTP}, handle: reset, want: "connection reset by peer"},
		{name: "http to something else", spec: Spec{Kind: HTTP}, handle: say("SSH-2.0-OpenSSH_9.2\r\n"), want: `not an HTTP answer: malformed HTTP response "SSH-2.0-OpenSSH_9.2"`},
		{name: "https to http", spec: Spec{Kind: HTTPS}, handle: say("HTTP/1.0 400 Bad\r\n\r\n"), want: "TLS: tls: first record does not look like a TLS handshake"},
		{name: "https hang", spec: Spec{Kind: HTTPS, Timeout: short}, handle: hang, want: "TLS: no handshake within 60ms"},
		{name: "https early close", spec: Spec{Kind: HTTPS}, handle: say(""), want: "TLS: connection closed before the answer was complete"},

		{name: "send/expect", spec: Spec{Kind: SendExpect, Send: get, Expect: "HTTP"}, handle: say("HTTP/1.0 200 OK\r\n\r\n")},
		{name: "send/expect looks at the beginning only", spec: Spec{Kind: SendExpect, Send: get, Expect: "HTTP"}, handle: say(" HTTP/1.0 200 OK\r\n\r\n"), want: `answer began " HTTP/1.0 200 OK\r\n\r\n", wanted "HTTP"`},
		{name: "send/expect in pieces", spec: Spec{Kind: SendExpect, Expect: "HTTP"}, handle: drip("HTTP", time.Millisecond)},
		{name: "send/expect fails at the first wrong byte", spec: Spec{Kind: SendExpect, Expect: "HTTP", Timeout: Duration(time.Minute)}, handle: drip("HX", time.Millisecond), want: `answer began "HX", wanted "HTTP"`},
		{name: "send/expect short", spec: Spec{Kind: SendExpect, Send: get, Expect: "HTTP"}, handle: say("HT"), want: `answer began "HT", wanted "HTTP"`},
		{name: "send/expect hang", spec: Spec{Kind: SendExpect, Send: get, Expect: "HTTP", Timeout: short}, handle: hang, want: "no answer within 60ms"},
		{name: "send/expect short and hang", spec: Spec{Kind: SendExpect, Expect: "HTTP", Timeout: short}, handle: drip("HT", 0), want: `answer began "HT", wanted "HTTP"`},
		{name: "send/expect early close", spec: Spec{Kind: SendExpect, Send: get, Expect: "HTTP"}, handle: say(""), want: "connection closed before the answer was complete"},
		{name: "send/expect reset", spec: Spec{Kind: SendExpect, Send: get, Expect: "HTTP"}, handle: reset, want: "connection reset by peer"},
		{name: "send without expect", spec: Spec{Kind: SendExpect, Send: get}, handle: hang},
		{name: "neither send nor expect", spec: Spec{Kind: SendExpect}, handle: hang},
		{name: "regex anywhere", spec: Spec{Kind: SendExpect, Send: get, Expect: "20[0-9] +(OK|ok)", Regex: true}, handle: say("HTTP/1.0 200 OK\r\n\r\n")},
		{name: "regex in pieces", spec: Spec{Kind: SendExpect, Expect: "b+c", Regex: true}, handle: drip("abbbc", time.Millisecond)},
		{name: "regex over a line end", spec: Spec{Kind: SendExpect, Send: get, Expect: "one.two", Regex: true}, handle: say("one\ntwo")},
		{name: "regex ends are the answer's", spec: Spec{Kind: SendExpect, Send: get, Expect: "^two", Regex: true}, handle: say("one\ntwo"), want: `answer began "one\ntwo", wanted "^two"`},
		{name: "regex sees 4 KiB", spec: Spec{Kind: SendExpect, Send: get, Expect: "end", Regex: true}, handle: say(strings.Repeat("x", 5000) + "end"), want: `answer began "` + strings.Repeat("x", 60) + `…", wanted "end"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var addr netip.AddrPort
			if tt.handle == nil {
				addr = closed(t)
			} else {
				addr = serve(t, tt.handle)
			}
			r := Probe(t.Context(), quick(tt.spec), addr)
			checkResult(t, r, addr, tt.want)
		})
	}
}

func checkResult(t *testing.T, r Result, addr netip.AddrPort, want string) {
	t.Helper()
	if want != "" {
		want = fmt.Sprintf("%s: %s", addr, want)
	}
	if r.Reason != want || r.OK != (want == "") {
		t.Errorf("result %v %q, want %q", r.OK, r.Reason, want)
	}
	if r.Elapsed <= 0 || r.Elapsed > 5*time.Second {
		t.Errorf("took %v", r.Elapsed)
	}
}

func TestProbeHTTPRequest(t *testing.T) {
	t.Parallel()
	var seen string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = fmt.Sprintf("%s %s host=%s tls=%s close=%v", r.Method, r.URL, r.Host, r.TLS.ServerName, r.Close)
		fmt.Fprint(w, "fine")
	}))
	defer server.Close()
	addr := netip.MustParseAddrPort(server.Listener.Addr().String())
	spec := quick(Spec{Kind: HTTPS, Path: "/health?full=1", Host: "www.example.org:8443", ExpectBody: "fine", Port: addr.Port()})
	r := Probe(t.Context(), spec, netip.AddrPortFrom(addr.Addr(), 1)) // the spec's port wins
	if !r.OK {
		t.Fatalf("down: %s", r.Reason)
	}
	if want := "GET /health?full=1 host=www.example.org:8443 tls=www.example.org close=true"; seen != want {
		t.Errorf("the server saw %q, want %q", seen, want)
	}
}

// answerUDP answers every datagram with text; empty: stays silent.
func answerUDP(t *testing.T, text string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			_, from, err := c.ReadFromUDPAddrPort(make([]byte, 100))
			if err != nil {
				return
			}
			if text != "" {
				c.WriteToUDPAddrPort([]byte(text), from)
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestProbeUDP(t *testing.T) {
	t.Parallel()
	open, silent := answerUDP(t, "PONG 1"), answerUDP(t, "")
	tests := []struct {
		name string
		spec Spec
		addr netip.AddrPort
		want string
	}{
		{name: "answered", spec: Spec{Kind: UDP, Send: "PING"}, addr: open},
		{name: "silence is up", spec: Spec{Kind: UDP, Timeout: short}, addr: silent},
		{name: "refused", spec: Spec{Kind: UDP}, addr: closed(t), want: "connection refused"},
		{name: "expect", spec: Spec{Kind: SendExpect, Network: "udp", Send: "PING", Expect: "PONG"}, addr: open},
		{name: "expect more than the datagram", spec: Spec{Kind: SendExpect, Network: "udp", Send: "PING", Expect: "PONG 1234"}, addr: open, want: `answer began "PONG 1", wanted "PONG 1234"`},
		{name: "expect regex", spec: Spec{Kind: SendExpect, Network: "udp", Send: "PING", Expect: "[0-9]$", Regex: true}, addr: open},
		{name: "expect silence", spec: Spec{Kind: SendExpect, Network: "udp", Send: "PING", Expect: "PONG", Timeout: short}, addr: silent, want: "no answer within 60ms"},
		{name: "expect refused", spec: Spec{Kind: SendExpect, Network: "udp", Send: "PING", Expect: "PONG"}, addr: closed(t), want: "connection refused"},
		{name: "no expect, refused", spec: Spec{Kind: SendExpect, Network: "udp", Send: "PING"}, addr: closed(t), want: "connection refused"},
		{name: "no expect, silence", spec: Spec{Kind: SendExpect, Network: "udp", Send: "PING", Timeout: short}, addr: silent},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			checkResult(t, Probe(t.Context(), quick(tt.spec), tt.addr), tt.addr, tt.want)
		})
	}
}

func TestProbeBindsItsSource(t *testing.T) {
	t.Parallel()
	source := netip.MustParseAddr("127.0.0.9")
	from := make(chan string, 2)
	tcp := serve(t, func(c *net.TCPConn) { from <- c.RemoteAddr().(*net.TCPAddr).IP.String() })
	if r := Probe(t.Context(), quick(Spec{Kind: TCP}), tcp, WithDial(DialFrom(source))); !r.OK {
		t.Fatalf("tcp: %s", r.Reason)
	}
	if got := <-from; got != source.String() {
		t.Errorf("the server saw %s, want %s", got, source)
	}
	udp := answerUDP(t, "x")
	if r := Probe(t.Context(), quick(Spec{Kind: UDP}), udp, WithDial(DialFrom(source))); !r.OK {
		t.Fatalf("udp: %s", r.Reason)
	}
}

func TestProbeConnectTimeout(t *testing.T) {
	t.Parallel()
	never := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	r := Probe(t.Context(), quick(Spec{Kind: TCP, Timeout: short}), target, WithDial(never))
	checkResult(t, r, target, "no connection within 60ms")
}

func TestProbeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	addr := serve(t, func(c *net.TCPConn) { cancel(); hang(c) })
	r := Probe(ctx, quick(Spec{Kind: HTTP, Timeout: Duration(time.Minute)}), addr)
	if r.OK || r.Elapsed > 10*time.Second {
		t.Errorf("after its context ended: %+v", r)
	}
}

func TestProbeRefusesABadSpec(t *testing.T) {
	t.Parallel()
	r := Probe(t.Context(), Spec{Kind: "ftp"}, target)
	if r.OK || !strings.Contains(r.Reason, `kind, "ftp", must be one of`) {
		t.Errorf("result %+v", r)
	}
}
