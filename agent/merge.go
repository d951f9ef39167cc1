package agent

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"lvstun/director/client"
)

// wanted is what the directors together want of this real server.
type wanted struct {
	services    map[string]client.ServiceDefinition // by name
	vips        []netip.Addr                        // of every answer, sorted, each once
	differences []string                            // where the answers disagree
}

// merge puts the last answers of the directors together; nil stands for a director that never answered.
// A director that fell silent keeps its say: losing sight of directors changes nothing here. VIPs are
// the union, so that both directors' tunnels work while their configurations differ; a service's
// definition is that of the answer with the highest term, of the active director among equals, of the
// one named first in the configuration after that.
func merge(answers []*client.Answer) wanted {
	ranked := slices.DeleteFunc(slices.Clone(answers), func(a *client.Answer) bool { return a == nil })
	slices.SortStableFunc(ranked, func(a, b *client.Answer) int {
		return cmp.Or(cmp.Compare(b.Term, a.Term), cmp.Compare(activeFirst(a), activeFirst(b)))
	})
	w := wanted{services: map[string]client.ServiceDefinition{}}
	from := map[string]*client.Answer{}
	for _, a := range ranked {
		for _, s := range a.Services {
			if s.VIP.IsValid() {
				w.vips = append(w.vips, s.VIP)
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
	slices.SortFunc(w.vips, netip.Addr.Compare)
	w.vips = slices.Compact(w.vips)
	return w
}

func activeFirst(a *client.Answer) int {
	if a.Role == "active" {
		return 0
	}
	return 1
}
