package trust

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
)

func TestIdentityIsTheSameOnEveryDirector(t *testing.T) {
	k := testKey()
	a, err := k.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	b, err := k.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Certificate[0], b.Certificate[0]) {
		t.Error("two certificates of one key differ")
	}
	pin, err := k.Pin()
	if err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(a.Leaf.RawSubjectPublicKeyInfo) != pin {
		t.Error("the pin is not that of the certificate")
	}
	// Agents hold this pin in their tokens: it must outlast every new version.
	if got, want := pin.String(), "zNv0qr3-e2Nf69un3csubnQGrm8E8rRjdwAc-pfSEgE"; got != want {
		t.Errorf("pin %s, want %s", got, want)
	}
	if other, _ := GenerateKey().Pin(); other == pin {
		t.Error("two keys have one pin")
	}
}

func TestPinText(t *testing.T) {
	pin, _ := testKey().Pin()
	text, _ := pin.MarshalText()
	var back Pin
	if err := back.UnmarshalText(text); err != nil || back != pin {
		t.Errorf("error %v, or another pin came back", err)
	}
	for _, bad := range []string{"", "AAAA", string(text) + "A", string(text) + "\n", "!" + string(text[1:])} {
		if err := new(Pin).UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was read as a pin", bad)
		}
	}
}

// handshake runs one over a pipe and returns both sides' errors.
func handshake(server, client *tls.Config) (state tls.ConnectionState, serverErr, clientErr error) {
	a, b := net.Pipe()
	done := make(chan error)
	go func() {
		conn := tls.Server(a, server)
		err := conn.Handshake()
		if err == nil { // the client's verdict comes after the handshake of TLS 1.3
			_, err = conn.Read(make([]byte, 1))
		}
		a.Close()
		done <- err
	}()
	conn := tls.Client(b, client)
	clientErr = conn.Handshake()
	if clientErr == nil {
		_, clientErr = conn.Write([]byte{1})
	}
	state = conn.ConnectionState()
	b.Close()
	return state, <-done, clientErr
}

func TestHandshake(t *testing.T) {
	k, other := testKey(), GenerateKey()
	pin, err := k.Pin()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := k.ServerTLS()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := other.ServerTLS()
	if err != nil {
		t.Fatal(err)
	}
	oldClient := PinnedClient(pin)
	oldClient.MinVersion, oldClient.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	oldServer := ours.Clone()
	oldServer.MinVersion, oldServer.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	// A server that shows our certificate without our key.
	thief := ours.Clone()
	cert, _ := k.Certificate()
	cert.PrivateKey = other.identity()
	thief.Certificates = []tls.Certificate{cert}

	tests := []struct {
		name           string
		server, client *tls.Config
		want           string // in one side's error
	}{
		{"the pinned key", ours, PinnedClient(pin), ""},
		{"another cluster", theirs, PinnedClient(pin), ErrWrongPin.Error()},
		{"the certificate without its key", thief, PinnedClient(pin), "x509"},
		{"a client of TLS 1.2", ours, oldClient, "version"},
		{"a server of TLS 1.2", oldServer, PinnedClient(pin), "version"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			state, serverErr, clientErr := handshake(tt.server, tt.client)
			if tt.want == "" {
				if serverErr != nil || clientErr != nil || state.Version != tls.VersionTLS13 {
					t.Errorf("server: %v, client: %v, version %x", serverErr, clientErr, state.Version)
				}
				return
			}
			if clientErr == nil {
				t.Fatal("the client went on")
			}
			if both := errors.Join(serverErr, clientErr).Error(); !strings.Contains(both, tt.want) && tt.want != "x509" {
				t.Errorf("%s, want %q", both, tt.want)
			}
		})
	}
}
