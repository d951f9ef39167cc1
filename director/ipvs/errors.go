package ipvs

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNoModule says that the running kernel offers no IPVS on generic netlink.
var ErrNoModule = errors.New("the kernel module ip_vs is not loaded (modprobe ip_vs)")

// kernelError is an errno in the words of the operation that met it; errors.Is still finds the errno.
type kernelError struct {
	sentence string
	errno    syscall.Errno
}

func (e *kernelError) Error() string { return e.sentence }
func (e *kernelError) Unwrap() error { return e.errno }

// explain turns the errno into a sentence where IPVS means something by it. For dumps the Op is zero.
func explain(o Op, err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err
	}
	s, d := o.Service, o.Destination
	sentence := ""
	switch onService := o.Kind == AddService || o.Kind == EditService; errno {
	case unix.EPERM:
		sentence = "IPVS needs CAP_NET_ADMIN in the initial user namespace"
	case unix.ENOENT:
		switch {
		case onService && s.PEName != "":
			sentence = fmt.Sprintf("scheduler %q or persistence engine %q is not in this kernel (modprobe ip_vs_%s ip_vs_pe_%s)",
				s.Scheduler, s.PEName, s.Scheduler, s.PEName)
		case onService:
			sentence = fmt.Sprintf("scheduler %q is not in this kernel (modprobe ip_vs_%s)", s.Scheduler, s.Scheduler)
		case o.Kind != 0:
			sentence = "the virtual service has no such real server any more"
		}
	case unix.ESRCH:
		sentence = "there is no such virtual service any more"
	case unix.EEXIST:
		sentence = "someone else has added it meanwhile"
	case unix.ERANGE:
		sentence = fmt.Sprintf("weight %d is below 0, or lower threshold %d is above upper %d", d.Weight, d.Lower, d.Upper)
	case unix.EAFNOSUPPORT:
		sentence = "IPv6 is switched off in this kernel"
	case unix.EINVAL:
		sentence = invalid(o)
	}
	if sentence == "" {
		return err
	}
	return &kernelError{sentence, errno}
}

// invalid guesses what the kernel calls an invalid argument. A namespace without any address has no local routing
// table, and there the kernel takes every IPv4 address for a broadcast.
func invalid(o Op) string {
	if o.Kind != AddDestination && o.Kind != EditDestination {
		return ""
	}
	d := o.Destination
	notUnicast := fmt.Sprintf("%s is not a unicast address here, or this network namespace has no address at all (is lo up?)", d.Addr.Addr())
	switch {
	case familyOf(d.Addr.Addr()) == o.Service.family():
		return notUnicast
	case d.Method != MethodTunnel:
		return fmt.Sprintf("a real server of another family than the virtual service needs a tunnel, not %s", d.Method)
	}
	return "a real server of another family than the virtual service cannot be beside a sync daemon; or " + notUnicast
}

// isStale tells errors that say the table is not the one that was read, or leave open whether the operation was done.
func isStale(o Op, err error) bool {
	switch {
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.ESRCH), errors.Is(err, unix.ENOBUFS):
		return true
	case errors.Is(err, unix.ENOENT):
		return o.Kind == EditDestination || o.Kind == DelDestination
	}
	return false
}
