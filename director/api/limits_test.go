package api

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"lvstun/director/client"
	"lvstun/director/trust"
)

// connect opens a TLS connection from an address, without a request.
func (s *served) connect(t *testing.T, from netip.Addr) (net.Conn, error) {
	t.Helper()
	pin, err := key.Pin()
	if err != nil {
		t.Fatal(err)
	}
	d := tls.Dialer{
		NetDialer: &net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: 5 * time.Second},
		Config:    trust.PinnedClient(pin),
	}
	conn, err := d.DialContext(t.Context(), "tcp", s.tls)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	return conn, nil
}

func TestOldTLSIsRefused(t *testing.T) {
	s := serve(t, nil)
	conn, err := tls.Dial("tcp", s.tls, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12})
	if err == nil {
		conn.Close()
		t.Error("TLS 1.2 was accepted")
	}
}

func TestConnectionsPerSource(t *testing.T) {
	s := serve(t, nil)
	var open []net.Conn
	for i := range connsPerSource {
		conn, err := s.connect(t, away)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		open = append(open, conn)
	}
	if _, err := s.connect(t, away); err == nil {
		t.Errorf("connection %d from one source was taken", connsPerSource+1)
	}
	s.refusedAlone(t, tooManyConns, 1)
	if status, _, body := s.call(t, home, s.put(t)); status != http.StatusOK {
		t.Errorf("another source suffers from it: %d %s", status, body)
	}
	open[0].Close()
	deadline := time.Now().Add(5 * time.Second)
	for { // the server sees the close a moment later
		if _, err := s.connect(t, away); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a closed connection's place is not given back")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestBoundedInAll(t *testing.T) {
	b := &bounded{perSource: 2, total: 3, open: make(map[netip.Addr]int)}
	for i, step := range []struct {
		source netip.Addr
		want   bool
	}{{home, true}, {home, true}, {home, false}, {away, true}, {away, false}} {
		if got := b.take(step.source); got != step.want {
			t.Errorf("step %d: %t, want %t", i, got, step.want)
		}
	}
	b.release(home)
	b.release(home)
	b.release(away)
	if b.count != 0 || len(b.open) != 0 {
		t.Errorf("after all are closed: %d, %v", b.count, b.open)
	}
}

// Who sends a request drop by drop is cut off.
func TestSlowRequests(t *testing.T) {
	head := "PUT /v1/realservers/rs1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer " +
		mint(t, key, claims()).Bearer() + "\r\nContent-Length: 1000\r\n"
	const short, long = time.Second, time.Minute // a busy machine must get through the handshake within short
	tests := []struct {
		name, first, drop string
		timeouts          timeouts
		plain             bool // no TLS: the handshake is never begun
	}{
		{"header", head, "X: y\r\n", timeouts{short, long, long, long}, false},
		{"body", head + "\r\n{", " ", timeouts{long, short, long, long}, false},
		{"nothing", "", "", timeouts{short, long, long, long}, false},
		{"handshake", "", "", timeouts{short, long, long, long}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := serve(t, func(s *Server) { s.timeouts = tt.timeouts })
			conn, err := net.Dial("tcp", s.tls)
			if !tt.plain {
				conn, err = s.connect(t, home)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			gone := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, conn)
				gone <- err
			}()
			io.WriteString(conn, tt.first)
			drops := time.NewTicker(20 * time.Millisecond)
			defer drops.Stop()
			timeout := time.After(10 * time.Second)
			for open := true; open; {
				select {
				case <-gone:
					open = false
				case <-drops.C:
					io.WriteString(conn, tt.drop) // fails once the server is gone
				case <-timeout:
					t.Fatal("still connected after 10 s")
				}
			}
			if calls := s.backend.recorded(); calls != nil {
				t.Errorf("the director heard of it: %v", calls)
			}
		})
	}
}

// A connection whose agent has gone silent is given up.
func TestIdleConnections(t *testing.T) {
	s := serve(t, func(s *Server) {
		s.timeouts = timeouts{header: time.Minute, read: time.Minute, write: time.Minute, idle: 200 * time.Millisecond}
	})
	conn, err := s.connect(t, home)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.put(t).Write(conn); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK") {
		t.Errorf("answer %.40q, error %v; want 200 and then the end", answer, err)
	}
}

func TestHeaderTooLong(t *testing.T) {
	s := serve(t, nil)
	conn, err := s.connect(t, home)
	if err != nil {
		t.Fatal(err)
	}
	go fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", strings.Repeat("x", 64<<10))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d, want 431", resp.StatusCode)
	}
}

