// Package httpcheck asks a server whether it serves: over HTTP or HTTPS, by a TCP connect, by a UDP
// datagram, or by sending bytes and comparing the answer (piranha's send/expect).
//
// Probe asks once. Tracker turns single answers into a state with rise and fall. Checker does both in
// a loop. The package knows nothing of directors and agents.
package httpcheck

import (
	"fmt"
	"time"
)

// Kind says how a check asks.
type Kind string

const (
	HTTP       Kind = "http"        // GET over HTTP/1.1; status and, optionally, body
	HTTPS      Kind = "https"       // the same over TLS; the certificate is not verified
	TCP        Kind = "tcp"         // a connection is accepted
	UDP        Kind = "udp"         // a datagram is not refused by ICMP
	SendExpect Kind = "send_expect" // bytes sent, the answer compared
	None       Kind = "none"        // no check: always up
)

// Duration is a time.Duration that is written as text ("2s", "500ms") in JSON and YAML.
type Duration time.Duration

// String is time.Duration's: "2s".
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the duration as time.ParseDuration reads it.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 2s or 500ms", text)
	}
	*d = Duration(v)
	return nil
}

// Spec is one check, as a file or a director's answer gives it. Two specs are the same check exactly
// if they are equal with ==. Send and Expect hold the very bytes (escapes already decoded).
type Spec struct {
	Kind    Kind   `json:"kind"`
	Network string `json:"network,omitempty"` // send_expect only: "tcp" (default) or "udp"
	Port    uint16 `json:"port,omitempty"`    // 0: the service's port

	Path         string `json:"path,omitempty"`          // http, https: begins with /; default "/"
	Host         string `json:"host,omitempty"`          // http, https: Host header and TLS server name; default the target's address
	ExpectStatus int    `json:"expect_status,omitempty"` // http, https: 100–599; default 200
	ExpectBody   string `json:"expect_body,omitempty"`   // http, https: must occur in the body's first 64 KiB

	Send   string `json:"send,omitempty"`   // send_expect, udp: at most 4096 bytes
	Expect string `json:"expect,omitempty"` // send_expect: at most 4096 bytes; empty: connect and send decide
	Regex  bool   `json:"regex,omitempty"`  // send_expect: Expect is a POSIX extended regular expression

	Interval Duration `json:"interval,omitempty"` // from the start of one probe to the next: 10ms–1h; default 2s
	Timeout  Duration `json:"timeout,omitempty"`  // for connect, and again for all that follows it: 1ms–5m; default 1s
	Rise     int      `json:"rise,omitempty"`     // successes in a row from down to up: 1–1000; default 2
	Fall     int      `json:"fall,omitempty"`     // failures in a row to down: 1–1000; default 2
}

// WithDefaults returns the spec with every absent value that its kind needs filled in.
func (s Spec) WithDefaults() Spec {
	if s.Kind == None {
		return s
	}
	setDefault(&s.Interval, Duration(2*time.Second))
	setDefault(&s.Timeout, Duration(time.Second))
	setDefault(&s.Rise, 2)
	setDefault(&s.Fall, 2)
	switch s.Kind {
	case HTTP, HTTPS:
		setDefault(&s.Path, "/")
		setDefault(&s.ExpectStatus, 200)
	case SendExpect:
		setDefault(&s.Network, "tcp")
	}
	return s
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Result is the outcome of one probe.
type Result struct {
	OK      bool          `json:"ok"`
	Reason  string        `json:"reason,omitempty"` // a sentence a person can act on; empty if OK
	Elapsed time.Duration `json:"elapsed"`          // in nanoseconds
}
