package guard

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// statement is a part of a rule: as nft writes it, and as the kernel takes it.
type statement struct {
	text  string
	exprs []expr.Any
}

type rule []statement

func (r rule) String() string {
	var words []string
	for _, s := range r {
		words = append(words, s.text)
	}
	return strings.Join(words, " ")
}

func (r rule) exprs() []expr.Any {
	var all []expr.Any
	for _, s := range r {
		all = append(all, s.exprs...)
	}
	return all
}

// family is what differs between IPv4 and IPv6.
type family struct {
	digit, ip           string
	protocol, icmp      byte   // of the kernel's hooks; of IP
	source, destination uint32 // where in the header
	length              uint32 // of an address
	address, service    nftables.SetDatatype
}

var families = []family{
	{digit: "4", ip: "ip", protocol: unix.NFPROTO_IPV4, icmp: unix.IPPROTO_ICMP, source: 12, destination: 16, length: 4,
		address: nftables.TypeIPAddr, service: typeService4},
	{digit: "6", ip: "ip6", protocol: unix.NFPROTO_IPV6, icmp: unix.IPPROTO_ICMPV6, source: 8, destination: 24, length: 16,
		address: nftables.TypeIP6Addr, service: typeService6},
}

// encapsulatedRules are of the input hook, where the kernel has put the fragments of an IPv4 packet
// together, not yet those of an IPv6 packet, and has not opened the tunnel. A packet that is only forwarded
// does not come by. The last rule refuses GUE that carries anything but IP: the kernel would take it as if
// it had come without a tunnel, past every other rule of the host.
func encapsulatedRules() []rule {
	var rules []rule
	for _, f := range families {
		rules = append(rules, rule{f.addressIn("saddr", "!= ", "directors"), l4protoIn("protocols" + f.digit), count(NotFromDirectors), drop})
	}
	rules = append(rules, rule{laterFragment6, leave})
	for _, f := range families {
		rules = append(rules, rule{f.addressIn("saddr", "!= ", "directors"), udpPortIn("gue_ports"), count(NotFromDirectors), drop})
	}
	return append(rules, rule{udpPortIn("gue_ports"), gueNot(IPv4InIP), gueNot(IPv6InIP), count(GUEWithoutIP), drop})
}

// decapsulatedRules are of the prerouting hook, which packets out of a tunnel pass like any others, in
// their fragments, and those that the host would forward to somewhere else as well.
func decapsulatedRules() []rule {
	rules := []rule{{notOutOf("tunnel_devices"), leave}, {count(Decapsulated)}}
	for _, f := range families {
		rules = append(rules, rule{f.addressIn("daddr", "!= ", "vips"), count(NotToVIPs), drop})
	}
	rules = append(rules, rule{laterFragment4, leave}, rule{laterFragment6, leave})
	for _, f := range families {
		rules = append(rules, rule{f.addressIn("daddr", "", "narrowed"), l4protoNot(f.icmp), f.notAService(), count(NotToServices), drop})
	}
	return rules
}

// answerRules lower the MSS of what opens a connection from a VIP; the comparison keeps a smaller one as
// it is. They are rules and not a route's advmss because routes come and go with DHCP, routing daemons
// and network restarts, one for every way to a client, and hold for all sources; these hold for the VIPs
// whatever the routes are.
func answerRules(mss4, mss6 int) []rule {
	var rules []rule
	for i, mss := range []int{mss4, mss6} {
		if mss != 0 {
			rules = append(rules, rule{notToLoopback, families[i].addressIn("saddr", "", "vips"), synFlag, mssAbove(mss), count(MSSLowered), setMSS(mss)})
		}
	}
	return rules
}

// leave ends this chain only: other tables' chains on the same hook see the packet as well.
var leave = statement{"return", []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}}

// drop is final, whatever other tables say.
var drop = statement{"drop", []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}}

func count(name string) statement {
	return statement{fmt.Sprintf("counter name %q", name), []expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: name}}}
}

func equal(data ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: data}
}

func unequal(data ...byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: data}
}

func in(set string, not bool) expr.Any {
	return &expr.Lookup{SourceRegister: unix.NFT_REG_1, SetName: set, Invert: not}
}

func loadMeta(key expr.MetaKey, register uint32) expr.Any {
	return &expr.Meta{Key: key, Register: register}
}

func load(base expr.PayloadBase, offset, length, register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: length}
}

// is matches the family; nft writes it only where nothing else says it.
func (f family) is() []expr.Any {
	return []expr.Any{loadMeta(expr.MetaKeyNFPROTO, unix.NFT_REG_1), equal(f.protocol)}
}

// addressIn matches the family too; not is "" or "!= ".
func (f family) addressIn(field, not, set string) statement {
	offset := f.source
	if field == "daddr" {
		offset = f.destination
	}
	return statement{fmt.Sprintf("%s %s %s@%s%s", f.ip, field, not, set, f.digit),
		append(f.is(), load(expr.PayloadBaseNetworkHeader, offset, f.length, unix.NFT_REG_1), in(set+f.digit, not != ""))}
}

