package director

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"lvstun/director/api"
	"lvstun/director/client"
	"lvstun/director/config"
	"lvstun/director/registry"
	"lvstun/director/trust"
)

var _ api.Backend = (*Director)(nil)

// Register takes or renews the lease of a real server whose token and source
// address the API has already held against its claims. What the operator does
// not allow is refused whole: nothing changes.
func (d *Director) Register(_ context.Context, claims trust.Claims, r client.Registration) (client.Answer, error) {
	cfg := d.cfg.Load()
	var definitions []client.ServiceDefinition
	lease := registry.Claim{Name: claims.Name, Address: r.Address, Session: r.Session, Report: r.Tunnel}
	for _, s := range r.Services {
		svc, ok := service(cfg, s.Name)
		if !ok {
			return client.Answer{}, fmt.Errorf("%w: %s has no service %q", api.ErrUnknownService, cfg.Name, s.Name)
		}
		if !MayRegister(svc, r.Address) {
			return client.Answer{}, fmt.Errorf("%w: service %q neither lists the server %s nor covers it by register.from",
				api.ErrForbidden, s.Name, r.Address)
		}
		lease.Services = append(lease.Services, registry.ServiceClaim{
			Name: s.Name, Weight: s.Weight, State: registry.State(s.State), Reason: s.Reason,
		})
		definitions = append(definitions, definition(svc, r.Address))
	}
	if err := d.registry.Put(lease); err != nil {
		return client.Answer{}, refusal(err)
	}
	p := d.pair.Status()
	return client.Answer{
		Director:   cfg.Name,
		Role:       p.Role.String(),
		Term:       p.Term,
		Lease:      client.Duration(LeaseTime),
		Directors:  d.addresses(cfg, r.Address),
		Services:   definitions,
		WitnessKey: d.witnessKey(claims.Name),
	}, nil
}

// Leave ends a lease at its holder's wish: its destinations go at once.
func (d *Director) Leave(_ context.Context, claims trust.Claims, session uint64) error {
	return refusal(d.registry.Leave(claims.Name, session))
}

// refusal gives the registry's errors the meaning they have for the API.
func refusal(err error) error {
	switch {
	case errors.Is(err, registry.ErrStaleSession), errors.Is(err, registry.ErrAddressTaken):
		return fmt.Errorf("%w: %w", api.ErrConflict, err)
	case errors.Is(err, registry.ErrFull):
		return fmt.Errorf("%w: %w", api.ErrFull, err)
	}
	return err
}

func service(cfg *config.Config, name string) (config.Service, bool) {
	i := slices.IndexFunc(cfg.Services, func(s config.Service) bool { return s.Name == name })
	if i < 0 {
		return config.Service{}, false
	}
	return cfg.Services[i], true
}

// definition is what a real server must know to serve and to check a service.
func definition(svc config.Service, addr netip.Addr) client.ServiceDefinition {
	weight := 1
	if i := slices.IndexFunc(svc.Servers, func(s config.Server) bool { return s.Address == addr }); i >= 0 {
		weight = svc.Servers[i].Weight
	}
	return client.ServiceDefinition{
		Name:     svc.Name,
		VIP:      svc.VIP,
		Port:     svc.Port,
		Protocol: svc.Protocol.String(),
		FWMark:   svc.FWMark,
		Encapsulation: client.Encapsulation{
			Type: svc.Encapsulation.Type.String(),
			Port: svc.Encapsulation.Port,
		},
		Check:  svc.Check,
		Weight: weight,
	}
}

// addresses are those that tunnel packets may come from: both ends of every heartbeat path, and this
// director's own on its way to the real server at rs, which IPVS takes as their source. Without such a way
// nothing comes from here either.
func (d *Director) addresses(cfg *config.Config, rs netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, p := range cfg.Heartbeat.Paths {
		out = append(out, p.Local, p.Peer)
	}
	if source, err := d.source(rs); err == nil && trust.CheckAddress(source) == nil {
		out = append(out, source)
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
