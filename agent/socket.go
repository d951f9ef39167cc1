package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// DefaultSocket is where the agent tells its status to its own host.
const DefaultSocket = "/run/lvstun/agent.sock"

const maxStatus = 4 << 20 // bytes

// listen makes the socket at path, readable by its owner and group. One that a dead agent left is
// replaced; one that is answered is another agent's, and an error.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder for the socket: %w", err)
	}
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		conn.Close()
		return nil, fmt.Errorf("%s: another lvs-agent is running on this host", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("replace the socket: %w", err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("make the socket: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("make the socket: %w", err)
	}
	return l, nil
}

// serve answers GET /v1/status on l until ctx ends.
func serve(ctx context.Context, l net.Listener, status func() Status) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(status()) // fails only where nobody listens any more
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 8 << 10}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the status: %w", err)
	}
	return nil
}

// FetchStatus asks the agent whose socket is at path.
func FetchStatus(ctx context.Context, path string) (Status, error) {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://lvs-agent/v1/status", nil)
	if err != nil {
		return Status{}, fmt.Errorf("ask the agent: %w", err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return Status{}, fmt.Errorf("ask the agent at %s: %w", path, reachable(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Status{}, fmt.Errorf("ask the agent at %s: status %d", path, resp.StatusCode)
	}
	var s Status
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&s); err != nil {
		return Status{}, fmt.Errorf("read the agent's status: %w", err)
	}
	return s, nil
}

// reachable says what it means that a socket cannot be reached.
func reachable(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("it does not run (%w)", err)
	}
	return err
}
