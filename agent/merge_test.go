package agent

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"lvstun/director/client"
	"lvstun/httpcheck"
)

// define is a definition as a director gives it.
func define(name, vip, path string) client.ServiceDefinition {
	return client.ServiceDefinition{
		Name: name, VIP: netip.MustParseAddr(vip), Port: 80, Protocol: "tcp",
		Encapsulation: client.Encapsulation{Type: "ipip"},
		Check:         httpcheck.Spec{Kind: httpcheck.HTTP, Path: path}.WithDefaults(), Weight: 1,
	}
}

func answer(director, role string, term uint64, services ...client.ServiceDefinition) *client.Answer {
	return &client.Answer{Director: director, Role: role, Term: term, Lease: client.Duration(3e9), Services: services}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		answers     []*client.Answer
		vips        string
		paths       map[string]string // which definition counts, by its check's path
		differences []string
	}{
		{name: "nobody answered yet", answers: []*client.Answer{nil, nil}, vips: "[]", paths: map[string]string{}},
		{
			name:    "one answers",
			answers: []*client.Answer{nil, answer("vs_bk", "standby", 1, define("HTTP", "10.0.0.50", "/"))},
			vips:    "[10.0.0.50]", paths: map[string]string{"HTTP": "/"},
		},
		{
			name:    "two of one mind",
			answers: []*client.Answer{answer("vs", "active", 1, define("HTTP", "10.0.0.50", "/")), answer("vs_bk", "standby", 1, define("HTTP", "10.0.0.50", "/"))},
			vips:    "[10.0.0.50]", paths: map[string]string{"HTTP": "/"},
		},
		{
			name:    "the higher term counts, the VIPs are the union",
			answers: []*client.Answer{answer("vs", "active", 1, define("HTTP", "10.0.0.50", "/old")), answer("vs_bk", "standby", 2, define("HTTP", "10.0.0.51", "/new"))},
			vips:    "[10.0.0.50 10.0.0.51]", paths: map[string]string{"HTTP": "/new"},
			differences: []string{"service HTTP: vs_bk and vs want different things; vs_bk counts (term 2)"},
		},
		{
			name:    "in one term the active counts",
			answers: []*client.Answer{answer("vs", "standby", 2, define("HTTP", "10.0.0.50", "/old")), answer("vs_bk", "active", 2, define("HTTP", "10.0.0.50", "/new"))},
			vips:    "[10.0.0.50]", paths: map[string]string{"HTTP": "/new"},
			differences: []string{"service HTTP: vs_bk and vs want different things; vs_bk counts (term 2)"},
		},
		{
			name:    "a service that one lacks",
			answers: []*client.Answer{answer("vs", "active", 1, define("HTTP", "10.0.0.50", "/")), answer("vs_bk", "standby", 1)},
			vips:    "[10.0.0.50]", paths: map[string]string{"HTTP": "/"},
			differences: []string{"service HTTP: vs_bk does not have it, vs does"},
		},
		{
			name:    "a firewall mark without a VIP",
			answers: []*client.Answer{answer("vs", "active", 1, client.ServiceDefinition{Name: "M", FWMark: 7})},
			vips:    "[]", paths: map[string]string{"M": ""},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := merge(tt.answers)
			if got := fmt.Sprint(w.vips); got != tt.vips {
				t.Errorf("VIPs %s, want %s", got, tt.vips)
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

// Whatever the directors say, no VIP of any answer is lost, every service has a definition that some
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
		w := merge(answers)
		vips := map[netip.Addr]bool{}
		for _, v := range w.vips {
			if vips[v] {
				t.Fatalf("%s twice in %v", v, w.vips)
			}
			vips[v] = true
		}
		given := map[client.ServiceDefinition]bool{}
		for _, a := range answers {
			if a == nil {
				continue
			}
			for _, s := range a.Services {
				given[s] = true
				if !vips[s.VIP] {
					t.Fatalf("VIP %s of %s is lost", s.VIP, a.Director)
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
			if d := merge([]*client.Answer{answers[0], answers[0]}).differences; len(d) != 0 {
				t.Fatalf("one answer twice differs: %v", d)
			}
		}
	})
}
