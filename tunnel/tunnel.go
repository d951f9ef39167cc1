// Package tunnel keeps the receiving end of the directors' tunnels on a real server: the tunnel device
// up, and the virtual services' addresses on it.
//
// IPv4 in IPv4 arrives on tunl0, IPv6 in IPv6 on ip6tnl0: the devices that take every tunnel packet no
// other device claims. They need no remote address, so a new director needs no new device.
package tunnel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Desired is what the host should hold.
type Desired struct {
	VIPs []netip.Addr
}

// Change is one thing that Apply changed.
type Change struct {
	What     string // "tunl0", "10.0.0.50/32 on tunl0"
	Old, New string // "missing", "down", "up", "absent", "present"
}

// Report is how the host stands after an Apply.
type Report struct {
	Held    []netip.Addr // the desired VIPs in place on a device that is up, sorted
	Changes []Change
}

// A device receives the tunnels of one address family.
type device struct {
	name, kind, module string
	bits               int // length of a host's prefix, which also tells the family
}

var devices = []device{
	{name: "tunl0", kind: "ipip", module: "ipip", bits: 32},
	{name: "ip6tnl0", kind: "ip6tnl", module: "ip6_tunnel", bits: 128},
}

// link is a device as the kernel has it.
type link struct {
	index int
	kind  string
	up    bool
}

// address is one on a device, as the kernel has it.
type address struct {
	prefix netip.Prefix
	marked bool // with our address protocol
}

// kernel is what Apply needs of rtnetlink.
type kernel interface {
	link(name string) (l link, found bool, err error)
	addLink(name, kind string) error
	setUp(l link) error
	addresses(l link) ([]address, error)
	addAddress(l link, p netip.Prefix) error
	removeAddress(l link, p netip.Prefix) error
}

// Tunnel applies a desired state to the calling process's network namespace. It is not for concurrent
// use.
type Tunnel struct {
	kernel kernel
	added  map[netip.Prefix]bool // by this Tunnel: ours even where the kernel keeps no mark
}

// New returns a Tunnel on the kernel.
func New() *Tunnel { return newTunnel(rtnetlink{}) }

func newTunnel(k kernel) *Tunnel { return &Tunnel{kernel: k, added: map[netip.Prefix]bool{}} }

// Apply brings devices and addresses to the desired state and changes nothing where they are in it. An
// address is ours, and goes when it is no longer desired, if it carries our mark (IFA_PROTO, Linux 5.18
// and later: it survives a restart of the program) or was added by this Tunnel; every other address
// stays. A device stays and stays up even without an address of ours. What fails does not keep the rest
// from being applied: the error holds all failures, the report what holds all the same.
func (t *Tunnel) Apply(ctx context.Context, desired Desired) (Report, error) {
	var report Report
	want, errs := perDevice(desired.VIPs)
	for _, d := range devices {
		if err := ctx.Err(); err != nil {
			return report, errors.Join(append(errs, err)...)
		}
		errs = append(errs, t.applyDevice(d, want[d.bits], &report)...)
	}
	slices.SortFunc(report.Held, netip.Addr.Compare)
	return report, errors.Join(errs...)
}

// perDevice sorts VIPs to devices by their prefix length, each once.
func perDevice(vips []netip.Addr) (map[int][]netip.Prefix, []error) {
	want, errs := map[int][]netip.Prefix{}, []error(nil)
	for _, vip := range vips {
		vip = vip.Unmap()
		if !vip.IsValid() || vip.IsUnspecified() || vip.IsLoopback() || vip.IsMulticast() || vip.Zone() != "" {
			errs = append(errs, fmt.Errorf("VIP %s: not an address a service can have", vip))
			continue
		}
		p := netip.PrefixFrom(vip, vip.BitLen())
		if !slices.Contains(want[p.Bits()], p) {
			want[p.Bits()] = append(want[p.Bits()], p)
		}
	}
	return want, errs
}

