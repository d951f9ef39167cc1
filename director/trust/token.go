package trust

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
)

// MaxToken is the longest token, in bytes.
const MaxToken = 4096

// tokenPrefix names the version of the whole form: prefix.payload.mac, the
// latter two in unpadded base64url, the MAC over everything before it.
const tokenPrefix = "lvstun1."

// Token is what an agent was given: its claims, the directors' pin and the text
// it proves them with. Like a key it never prints that text, except by Bearer.
type Token struct {
	Claims
	Pin    Pin
	Issued time.Time // whole seconds; for people only, nothing expires by it
	raw    string
}

// Bearer is the token's text, for an Authorization header or a file.
func (t Token) Bearer() string { return t.raw }

// payload is the JSON inside a token.
type payload struct {
	Version   int          `json:"v"`
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
	Services  []string     `json:"services"`
	Pin       Pin          `json:"pin"`
	Issued    int64        `json:"iat"`
}

// Mint makes the token of c, issued now. It refuses claims that Claims.Validate
// faults and claims too many for MaxToken.
func (k ClusterKey) Mint(c Claims) (Token, error) {
	if errs := c.Validate(); len(errs) > 0 {
		return Token{}, fmt.Errorf("make token: %w", errors.Join(errs...))
	}
	pin, err := k.Pin()
	if err != nil {
		return Token{}, fmt.Errorf("make token: %w", err)
	}
	body, err := json.Marshal(payload{1, c.Name, c.Addresses, c.Services, pin, time.Now().Unix()})
	if err != nil {
		return Token{}, fmt.Errorf("make token: %w", err)
	}
	signed := tokenPrefix + base64.RawURLEncoding.EncodeToString(body)
	raw := signed + "." + base64.RawURLEncoding.EncodeToString(k.mac(signed))
	if len(raw) > MaxToken {
		return Token{}, fmt.Errorf("make token of %s: %d bytes, the most is %d: name fewer services", c.Name, len(raw), MaxToken)
	}
	return ParseToken(raw)
}

// Verify checks that token was minted under k and returns its claims. Its
// errors are safe to send to whoever showed the token.
func (k ClusterKey) Verify(token string) (Claims, error) {
	signed, mac, err := split(token)
	if err != nil {
		return Claims{}, err
	}
	if !hmac.Equal(mac, k.mac(signed)) {
		return Claims{}, errors.New("the token was not made with this cluster's key")
	}
	t, err := parsePayload(signed)
	return t.Claims, err
}

// ParseToken reads a token without proving it: what an agent does with its own.
func ParseToken(token string) (Token, error) {
	signed, _, err := split(token)
	if err != nil {
		return Token{}, err
	}
	t, err := parsePayload(signed)
	if err != nil {
		return Token{}, err
	}
	t.raw = token
	return t, nil
}

func (k ClusterKey) mac(signed string) []byte {
	key := k.tokenKey()
	h := hmac.New(sha256.New, key[:])
	io.WriteString(h, signed)
	return h.Sum(nil)
}

// split parts a token into what is signed (prefix included) and the MAC.
func split(token string) (signed string, mac []byte, err error) {
	if token == "" {
		return "", nil, errors.New("the token is empty")
	}
	if len(token) > MaxToken {
		return "", nil, fmt.Errorf("the token is longer than %d bytes", MaxToken)
	}
	if !strings.HasPrefix(token, tokenPrefix) {
		return "", nil, fmt.Errorf("not a token of this version: it must begin with %s", tokenPrefix)
	}
	signed, text, ok := cutLast(token, ".")
	if !ok || len(signed) < len(tokenPrefix) {
		return "", nil, errors.New("the token is damaged: it has no MAC; copy it again, whole")
	}
	mac, err = decode(base64.RawURLEncoding, text)
	if err != nil || len(mac) != sha256.Size {
		return "", nil, errors.New("the token is damaged: its MAC is incomplete; copy it again, whole")
	}
	return signed, mac, nil
}

// parsePayload reads the signed part. Only the one encoding that Mint writes is
// taken, so that a token has a single form.
func parsePayload(signed string) (Token, error) {
	body, err := decode(base64.RawURLEncoding, strings.TrimPrefix(signed, tokenPrefix))
	if err != nil {
		return Token{}, errors.New("the token is damaged: its claims are not base64url; copy it again, whole")
	}
	var p payload
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return Token{}, fmt.Errorf("the token's claims cannot be read: %w", err)
	}
	if p.Version != 1 {
		return Token{}, fmt.Errorf("the token's claims are of version %d; this program reads version 1", p.Version)
	}
	if canonical, err := json.Marshal(p); err != nil || !bytes.Equal(canonical, body) {
		return Token{}, errors.New("the token's claims are not in the form this program writes")
	}
	t := Token{Claims: Claims{p.Name, p.Addresses, p.Services}, Pin: p.Pin, Issued: time.Unix(p.Issued, 0).UTC()}
	if errs := t.Validate(); len(errs) > 0 {
		return Token{}, fmt.Errorf("the token's claims are refused: %w", errors.Join(errs...))
	}
	return t, nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// decode accepts the one canonical form of each value: encoding/base64 alone
// skips line ends and spare bits.
func decode(enc *base64.Encoding, s string) ([]byte, error) {
	b, err := enc.DecodeString(s)
	if err != nil {
		return nil, errors.New("not base64") // the error would quote the secret's position
	}
	if enc.EncodeToString(b) != s {
		return nil, errors.New("not canonical base64")
	}
	return b, nil
}
