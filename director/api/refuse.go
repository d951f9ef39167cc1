package api

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// reason is why something was refused: a label of metrics, so the set is fixed.
type reason string

const (
	notFound       reason = "not_found"
	wrongMethod    reason = "wrong_method"
	bodyTooLarge   reason = "body_too_large"
	noToken        reason = "no_token"
	badToken       reason = "bad_token"
	tooManyTries   reason = "too_many_wrong_tokens"
	wrongName      reason = "wrong_name"
	wrongSource    reason = "wrong_source"
	wrongType      reason = "wrong_content_type"
	malformed      reason = "malformed"
	invalid        reason = "invalid"
	wrongAddress   reason = "wrong_address"
	wrongService   reason = "service_not_in_token"
	unknownService reason = "unknown_service"
	forbidden      reason = "forbidden"
	conflict       reason = "conflict"
	full           reason = "full"
	failed         reason = "director_failed"
	tooManyConns   reason = "too_many_connections"
	wrongHost      reason = "wrong_host"
)

var reasons = []reason{
	notFound, wrongMethod, bodyTooLarge, noToken, badToken, tooManyTries, wrongName, wrongSource, wrongType, malformed,
	invalid, wrongAddress, wrongService, unknownService, forbidden, conflict, full, failed, tooManyConns, wrongHost,
}

// refusal is one request that is not served.
type refusal struct {
	status     int
	reason     reason
	sentence   string        // for the caller
	err        error         // for the log, where it says more than the sentence
	retryAfter time.Duration // whole seconds; 0: not said
	hangUp     bool          // the connection is of no more use
}

// maxRemembered bounds the tables of sources and reasons.
const maxRemembered = 4096

// refusals counts what is refused and logs the first of each reason and source
// a minute: a broken agent says the same thing every second.
type refusals struct {
	log     *slog.Logger
	count   map[reason]*atomic.Uint64 // every reason, never changed
	logged  *tally[loggedAs]
	failing *tally[netip.Prefix] // wrong tokens
}

type loggedAs struct {
	reason reason
	source netip.Prefix
}

func newRefusals(log *slog.Logger) *refusals {
	r := &refusals{
		log:     log,
		count:   make(map[reason]*atomic.Uint64, len(reasons)),
		logged:  newTally[loggedAs](maxRemembered),
		failing: newTally[netip.Prefix](maxRemembered),
	}
	for _, reason := range reasons {
		r.count[reason] = new(atomic.Uint64)
	}
	return r
}

func (r *refusals) counts() map[string]uint64 {
	out := make(map[string]uint64, len(r.count))
	for reason, n := range r.count {
		out[string(reason)] = n.Load()
	}
	return out
}

// record counts a refusal and logs it if it is news.
func (r *refusals) record(f refusal, source netip.Addr, rs string) {
	r.count[f.reason].Add(1)
	if r.logged.add(loggedAs{f.reason, group(source)}) != 1 {
		return
	}
	err := f.err
	if err == nil {
		err = errors.New(f.sentence)
	}
	level := slog.LevelWarn
	if f.reason == failed {
		level = slog.LevelError
	}
	r.log.Log(context.Background(), level, "refused", "reason", string(f.reason), "source", source, "rs", rs, "err", err)
}

// conn records a connection that was closed unheard.
func (r *refusals) conn(source netip.Addr) {
	r.record(refusal{reason: tooManyConns, sentence: "too many connections at once"}, source, "")
}

// wrongToken reports whether source has shown too many wrong tokens by now.
func (r *refusals) wrongToken(source netip.Addr) bool {
	return r.failing.add(group(source)) > maxFailures
}

// group is whom an address is taken for in the tables: an IPv6 host has a /64.
func group(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil { // a source without an address: a Unix socket
		return netip.Prefix{}
	}
	return p
}

// write sends the refusal.
func (f refusal) write(w http.ResponseWriter) {
	if f.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(f.retryAfter/time.Second)))
	}
	if f.hangUp {
		w.Header().Set("Connection", "close")
	}
	if f.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	writeJSON(w, f.status, struct {
		Error string `json:"error"`
	}{f.sentence})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // the wire types hold nothing that JSON cannot
		status, b = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(append(b, '\n')) // a caller that is gone needs no answer
}

// tallyTime is how long a tally counts one key before it begins again.
const tallyTime = time.Minute

// tally counts keys, each anew every tallyTime. When it is full the keys whose
// time is over go, or, if there are none, any.
type tally[K comparable] struct {
	limit int
	mu    sync.Mutex // guards seen
	seen  map[K]tallied
}

type tallied struct {
	since time.Time
	n     int
}

func newTally[K comparable](limit int) *tally[K] {
	return &tally[K]{limit: limit, seen: make(map[K]tallied)}
}

// add counts k once more and returns how often it was in its time.
func (t *tally[K]) add(k K) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	e, ok := t.seen[k]
	if !ok || now.Sub(e.since) >= tallyTime {
		e = tallied{since: now}
	}
	if !ok && len(t.seen) >= t.limit {
		t.makeRoom(now)
	}
	e.n++
	t.seen[k] = e
	return e.n
}

func (t *tally[K]) makeRoom(now time.Time) {
	for k, e := range t.seen {
		if now.Sub(e.since) >= tallyTime {
			delete(t.seen, k)
		}
	}
	for k := range t.seen {
		if len(t.seen) < t.limit {
			break
		}
		delete(t.seen, k)
	}
}
