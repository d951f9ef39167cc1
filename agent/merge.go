package agent

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"lvstun/director/client"
	"lvstun/tunnel"
)

// wanted is what the directors together want of this real server.
type wanted struct {
	services    map[string]client.ServiceDefinition // by name
	receivers   []tunnel.Receiver                   // of every answer, sorted, each once
	directors   []netip.Addr                        // the addresses of all of them, sorted, each once
	differences []string                            // where the answers disagree
}

// receiver is how the packets of service s reach the real server at address; ok is false for a service
// of a firewall mark that has no VIP of its own.
func receiver(s client.ServiceDefinition, address netip.Addr) (r tunnel.Receiver, ok bool) {
	r = tunnel.Receiver{VIP: s.VIP.Unmap(), RIP: address.Unmap(), Type: tunnel.Type(s.Encapsulation.Type), Port: s.Encapsulation.Port}
	return r, s.VIP.IsValid()
}

// merge puts the last answers of the directors to the real server at address together, all but their own
// addresses; nil stands for a director that never answered. A director that fell silent keeps its say: losing sight of directors
// changes nothing here. Receivers are the union, so that both directors' tunnels work while their
// configurations differ; a service's definition is that of the answer with the highest term, of the active
// director among equals, of the one named first in the configuration after that.
func merge(answers []*client.Answer, address netip.Addr) wanted {
	ranked := slices.DeleteFunc(slices.Clone(answers), func(a *client.Answer) bool { return a == nil })
	slices.SortStableFunc(ranked, func(a, b *client.Answer) int {
		return cmp.Or(cmp.Compare(b.Term, a.Term), cmp.Compare(activeFirst(a), activeFirst(b)))
	})
	w := wanted{services: map[string]client.ServiceDefinition{}}
	from := map[string]*client.Answer{}
	for _, a := range ranked {
		for _, s := range a.Services {
			if r, ok := receiver(s, address); ok {
				w.receivers = append(w.receivers, r)
			}
			first, known := w.services[s.Name]
			if !known {
				w.services[s.Name], from[s.Name] = s, a
			} else if s != first {
				w.differences = append(w.differences, fmt.Sprintf("service %s: %s and %s want different things; %s counts (term %d)",
					s.Name, from[s.Name].Director, a.Director, from[s.Name].Director, from[s.Name].Term))
			}
		}
	}
	for name := range w.services {
		for _, a := range ranked {
			if !slices.ContainsFunc(a.Services, func(s client.ServiceDefinition) bool { return s.Name == name }) {
				w.differences = append(w.differences, fmt.Sprintf("service %s: %s does not have it, %s does", name, a.Director, from[name].Director))
			}
		}
	}
	slices.Sort(w.differences)
	slices.SortFunc(w.receivers, func(a, b tunnel.Receiver) int {
		return cmp.Or(a.VIP.Compare(b.VIP), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Port, b.Port))
	})
	w.receivers = slices.Compact(w.receivers)
	return w
}

func activeFirst(a *client.Answer) int {
	if a.Role == "active" {
		return 0
	}
	return 1
}
