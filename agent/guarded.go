package agent

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"lvstun/tunnel"
	"lvstun/tunnel/guard"
)

// tunnelDevices are all of package tunnel, with what their fallback devices take.
var tunnelDevices = []guard.Device{
	{Name: "tunl0", Protocols: []uint8{guard.IPv4InIP}},
	{Name: "sit0", Protocols: []uint8{guard.IPv6InIP}},
	{Name: "ip6tnl0", IPv6: true, Protocols: []uint8{guard.IPv4InIP, guard.IPv6InIP}},
	{Name: "gre0", Protocols: []uint8{guard.GRE}},
	{Name: "ip6gre0", IPv6: true, Protocols: []uint8{guard.GRE}},
}

// guardOf is what the guard lets through to the receivers of a real server whose own device has this MTU.
// It does not look at ports: the directors forward only those of their services.
func guardOf(receivers []tunnel.Receiver, directors []netip.Addr, mtu int) guard.Desired {
	d := guard.Desired{Directors: directors}
	for _, r := range receivers {
		d.VIPs = append(d.VIPs, r.VIP)
		header := 0
		switch r.Type {
		case tunnel.GUE:
			header = guard.GUEHeader
			d.GUEPorts = append(d.GUEPorts, r.Port)
		case tunnel.GRE:
			header = guard.GREHeader
		}
		most := &d.MSS4
		if r.VIP.Is6() {
			most = &d.MSS6
		}
		if mss := guard.MSS(mtu, header, r.VIP, r.RIP); *most == 0 || mss < *most {
			*most = mss
		}
	}
	for _, device := range tunnelDevices {
		if slices.ContainsFunc(receivers, func(r tunnel.Receiver) bool { return r.Device() == device.Name }) {
			d.Devices = append(d.Devices, device)
		}
	}
	return d
}

// mtuOf is that of the path from the directors, as far as the device tells; "" tells nothing.
func mtuOf(device string) int {
	if i, err := net.InterfaceByName(device); err == nil {
		return min(guard.PathMTU, i.MTU)
	}
	return guard.PathMTU
}

// refusalsPause is between two warnings of refused packets: whoever sends them decides how many there are.
const refusalsPause = time.Minute

// refusals warns of packets that the guard refused. The zero one knows of none.
type refusals struct {
	known map[string]uint64 // at the last warning, by counter; nil before the first look
	said  time.Time
}

// look takes the counters as they are now. What was counted before the first look is no news.
func (r *refusals) look(counters []guard.Counter, now time.Time, log *slog.Logger) {
	if len(counters) == 0 {
		return
	}
	next := map[string]uint64{}
	var news []string
	for _, c := range counters {
		if !c.Refused {
			continue
		}
		next[c.Name] = c.Packets
		if r.known != nil && c.Packets > r.known[c.Name] {
			news = append(news, fmt.Sprintf("%d %s", c.Packets-r.known[c.Name], c.Name))
		}
	}
	switch {
	case len(news) == 0:
		r.known = next
	case r.said.IsZero() || now.Sub(r.said) >= refusalsPause:
		log.Warn("the guard refused packets of tunnels", "reason", strings.Join(news, ", "))
		r.known, r.said = next, now
	}
}

// status is the guard's part of Status.
func (g guardSide) status() GuardStatus {
	s := GuardStatus{Counters: map[string]uint64{}, Problem: g.problem}
	for _, c := range g.counters {
		s.Counters[c.Name] = c.Packets
		if c.Refused {
			s.Refused += c.Packets
		}
	}
	return s
}