// notAService joins address, protocol and port in one register after the other. The port is where TCP,
// UDP and SCTP have it; other protocols have something else there, which is no service's.
func (f family) notAService() statement {
	protocol, port := uint32(unix.NFT_REG32_01), uint32(unix.NFT_REG32_02)
	if f.length == 16 {
		protocol, port = unix.NFT_REG_2, unix.NFT_REG32_05
	}
	set := "services" + f.digit
	return statement{fmt.Sprintf("%s daddr . meta l4proto . th dport != @%s", f.ip, set), []expr.Any{
		load(expr.PayloadBaseNetworkHeader, f.destination, f.length, unix.NFT_REG_1),
		loadMeta(expr.MetaKeyL4PROTO, protocol),
		load(expr.PayloadBaseTransportHeader, 2, 2, port),
		in(set, true),
	}}
}

// Where the first fragment has its ports a later one has data, or the kernel looks into its IPv6 header, and
// compares that (nf_tables_core.c, nft_payload_fast_eval); so later ones must not come to rules of ports.
// Without the first they come to nothing. IPv6 keeps the offset in the upper 13 bits of the third and fourth
// byte of the fragment header.
var (
	laterFragment4 = statement{"ip frag-off & 8191 != 0", append(families[0].is(), load(expr.PayloadBaseNetworkHeader, 6, 2, unix.NFT_REG_1), bits(0x1f, 0xff), unequal(0, 0))}
	laterFragment6 = statement{"frag frag-off != 0", append(families[1].is(),
		&expr.Exthdr{DestRegister: unix.NFT_REG_1, Type: unix.IPPROTO_FRAGMENT, Offset: 2, Len: 2, Op: expr.ExthdrOpIpv6}, bits(0xff, 0xf8), unequal(0, 0))}
)

func bits(mask ...byte) expr.Any {
	return &expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}
}

func l4protoIn(set string) statement {
	return statement{"meta l4proto @" + set, []expr.Any{loadMeta(expr.MetaKeyL4PROTO, unix.NFT_REG_1), in(set, false)}}
}

func l4protoNot(protocol byte) statement {
	return statement{fmt.Sprintf("meta l4proto != %d", protocol), []expr.Any{loadMeta(expr.MetaKeyL4PROTO, unix.NFT_REG_1), unequal(protocol)}}
}

func udpPortIn(set string) statement {
	return statement{"udp dport @" + set, []expr.Any{loadMeta(expr.MetaKeyL4PROTO, unix.NFT_REG_1), equal(unix.IPPROTO_UDP),
		load(expr.PayloadBaseTransportHeader, 2, 2, unix.NFT_REG_1), in(set, false)}}
}

// gueNot looks at the protocol in a GUE header, the second byte after UDP's 8 (linux/gue.h).
func gueNot(protocol byte) statement {
	return statement{fmt.Sprintf("@th,72,8 != %#x", protocol),
		[]expr.Any{load(expr.PayloadBaseTransportHeader, 9, 1, unix.NFT_REG_1), unequal(protocol)}}
}

// notOutOf goes by names: a device that is made again has another index.
func notOutOf(set string) statement {
	return statement{"iifname != @" + set, []expr.Any{loadMeta(expr.MetaKeyIIFNAME, unix.NFT_REG_1), in(set, true)}}
}

// notToLoopback leaves out what the host says to itself, as in its own checks.
var notToLoopback = statement{`oifname != "lo"`, []expr.Any{loadMeta(expr.MetaKeyOIFNAME, unix.NFT_REG_1), unequal(ifname("lo")...)}}

// synFlag matches TCP with SYN set.
var synFlag = statement{"tcp flags 0x2", []expr.Any{
	loadMeta(expr.MetaKeyL4PROTO, unix.NFT_REG_1), equal(unix.IPPROTO_TCP),
	load(expr.PayloadBaseTransportHeader, 13, 1, unix.NFT_REG_1),
	bits(2), unequal(0),
}}

// TCP's option of the MSS (RFC 9293): kind 2, and the value at its third byte.
const tcpOptionMSS = 2

func mssAbove(mss int) statement {
	return statement{fmt.Sprintf("tcp option maxseg size > %d", mss), []expr.Any{
		&expr.Exthdr{DestRegister: unix.NFT_REG_1, Type: tcpOptionMSS, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt},
		&expr.Cmp{Op: expr.CmpOpGt, Register: unix.NFT_REG_1, Data: be16(uint16(mss))},
	}}
}

func setMSS(mss int) statement {
	return statement{fmt.Sprintf("tcp option maxseg size set %d", mss), []expr.Any{
		&expr.Immediate{Register: unix.NFT_REG_1, Data: be16(uint16(mss))},
		&expr.Exthdr{SourceRegister: unix.NFT_REG_1, Type: tcpOptionMSS, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt},
	}}
}

// fingerprint is the same for a rule we made and for that rule as the kernel tells it: it leaves out the
// set's number, which holds only within a transaction.
func fingerprint(exprs []expr.Any) string {
	var b strings.Builder
	for _, e := range exprs {
		if l, ok := e.(*expr.Lookup); ok {
			clean := *l
			clean.SetID = 0
			e = &clean
		}
		fmt.Fprintf(&b, "%T%+v\n", e, e)
	}
	return b.String()
}

// find returns the rule's text if it is one of those, by fingerprint.
func (t table) find(print string) (string, bool) {
	for _, c := range t.chains {
		if i := slices.IndexFunc(c.rules, func(r rule) bool { return fingerprint(r.exprs()) == print }); i >= 0 {
			return c.rules[i].String(), true
		}
	}
	return "", false
}
