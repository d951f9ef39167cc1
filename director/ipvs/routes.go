package ipvs

import (
	"context"
	"iter"
	"net/netip"
	"time"
)

// routes finds how the flows of the connection table are forwarded, which it does not show itself. It reads the real
// servers of a virtual service when the first of its flows comes.
type routes struct {
	h        *Handle
	services map[Key]Service // without destinations
	marks    []Key           // the fwmark services
	methods  map[Key]map[netip.AddrPort]Method
}

func (h *Handle) routes(ctx context.Context) (*routes, error) {
	list, err := h.list(ctx)
	if err != nil {
		return nil, err
	}
	r := &routes{h: h, services: make(map[Key]Service, len(list)), methods: make(map[Key]map[netip.AddrPort]Method)}
	for _, s := range list {
		r.services[s.Key] = s
		if s.FWMark != 0 {
			r.marks = append(r.marks, s.Key)
		}
	}
	return r, nil
}

// entry completes a tellable flow for a standby; ok is false where no virtual service has its real server any more, or
// it must not be told. It looks where the standby will (ip_vs_find_dest): at the service of VIP and port, at the one of
// all ports, and at those of a firewall mark, of which the table shows only that no other has made the flow.
func (r *routes) entry(ctx context.Context, f Flow) (e syncEntry, ok bool, err error) {
	for k := range r.keys(f) {
		s, ok := r.services[k]
		if !ok {
			continue
		}
		methods, err := r.of(ctx, k)
		if err != nil {
			return syncEntry{}, false, err
		}
		method, ok := methods[f.Destination]
		if !ok {
			method, ok = methods[netip.AddrPortFrom(f.Destination.Addr(), 0)]
		}
		if !ok {
			continue
		}
		e = syncEntry{Flow: f, method: method, fwmark: k.FWMark, timeout: f.Expires + time.Second}
		if f.Template {
			e.timeout = s.Persistent
		}
		return e, method != MethodMasq && e.timeout >= time.Second, nil
	}
	return syncEntry{}, false, nil
}

// keys are the services that may have made the flow.
func (r *routes) keys(f Flow) iter.Seq[Key] {
	return func(yield func(Key) bool) {
		if !yield(NewKey(f.Protocol, f.VIP)) || !yield(NewKey(f.Protocol, netip.AddrPortFrom(f.VIP.Addr(), 0))) {
			return
		}
		for _, k := range r.marks {
			if !yield(k) {
				return
			}
		}
	}
}

// of are the real servers of a service.
func (r *routes) of(ctx context.Context, k Key) (map[netip.AddrPort]Method, error) {
	if methods, ok := r.methods[k]; ok {
		return methods, nil
	}
	list, err := r.h.destinations(ctx, k)
	if err != nil {
		return nil, err
	}
	methods := make(map[netip.AddrPort]Method, len(list))
	for _, d := range list {
		methods[d.Addr] = d.Method
	}
	r.methods[k] = methods
	return methods, nil
}
