// Package api serves a director over the network: HTTPS for the agents of the
// real servers, HTTP on a Unix socket for the director's own host, and HTTP for
// the read-only page and the metrics.
package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"lvstun/director/client"
	"lvstun/director/trust"
)

// Backend is the director behind the API. Its calls come concurrently.
type Backend interface {
	// Register takes a registration whose token, source, services and form are
	// proven. Its error's text is sent to the agent if it wraps one of this
	// package's errors, and only logged if not.
	Register(ctx context.Context, claims trust.Claims, r client.Registration) (client.Answer, error)
	// Leave ends the lease of the claims' real server; errors as with Register.
	Leave(ctx context.Context, claims trust.Claims, session uint64) error
	// Status is how the director stands.
	Status() client.Status
	// Handover gives the VIPs to the other director, or asks it for them. Its
	// error is a sentence for the operator.
	Handover(ctx context.Context) error
}

// What a Backend's error may wrap, and the HTTP status each becomes.
var (
	ErrUnknownService = errors.New("unknown service")  // 404
	ErrForbidden      = errors.New("not allowed")      // 403
	ErrConflict       = errors.New("held by another")  // 409: a newer session, another real server
	ErrFull           = errors.New("no room for more") // 503
)

// Verifier proves tokens. The text of its errors is sent to who showed the token.
type Verifier interface {
	Verify(token string) (trust.Claims, error)
}

var _ Verifier = trust.ClusterKey{}

// Config is what a Server serves, and where. An empty address is not listened on.
type Config struct {
	Listen  string      // HTTPS for agents, host:port
	Socket  string      // Unix socket for this host, a path
	Web     string      // HTTP for the page and the metrics, host:port
	TLS     *tls.Config // of Listen: trust.ClusterKey.ServerTLS
	Tokens  Verifier
	Backend Backend

	// Listeners that are open already take the place of the addresses; Run
	// closes them.
	Listeners struct{ TLS, Local, Web net.Listener }
}

// The limits of the server. Every one is per connection or per source, so that
// who exceeds one is alone in feeling it.
const (
	maxBody        = 64 << 10 // bytes of a request's body
	maxHeader      = 8 << 10  // bytes of a request's header; net/http adds 4 KiB
	connsPerSource = 8        // at once on the HTTPS listener; an agent needs one
	connsPerReader = 64       // at once and per source on the page's listener: a proxy may speak for many
	maxConns       = 20000    // at once on one listener
	maxFailures    = 20       // wrong tokens of a source a minute before 429
	shutdownTime   = 3 * time.Second
)

// timeouts of one listener's connections.
type timeouts struct{ header, read, write, idle time.Duration }

// Agents come every second; a connection that idles longer than a few of those
// has lost its agent. The handshake of TLS counts as part of the header.
var standardTimeouts = timeouts{header: 5 * time.Second, read: 10 * time.Second, write: 15 * time.Second, idle: 30 * time.Second}

// Server is a director's API.
type Server struct {
	cfg      Config
	log      *slog.Logger
	timeouts timeouts
	refused  *refusals
	metrics  http.Handler
	ready    chan struct{}
}

// New prepares a server; Run starts it.
func New(cfg Config, log *slog.Logger) *Server {
	s := &Server{cfg: cfg, log: log, timeouts: standardTimeouts, refused: newRefusals(log), ready: make(chan struct{})}
	s.metrics = metricsHandler(s.status)
	return s
}

// Ready is closed when every listener takes connections.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Refusals is how many requests and connections were refused, by reason.
func (s *Server) Refusals() map[string]uint64 { return s.refused.counts() }

// Run serves until ctx is done, then lets the requests under way end, for three
// seconds at most. It fails when a listener cannot be opened, before any other
// serves.
func (s *Server) Run(ctx context.Context) error {
	listeners, err := s.listen(ctx)
	defer func() {
		for _, l := range listeners {
			l.Close()
		}
	}()
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		group.Go(func() error { return l.serve() })
		group.Go(func() error {
			<-ctx.Done()
			return l.shutdown()
		})
	}
	close(s.ready)
	return group.Wait()
}

// status is the backend's, with this server's own counters.
func (s *Server) status() client.Status {
	st := s.cfg.Backend.Status()
	st.Counters = s.Refusals()
	return st
}

// listener is one address that is served.
type listener struct {
	net.Listener
	what   string // for errors
	tls    bool
	server *http.Server
}

func (s *Server) newListener(what string, l net.Listener, tls bool, h http.Handler) *listener {
	var protocols http.Protocols
	protocols.SetHTTP1(true) // no more than an agent or a scraper needs
	return &listener{
		Listener: l,
		what:     what,
		tls:      tls,
		server: &http.Server{
			Handler:           h,
			TLSConfig:         s.cfg.TLS,
			Protocols:         &protocols,
			ReadHeaderTimeout: s.timeouts.header,
			ReadTimeout:       s.timeouts.read,
			WriteTimeout:      s.timeouts.write,
			IdleTimeout:       s.timeouts.idle,
			MaxHeaderBytes:    maxHeader,
			// What net/http has to say is said about clients: failed handshakes, broken requests.
			ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		},
	}
}

func (l *listener) serve() error {
	var err error
	if l.tls {
		err = l.server.ServeTLS(l.Listener, "", "")
	} else {
		err = l.server.Serve(l.Listener)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s on %s: %w", l.what, l.Addr(), err)
}

func (l *listener) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	if l.server.Shutdown(ctx) != nil {
		l.server.Close() // who is still busy has had its time
	}
	return nil
}
