package trust

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// String never shows the key.
func (ClusterKey) String() string { return redacted }

// GoString never shows the key.
func (ClusterKey) GoString() string { return redacted }

// Format never shows the key, whatever the verb: %d and %x of an array would.
func (ClusterKey) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue never shows the key.
func (ClusterKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText never shows the key; encoding/json and YAML follow it.
func (ClusterKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON never shows the key.
func (ClusterKey) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// String names the token's real server and hides the rest.
func (t Token) String() string { return "token of " + t.Name + " " + redacted }

// GoString is String.
func (t Token) GoString() string { return t.String() }

// Format is String, whatever the verb.
func (t Token) Format(f fmt.State, _ rune) { io.WriteString(f, t.String()) }

// LogValue is String.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText is String: a token is written only by Bearer.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// MarshalJSON is String as JSON: a token is written only by Bearer.
func (t Token) MarshalJSON() ([]byte, error) { return fmt.Appendf(nil, "%q", t.String()), nil }
