package guard

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
)

// Name is that of the table, of family inet.
const Name = "lvstun"

// table is a whole nftables table. Its String is what `nft -s -n list table` prints of it, white space
// aside.
type table struct {
	counters []string
	sets     []set
	chains   []chain
}

type set struct {
	name string
	of   nftables.SetDatatype
	keys [][]byte // as the kernel has them
}

type chain struct {
	name     string
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
	rules    []rule
}

// Where the rules look at packets.
const (
	encapsulated = "encapsulated"
	decapsulated = "decapsulated"
	answers      = "answers"
)

// raw comes before connection tracking (-200): what is refused leaves no trace there. afterNAT comes
// after source NAT (100), which gives the answers of a service behind a DNAT, as in a container, the VIP
// as their source.
const (
	raw      nftables.ChainPriority = -300
	afterNAT nftables.ChainPriority = 150
)

var (
	typeService4 = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	typeService6 = nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService)
)

// build makes the table of a normal Desired. All but the MSS is in the sets: the rules stay the same.
func build(d Desired) table {
	t := table{sets: make([]set, 0, 12)}
	for _, c := range counters {
		t.counters = append(t.counters, c.Name)
	}
	sets := map[string]int{}
	declare := func(name string, of nftables.SetDatatype) {
		sets[name] = len(t.sets)
		t.sets = append(t.sets, set{name: name, of: of})
	}
	add := func(name string, key []byte) {
		s := &t.sets[sets[name]]
		s.keys = append(s.keys, key)
	}
	for _, f := range families {
		declare("directors"+f.digit, f.address)
		declare("protocols"+f.digit, nftables.TypeInetProto)
		declare("vips"+f.digit, f.address)
		declare("narrowed"+f.digit, f.address)
		declare("services"+f.digit, f.service)
	}
	declare("gue_ports", nftables.TypeInetService)
	declare("tunnel_devices", nftables.TypeIFName)

	for _, a := range d.Directors {
		add("directors"+digit(a), a.AsSlice())
	}
	for _, a := range d.VIPs {
		add("vips"+digit(a), a.AsSlice())
	}
	for _, s := range d.Services {
		add("narrowed"+digit(s.VIP), s.VIP.AsSlice())
		add("services"+digit(s.VIP), s.key())
	}
	for _, dev := range d.Devices {
		add("tunnel_devices", ifname(dev.Name))
		for _, p := range dev.Protocols {
			f := families[0]
			if dev.IPv6 {
				f = families[1]
			}
			add("protocols"+f.digit, []byte{p})
		}
	}
	for _, p := range d.GUEPorts {
		add("gue_ports", be16(p))
	}
	for i := range t.sets {
		slices.SortFunc(t.sets[i].keys, bytes.Compare)
		t.sets[i].keys = slices.CompactFunc(t.sets[i].keys, bytes.Equal)
	}
	t.chains = []chain{
		{encapsulated, nftables.ChainHookInput, raw, encapsulatedRules()},
		{decapsulated, nftables.ChainHookPrerouting, raw, decapsulatedRules()},
		{answers, nftables.ChainHookPostrouting, afterNAT, answerRules(d.MSS4, d.MSS6)},
	}
	return t
}

func digit(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

// key is the service as an element of a concatenation: every part takes whole registers of 4 bytes.
func (s Service) key() []byte {
	k := append(s.VIP.AsSlice(), s.Protocol, 0, 0, 0)
	k = append(k, be16(s.Port)...)
	return append(k, 0, 0)
}

func ifname(name string) []byte { return append([]byte(name), make([]byte, 16-len(name))...) }

func be16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

func (t table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", Name)
	for _, c := range t.counters {
		fmt.Fprintf(&b, "\tcounter %s {\n\t}\n\n", c)
	}
	for _, s := range t.sets {
		fmt.Fprintf(&b, "\tset %s {\n\t\ttype %s\n", s.name, s.of.Name)
		if len(s.keys) > 0 {
			fmt.Fprintf(&b, "\t\telements = { %s }\n", strings.Join(s.elements(), ", "))
		}
		b.WriteString("\t}\n\n")
	}
	for i, c := range t.chains {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "\tchain %s {\n\t\t%s\n", c.name, c.kind())
		for _, r := range c.rules {
			fmt.Fprintf(&b, "\t\t%s\n", r)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

var hooks = map[nftables.ChainHook]string{
	*nftables.ChainHookInput: "input", *nftables.ChainHookPrerouting: "prerouting", *nftables.ChainHookPostrouting: "postrouting",
	*nftables.ChainHookForward: "forward", *nftables.ChainHookOutput: "output",
}

func (c chain) kind() string {
	return fmt.Sprintf("type filter hook %s priority %d; policy accept;", hooks[*c.hook], c.priority)
}

// elements are the set's keys as nft writes them.
func (s set) elements() []string {
	var all []string
	for _, k := range s.keys {
		all = append(all, elementText(s.of, k))
	}
	return all
}

// elementText writes a key of a set of the given type as nft does; what is not of our types in hex.
func elementText(of nftables.SetDatatype, key []byte) string {
	var parts []string
	rest := key
	for _, part := range nftables.ConcatSetTypeElements(of) {
		size, room := int(part.Bytes), int(part.Bytes+3)/4*4
		if size == 0 || len(rest) < size {
			return fmt.Sprintf("%#x", key)
		}
		value := rest[:size]
		rest = rest[min(room, len(rest)):]
		switch part.Name {
		case nftables.TypeIPAddr.Name, nftables.TypeIP6Addr.Name:
			a, _ := netip.AddrFromSlice(value) // of 4 or 16 bytes
			parts = append(parts, a.String())
		case nftables.TypeInetProto.Name:
			parts = append(parts, fmt.Sprint(value[0]))
		case nftables.TypeInetService.Name:
			parts = append(parts, fmt.Sprint(binary.BigEndian.Uint16(value)))
		case nftables.TypeIFName.Name:
			parts = append(parts, fmt.Sprintf("%q", strings.TrimRight(string(value), "\x00")))
		default:
			parts = append(parts, fmt.Sprintf("%#x", value))
		}
	}
	return strings.Join(parts, " . ")
}
