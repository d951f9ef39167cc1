// Package api serves a director over the network: HTTPS for the agents of the
// real servers, HTTP on a Unix socket for the director's own host, and HTTP for
// the read-only page and the metrics.
package api

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"

	"lvstun/director/client"
	"lvstun/director/trust"
)

// Backend is the director behind the API. Its calls come concurrently.
type Backend interface {
	// Register takes a registration whose token, source and form are proven. Its
	// error's text is sent to the agent if it wraps one of this package's errors.
	Register(context.Context, trust.Claims, client.Registration) (client.Answer, error)
	// Leave ends the lease of the claims' real server.
	Leave(ctx context.Context, claims trust.Claims, session uint64) error
	// Status is how the director stands.
	Status() client.Status
}

// What a Backend's error may wrap, and the status each becomes.
var (
	ErrUnknownService = errors.New("unknown service")  // 404
	ErrForbidden      = errors.New("not allowed")      // 403
	ErrConflict       = errors.New("held by another")  // 409: a newer session, another real server
	ErrFull           = errors.New("no room for more") // 503
)

// Verifier proves tokens; trust.ClusterKey is one.
type Verifier interface {
	Verify(token string) (trust.Claims, error)
}

var _ Verifier = trust.ClusterKey{}

// Config is what a Server serves and where. An empty address is not listened on.
type Config struct {
	Listen  string // HTTPS for agents, host:port
	Socket  string // Unix socket for this host
	Web     string // HTTP for the page and the metrics, host:port
	TLS     *tls.Config
	Tokens  Verifier
	Backend Backend

	// Listeners that are open already take the place of the addresses.
	Listeners struct{ TLS, Local, Web net.Listener }
}

// Server is a director's API.
type Server struct {
	cfg   Config
	log   *slog.Logger
	ready chan struct{}
}

// New prepares a server; Run starts it.
func New(cfg Config, log *slog.Logger) *Server {
	return &Server{cfg: cfg, log: log, ready: make(chan struct{})}
}

// Ready is closed when every listener takes connections.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Run serves until ctx is done, then lets the requests under way end.
func (s *Server) Run(ctx context.Context) error { return nil }

// Refusals is how many requests and connections were refused, by reason.
func (s *Server) Refusals() map[string]uint64 { return nil }
