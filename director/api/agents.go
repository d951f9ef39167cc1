package api

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"lvstun/director/client"
	"lvstun/director/trust"
)

// maxFaults is how many of a registration's faults its refusal names.
const maxFaults = 20

// agentHandler serves the agents. A request is held against its token before
// its body is read, and the backend hears of it only when all is proven.
func (s *Server) agentHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/realservers/{name}", s.agent((*Server).register))
	mux.HandleFunc("DELETE /v1/realservers/{name}", s.agent((*Server).leave))
	mux.HandleFunc("GET /v1/status", s.agent((*Server).agentStatus))
	mux.HandleFunc("/v1/realservers/{name}", s.refuseAll(refusal{
		status: http.StatusMethodNotAllowed, reason: wrongMethod, sentence: "a real server takes PUT and DELETE",
	}))
	mux.HandleFunc("/v1/status", s.refuseAll(refusal{
		status: http.StatusMethodNotAllowed, reason: wrongMethod, sentence: "the status takes GET",
	}))
	mux.HandleFunc("/", s.refuseAll(refusal{
		status: http.StatusNotFound, reason: notFound, sentence: "there is nothing at this path",
	}))
	return mux
}

// peer is who sent a request, proven.
type peer struct {
	claims trust.Claims
	source netip.Addr
}

// agent is a handler for a proven peer. What it refuses is counted and sent.
func (s *Server) agent(serve func(*Server, http.ResponseWriter, *http.Request, peer) *refusal) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p, refused := s.prove(w, r)
		if refused == nil {
			refused = serve(s, w, r, p)
		}
		if refused != nil {
			s.refused.record(*refused, p.source, p.claims.Name)
			refused.write(w)
		}
	}
}

func (s *Server) refuseAll(f refusal) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.refused.record(f, sourceOf(r.RemoteAddr), "")
		f.write(w)
	}
}

// prove holds a request against its token: the MAC, the name in the path, the
// address it came from. A token that is right is served however many wrong ones
// came from beside it, so that nobody's noise costs a real server its lease.
func (s *Server) prove(w http.ResponseWriter, r *http.Request) (peer, *refusal) {
	p := peer{source: sourceOf(r.RemoteAddr)}
	if r.ContentLength > maxBody {
		return p, tooLarge()
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	token, err := bearer(r)
	if err != nil {
		return p, s.unproven(p, noToken, err)
	}
	claims, err := s.cfg.Tokens.Verify(token)
	if err != nil {
		return p, s.unproven(p, badToken, err)
	}
	p.claims = claims
	if name := r.PathValue("name"); name != "" && name != claims.Name {
		return p, &refusal{status: http.StatusForbidden, reason: wrongName,
			sentence: fmt.Sprintf("the token is of %s, not of %.300q", claims.Name, name)}
	}
	if !slices.Contains(claims.Addresses, p.source) {
		return p, &refusal{status: http.StatusForbidden, reason: wrongSource,
			sentence: fmt.Sprintf("the token of %s is worth nothing from %s: it is for %s", claims.Name, p.source, join(claims.Addresses))}
	}
	return p, nil
}

func (s *Server) unproven(p peer, why reason, err error) *refusal {
	if s.refused.wrongToken(p.source) {
		return &refusal{status: http.StatusTooManyRequests, reason: tooManyTries, hangUp: true, retryAfter: tallyTime,
			sentence: "too many requests without a valid token: " + err.Error()}
	}
	return &refusal{status: http.StatusUnauthorized, reason: why, hangUp: true, sentence: err.Error()}
}

func bearer(r *http.Request) (string, error) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", errors.New("the request has no token: send `Authorization: Bearer TOKEN`")
	}
	return token, nil
}

func (s *Server) register(w http.ResponseWriter, r *http.Request, p peer) *refusal {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return &refusal{status: http.StatusUnsupportedMediaType, reason: wrongType,
			sentence: fmt.Sprintf("a registration is application/json, not %.100q", r.Header.Get("Content-Type"))}
	}
	reg, err := client.DecodeRegistration(r.Body)
	var tooLong *http.MaxBytesError
	if errors.As(err, &tooLong) {
		return tooLarge()
	}
	if err != nil {
		return &refusal{status: http.StatusBadRequest, reason: malformed, sentence: err.Error()}
	}
	if errs := reg.Validate(); len(errs) > 0 {
		return &refusal{status: http.StatusBadRequest, reason: invalid, sentence: "the registration is refused: " + list(errs)}
	}
	if reg.Address != p.source {
		return &refusal{status: http.StatusForbidden, reason: wrongAddress,
			sentence: fmt.Sprintf("the registration is for %s but came from %s", reg.Address, p.source)}
	}
	for _, svc := range reg.Services {
		if !slices.Contains(p.claims.Services, svc.Name) {
			return &refusal{status: http.StatusForbidden, reason: wrongService,
				sentence: fmt.Sprintf("the token of %s does not name service %s", p.claims.Name, svc.Name)}
		}
	}
	answer, err := s.cfg.Backend.Register(r.Context(), p.claims, reg)
	if err != nil {
		return fromBackend(err)
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}

func (s *Server) leave(w http.ResponseWriter, r *http.Request, p peer) *refusal {
	text := r.URL.Query().Get("session")
	session, err := strconv.ParseUint(text, 10, 64)
	if err != nil || session == 0 {
		return &refusal{status: http.StatusBadRequest, reason: invalid,
			sentence: fmt.Sprintf("session: %.32q, want the number that the real server registered with", text)}
	}
	if err := s.cfg.Backend.Leave(r.Context(), p.claims, session); err != nil {
		return fromBackend(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) agentStatus(w http.ResponseWriter, _ *http.Request, _ peer) *refusal {
	writeJSON(w, http.StatusOK, s.status())
	return nil
}

func tooLarge() *refusal {
	return &refusal{status: http.StatusRequestEntityTooLarge, reason: bodyTooLarge, hangUp: true,
		sentence: fmt.Sprintf("the body is larger than %d bytes", maxBody)}
}

// fromBackend turns a backend's error into what the agent is told.
func fromBackend(err error) *refusal {
	f := &refusal{sentence: err.Error()}
	switch {
	case errors.Is(err, ErrUnknownService):
		f.status, f.reason = http.StatusNotFound, unknownService
	case errors.Is(err, ErrForbidden):
		f.status, f.reason = http.StatusForbidden, forbidden
	case errors.Is(err, ErrConflict):
		f.status, f.reason = http.StatusConflict, conflict
	case errors.Is(err, ErrFull):
		f.status, f.reason, f.retryAfter = http.StatusServiceUnavailable, full, 5*time.Second
	default:
		f.status, f.reason, f.err = http.StatusInternalServerError, failed, err
		f.sentence = "the director could not do it; its log says why"
	}
	return f
}

func list(errs []error) string {
	var b strings.Builder
	for i, err := range errs[:min(len(errs), maxFaults)] {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(err.Error())
	}
	if more := len(errs) - maxFaults; more > 0 {
		fmt.Fprintf(&b, "; and %d more", more)
	}
	return b.String()
}

func join(addrs []netip.Addr) string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return strings.Join(out, ", ")
}
