package client

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unicode/utf8"

	"lvstun/director/trust"
)

// The bounds of the messages.
const (
	MaxServices  = trust.MaxServices // of one registration or answer
	MaxWeight    = 65535             // as ipvsadm takes it
	MaxReason    = 512               // bytes of a reason
	MaxProblems  = 32                // of a tunnel report
	MaxDirectors = 64                // addresses of directors in an answer

	MinLease = 300 * time.Millisecond // below it an agent would do nothing but renew
	MaxLease = time.Hour
)

// Validate returns every fault of r, none when it is sound.
func (r Registration) Validate() []error {
	var f faults
	f.check("address", trust.CheckAddress(r.Address))
	if r.Session == 0 {
		f.add("session: 0, want the nanoseconds since 1970 at the agent's start")
	}
	if f.count("services", len(r.Services), 1, MaxServices) {
		seen := make(map[string]bool, len(r.Services))
		for _, s := range r.Services {
			f.service(s, seen)
		}
	}
	if f.count("tunnel: problems", len(r.Tunnel.Problems), 0, MaxProblems) {
		for _, p := range r.Tunnel.Problems {
			f.check("tunnel: problem", checkText(p, MaxReason))
		}
	}
	return f
}

func (f *faults) service(s ServiceReport, seen map[string]bool) {
	if !f.name("service", s.Name, seen) {
		return
	}
	f.weight(s.Name, s.Weight)
	switch s.State {
	case Ready, Draining, Down:
	default:
		f.add("service %s: state %.32q, want %s, %s or %s", s.Name, s.State, Ready, Draining, Down)
	}
	f.check("service "+s.Name+": reason", checkText(s.Reason, MaxReason))
}

// Validate returns every fault of a, none when it is sound.
func (a Answer) Validate() []error {
	var f faults
	f.check("director", checkText(a.Director, trust.MaxName))
	f.check("role", checkText(a.Role, 32))
	if l := time.Duration(a.Lease); l < MinLease || l > MaxLease {
		f.add("lease: %s, want %s to %s", l, MinLease, MaxLease)
	}
	if f.count("directors", len(a.Directors), 0, MaxDirectors) {
		for _, d := range a.Directors {
			f.check("directors", trust.CheckAddress(d))
		}
	}
	if f.count("services", len(a.Services), 0, MaxServices) {
		seen := make(map[string]bool, len(a.Services))
		for _, s := range a.Services {
			f.definition(s, seen)
		}
	}
	return f
}

func (f *faults) definition(s ServiceDefinition, seen map[string]bool) {
	if !f.name("service", s.Name, seen) {
		return
	}
	what := "service " + s.Name
	// A service of a firewall mark may do without a VIP of its own.
	if s.FWMark == 0 || s.VIP != (netip.Addr{}) {
		f.check(what+": vip", trust.CheckAddress(s.VIP))
	}
	if s.Port == 0 && s.FWMark == 0 {
		f.add("%s: port: 0, want 1 to 65535", what)
	}
	if s.Protocol != "tcp" && s.Protocol != "udp" && (s.Protocol != "" || s.FWMark == 0) {
		f.add("%s: protocol %.32q, want tcp or udp", what, s.Protocol)
	}
	switch e := s.Encapsulation; {
	case e.Type == "gue" && e.Port == 0:
		f.add("%s: encapsulation: gue has no port", what)
	case e.Type != "ipip" && e.Type != "gue" && e.Type != "gre":
		f.add("%s: encapsulation %.32q, want ipip, gue or gre", what, e.Type)
	}
	f.weight(s.Name, s.Weight)
	for _, err := range s.Check.Validate() {
		f.check(what+": check", err)
	}
}

// faults collects what is wrong.
type faults []error

func (f *faults) add(format string, args ...any) { *f = append(*f, fmt.Errorf(format, args...)) }

func (f *faults) check(what string, err error) {
	if err != nil {
		f.add("%s: %w", what, err)
	}
}

// count reports whether n is within its bounds: only then is it worth looking
// at every one.
func (f *faults) count(what string, n, least, most int) bool {
	if n >= least && n <= most {
		return true
	}
	f.add("%s: %d given, want %d to %d", what, n, least, most)
	return false
}

// name reports whether name is sound and new.
func (f *faults) name(what, name string, seen map[string]bool) bool {
	if err := trust.CheckName(name); err != nil {
		f.add("%s: name: %w", what, err)
		return false
	}
	if seen[name] {
		f.add("%s %s: given twice", what, name)
		return false
	}
	seen[name] = true
	return true
}

func (f *faults) weight(service string, w int) {
	if w < 0 || w > MaxWeight {
		f.add("service %s: weight: %d, want 0 to %d", service, w, MaxWeight)
	}
}

// checkText faults text that a terminal should not be given.
func checkText(s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%d bytes long, the most is %d", len(s), limit)
	}
	for _, r := range s {
		if !prints(r) {
			return fmt.Errorf("holds %q, which does not print", r)
		}
	}
	if !utf8.ValidString(s) {
		return errors.New("is not UTF-8")
	}
	return nil
}
