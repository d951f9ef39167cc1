// Package trust holds what directors and agents prove themselves with: the
// cluster key and the keys derived from it, the directors' pinned TLS identity,
// and the tokens that name what a real server may register.
//
// Everything follows from the 32 bytes of the cluster key, so two directors
// with the same file agree without a shared store, a CA or a date.
package trust

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
)

// ClusterKey is the secret every director of a cluster holds and nobody else.
// It never prints itself: not by fmt, log/slog or encoding/json.
type ClusterKey [32]byte

// GenerateKey makes a new cluster key from the system's randomness.
func GenerateKey() ClusterKey {
	var k ClusterKey
	rand.Read(k[:]) // never fails: crypto/rand ends the program instead
	return k
}

// What each derived key is for (the info of RFC 5869). A change of meaning
// takes a new string, never an old one.
const (
	infoHeartbeat = "lvstun 1 heartbeat hmac-sha256"
	infoToken     = "lvstun 1 token hmac-sha256"
	infoIdentity  = "lvstun 1 tls identity ed25519"
	infoWitness   = "lvstun 1 witness hmac-sha256 " // and the real server's name
)

// HeartbeatKey is the HMAC-SHA256 key of the datagrams between directors.
func (k ClusterKey) HeartbeatKey() [32]byte { return k.derive(infoHeartbeat) }

// WitnessKey is the HMAC-SHA256 key of the witness questions to the real server
// called name and of its answers. Its agent gets it with its lease, so that no
// real server can speak for another.
func (k ClusterKey) WitnessKey(name string) [32]byte { return k.derive(infoWitness + name) }

func (k ClusterKey) tokenKey() [32]byte { return k.derive(infoToken) }

func (k ClusterKey) derive(info string) [32]byte {
	b, err := hkdf.Key(sha256.New, k[:], nil, info, 32)
	if err != nil { // only for more than 255 hashes of output
		panic(fmt.Sprintf("trust: HKDF refused 32 bytes: %v", err))
	}
	return [32]byte(b)
}
