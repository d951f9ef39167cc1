package httpcheck

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// DialFunc connects to an address as net.Dialer.DialContext does; network is "tcp" or "udp".
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// DialFrom returns a DialFunc that binds every connection to source, on a port of the kernel's choice.
func DialFrom(source netip.Addr) DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		local := netip.AddrPortFrom(source, 0)
		var d net.Dialer
		switch network {
		case "udp":
			d.LocalAddr = net.UDPAddrFromAddrPort(local)
		default:
			d.LocalAddr = net.TCPAddrFromAddrPort(local)
		}
		return d.DialContext(ctx, network, address)
	}
}

// Option changes how probes reach their target.
type Option func(*prober)

// WithDial makes probes connect through dial; the default is a plain net.Dialer.
func WithDial(dial DialFunc) Option { return func(p *prober) { p.dial = dial } }

// Probe asks target once. spec.Port, if set, replaces the target's port. Connecting may take
// spec.Timeout and everything after it (TLS, sending, the whole answer) another, so a probe takes at
// most twice the timeout. It always returns a Result: an invalid spec is a failure with its problems.
func Probe(ctx context.Context, spec Spec, target netip.AddrPort, opts ...Option) Result {
	p, err := newProber(spec, opts)
	if err != nil {
		return Result{Reason: err.Error()}
	}
	return p.probe(ctx, target)
}

// prober is a valid spec with what is worth making only once.
type prober struct {
	spec  Spec
	dial  DialFunc
	regex *regexp.Regexp // for send_expect with Regex
	tls   *tls.Config    // for https
}

func newProber(spec Spec, opts []Option) (*prober, error) {
	if errs := spec.Validate(); len(errs) > 0 {
		return nil, fmt.Errorf("check: %w", errors.Join(errs...))
	}
	p := &prober{spec: spec, dial: (&net.Dialer{KeepAlive: -1}).DialContext}
	for _, o := range opts {
		o(p)
	}
	if spec.Regex {
		regex, err := compile(spec.Expect)
		if err != nil {
			return nil, fmt.Errorf("check: expect, %q, %w", spec.Expect, err)
		}
		p.regex = regex
	}
	if spec.Kind == HTTPS {
		p.tls = tlsConfig(spec.Host)
	}
	return p, nil
}

func (p *prober) probe(ctx context.Context, target netip.AddrPort) Result {
	begin := time.Now()
	err := p.ask(ctx, target)
	r := Result{OK: err == nil, Elapsed: time.Since(begin)}
	if err != nil {
		r.Reason = err.Error()
	}
	return r
}

// ask connects and hands the connection, with a deadline on it, to the part that knows the kind.
func (p *prober) ask(ctx context.Context, target netip.AddrPort) error {
	if p.spec.Kind == None {
		return nil
	}
	if p.spec.Port != 0 {
		target = netip.AddrPortFrom(target.Addr(), p.spec.Port)
	}
	timeout := time.Duration(p.spec.Timeout)
	conn, err := p.connect(ctx, timeout, target)
	if err != nil {
		return fmt.Errorf("%s: %w", target, p.plain(err, "no connection"))
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	switch p.spec.Kind {
	case HTTP, HTTPS:
		err = p.askHTTP(ctx, conn, target)
	case UDP:
		err = p.notRefused(conn)
	case SendExpect:
		err = p.sendExpect(conn)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", target, p.plain(err, "no answer"))
	}
	return nil
}

func (p *prober) connect(ctx context.Context, timeout time.Duration, target netip.AddrPort) (net.Conn, error) {
	network := "tcp"
	if p.spec.Kind == UDP || p.spec.Network == "udp" {
		network = "udp"
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return p.dial(ctx, network, target.String())
}

// plain says what happened without the addresses and system call names that net's errors carry.
func (p *prober) plain(err error, silence string) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s within %v", silence, p.spec.Timeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("connection closed before the answer was complete")
	case errors.As(err, &errno):
		return errno
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	return err
}

// notRefused sends one datagram and waits for an answer (up), an ICMP error (down), or the timeout (up:
// most UDP services stay silent to what they do not understand).
func (p *prober) notRefused(conn net.Conn) error {
	if _, err := io.WriteString(conn, p.spec.Send); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// sendExpect differs from nanny on purpose in one point: nanny compared what its first read happened to
// return, so an answer cut in two by the network failed; here reading goes on until the answer decides.
func (p *prober) sendExpect(conn net.Conn) error {
	if p.spec.Expect == "" && p.spec.Network == "udp" {
		return p.notRefused(conn)
	}
	if p.spec.Send != "" {
		if _, err := io.WriteString(conn, p.spec.Send); err != nil {
			return err
		}
	}
	if p.spec.Expect == "" {
		return nil
	}
	answer, buffer := make([]byte, 0, maxText), make([]byte, maxText)
	for {
		n, err := conn.Read(buffer[:maxText-len(answer)])
		answer = append(answer, buffer[:n]...)
		matched, final := p.judge(answer)
		switch {
		case matched:
			return nil
		case final, len(answer) == maxText, p.spec.Network == "udp" && err == nil, err != nil && len(answer) > 0:
			return fmt.Errorf("answer began %q, wanted %q", clip(answer), clip([]byte(p.spec.Expect)))
		case err != nil:
			return err
		}
	}
}

// judge says whether answer matches, and, if not, whether more bytes could not change that.
func (p *prober) judge(answer []byte) (matched, final bool) {
	if p.regex != nil {
		return p.regex.Match(answer), false
	}
	got := string(answer)
	return strings.HasPrefix(got, p.spec.Expect), !strings.HasPrefix(p.spec.Expect, got)
}

func clip(b []byte) []byte {
	if len(b) > 60 {
		return append(b[:60:60], "…"...)
	}
	return b
}
