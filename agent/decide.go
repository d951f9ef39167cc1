package agent

import (
	"fmt"
	"net/netip"
	"slices"

	"lvstun/director/client"
	"lvstun/httpcheck"
	"lvstun/tunnel"
	"lvstun/tunnel/guard"
)

// side is how the tunnel side stands.
type side struct {
	applied  bool              // it was looked at since the directors said what they want
	held     []tunnel.Receiver // by which packets come in, with every kernel setting that they need
	guard    guardSide
	problems []string // first those that keep packets from coming in
}

// guardSide is how the guard stands. What is wrong with it keeps no packet from coming in.
type guardSide struct {
	counters []guard.Counter // as last seen; none before the first time
	problem  string
}

// ok reports whether nothing is wrong with the tunnel side.
func (s side) ok() bool { return s.applied && len(s.problems) == 0 }

// vips are those that packets come in for, each once.
func (s side) vips() []netip.Addr {
	var all []netip.Addr
	for _, r := range s.held { // sorted by VIP
		all = append(all, r.VIP)
	}
	return slices.Compact(all)
}

// verdict is what the checks of a service add up to.
type verdict struct {
	state  httpcheck.State
	reason string // of the last failure, while not up
}

// target is where and how a service is checked. Two equal targets are one check.
type target struct {
	spec httpcheck.Spec
	addr netip.AddrPort
}

// targetOf is the check of service s on the real server at address: on the VIP, as the clients' packets
// arrive. A service of a firewall mark may have no VIP: then on the real server's own address.
func targetOf(s client.ServiceDefinition, address netip.Addr) target {
	vip := s.VIP
	if !vip.IsValid() {
		vip = address
	}
	return target{spec: s.Check, addr: netip.AddrPortFrom(vip, s.Port)}
}

// decide is what to report of one service: ready only if the tunnel side is right for it and its check
// is up, else down with the first reason on the packet's way in.
func decide(name string, w wanted, address netip.Addr, s side, v verdict) (client.State, string) {
	d, known := w.services[name]
	if !known {
		return client.Down, "no director has said what this service is"
	}
	if why := obstacle(d, address, s); why != "" {
		return client.Down, why
	}
	switch v.state {
	case httpcheck.Up:
		return client.Ready, ""
	case httpcheck.Down:
		return client.Down, v.reason
	}
	if v.reason == "" {
		return client.Down, "checking"
	}
	return client.Down, "checking: " + v.reason
}

// obstacle is what keeps packets of service d from arriving, "" if nothing does.
func obstacle(d client.ServiceDefinition, address netip.Addr, s side) string {
	r, ok := receiver(d, address)
	switch {
	case !ok:
		return ""
	case !s.applied:
		return "tunnel side: not built yet"
	case slices.Contains(s.held, r):
		return ""
	case len(s.problems) > 0:
		return "tunnel side: " + s.problems[0]
	}
	return fmt.Sprintf("tunnel side: %s is not in place", r)
}

// report is the registration that says all of it.
func report(names []string, weight int, address netip.Addr, session uint64, w wanted, s side, verdicts map[string]verdict) client.Registration {
	r := client.Registration{Address: address, Session: session}
	for _, name := range names {
		state, reason := decide(name, w, address, s, verdicts[name])
		r.Services = append(r.Services, client.ServiceReport{Name: name, Weight: weight, State: state, Reason: reason})
	}
	r.Tunnel = client.TunnelReport{OK: s.ok(), Problems: s.problems}
	return r
}
