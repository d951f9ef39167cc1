package tunnel

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fake is a host: its kernel, rendered as text, and the file of its record. One call of all may fail.
type fake struct {
	modules   map[string]bool // kinds of which the kernel has a module, loaded or not
	fallbacks bool            // a module brings the device of its own; else the one that is asked for is made
	hasFOU    bool
	keeps     bool   // the mark of addresses
	era       string // of life

	links  map[string]*fakeLink
	fou    map[port]bool
	index  int
	saved  []byte // nil: no file
	locked bool   // the process has no CAP_NET_ADMIN

	calls, writes, saves int
	failAt               int  // 0: never
	after                bool // the failing call takes effect all the same
}

type fakeLink struct {
	link
	fallback  bool
	addresses []address
}

var (
	_ kernel = (*fake)(nil)
	_ store  = (*fake)(nil)
)

var errInjected = errors.New("injected")

// newFake is a host without any tunnel device whose kernel has modules for all.
func newFake() *fake {
	f := &fake{
		modules: map[string]bool{}, fallbacks: true, hasFOU: true, keeps: true, era: "today",
		links: map[string]*fakeLink{}, fou: map[port]bool{},
	}
	for _, d := range devices {
		f.modules[d.kind] = true
	}
	return f
}

// mtus are those that the fallback devices come with.
var mtus = map[string]int{"ipip": 1480, "sit": 1480, "ip6tnl": 1452, "gre": 1476, "ip6gre": 1448}

// have puts a device there that the host has before anything is done.
func (f *fake) have(name, kind string, up bool, addresses ...string) *fakeLink {
	f.index++
	l := &fakeLink{link: link{name: name, index: f.index, kind: kind, up: up, mtu: mtus[kind]}, fallback: mtus[kind] != 0}
	if kind == "ip6tnl" {
		l.protocol = 41
	}
	for _, a := range addresses {
		l.addresses = append(l.addresses, address{index: l.index, prefix: netip.MustParsePrefix(a)})
	}
	f.links[name] = l
	return l
}

// call counts, and does what a call does.
func (f *fake) call(effect func() error) error {
	f.calls++
	if f.calls != f.failAt {
		return effect()
	}
	if f.after {
		effect()
	}
	return errInjected
}

func (f *fake) write(effect func() error) error {
	return f.call(func() error {
		if f.locked {
			return unix.EPERM
		}
		f.writes++
		return effect()
	})
}

func (f *fake) of(l link) *fakeLink {
	for _, fl := range f.links {
		if fl.index == l.index {
			return fl
		}
	}
	return nil
}

// change writes to a device, which must be there.
func (f *fake) change(l link, effect func(*fakeLink) error) error {
	return f.write(func() error {
		fl := f.of(l)
		if fl == nil {
			return unix.ENODEV
		}
		return effect(fl)
	})
}

func (f *fake) life() (string, error) { return f.era, f.call(func() error { return nil }) }
func (f *fake) marks() bool           { return f.keeps }

func (f *fake) link(name string) (l link, found bool, err error) {
	err = f.call(func() error {
		if fl := f.links[name]; fl != nil {
			l, found = fl.link, true
		}
		return nil
	})
	return l, found, err
}

func (f *fake) name(index int) (name string, found bool, err error) {
	err = f.call(func() error {
		for n, l := range f.links {
			if l.index == index {
				name, found = n, true
			}
		}
		return nil
	})
	return name, found, err
}

// addLink does as the kernel does: the module that is loaded for the request may bring the device itself.
func (f *fake) addLink(name, kind string) error {
	return f.write(func() error {
		if !f.modules[kind] {
			return errNoKind
		}
		if f.links[name] != nil {
			return unix.EEXIST
		}
		l := f.have(name, kind, false)
		if f.fallbacks {
			return unix.EEXIST
		}
		l.fallback, l.marked, l.protocol = false, true, 0
		return nil
	})
}

func (f *fake) removeLink(l link) error {
	return f.change(l, func(fl *fakeLink) error {
		maps.DeleteFunc(f.links, func(_ string, other *fakeLink) bool { return other == fl && !fl.fallback })
		return nil // the kernel says nothing where it is a fallback device
	})
}

func (f *fake) setUp(l link, up bool) error {
	return f.change(l, func(fl *fakeLink) error {
		fl.up = up
		if !up {
			fl.loseIPv6()
		} else if fl.kind == "sit" {
			fl.addresses = append(fl.addresses, address{index: fl.index, prefix: netip.MustParsePrefix("::192.0.2.1/96"), auto: true})
		}
		return nil
	})
}

