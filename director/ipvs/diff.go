package ipvs

import "fmt"

// OpKind is what an Op does.
type OpKind uint8

// The kinds of operation: one request to the kernel each.
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
	Service     Service     // without its destinations; for the destination kinds and DelService only its Key counts
	Destination Destination // for the destination kinds
}

// String returns "add real server 192.168.1.100:80 to 10.0.0.50:80/tcp" and the like, in the words of errors and logs.
func (o Op) String() string {
	switch o.Kind {
	case AddService:
		return fmt.Sprintf("add virtual service %s", o.Service.Key)
	case EditService:
		return fmt.Sprintf("edit virtual service %s", o.Service.Key)
	case DelService:
		return fmt.Sprintf("delete virtual service %s", o.Service.Key)
	case AddDestination:
		return fmt.Sprintf("add real server %s to %s", o.Destination.Addr, o.Service.Key)
	case EditDestination:
		return fmt.Sprintf("edit real server %s of %s", o.Destination.Addr, o.Service.Key)
	case DelDestination:
		return fmt.Sprintf("delete real server %s of %s", o.Destination.Addr, o.Service.Key)
	}
	return fmt.Sprintf("operation %d on %s", o.Kind, o.Service.Key)
}

// Diff returns the operations that turn the table have into one that holds want, in the order in which they are
// safe: a service keeps at least one destination throughout if it had one and shall have one. Services of have that
// are neither in want nor in ours are foreign and stay; those in ours and not in want are deleted. Inside a wanted
// service the destinations are wholly the caller's.
func Diff(have, want []Service, ours map[Key]bool) []Op {
	return nil
}
