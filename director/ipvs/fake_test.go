package ipvs

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// table is a model of the kernel's table: ip_vs_genl_set_cmd and what it calls, without packets.
type table struct {
	services []*Service // in the order of the dump
}

func newTable(services ...Service) *table {
	t := &table{}
	for _, s := range services {
		s.Destinations = slices.Clone(s.Destinations)
		t.services = append(t.services, &s)
	}
	return t
}

func (t *table) find(k Key) *Service {
	for _, s := range t.services {
		if s.Key == k.canonical() {
			return s
		}
	}
	return nil
}

// apply is what the kernel does with an operation, and the errno it answers.
func (t *table) apply(o Op) error {
	s := t.find(o.Service.Key)
	if s == nil && o.Kind != AddService {
		return unix.ESRCH
	}
	switch o.Kind {
	case AddService, EditService:
		if s != nil && o.Kind == AddService {
			return unix.EEXIST
		}
		if !slices.Contains(Schedulers, o.Service.Scheduler) || o.Service.PEName != "" && o.Service.PEName != "sip" {
			return unix.ENOENT
		}
		if s == nil {
			s = &Service{}
			t.services = append(t.services, s)
		}
		destinations := s.Destinations
		*s = o.Service.normal().bare()
		s.Destinations = destinations
		return nil
	case DelService:
		t.services = slices.DeleteFunc(t.services, func(x *Service) bool { return x == s })
		return nil
	}
	d := o.Destination.normal()
	at := slices.IndexFunc(s.Destinations, func(x Destination) bool { return x.Addr == d.Addr })
	switch {
	case o.Kind == DelDestination && at < 0:
		return unix.ENOENT
	case o.Kind == DelDestination:
		s.Destinations = slices.Delete(s.Destinations, at, at+1)
		return nil
	case familyOf(d.Addr.Addr()) != s.family() && d.Method != MethodTunnel:
		return unix.EINVAL
	case d.Weight < 0 || d.Lower > d.Upper:
		return unix.ERANGE
	case d.Tunnel.Type == GUE && d.Tunnel.Port == 0:
		return unix.EINVAL
	case o.Kind == AddDestination && at >= 0:
		return unix.EEXIST
	case o.Kind == AddDestination:
		s.Destinations = append(s.Destinations, d)
		return nil
	case at < 0:
		return unix.ENOENT
	}
	s.Destinations[at] = d
	return nil
}

