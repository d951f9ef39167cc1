package ipvs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Handle is a connection to the IPVS of the network namespace it was opened in. Its methods may be called from several
// goroutines, but of two Applies at a time each would undo the other.
type Handle struct {
	t transport
}

// Open connects to the kernel. The error is ErrNoModule where the kernel has no IPVS and cannot load it.
func Open() (*Handle, error) {
	t, err := openKernel()
	if err != nil {
		return nil, fmt.Errorf("open IPVS: %w", err)
	}
	return &Handle{t: t}, nil
}

// Close ends the connection. The table stays in the kernel as it is.
func (h *Handle) Close() error {
	h.t.close()
	return nil
}

// dumpTries and applyRounds bound the answers to a table that others keep changing.
const (
	dumpTries   = 3
	applyRounds = 3
)

// Services reads the kernel's whole table in the kernel's order, every service and destination once. A service that
// vanishes while it is read has no destinations.
func (h *Handle) Services(ctx context.Context) ([]Service, error) {
	services, err := h.list(ctx)
	if err != nil {
		return nil, err
	}
	for i, s := range services {
		if services[i].Destinations, err = h.destinations(ctx, s.Key); err != nil {
			return nil, err
		}
	}
	return services, nil
}

// list reads the services without their destinations.
func (h *Handle) list(ctx context.Context) ([]Service, error) {
	msgs, err := h.dump(ctx, cmdGetService, nil)
	if err != nil {
		return nil, fmt.Errorf("read the virtual services: %w", err)
	}
	services := make([]Service, 0, len(msgs))
	seen := make(map[Key]bool, len(msgs))
	for _, m := range msgs {
		s, err := decodeService(m)
		if err != nil {
			return nil, err
		}
		if !seen[s.Key] {
			seen[s.Key] = true
			services = append(services, s)
		}
	}
	return services, nil
}

func (h *Handle) destinations(ctx context.Context, k Key) ([]Destination, error) {
	msgs, err := h.dump(ctx, cmdGetDest, encodeKey(k))
	if err != nil {
		return nil, fmt.Errorf("read the real servers of %s: %w", k, err)
	}
	var list []Destination
	seen := make(map[netip.AddrPort]bool, len(msgs))
	for _, m := range msgs {
		d, err := decodeDestination(m, k.family())
		if err != nil {
			return nil, err
		}
		if !seen[d.Addr] {
			seen[d.Addr] = true
			list = append(list, d)
		}
	}
	return list, nil
}

// dump asks again where the kernel says that the table changed under the answer, or lost a part of it.
func (h *Handle) dump(ctx context.Context, cmd uint8, attrs []byte) ([][]byte, error) {
	for try := 1; ; try++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		msgs, err := h.t.dump(cmd, attrs)
		switch {
		case err == nil:
			return msgs, nil
		case try < dumpTries && (errors.Is(err, nl.ErrDumpInterrupted) || errors.Is(err, unix.ENOBUFS)):
			continue
		}
		return nil, explain(Op{}, err)
	}
}

// Report says what an Apply did.
type Report struct {
	Added, Edited, Deleted Count
	Ops                    []string // every operation the kernel took, in order, as Op.String says them
	Rounds                 int      // how often the table was read; above 1 where someone else changed it meanwhile
}

// Count counts operations by what they worked on.
type Count struct{ Services, Destinations int }

// Changed tells whether the Apply wrote anything.
func (r Report) Changed() bool { return len(r.Ops) > 0 }

func (r *Report) add(o Op) {
	r.Ops = append(r.Ops, o.String())
	switch o.Kind {
	case AddService:
		r.Added.Services++
	case EditService:
		r.Edited.Services++
	case DelService:
		r.Deleted.Services++
	case AddDestination:
		r.Added.Destinations++
	case EditDestination:
		r.Edited.Destinations++
	case DelDestination:
		r.Deleted.Destinations++
	}
}

// Apply makes the kernel's table hold desired, as Diff describes, with the fewest writes: none where it already does.
// Nothing is written where the table cannot be read. An operation that fails does not stop the others, except that the
// last destination that serves stays while the one that shall serve instead could not be set. The error joins every
// failure, and the report holds what was done all the same. Where the kernel's answers show that someone else changed
// the table meanwhile, it is read and compared again, three times at most.
func (h *Handle) Apply(ctx context.Context, desired []Service, ours map[Key]bool) (Report, error) {
	var r Report
	for {
		have, err := h.Services(ctx)
		if err != nil {
			return r, err
		}
		r.Rounds++
		stale, err := h.run(ctx, have, Diff(have, desired, ours), &r)
		if !stale || r.Rounds == applyRounds {
			return r, err
		}
	}
}

// errLast says why a destination stays that should go.
var errLast = errors.New("it is the last that serves, and the one to serve instead could not be set")

// run executes the operations and tells whether one of them met another table than the one it was made for.
func (h *Handle) run(ctx context.Context, have []Service, ops []Op, r *Report) (stale bool, err error) {
	var errs []error
	missing := make(map[Key]bool) // services that could not be made: their destinations would only fail for it
	wanting := make(map[Key]bool) // services with a destination that should serve and could not be set
	serving := make(map[Key]int)  // how many destinations of a service have a weight
	for _, s := range have {
		for _, d := range s.Destinations {
			serving[s.Key] += count(d.Weight > 0)
		}
	}
	for _, o := range ops {
		if err := ctx.Err(); err != nil {
			errs = append(errs, err)
			break
		}
		k := o.Service.Key
		if o.Kind == AddDestination && missing[k] {
			continue
		}
		change := count(o.serves()) - count(o.served)
		if change < 0 && serving[k] == 1 && wanting[k] {
			errs = append(errs, fmt.Errorf("%s: %w", o, errLast))
			continue
		}
		if err := h.execute(o); err != nil {
			missing[k] = missing[k] || o.Kind == AddService
			wanting[k] = wanting[k] || o.serves()
			stale = stale || isStale(o, err)
			errs = append(errs, fmt.Errorf("%s: %w", o, explain(o, err)))
			continue
		}
		serving[k] += change
		r.add(o)
	}
	return stale, errors.Join(errs...)
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (h *Handle) execute(o Op) error {
	switch o.Kind {
	case AddService:
		return h.t.do(cmdNewService, encodeService(o.Service))
	case EditService:
		return h.t.do(cmdSetService, encodeService(o.Service))
	case DelService:
		return h.t.do(cmdDelService, encodeKey(o.Service.Key))
	case AddDestination:
		return h.t.do(cmdNewDest, encodeDestination(o.Service.Key, o.Destination))
	case EditDestination:
		return h.t.do(cmdSetDest, encodeDestination(o.Service.Key, o.Destination))
	case DelDestination:
		return h.t.do(cmdDelDest, encodeDestination(o.Service.Key, o.Destination))
	}
	return fmt.Errorf("unknown kind %d", o.Kind)
}
