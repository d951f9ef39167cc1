package trust

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// ServerName is what agents ask for in TLS; the pin decides, not the name.
const ServerName = "lvs-director"

// Pin is the SHA-256 of the directors' SubjectPublicKeyInfo: it names the one
// TLS key an agent believes. It is no secret.
type Pin [sha256.Size]byte

// String is the pin in unpadded base64url.
func (p Pin) String() string { return base64.RawURLEncoding.EncodeToString(p[:]) }

// MarshalText is String.
func (p Pin) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (p *Pin) UnmarshalText(b []byte) error {
	raw, err := decode(base64.RawURLEncoding, string(b))
	if err != nil || len(raw) != len(p) {
		return fmt.Errorf("a pin is %d bytes in base64url", len(p))
	}
	*p = Pin(raw)
	return nil
}

// Pin is the pin of Certificate.
func (k ClusterKey) Pin() (Pin, error) {
	spki, err := x509.MarshalPKIXPublicKey(k.identity().Public())
	if err != nil {
		return Pin{}, fmt.Errorf("encode the directors' public key: %w", err)
	}
	return sha256.Sum256(spki), nil
}

func (k ClusterKey) identity() ed25519.PrivateKey {
	seed := k.derive(infoIdentity)
	return ed25519.NewKeyFromSeed(seed[:])
}

// Certificate is the directors' TLS identity: the same on every director of the
// cluster, byte for byte, without an end (RFC 5280 §4.1.2.5), believed by pin.
func (k ClusterKey) Certificate() (tls.Certificate, error) {
	key := k.identity()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: ServerName},
		DNSNames:     []string{ServerName},
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	// The reader is not used: an Ed25519 signature has no randomness (RFC 8032).
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make the directors' certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make the directors' certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// ServerTLS is a director's side of TLS: Certificate, version 1.3 only.
func (k ClusterKey) ServerTLS() (*tls.Config, error) {
	cert, err := k.Certificate()
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}}, nil
}

// ErrWrongPin is returned by a handshake with a server that is not a director
// of the token's cluster.
var ErrWrongPin = errors.New("the server's key is not this cluster's: the token is of another cluster, or this is not its director")

// PinnedClient is an agent's side of TLS: version 1.3 only, and only with the
// holder of the pinned key. No CA is asked and no date is looked at.
func PinnedClient(pin Pin) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		ServerName:         ServerName,
		InsecureSkipVerify: true, // VerifyConnection is what verifies, on resumption too
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return ErrWrongPin
			}
			got := sha256.Sum256(cs.PeerCertificates[0].RawSubjectPublicKeyInfo)
			if subtle.ConstantTimeCompare(got[:], pin[:]) != 1 {
				return ErrWrongPin
			}
			return nil
		},
	}
}
