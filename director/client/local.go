package client

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// DefaultSocket is where a director listens for its own host.
const DefaultSocket = "/run/lvstun/director.sock"

// LocalClient speaks with the director of this host over its Unix socket.
type LocalClient struct {
	path      string
	http      *http.Client
	transport *http.Transport
}

// Local makes a client for the director whose socket is at path. It dials
// nothing yet.
func Local(path string) *LocalClient {
	transport := newTransport(func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	})
	return &LocalClient{path: path, http: newHTTP(transport, 10*time.Second), transport: transport}
}

// Status asks the director how it stands.
func (c *LocalClient) Status(ctx context.Context) (Status, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lvs-director/v1/status", nil)
	if err != nil {
		return Status{}, err
	}
	var s Status
	if err := exchange(c.http, req, maxStatus, &s); err != nil {
		return Status{}, fmt.Errorf("ask the director at %s: %w", c.path, err)
	}
	return s, nil
}

// Handover has the director give the VIPs to the other one, or ask it for them.
// It returns when that is under way. A refusal is an *Error.
func (c *LocalClient) Handover(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://lvs-director/v1/handover", nil)
	if err != nil {
		return err
	}
	if err := exchange(c.http, req, maxAnswer, nil); err != nil {
		return fmt.Errorf("ask the director at %s: %w", c.path, err)
	}
	return nil
}

// Close closes the connection that is kept.
func (c *LocalClient) Close() { c.transport.CloseIdleConnections() }
