package tunnel

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// step is one change that brings the kernel nearer to what is wanted.
type step struct {
	what, old, new string
	do             func(kernel) error
}

// plan is what there is to do.
type plan struct {
	record   record          // to be kept before the first step
	steps    []step          // in this order
	holds    map[string]bool // of what is wanted, and could be drifted from: is it as wanted?
	notes    []string        // what is not undone, and why
	problems []error         // why something wanted cannot be
}

// minIPv6 is the smallest MTU of a device with IPv6 (RFC 8200); below, the kernel takes IPv6 away from it.
const minIPv6 = 1280

// diff is what is to be done on a host that stands as in s so that w comes true, if r is how the host was before.
func diff(s snapshot, w wishes, r record, marks bool) plan {
	p := planner{s: s, w: w, marks: marks, plan: plan{record: r.clone(), holds: map[string]bool{}}}
	for _, d := range devices {
		p.device(d)
	}
	for _, at := range slices.SortedFunc(maps.Keys(w.addresses), place.compare) {
		p.buildAddress(at)
	}
	for _, at := range slices.SortedFunc(maps.Keys(w.ports), port.compare) {
		p.buildPort(at)
	}
	p.undoAddresses()
	p.undoPorts()
	p.plan.steps = slices.Concat(p.build, p.undo, p.undoLinks)
	return p.plan
}

// planner makes a plan.
type planner struct {
	s     snapshot
	w     wishes
	marks bool // the kernel keeps the mark of our addresses
	plan

	build, undo, undoLinks []step
}

func (p *planner) note(format string, args ...any) {
	p.notes = append(p.notes, fmt.Sprintf(format, args...))
}

// keep notes whether something wanted holds, and adds the step to it if not.
func (p *planner) keep(holds bool, s step) {
	p.holds[s.what] = holds
	if !holds {
		p.build = append(p.build, s)
	}
}

func (p *planner) device(d device) {
	l, found := p.s.links[d.name]
	o, recorded := p.record.Devices[d.name]
	loaded := false
	if recorded && (!found || !o.of(l)) { // that device is gone
		recorded, loaded = false, found && o.Made
		delete(p.record.Devices, d.name)
	}
	switch p.w.but(p.w.devices[d]) {
	case wanted:
		p.buildDevice(d, l, found, recorded, loaded)
	case unwanted:
		p.undoDevice(d, l, found, recorded, o)
	}
}

func (p *planner) buildDevice(d device, l link, found, recorded, loaded bool) {
	p.holds[d.name] = false
	switch {
	case !found:
		p.record.Devices[d.name] = origin{Made: true}
		p.keep(false, step{d.name, "missing", "present", d.make})
		return
	case l.kind != d.kind:
		p.problems = append(p.problems, fmt.Errorf("%s: is a device of kind %q, not %s: rename or remove it", d.name, l.kind, d.kind))
		return
	case !recorded:
		p.record.Devices[d.name] = p.originOf(d, l, loaded)
	}
	if d != tunl0 {
		mtu := max(p.record.Devices[d.name].MTU, minIPv6)
		p.keep(l.mtu >= minIPv6, step{"MTU of " + d.name, strconv.Itoa(l.mtu), strconv.Itoa(mtu), func(k kernel) error { return k.setMTU(l, mtu) }})
	}
	if d == ip6tnl0 { // it comes with IPv6 only
		p.keep(l.protocol == 0, step{"mode of " + d.name, mode(l.protocol), mode(0), func(k kernel) error { return k.setProtocol(l, 0) }})
	}
	p.keep(l.up, step{d.name, "down", "up", func(k kernel) error { return k.setUp(l, true) }})
}

// make asks for d. Asking also makes the kernel load the module, which brings the device of that name itself: then the
// request ends in "exists", and the device is there.
func (d device) make(k kernel) error {
	err := k.addLink(d.name, d.kind)
	if errors.Is(err, errNoKind) {
		return fmt.Errorf("kernel module %s (%s) is missing: modprobe %s", d.module, d.option, d.module)
	}
	if err == nil {
		return nil
	}
	if _, found, lookErr := k.link(d.name); found && lookErr == nil {
		return nil
	}
	return err
}

// errNoKind: the kernel knows no devices of the kind and could not load a module for it.
var errNoKind = errors.New("unknown kind of device")

func (p *planner) originOf(d device, l link, loaded bool) origin {
	return origin{Loaded: loaded, Index: l.index, Up: l.up, MTU: l.mtu, Protocol: l.protocol, Addresses: p.foreign(d, nil)}
}

