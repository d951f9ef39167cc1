package ipvs

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// OpKind is what an Op does.
type OpKind uint8

// The kinds of operation; each is one request to the kernel.
const (
	AddService OpKind = iota + 1
	EditService
	DelService
	AddDestination
	EditDestination
	DelDestination
)

// Op is one change to the kernel's table.
type Op struct {
	Kind        OpKind
	Service     Service     // without destinations; of the destination kinds and DelService only the Key is set
	Destination Destination // of the destination kinds; of DelDestination only the Addr counts
	Change      string      // what an edit changes: "weight 1 → 0, upper 0 → 100"

	served bool // the destination has a weight before the operation
}

// String says the operation as logs and errors do: "add real server 192.168.1.100:80 to 10.0.0.50:80/tcp".
func (o Op) String() string {
	switch o.Kind {
	case AddService:
		return fmt.Sprintf("add virtual service %s", o.Service.Key)
	case EditService:
		return fmt.Sprintf("edit virtual service %s (%s)", o.Service.Key, o.Change)
	case DelService:
		return fmt.Sprintf("delete virtual service %s", o.Service.Key)
	case AddDestination:
		return fmt.Sprintf("add real server %s to %s", o.Destination.Addr, o.Service.Key)
	case EditDestination:
		return fmt.Sprintf("edit real server %s of %s (%s)", o.Destination.Addr, o.Service.Key, o.Change)
	case DelDestination:
		return fmt.Sprintf("delete real server %s of %s", o.Destination.Addr, o.Service.Key)
	}
	return fmt.Sprintf("operation %d on %s", o.Kind, o.Service.Key)
}

// serves tells whether the destination takes new connections after the operation.
func (o Op) serves() bool { return o.Kind != DelDestination && o.Destination.Weight > 0 }

// Diff returns the operations that turn the table have into one that holds want. Services of have that are neither in
// want nor in ours are foreign and stay; those in ours and not in want are deleted; inside a wanted service the
// destinations are wholly the caller's. What the kernel can edit is edited, so connections keep their destination.
//
// The order is safe: inside a service new destinations come first, then the edits that raise a weight, then the other
// edits, then deletions, so a service that can take connections before and after can take them in between; services
// are deleted last. Of several entries of want with one key the first counts; those of have are of different keys.
func Diff(have, want []Service, ours map[Key]bool) []Op {
	existing := make(map[Key]Service, len(have))
	for _, s := range have {
		existing[s.Key] = s
	}
	var ops []Op
	wanted := make(map[Key]bool, len(want))
	for _, w := range want {
		w = w.normal()
		if wanted[w.Key] {
			continue
		}
		wanted[w.Key] = true
		h, exists := existing[w.Key]
		if !exists {
			ops = append(ops, Op{Kind: AddService, Service: w.bare()})
		} else if change := serviceChange(h.normal(), w); change != "" {
			ops = append(ops, Op{Kind: EditService, Service: w.bare(), Change: change})
		}
		ops = append(ops, diffDestinations(w.Key, h.Destinations, w.Destinations)...)
	}
	gone := make(map[Key]bool, len(ours))
	for k, is := range ours {
		k = k.canonical()
		gone[k] = is && !wanted[k]
	}
	for _, h := range have {
		if gone[h.Key] {
			ops = append(ops, Op{Kind: DelService, Service: Service{Key: h.Key}})
		}
	}
	return ops
}

func diffDestinations(k Key, have, want []Destination) []Op {
	existing := make(map[netip.AddrPort]Destination, len(have))
	for _, d := range have {
		existing[d.Addr] = d
	}
	var adds, raises, edits, dels []Op
	wanted := make(map[netip.AddrPort]bool, len(want))
	for _, w := range want {
		w = w.normal()
		if wanted[w.Addr] {
			continue
		}
		wanted[w.Addr] = true
		op := Op{Service: Service{Key: k}, Destination: w}
		h, exists := existing[w.Addr]
		if !exists {
			op.Kind = AddDestination
			adds = append(adds, op)
			continue
		}
		if op.Change = destinationChange(h.normal(), w); op.Change == "" {
			continue
		}
		op.Kind, op.served = EditDestination, h.Weight > 0
		if w.Weight > h.Weight {
			raises = append(raises, op)
		} else {
			edits = append(edits, op)
		}
	}
	for _, h := range have {
		if !wanted[h.Addr] {
			dels = append(dels, Op{Kind: DelDestination, Service: Service{Key: k}, Destination: h.normal(), served: h.Weight > 0})
		}
	}
	return append(append(append(adds, raises...), edits...), dels...)
}

// normal is the service as the kernel will read it back.
func (s Service) normal() Service {
	s.Key = s.Key.canonical()
	s.Persistent = s.Persistent.Truncate(time.Second)
	if s.Persistent <= 0 {
		s.Persistent, s.PersistenceMask = 0, 0
	}
	if s.PersistenceMask == s.family().bits() {
		s.PersistenceMask = 0
	}
	return s
}

// bare is the service without what an operation on the service itself does not carry.
func (s Service) bare() Service {
	s.Destinations, s.Stats = nil, Stats{}
	return s
}

// normal is the destination as the kernel will read it back, without its counters.
func (d Destination) normal() Destination {
	d.Addr = unmap(d.Addr)
	if d.Method != MethodTunnel {
		d.Tunnel = Tunnel{}
	}
	d.ActiveConns, d.InactiveConns, d.PersistConns, d.Stats = 0, 0, 0, Stats{}
	return d
}

func serviceChange(from, to Service) string {
	var c changes
	changed(&c, "scheduler", from.Scheduler, to.Scheduler)
	changed(&c, "scheduler flags", from.SchedFlags, to.SchedFlags)
	changed(&c, "persistent", from.Persistent, to.Persistent)
	changed(&c, "persistence mask", from.PersistenceMask, to.PersistenceMask)
	changed(&c, "one packet", from.OnePacket, to.OnePacket)
	changed(&c, "persistence engine", from.PEName, to.PEName)
	return strings.Join(c, ", ")
}

func destinationChange(from, to Destination) string {
	var c changes
	changed(&c, "weight", from.Weight, to.Weight)
	changed(&c, "method", from.Method, to.Method)
	changed(&c, "tunnel", from.Tunnel, to.Tunnel)
	changed(&c, "upper", from.Upper, to.Upper)
	changed(&c, "lower", from.Lower, to.Lower)
	return strings.Join(c, ", ")
}

type changes []string

func changed[T comparable](c *changes, what string, from, to T) {
	if from != to {
		*c = append(*c, strings.TrimSpace(fmt.Sprintf("%s %v → %v", what, from, to)))
	}
}
