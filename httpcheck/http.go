package httpcheck

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
)

const (
	maxHead = 64 << 10 // bytes of status line and headers
	maxBody = 64 << 10 // bytes of the body that ExpectBody may occur in
)

// tlsConfig does not verify the certificate: a check asks one server of many by its address whether it
// serves, it does not send it anything worth protecting. This is the habit of the field.
func tlsConfig(host string) *tls.Config {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return &tls.Config{ServerName: host, InsecureSkipVerify: true} //nolint:gosec // see above
}

// askHTTP makes one GET on conn. Without http.Transport there is no pool, proxy, redirect or retry to
// switch off, and no goroutine to wait for.
func (p *prober) askHTTP(ctx context.Context, conn net.Conn, target netip.AddrPort) error {
	if p.tls != nil {
		secure := tls.Client(conn, p.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("TLS: %v", p.plain(err, "no handshake"))
		}
		conn = secure
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+target.String()+p.spec.Path, nil)
	if err != nil {
		return fmt.Errorf("request: %w", err)
	}
	req.Host = p.spec.Host
	req.Close = true
	req.Header.Set("User-Agent", "lvstun")
	if err := req.Write(conn); err != nil {
		return err
	}
	resp, err := readResponse(conn, req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != p.spec.ExpectStatus {
		return fmt.Errorf("status %d, wanted %d", resp.StatusCode, p.spec.ExpectStatus)
	}
	if p.spec.ExpectBody == "" {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if bytes.Contains(body, []byte(p.spec.ExpectBody)) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("status %d, but %q is not in the body's first %d bytes", resp.StatusCode, clip([]byte(p.spec.ExpectBody)), len(body))
}

// readResponse reads the head of the final answer; 1xx answers before it are passed over (RFC 9110 §15.2).
func readResponse(conn net.Conn, req *http.Request) (*http.Response, error) {
	source := &remembering{Reader: io.LimitReader(conn, maxHead+maxBody)}
	reader := bufio.NewReader(source)
	for range 5 {
		resp, err := http.ReadResponse(reader, req)
		switch {
		case err == nil:
		case source.err != nil && source.err != io.EOF:
			return nil, source.err // http may call a line that the timeout cut off malformed
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil, err
		default:
			return nil, fmt.Errorf("not an HTTP answer: %w", err)
		}
		if resp.StatusCode >= 200 {
			return resp, nil
		}
		resp.Body.Close()
	}
	return nil, errors.New("no final status after five 1xx answers")
}

// remembering keeps the error its Reader ended with.
type remembering struct {
	io.Reader
	err error
}

func (r *remembering) Read(b []byte) (n int, err error) {
	n, err = r.Reader.Read(b)
	if err != nil {
		r.err = err
	}
	return n, err
}