// foreign are the addresses on d that are neither ours nor the kernel's nor known.
func (p *planner) foreign(d device, known []netip.Prefix) []netip.Prefix {
	var all []netip.Prefix
	for at, a := range p.s.addresses {
		if at.Device == d.name && !a.auto && !p.ours(at) && !slices.Contains(known, at.Prefix) {
			all = append(all, at.Prefix)
		}
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return all
}

// ours reports whether the address that is at a place is ours. The mark tells; where the kernel keeps none, the record.
func (p *planner) ours(at place) bool {
	return p.s.addresses[at].marked || !p.marks && slices.Contains(p.record.Addresses, at)
}

func (p *planner) undoDevice(d device, l link, found, recorded bool, o origin) {
	if !found || !recorded && !l.marked {
		return
	}
	foreign := p.foreign(d, o.Addresses)
	stays := func() { p.note("%s stays %s: it holds %s, which is not ours", d.name, state(l), join(foreign)) }
	before := len(p.undoLinks)
	restore := func(s step) { p.undoLinks = append(p.undoLinks, s) }
	switch {
	case l.marked && len(foreign) > 0:
		if recorded {
			stays()
		}
	case l.marked:
		restore(step{d.name, state(l), "removed", func(k kernel) error { return k.removeLink(l) }})
	default:
		if o.Protocol != l.protocol && l.protocol == 0 {
			restore(step{"mode of " + d.name, mode(0), mode(o.Protocol), func(k kernel) error { return k.setProtocol(l, o.Protocol) }})
		} else if o.Protocol != l.protocol {
			p.note("mode of %s stays %s: somebody else has set it (it was %s)", d.name, mode(l.protocol), mode(o.Protocol))
		}
		switch {
		case o.MTU >= minIPv6 || l.mtu == o.MTU: // not changed by us
		case l.mtu == minIPv6:
			restore(step{"MTU of " + d.name, strconv.Itoa(minIPv6), strconv.Itoa(o.MTU), func(k kernel) error { return k.setMTU(l, o.MTU) }})
		default:
			p.note("MTU of %s stays %d: somebody else has set it (it was %d)", d.name, l.mtu, o.MTU)
		}
		if !o.Up && l.up && len(foreign) > 0 {
			stays()
		} else if !o.Up && l.up {
			restore(step{d.name, "up", "down", func(k kernel) error { return k.setUp(l, false) }})
		}
		if len(p.undoLinks) == before && o.Loaded {
			p.note("%s stays: it is part of the kernel module %s, which was loaded for it and stays loaded", d.name, d.module)
		}
	}
	if len(p.undoLinks) == before {
		delete(p.record.Devices, d.name)
	}
}

func (p *planner) buildAddress(at place) {
	if p.w.addresses[at] != wanted {
		return
	}
	p.holds[at.String()] = false
	l := p.s.links[at.Device]
	if i := slices.IndexFunc(devices, func(d device) bool { return d.name == at.Device }); l.kind != devices[i].kind {
		return // there is no device yet, or no fit one
	}
	_, there := p.s.addresses[at]
	if !there && !slices.Contains(p.record.Addresses, at) {
		p.record.Addresses = append(p.record.Addresses, at)
		slices.SortFunc(p.record.Addresses, place.compare)
	}
	p.keep(there, step{at.String(), "absent", "present", func(k kernel) error { return k.addAddress(l, at.Prefix) }})
}

func (p *planner) undoAddresses() {
	for _, at := range slices.SortedFunc(maps.Keys(p.s.addresses), place.compare) {
		if p.w.but(p.w.addresses[at]) != unwanted {
			continue
		}
		recorded := slices.Contains(p.record.Addresses, at)
		switch {
		case p.ours(at):
			l := p.s.links[at.Device]
			p.undo = append(p.undo, step{at.String(), "present", "absent", func(k kernel) error { return k.removeAddress(l, at.Prefix) }})
		case recorded:
			p.note("%s stays: somebody else has put it there since", at)
			p.forget(at)
		}
	}
	for _, at := range slices.Clone(p.record.Addresses) {
		if _, there := p.s.addresses[at]; !there && p.w.but(p.w.addresses[at]) == unwanted {
			p.forget(at)
		}
	}
}

func (p *planner) forget(at place) {
	p.record.Addresses = slices.DeleteFunc(p.record.Addresses, func(a place) bool { return a == at })
}

func (p *planner) buildPort(at port) {
	if p.w.ports[at] != wanted {
		return
	}
	gue, open := p.s.ports[at]
	if open && !gue {
		p.holds[at.String()] = false
		p.problems = append(p.problems, fmt.Errorf("%s: is open for FOU of another kind: close it (ip fou del), or give the service another port", at))
		return
	}
	if !open && !slices.Contains(p.record.Ports, at) {
		p.record.Ports = append(p.record.Ports, at)
		slices.SortFunc(p.record.Ports, port.compare)
	}
	p.keep(open, step{at.String(), "closed", "open", func(k kernel) error { return k.openPort(at) }})
}

func (p *planner) undoPorts() {
	for _, at := range slices.Clone(p.record.Ports) {
		gue, open := p.s.ports[at]
		if p.w.but(p.w.ports[at]) != unwanted {
			continue
		}
		if gue {
			p.undo = append(p.undo, step{at.String(), "open", "closed", func(k kernel) error { return k.closePort(at) }})
			continue
		}
		if open {
			p.note("%s stays: somebody else has opened it for something else since", at)
		}
		p.record.Ports = slices.DeleteFunc(p.record.Ports, func(a port) bool { return a == at })
	}
}

func state(l link) string {
	if l.up {
		return "up"
	}
	return "down"
}

// mode is what ip-tunnel(8) calls it.
func mode(protocol uint8) string {
	switch protocol {
	case 0:
		return "any"
	case 4:
		return "ipip6"
	case 41:
		return "ip6ip6"
	}
	return "protocol " + strconv.Itoa(int(protocol))
}

func join(prefixes []netip.Prefix) string {
	texts := make([]string, len(prefixes))
	for i, p := range prefixes {
		texts[i] = p.String()
	}
	return strings.Join(texts, ", ")
}
