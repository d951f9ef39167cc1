package agent

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"lvstun/director/client"
	"lvstun/httpcheck"
	"lvstun/tunnel"
)

// define is a definition as a director gives it.
func define(name, vip, path string) client.ServiceDefinition {
	return client.ServiceDefinition{
		Name: name, VIP: netip.MustParseAddr(vip), Port: 80, Protocol: "tcp",
		Encapsulation: client.Encapsulation{Type: "ipip"},
		Check:         httpcheck.Spec{Kind: httpcheck.HTTP, Path: path}.WithDefaults(), Weight: 1,
	}
}

func wrapped(d client.ServiceDefinition, kind string, port uint16) client.ServiceDefinition {
	d.Encapsulation = client.Encapsulation{Type: kind, Port: port}
	return d
}

func answer(director, role string, term uint64, services ...client.ServiceDefinition) *client.Answer {
	return &client.Answer{Director: director, Role: role, Term: term, Lease: client.Duration(3e9), Services: services}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		answers     []*client.Answer
		receivers   string            // how packets come in
		paths       map[string]string // which definition counts, by its check's path
		differences []string
	}{
		{name: "nobody answered yet", answers: []*client.Answer{nil, nil}, receivers: "[]", paths: map[string]string{}},
		{
			name:      "one answers",
			answers:   []*client.Answer{nil, answer("vs_bk", "standby", 1, define("HTTP", "10.0.0.50", "/"))},
			receivers: "[10.0.0.50 by ipip over IPv4]", paths: map[string]string{"HTTP": "/"},
		},
		{
			name:      "two of one mind",
			answers:   []*client.Answer{answer("vs", "active", 1, define("HTTP", "10.0.0.50", "/")), answer("vs_bk", "standby", 1, define("HTTP", "10.0.0.50", "/"))},
			receivers: "[10.0.0.50 by ipip over IPv4]", paths: map[string]string{"HTTP": "/"},
		},
		{
			name:      "the higher term counts, the VIPs are the union",
			answers:   []*client.Answer{answer("vs", "active", 1, define("HTTP", "10.0.0.50", "/old")), answer("vs_bk", "standby", 2, define("HTTP", "10.0.0.51", "/new"))},
			receivers: "[10.0.0.50 by ipip over IPv4 10.0.0.51 by ipip over IPv4]", paths: map[string]string{"HTTP": "/new"},
			differences: []string{"service HTTP: vs_bk and vs want different things; vs_bk counts (term 2)"},
		},
		{
			name:      "in one term the active counts",
			answers:   []*client.Answer{answer("vs", "standby", 2, define("HTTP", "10.0.0.50", "/old")), answer("vs_bk", "active", 2, define("HTTP", "10.0.0.50", "/new"))},
			receivers: "[10.0.0.50 by ipip over IPv4]", paths: map[string]string{"HTTP": "/new"},
			differences: []string{"service HTTP: vs_bk and vs want different things; vs_bk counts (term 2)"},
		},
		{
			name:      "a service that one lacks",
			answers:   []*client.Answer{answer("vs", "active", 1, define("HTTP", "10.0.0.50", "/")), answer("vs_bk", "standby", 1)},
			receivers: "[10.0.0.50 by ipip over IPv4]", paths: map[string]string{"HTTP": "/"},
			differences: []string{"service HTTP: vs_bk does not have it, vs does"},
		},
		{
			name:      "encapsulations differ: both come in",
			answers:   []*client.Answer{answer("vs", "active", 1, wrapped(define("HTTP", "10.0.0.50", "/"), "ipip", 0)), answer("vs_bk", "standby", 1, wrapped(define("HTTP", "10.0.0.50", "/"), "gue", 6080))},
			receivers: "[10.0.0.50 by gue to port 6080 over IPv4 10.0.0.50 by ipip over IPv4]", paths: map[string]string{"HTTP": "/"},
			differences: []string{"service HTTP: vs and vs_bk want different things; vs counts (term 1)"},
		},
		{
			name:      "two services of one VIP, and one of another family",
			answers:   []*client.Answer{answer("vs", "active", 1, define("A", "2001:db8::50", "/"), define("B", "10.0.0.50", "/"), define("C", "10.0.0.50", "/"))},
			receivers: "[10.0.0.50 by ipip over IPv4 2001:db8::50 by ipip over IPv4]", paths: map[string]string{"A": "/", "B": "/", "C": "/"},
		},
		{
			name:      "a firewall mark without a VIP",
			answers:   []*client.Answer{answer("vs", "active", 1, client.ServiceDefinition{Name: "M", FWMark: 7})},
			receivers: "[]", paths: map[string]string{"M": ""},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := merge(tt.answers, rip)
			if got := fmt.Sprint(w.receivers); got != tt.receivers {
				t.Errorf("receivers %s, want %s", got, tt.receivers)
			}
			paths := map[string]string{}
			for name, s := range w.services {
				paths[name] = s.Check.Path
			}
			if diff := cmp.Diff(tt.paths, paths); diff != "" {
				t.Errorf("definitions (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.differences, w.differences); diff != "" {
				t.Errorf("differences (-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever the directors say, no receiver of any answer is lost, every service has a definition that some
// director gave, and equal answers leave nothing to remark.
func TestMergeProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		definition := rapid.Custom(func(t *rapid.T) client.ServiceDefinition {
			return define(rapid.SampledFrom([]string{"A", "B", "C"}).Draw(t, "name"),
				fmt.Sprintf("10.0.0.%d", rapid.IntRange(1, 3).Draw(t, "vip")), rapid.SampledFrom([]string{"/x", "/y"}).Draw(t, "path"))
		})
		var answers []*client.Answer
		for i := range rapid.IntRange(0, 3).Draw(t, "directors") {
			a := answer(fmt.Sprintf("d%d", i), rapid.SampledFrom([]string{"active", "standby"}).Draw(t, "role"), rapid.Uint64Range(0, 2).Draw(t, "term"))
			a.Services = rapid.SliceOfNDistinct(definition, 0, 3, func(s client.ServiceDefinition) string { return s.Name }).Draw(t, "services")
			answers = append(answers, a, nil)
		}
		w := merge(answers, rip)
		receivers := map[tunnel.Receiver]bool{}
		for _, r := range w.receivers {
			if receivers[r] {
				t.Fatalf("%s twice in %v", r, w.receivers)
			}
			receivers[r] = true
		}
		given := map[client.ServiceDefinition]bool{}
		for _, a := range answers {
			if a == nil {
				continue
			}
			for _, s := range a.Services {
				given[s] = true
				if r, ok := receiver(s, rip); !ok || !receivers[r] {
					t.Fatalf("%s of %s is lost", r, a.Director)
				}
				if _, ok := w.services[s.Name]; !ok {
					t.Fatalf("service %s of %s is lost", s.Name, a.Director)
				}
			}
		}
		for _, s := range w.services {
			if !given[s] {
				t.Fatalf("nobody gave %v", s)
			}
		}
		if len(answers) > 0 {
			if d := merge([]*client.Answer{answers[0], answers[0]}, rip).differences; len(d) != 0 {
				t.Fatalf("one answer twice differs: %v", d)
			}
		}
	})
}