func (l *fakeLink) loseIPv6() {
	l.addresses = slices.DeleteFunc(l.addresses, func(a address) bool { return a.prefix.Addr().Is6() })
}

func (f *fake) setMTU(l link, mtu int) error {
	return f.change(l, func(fl *fakeLink) error {
		if fl.mtu = mtu; mtu < minIPv6 {
			fl.loseIPv6()
		}
		return nil
	})
}

func (f *fake) setProtocol(l link, protocol uint8) error {
	return f.change(l, func(fl *fakeLink) error { fl.protocol = protocol; return nil })
}

func (f *fake) addresses() (all []address, err error) {
	err = f.call(func() error {
		for _, l := range f.links {
			all = append(all, l.addresses...)
		}
		return nil
	})
	return all, err
}

func (f *fake) addAddress(l link, p netip.Prefix) error {
	return f.change(l, func(fl *fakeLink) error {
		switch {
		case slices.ContainsFunc(fl.addresses, func(a address) bool { return a.prefix == p }):
			return unix.EEXIST
		case p.Addr().Is6() && fl.mtu < minIPv6:
			return unix.EINVAL
		}
		fl.addresses = append(fl.addresses, address{index: fl.index, prefix: p, marked: f.keeps})
		return nil
	})
}

func (f *fake) removeAddress(l link, p netip.Prefix) error {
	return f.change(l, func(fl *fakeLink) error {
		before := len(fl.addresses)
		fl.addresses = slices.DeleteFunc(fl.addresses, func(a address) bool { return a.prefix == p })
		if len(fl.addresses) == before {
			return unix.EADDRNOTAVAIL
		}
		return nil
	})
}

func (f *fake) ports() (all map[port]bool, err error) {
	return maps.Clone(f.fou), f.call(func() error { return nil })
}

func (f *fake) openPort(p port) error {
	return f.write(func() error {
		if _, open := f.fou[p]; open {
			return unix.EADDRINUSE
		}
		if !f.hasFOU {
			return errNoFOU
		}
		f.fou[p] = true
		return nil
	})
}

func (f *fake) closePort(p port) error {
	return f.write(func() error {
		if _, open := f.fou[p]; !open {
			return unix.ENOENT
		}
		delete(f.fou, p)
		return nil
	})
}

func (f *fake) load() (r record, found bool, err error) {
	err = f.call(func() error {
		if f.saved == nil {
			return nil
		}
		found = true
		r, err = parseRecord(f.saved)
		return err
	})
	return r, found, err
}

func (f *fake) save(r record) error {
	return f.call(func() error {
		f.saves++
		f.saved = nil
		if !r.empty() {
			f.saved = r.text()
		}
		return nil
	})
}

// String has a line for each device, with * behind addresses that carry the mark and ! behind devices that do, and the
// ports. It leaves out what the kernel puts there by itself.
func (f *fake) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f.links)) {
		l := f.links[name]
		fmt.Fprintf(&b, "%s%s %s %s mtu %d", name, mark(l.marked, "!"), l.kind, state(l.link), l.mtu)
		if l.kind == "ip6tnl" {
			b.WriteString(" " + mode(l.protocol))
		}
		var addresses []string
		for _, a := range l.addresses {
			if !a.auto {
				addresses = append(addresses, " "+a.prefix.String()+mark(a.marked, "*"))
			}
		}
		slices.Sort(addresses)
		b.WriteString(strings.Join(addresses, "") + "\n")
	}
	for _, p := range slices.SortedFunc(maps.Keys(f.fou), port.compare) {
		fmt.Fprintf(&b, "%s: %v\n", p, f.fou[p])
	}
	return b.String()
}

func mark(marked bool, by string) string {
	if marked {
		return by
	}
	return ""
}

const rip4, rip6 = "192.168.1.100", "2001:db8:1::100"

// desired reads receivers such as "10.0.0.50", "10.0.0.50/6" (over IPv6), "10.0.0.50/gre" and "10.0.0.50/6/gue:6080".
func desired(text string) (d Desired) {
	for _, s := range strings.Fields(text) {
		parts := strings.Split(s, "/")
		r := Receiver{VIP: netip.MustParseAddr(parts[0]), RIP: netip.MustParseAddr(rip4), Type: IPIP}
		for _, p := range parts[1:] {
			if p == "6" {
				r.RIP = netip.MustParseAddr(rip6)
				continue
			}
			kind, number, _ := strings.Cut(p, ":")
			r.Type = Type(kind)
			fmt.Sscan(number, &r.Port)
		}
		d.Receivers = append(d.Receivers, r)
	}
	return d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