// Guessing tokens is slowed down; who has the right one is served all the same.
func TestWrongTokensAreLimited(t *testing.T) {
	s := serve(t, nil)
	for i := range maxFailures + 2 {
		req := s.put(t)
		req.Header.Set("Authorization", "Bearer lvstun1.x.y")
		status, header, _ := s.call(t, home, req)
		want := http.StatusUnauthorized
		if i >= maxFailures {
			want = http.StatusTooManyRequests
		}
		if status != want {
			t.Errorf("try %d: %d, want %d", i, status, want)
		}
		if retry := header.Get("Retry-After"); (retry == "60") != (status == http.StatusTooManyRequests) {
			t.Errorf("try %d: %d with Retry-After %q", i, status, retry)
		}
	}
	if status, _, body := s.call(t, home, s.put(t)); status != http.StatusOK {
		t.Errorf("the right token beside it: %d %s", status, body)
	}
	got := s.Refusals()
	if got[string(badToken)] != maxFailures || got[string(tooManyTries)] != 2 {
		t.Errorf("counted %v", got)
	}
	if n := strings.Count(s.log.String(), "msg=refused"); n != 2 {
		t.Errorf("logged %d times, want once for each reason:\n%s", n, s.log)
	}
}

func TestTally(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tally := newTally[int](3)
		for want := 1; want <= 3; want++ {
			if got := tally.add(1); got != want {
				t.Errorf("count %d, want %d", got, want)
			}
		}
		time.Sleep(tallyTime - time.Nanosecond)
		if got := tally.add(1); got != 4 {
			t.Errorf("just before the end of its time: %d, want 4", got)
		}
		time.Sleep(time.Nanosecond)
		if got := tally.add(1); got != 1 {
			t.Errorf("after its time: %d, want 1", got)
		}
		tally.add(2)
		tally.add(3)
		tally.add(4)
		if len(tally.seen) != 3 {
			t.Errorf("%d are remembered, want 3 at most", len(tally.seen))
		}
		time.Sleep(tallyTime)
		tally.add(5)
		if len(tally.seen) != 1 {
			t.Errorf("%d are remembered although the time of all others is over", len(tally.seen))
		}
	})
}

func TestGroup(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1":     "192.0.2.1/32",
		"2001:db8::1:2": "2001:db8::/64",
	} {
		if got := group(netip.MustParseAddr(addr)).String(); got != want {
			t.Errorf("%s is taken for %s, want %s", addr, got, want)
		}
	}
	if got := group(netip.Addr{}); got.IsValid() {
		t.Errorf("no address is taken for %s", got)
	}
}

func TestSourceOf(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1:1":            "192.0.2.1",
		"[::ffff:192.0.2.1]:1":   "192.0.2.1",
		"[2001:db8::1]:1":        "2001:db8::1",
		"[fe80::1%eth0]:1":       "fe80::1",
		"@":                      "invalid IP",
		"":                       "invalid IP",
		"rs1.example.invalid:80": "invalid IP",
	} {
		if got := sourceOf(in).String(); got != want {
			t.Errorf("sourceOf(%q) = %s, want %s", in, got, want)
		}
	}
}

// A stop lets a request under way end, and waits for it.
func TestShutdown(t *testing.T) {
	s := serve(t, func(s *Server) { s.cfg.Backend.(*backend).block = make(chan struct{}) })
	c, err := client.New(s.tls, mint(t, key, claims()), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	done := make(chan error, 1)
	go func() {
		_, err := c.Register(context.Background(), registration())
		done <- err
	}()
	s.backend.block <- struct{}{} // it has arrived, and goes on only now
	if err := s.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if _, err := net.Dial("tcp", s.tls); err == nil {
		t.Error("the address still takes connections")
	}
}

func TestAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := New(Config{Web: l.Addr().String(), Socket: t.TempDir() + "/s", Backend: &backend{}, Tokens: key}, slog.New(slog.DiscardHandler))
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "listen for the page: listen tcp "+l.Addr().String()) {
		t.Errorf("error %v, want one that names the address", err)
	}
	select {
	case <-s.Ready():
		t.Error("it says that it is ready")
	default:
	}
	if _, err := net.Dial("unix", s.cfg.Socket); err == nil {
		t.Error("the socket that did open was left open")
	}
}
