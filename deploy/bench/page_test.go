package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"

	"go.uber.org/goleak"
)

func TestServePage(t *testing.T) {
	defer goleak.VerifyNone(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- servePage(ctx, l, "rs1") }()

	transport := &http.Transport{}
	dials := 0
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials++
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	get := func(last bool) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Close = last
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != "rs1\n" || resp.StatusCode != http.StatusOK {
			t.Errorf("status %d, page %q, %v", resp.StatusCode, body, err)
		}
	}
	get(false)
	get(false)
	if dials != 1 {
		t.Errorf("two requests took %d connections, want 1", dials)
	}
	get(true)
	get(false)
	if dials != 2 {
		t.Errorf("after one that asked for its end there were %d connections, want 2", dials)
	}
	transport.CloseIdleConnections()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
