package guard

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func addrs(list string) []netip.Addr {
	var all []netip.Addr
	for _, a := range strings.Fields(list) {
		all = append(all, netip.MustParseAddr(a))
	}
	return all
}

// everything is a Desired with something in every set.
func everything() Desired {
	return Desired{
		Directors: addrs("10.0.0.1 10.0.0.2 2001:db8::1"),
		VIPs:      addrs("10.0.0.50 10.0.0.51 2001:db8::50"),
		Services: []Service{
			{VIP: netip.MustParseAddr("10.0.0.50"), Protocol: 6, Port: 80},
			{VIP: netip.MustParseAddr("10.0.0.50"), Protocol: 17, Port: 3638},
			{VIP: netip.MustParseAddr("2001:db8::50"), Protocol: 6, Port: 443},
		},
		Devices: []Device{
			{Name: "tunl0", Protocols: []uint8{IPv4InIP}},
			{Name: "ip6tnl0", IPv6: true, Protocols: []uint8{IPv4InIP, IPv6InIP}},
			{Name: "gre0", Protocols: []uint8{GRE}},
		},
		GUEPorts: []uint16{6080},
		MSS4:     1440, MSS6: 1400,
	}
}

func TestMSS(t *testing.T) {
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, test := range []struct {
		name        string
		mtu, header int
		vip, server netip.Addr
		want        int
	}{
		{"IPv4 in IPv4", 1500, 0, four, four, 1440},
		{"IPv6 in IPv6", 1500, 0, six, six, 1400},
		{"IPv6 in IPv4", 1500, 0, six, four, 1420},
		{"IPv4 in IPv6", 1500, 0, four, six, 1420},
		{"GRE", 1500, GREHeader, four, four, 1432},
		{"GUE", 1500, GUEHeader, four, four, 1420},
		{"GUE, IPv6", 1500, GUEHeader, six, six, 1380},
		{"a longer tunnel in the path", 1400, 0, four, four, 1340},
		{"IPv4 written as IPv6", 1500, 0, netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.2"), 1440},
	} {
		if got := MSS(test.mtu, test.header, test.vip, test.server); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

func TestNormal(t *testing.T) {
	vip := netip.MustParseAddr("10.0.0.50")
	got, err := Desired{
		Directors: addrs("10.0.0.2 ::ffff:10.0.0.1 10.0.0.2"),
		VIPs:      addrs("2001:db8::50 ::ffff:10.0.0.50 10.0.0.50"),
		Services:  []Service{{vip, 17, 53}, {netip.MustParseAddr("::ffff:10.0.0.50"), 6, 80}, {vip, 17, 53}},
		GUEPorts:  []uint16{6081, 6080, 6081},
		MSS4:      1440,
	}.normal()
	if err != nil {
		t.Fatal(err)
	}
	want := Desired{
		Directors: addrs("10.0.0.1 10.0.0.2"),
		VIPs:      addrs("10.0.0.50 2001:db8::50"),
		Services:  []Service{{vip, 6, 80}, {vip, 17, 53}},
		GUEPorts:  []uint16{6080, 6081},
		MSS4:      1440,
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAllThatIsWrongIsSaidAtOnce(t *testing.T) {
	vip := netip.MustParseAddr("10.0.0.50")
	_, err := Desired{
		VIPs: append(addrs("0.0.0.0 ff02::1 127.0.0.1 fe80::1%eth0 10.0.0.50"), netip.Addr{}),
		Services: []Service{
			{netip.MustParseAddr("10.0.0.51"), 6, 80}, {vip, 6, 0}, {vip, 0, 80},
		},
		Devices: []Device{
			{Name: "", Protocols: []uint8{4}}, {Name: "a-name-of-sixteen", Protocols: []uint8{4}}, {Name: "a b", Protocols: []uint8{4}},
			{Name: "..", Protocols: []uint8{4}}, {Name: "tunl0"}, {Name: "a-name-of-15-ch", Protocols: []uint8{4}},
		},
		GUEPorts: []uint16{0},
		MSS4:     87, MSS6: 65496,
	}.normal()
	want := `no director is named: every packet of a tunnel would be refused
VIP 0.0.0.0: not an address packets can have
VIP ff02::1: not an address packets can have
VIP 127.0.0.1: not an address packets can have
VIP fe80::1%eth0: not an address packets can have
VIP invalid IP: not an address packets can have
service 10.0.0.51, protocol 6, port 80: its address is not a VIP
service 10.0.0.50, protocol 6, port 0: protocol and port begin with 1
service 10.0.0.50, protocol 0, port 80: protocol and port begin with 1
device "": not the name of a device
device "a-name-of-sixteen": not the name of a device
device "a b": not the name of a device
device "..": not the name of a device
device tunl0: it takes no protocol
GUE port 0: ports begin with 1
MSS 87: must be 0 or from 88 to 65495
MSS 65496: must be 0 or from 88 to 65495`
	if err == nil {
		t.Fatal("no error")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func shuffled[T any](seed uint64, list []T) []T {
	out := append(slices.Clone(list), list...) // everything twice
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func TestOrderAndRepetitionMeanNothing(t *testing.T) {
	d := everything()
	normal, err := d.normal()
	if err != nil {
		t.Fatal(err)
	}
	want := build(normal).String()
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		other := Desired{Directors: shuffled(seed, d.Directors), VIPs: shuffled(seed, d.VIPs), Services: shuffled(seed, d.Services),
			Devices: shuffled(seed, d.Devices), GUEPorts: shuffled(seed, d.GUEPorts), MSS4: d.MSS4, MSS6: d.MSS6}
		given := slices.Clone(other.Services)
		normal, err := other.normal()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, build(normal).String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if !slices.Equal(given, other.Services) {
			t.Error("the caller's list was sorted")
		}
	})
}
