package client

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// WitnessKey is the secret under which directors ask this real server the
// witness question and believe its answer. The zero value is none: a director
// of an earlier version gives none, and does not ask.
//
// It is written in full by encoding/json alone, which is the wire; fmt and
// log/slog show that there is one and no byte of it.
type WitnessKey [32]byte

const redacted = "[redacted]"

// String never shows the key.
func (WitnessKey) String() string { return redacted }

// Format never shows the key, whatever the verb: %d and %x of an array would.
func (WitnessKey) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue never shows the key.
func (WitnessKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText is the key in unpadded base64url: what the wire carries.
func (k WitnessKey) MarshalText() ([]byte, error) {
	return base64.RawURLEncoding.AppendEncode(nil, k[:]), nil
}

// UnmarshalText reads what MarshalText writes and no other form of it:
// encoding/base64 skips line ends.
func (k *WitnessKey) UnmarshalText(b []byte) error {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(string(b))
	whole := len(b) == base64.RawURLEncoding.EncodedLen(len(k))
	if err != nil || len(raw) != len(k) || !whole { // the error would quote the secret
		return errors.New("the witness key is not 32 bytes in base64url")
	}
	*k = WitnessKey(raw)
	return nil
}

// LogValue names the director and what it is: an answer carries a secret, and a
// JSON log would write it out.
func (a Answer) LogValue() slog.Value {
	return slog.GroupValue(slog.String("director", a.Director), slog.String("role", a.Role), slog.Uint64("term", a.Term))
}
