package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"bytes"

	"lvstun/director/trust"
)

// The limits of a conversation with a director.
const (
	// DefaultTimeout is how long one request may take, dialing included: below
	// a lease, so that a director that hangs costs one renewal and no more.
	DefaultTimeout = 2 * time.Second
	maxAnswer      = 1 << 20  // bytes of an answer to an agent
	maxStatus      = 64 << 20 // bytes of a status: some 100,000 destinations
	maxSentence    = 1024     // bytes of a refusal's sentence that are kept
	maxRetryAfter  = time.Hour
)

// Options of New.
type Options struct {
	LocalAddr netip.Addr    // the source of every connection, a claimed address; zero: the kernel's choice
	Timeout   time.Duration // of one request; 0: DefaultTimeout
}

// Client speaks with one director, over TLS pinned by the token. It is safe
// for concurrent use and keeps its connection from request to request.
type Client struct {
	base      string // https://host:port
	token     trust.Token
	http      *http.Client
	transport *http.Transport
}

// New makes a client for the director at addr (host:port). It dials nothing yet.
func New(addr string, token trust.Token, o Options) (*Client, error) {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, fmt.Errorf("director %q: want host:port: %w", addr, err)
	}
	if token.Bearer() == "" {
		return nil, fmt.Errorf("director %s: no token", addr)
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	var dialer net.Dialer
	if o.LocalAddr.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(o.LocalAddr, 0))
	}
	transport := newTransport(dialer.DialContext)
	transport.TLSClientConfig = trust.PinnedClient(token.Pin)
	return &Client{
		base:      "https://" + addr,
		token:     token,
		http:      newHTTP(transport, o.Timeout),
		transport: transport,
	}, nil
}

// Register sends r, which must be sound but for its reasons: those are made
// printable and cut to length, so that a strange answer of a checked service
// never costs the registration. A refusal is an *Error.
func (c *Client) Register(ctx context.Context, r Registration) (Answer, error) {
	r = r.printable()
	if errs := r.Validate(); len(errs) > 0 {
		return Answer{}, fmt.Errorf("register %s: %w", c.token.Name, errors.Join(errs...))
	}
	body, err := json.Marshal(r)
	if err != nil {
		return Answer{}, fmt.Errorf("register %s: %w", c.token.Name, err)
	}
	var a Answer
	if err := c.do(ctx, http.MethodPut, "/v1/realservers/"+url.PathEscape(c.token.Name), body, &a); err != nil {
		return Answer{}, fmt.Errorf("register %s: %w", c.token.Name, err)
	}
	if errs := a.Validate(); len(errs) > 0 {
		return Answer{}, fmt.Errorf("register %s: the director's answer makes no sense: %w", c.token.Name, errors.Join(errs...))
	}
	return a, nil
}

// Leave ends the session's lease. A refusal is an *Error.
func (c *Client) Leave(ctx context.Context, session uint64) error {
	path := "/v1/realservers/" + url.PathEscape(c.token.Name) + "?session=" + strconv.FormatUint(session, 10)
	if err := c.do(ctx, http.MethodDelete, path, nil, nil); err != nil {
		return fmt.Errorf("leave %s: %w", c.token.Name, err)
	}
	return nil
}

// Close closes the connection that is kept.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

func (c *Client) do(ctx context.Context, method, path string, body []byte, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token.Bearer())
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return exchange(c.http, req, maxAnswer, into)
}

// newTransport is HTTP/1.1 only: one request at a time needs no more, and a
// connection that hangs is dropped with its request. No proxy is asked.
func newTransport(dial func(context.Context, string, string) (net.Conn, error)) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext:            dial,
		Protocols:              &protocols,
		DisableCompression:     true,
		MaxIdleConns:           1,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 16 << 10,
	}
}

func newHTTP(t *http.Transport, timeout time.Duration) *http.Client {
	return &http.Client{
		Transport:     t,
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// exchange sends req and decodes the answer's body into into, if that is not
// nil. Any status but 2xx is an *Error.
func exchange(h *http.Client, req *http.Request, limit int64, into any) error {
	resp, err := h.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) { // its method and URL are the caller's to name
			err = u.Err
		}
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if int64(len(body)) > limit {
		return fmt.Errorf("the answer is longer than %d bytes", limit)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return refusal(resp, body)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("the answer cannot be read: %w", err)
	}
	return nil
}

func refusal(resp *http.Response, body []byte) *Error {
	e := &Error{Status: resp.StatusCode, Sentence: http.StatusText(resp.StatusCode)}
	var said struct{ Error string }
	if json.Unmarshal(body, &said) == nil && said.Error != "" {
		e.Sentence = printable(said.Error, maxSentence)
	}
	if n, err := strconv.ParseUint(strings.TrimSpace(resp.Header.Get("Retry-After")), 10, 32); err == nil {
		e.RetryAfter = min(time.Duration(n)*time.Second, maxRetryAfter)
	}
	return e
}
