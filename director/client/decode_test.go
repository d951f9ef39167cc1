package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const registrationText = `{"address":"192.168.1.100","session":1,` +
	`"services":[{"name":"HTTP","weight":10,"state":"ready"},{"name":"DNS","state":"down","reason":"connection refused"}],` +
	`"tunnel":{"ok":true}}`

var cmpAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestRegistrationOnTheWire(t *testing.T) {
	b, err := json.Marshal(soundRegistration())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(registrationText, string(b)); diff != "" {
		t.Errorf("written (-want +got):\n%s", diff)
	}
	got, err := DecodeRegistration(strings.NewReader(registrationText + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(soundRegistration(), got, cmpAddr); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
}

func TestAnswerOnTheWire(t *testing.T) {
	const want = `{"director":"vs","role":"active","term":3,"lease":"3s","directors":["10.0.0.1","10.0.0.2"],` +
		`"services":[{"name":"HTTP","vip":"10.0.0.50","port":80,"protocol":"tcp","encapsulation":{"type":"ipip"},` +
		`"check":{"kind":"http","path":"/","expect_status":200,"interval":"2s","timeout":"1s","rise":2,"fall":2},"weight":1}]}`
	b, err := json.Marshal(soundAnswer())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Errorf("written (-want +got):\n%s", diff)
	}
}

func TestDecodeRegistrationRefuses(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"empty", "", "it is empty"},
		{"blank", " \n", "it is empty"},
		{"cut short", registrationText[:40], "it ends too early"},
		{"not JSON", "hello", "invalid character 'h'"},
		{"a list", "[]", "want a JSON object, got array"},
		{"a string", `"x"`, "want a JSON object, got string"},
		{"unknown field", strings.Replace(registrationText, `"session"`, `"sesion"`, 1), `unknown field "sesion"`},
		{"unknown field in a service", strings.Replace(registrationText, `"weight"`, `"wieght"`, 1), `unknown field "wieght"`},
		{"wrong type", strings.Replace(registrationText, `"weight":10`, `"weight":"10"`, 1), "services.weight cannot be a JSON string"},
		{"a number too great", strings.Replace(registrationText, `"weight":10`, `"weight":1e99`, 1), "services.weight cannot be a JSON number 1e99"},
		{"a session below zero", strings.Replace(registrationText, `"session":1`, `"session":-1`, 1), "session cannot be a JSON number -1"},
		{"not an address", strings.Replace(registrationText, "192.168.1.100", "rs1", 1), "unable to parse IP"},
		{"a second object", registrationText + registrationText, "more follows after its end"},
		{"rubbish after it", registrationText + "x", "more follows after its end"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := DecodeRegistration(strings.NewReader(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "json:") {
				t.Errorf("error %v speaks of Go", err)
			}
			if diff := cmp.Diff(Registration{}, r, cmpAddr); diff != "" {
				t.Errorf("something came with the error: %s", diff)
			}
		})
	}
}

// What goes wrong with the body itself stays visible to the caller.
func TestDecodeRegistrationKeepsTheReadersError(t *testing.T) {
	broken := errors.New("broken")
	for _, text := range []string{"", registrationText[:40], registrationText} {
		_, err := DecodeRegistration(io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Errorf("after %d bytes: error %v, want %v", len(text), err, broken)
		}
	}
}

func FuzzRegistration(f *testing.F) {
	f.Add([]byte(registrationText))
	f.Add([]byte(`{}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"services":[{"name":"\u0000","weight":-1}],"tunnel":{"problems":["\ud800"]}}`))
	f.Add([]byte(`{"address":"fe80::1%eth0","session":18446744073709551616}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRegistration(bytes.NewReader(b))
		if err != nil {
			return
		}
		if errs := r.printable().Validate(); len(errs) > 0 {
			return
		}
		// What is sound comes back from the wire as it was.
		r = r.printable()
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeRegistration(bytes.NewReader(again))
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if len(r.Tunnel.Problems) == 0 { // none and an empty list are the same
			r.Tunnel.Problems, back.Tunnel.Problems = nil, nil
		}
		if diff := cmp.Diff(r, back, cmpAddr); diff != "" {
			t.Errorf("(-first +second):\n%s", diff)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	b, err := json.Marshal(soundAnswer())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"lease":"-1s","services":[{"check":{"kind":"http","regex":true}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a Answer
		if json.Unmarshal(b, &a) != nil || len(a.Validate()) > 0 {
			return
		}
		if l := time.Duration(a.Lease); l < MinLease || l > MaxLease {
			t.Errorf("lease %s was let through", l)
		}
		for _, s := range a.Services {
			if s.FWMark == 0 && (s.Port == 0 || !s.VIP.IsValid() || s.VIP.IsUnspecified()) {
				t.Errorf("service %+v was let through", s)
			}
		}
	})
}