func (t *Tunnel) applyDevice(d device, want []netip.Prefix, report *Report) []error {
	l, err := t.ready(d, len(want) > 0, report)
	if err != nil {
		return []error{err}
	}
	if l.index == 0 {
		return nil // no device, and none needed
	}
	have, err := t.kernel.addresses(l)
	if err != nil {
		return []error{fmt.Errorf("%s: list addresses: %w", d.name, err)}
	}
	add, remove := diff(have, want, t.added)
	var errs []error
	failed := map[netip.Prefix]bool{}
	for _, p := range add {
		if err := t.kernel.addAddress(l, p); err != nil {
			errs, failed[p] = append(errs, fmt.Errorf("%s: add %s: %w", d.name, p, err)), true
			continue
		}
		t.added[p] = true
		report.changed(p.String()+" on "+d.name, "absent", "present")
	}
	for _, p := range remove {
		if err := t.kernel.removeAddress(l, p); err != nil {
			errs = append(errs, fmt.Errorf("%s: remove %s: %w", d.name, p, err))
			continue
		}
		delete(t.added, p)
		report.changed(p.String()+" on "+d.name, "present", "absent")
	}
	for _, p := range want {
		if !failed[p] {
			report.Held = append(report.Held, p.Addr())
		}
	}
	return errs
}

// ready returns d's link: made and up if needed, else as it is, or the zero link if there is none.
func (t *Tunnel) ready(d device, needed bool, report *Report) (link, error) {
	l, found, err := t.kernel.link(d.name)
	if err != nil {
		return link{}, fmt.Errorf("%s: look up: %w", d.name, err)
	}
	if !found && !needed {
		return link{}, nil
	}
	if !found {
		if l, err = t.make(d); err != nil {
			return link{}, err
		}
		report.changed(d.name, "missing", state(l))
	}
	if !needed {
		return l, nil
	}
	if l.kind != d.kind {
		return link{}, fmt.Errorf("%s: is a device of kind %q, not %s: rename or remove it", d.name, l.kind, d.kind)
	}
	if !l.up {
		if err := t.kernel.setUp(l); err != nil {
			return link{}, fmt.Errorf("%s: set up: %w", d.name, err)
		}
		report.changed(d.name, "down", "up")
	}
	return l, nil
}

// make asks for d. Asking also makes the kernel load the module, which brings the device of that name
// itself: then the request ends in "exists", and the device is there.
func (t *Tunnel) make(d device) (link, error) {
	err := t.kernel.addLink(d.name, d.kind)
	if errors.Is(err, errNoKind) {
		return link{}, fmt.Errorf("%s: kernel module %s is missing: modprobe %s", d.name, d.module, d.module)
	}
	l, found, lookErr := t.kernel.link(d.name)
	if found {
		return l, nil
	}
	if err = cmp.Or(lookErr, err); err == nil {
		err = errors.New("it is gone again")
	}
	return link{}, fmt.Errorf("%s: make: %w", d.name, err)
}

// errNoKind: the kernel knows no devices of the kind and could not load a module for it.
var errNoKind = errors.New("unknown kind of device")

// diff says what is to be added to have and what of ours is to be removed from it.
func diff(have []address, want []netip.Prefix, added map[netip.Prefix]bool) (add, remove []netip.Prefix) {
	held := map[netip.Prefix]bool{}
	for _, a := range have {
		held[a.prefix] = true
		if (a.marked || added[a.prefix]) && !slices.Contains(want, a.prefix) {
			remove = append(remove, a.prefix)
		}
	}
	for _, p := range want {
		if !held[p] {
			add = append(add, p)
		}
	}
	return add, remove
}

func (r *Report) changed(what, from, to string) {
	r.Changes = append(r.Changes, Change{What: what, Old: from, New: to})
}

func state(l link) string {
	if l.up {
		return "up"
	}
	return "down"
}