// String is the table as text, sorted: one line for everything an operation can change.
func (t *table) String() string {
	var lines []string
	for _, s := range t.services {
		line := fmt.Sprintf("%s %s", s.Key, s.Scheduler)
		if s.SchedFlags != 0 {
			line += fmt.Sprintf(" flags=%d", s.SchedFlags)
		}
		if s.Persistent != 0 {
			line += fmt.Sprintf(" persistent=%s/%d", s.Persistent, s.PersistenceMask)
		}
		if s.OnePacket {
			line += " one-packet"
		}
		if s.PEName != "" {
			line += " pe=" + s.PEName
		}
		var ds []string
		for _, d := range s.Destinations {
			dl := fmt.Sprintf("  %s %s weight=%d", d.Addr, d.Method, d.Weight)
			if d.Method == MethodTunnel {
				dl += " " + d.Tunnel.String()
			}
			if d.Upper != 0 {
				dl += fmt.Sprintf(" upper=%d lower=%d", d.Upper, d.Lower)
			}
			ds = append(ds, dl)
		}
		slices.Sort(ds)
		lines = append(lines, strings.Join(append([]string{line}, ds...), "\n")+"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// usable counts the destinations of a service that take new connections.
func (t *table) usable(k Key) (n int) {
	if s := t.find(k); s != nil {
		for _, d := range s.Destinations {
			if d.Weight > 0 {
				n++
			}
		}
	}
	return n
}

// fakeKernel is a table behind the wire format.
type fakeKernel struct {
	*table
	sync          syncThreads
	calls, writes int
	fail          func(call int, cmd uint8) error // answered instead of doing anything
	before        func(call int, cmd uint8)       // someone else's turn
	repeat        bool                            // dumps show their first entry again, as a walk by position may
	closed        bool
}

var _ transport = (*fakeKernel)(nil)

func (f *fakeKernel) turn(cmd uint8) error {
	f.calls++
	if f.before != nil {
		f.before(f.calls, cmd)
	}
	if f.fail != nil {
		return f.fail(f.calls, cmd)
	}
	return nil
}

func (f *fakeKernel) close() { f.closed = true }

func (f *fakeKernel) do(cmd uint8, b []byte) error {
	f.writes++
	if err := f.turn(cmd); err != nil {
		return err
	}
	if cmd == cmdNewDaemon || cmd == cmdDelDaemon {
		return f.sync.do(cmd, b)
	}
	kinds := map[uint8]OpKind{cmdNewService: AddService, cmdSetService: EditService, cmdDelService: DelService,
		cmdNewDest: AddDestination, cmdSetDest: EditDestination, cmdDelDest: DelDestination}
	o := Op{Kind: kinds[cmd]}
	need := []uint16{svcAF}
	if o.Kind == AddService || o.Kind == EditService {
		need = append(need, svcSchedName, svcFlags, svcTimeout, svcNetmask)
	}
	if !has(b, attrService, need...) || !has(b, attrService, svcFWMark) && !has(b, attrService, svcProtocol, svcAddr, svcPort) {
		return unix.EINVAL
	}
	var err error
	if o.Service, err = decodeService(b); err != nil {
		return unix.EINVAL
	}
	if cmd >= cmdNewDest {
		if !has(b, attrDest, destAddr, destPort, destFwdMethod, destWeight, destUThresh, destLThresh) {
			return unix.EINVAL
		}
		if o.Destination, err = decodeDestination(b, o.Service.family()); err != nil {
			return unix.EINVAL
		}
	}
	return f.apply(o)
}

func (f *fakeKernel) dump(cmd uint8, b []byte) (msgs [][]byte, err error) {
	if err := f.turn(cmd); err != nil {
		return nil, err
	}
	switch cmd {
	case cmdGetService:
		for _, s := range f.services {
			msgs = append(msgs, encodeService(*s))
		}
	case cmdGetDest:
		k, err := decodeService(b)
		if err != nil {
			return nil, unix.EINVAL
		}
		if s := f.find(k.Key); s != nil {
			for _, d := range s.Destinations {
				msgs = append(msgs, encodeDestination(s.Key, d))
			}
		}
	case cmdGetDaemon:
		msgs = f.sync.dump()
	}
	if f.repeat && len(msgs) > 0 {
		msgs = append(msgs, msgs[0])
	}
	return msgs, nil
}

func has(b []byte, outer uint16, want ...uint16) bool {
	var found []uint16
	err := nested(b, outer, func(typ uint16, _ []byte) error {
		found = append(found, typ)
		return nil
	})
	return err == nil && !slices.ContainsFunc(want, func(w uint16) bool { return !slices.Contains(found, w) })
}

// The shorthand of the tests.

func tcp(addr string) Key { return NewKey(TCP, netip.MustParseAddrPort(addr)) }
func udp(addr string) Key { return NewKey(UDP, netip.MustParseAddrPort(addr)) }

func wlc(k Key, ds ...Destination) Service {
	return Service{Key: k, Scheduler: "wlc", Destinations: ds}
}

func tun(addr string, weight int) Destination {
	return Destination{Addr: netip.MustParseAddrPort(addr), Method: MethodTunnel, Weight: weight}
}

func owned(keys ...Key) map[Key]bool {
	m := make(map[Key]bool)
	for _, k := range keys {
		m[k] = true
	}
	return m
}

// everyKind is a table with every feature of the codec in it.
func everyKind() []Service {
	gue := tun("192.168.1.100:53", 3)
	gue.Tunnel = Tunnel{Type: GUE, Port: 6080, Flags: RemCsum}
	gre := tun("192.168.1.101:53", 70000)
	gre.Tunnel = Tunnel{Type: GRE, Flags: Csum}
	direct := Destination{Addr: netip.MustParseAddrPort("192.168.1.102:53"), Method: MethodDirect, Weight: 1, Upper: 100, Lower: 80}
	masq := Destination{Addr: netip.MustParseAddrPort("192.168.1.103:5353"), Weight: 0}
	return []Service{
		wlc(tcp("10.0.0.50:80"), tun("192.168.1.100:80", 1), tun("192.168.1.200:80", 1)),
		{Key: udp("10.0.0.50:53"), Scheduler: "mh", SchedFlags: SchedFallback | SchedPort, OnePacket: true,
			Destinations: []Destination{gue, gre, direct, masq}},
		{Key: udp("10.0.0.50:5060"), Scheduler: "rr", Persistent: 5 * time.Minute, PersistenceMask: 24, PEName: "sip"},
		{Key: tcp("[2001:db8::50]:80"), Scheduler: "sh", SchedFlags: SchedPort, Persistent: time.Hour, PersistenceMask: 64,
			Destinations: []Destination{tun("[2001:db8:1::100]:80", 1), tun("192.168.1.100:80", 1)}},
		{Key: FWMarkKey(7, IPv4), Scheduler: "lc", Destinations: []Destination{tun("192.168.1.100:0", 1)}},
		{Key: FWMarkKey(7, IPv6), Scheduler: "lc", Destinations: []Destination{tun("[2001:db8:1::100]:0", 1)}},
		{Key: tcp("10.0.0.51:0"), Scheduler: "wrr", Persistent: time.Second},
	}
}
