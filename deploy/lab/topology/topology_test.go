package topology

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestSeed(t *testing.T) {
	top, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, n := range top.Nodes {
		got[n.Name] = string(n.Role) + " " + n.Address().String()
	}
	want := map[string]string{
		"client": "client 10.0.0.3", "gw": "gateway 192.168.1.10", "vs": "director 10.0.0.1", "vs_bk": "director 10.0.0.2",
		"rs1": "realserver 192.168.1.100", "rs2": "realserver 192.168.1.200",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
	if want := netip.MustParseAddr("10.0.0.50"); top.VIP != want {
		t.Errorf("VIP = %s, want %s", top.VIP, want)
	}
	rs1, ok := top.Node("rs1")
	if !ok || rs1.FullName != "rs1.yubo.com" || rs1.Page != "rs1.yubo.org" {
		t.Errorf("rs1 = %+v, %v", rs1, ok)
	}
	if n := len(top.WithRole(Director)); n != 2 {
		t.Errorf("%d directors, want 2", n)
	}
}

func TestParse(t *testing.T) {
	got, err := Parse("t.yaml", []byte(`
vip: 2001:db8::50
networks:
  a: {mtu: 1400, offload: off}
  b: {}
nodes:
  d:
    role: director
    ip_forward: true
    interfaces:
      eth0: {network: a, addresses: [10.1.0.1/24, "2001:db8::1/64"]}
    routes: [{to: default, via: "2001:db8::9"}, {to: 192.0.2.0/24, via: 10.1.0.9}]
  r:
    role: realserver
    offload: off
    interfaces:
      eth0: {network: b, addresses: [10.2.0.1/24]}
  bystander: {}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Topology{
		VIP:      netip.MustParseAddr("2001:db8::50"),
		Networks: []Network{{Name: "a", MTU: 1400}, {Name: "b", Offload: true}},
		Nodes: []Node{
			{Name: "bystander", FullName: "bystander", Page: "bystander"},
			{Name: "d", Role: Director, FullName: "d", Page: "d", Forward: true,
				Interfaces: []Interface{{Device: "eth0", Network: "a", MTU: 1400, Addresses: []netip.Prefix{
					netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("2001:db8::1/64"),
				}}},
				Routes: []Route{
					{To: netip.MustParsePrefix("::/0"), Via: netip.MustParseAddr("2001:db8::9")},
					{To: netip.MustParsePrefix("192.0.2.0/24"), Via: netip.MustParseAddr("10.1.0.9")},
				}},
			{Name: "r", Role: RealServer, FullName: "r", Page: "r",
				Interfaces: []Interface{{Device: "eth0", Network: "b", Addresses: []netip.Prefix{netip.MustParsePrefix("10.2.0.1/24")}}}},
		},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("Parse (-want +got):\n%s", diff)
	}
}

// good is a topology that each case of TestProblems breaks in one place by appending to it or replacing it.
const good = "networks: {n: {}}\nnodes:\n  a: {interfaces: {eth0: {network: n, addresses: [10.0.0.1/24]}}}\n"

func TestProblems(t *testing.T) {
	tests := []struct {
		name, yaml string
		want       []string
	}{
		{"empty", "", []string{"nodes, none, but a lab needs at least one"}},
		{"not YAML", "nodes: [", []string{"yaml: line 1: did not find expected node content"}},
		{"unknown keys, every one", "nods: {}\nnodes: {a: {rol: client}}\n", []string{
			"line 1: field nods not found in type topology.rawTopology", "line 2: field rol not found in type topology.rawNode"}},
		{"wrong type and a bad name", "networks: {n: {mtu: big}}\nnodes: {A: {}}\n", []string{
			"line 1: cannot unmarshal !!str `big` into int",
			`nodes, name, "A", must be 1 to 15 of a-z, 0-9, _ and -, and start with a letter or digit`}},
		{"network", "networks: {N: {mtu: 67, offload: maybe}}\nnodes: {a: {}}\n", []string{
			`networks, name, "N", must be 1 to 15 of a-z, 0-9, _ and -, and start with a letter or digit`,
			"networks.N.mtu, 67, must be from 68 to 65535", `networks.N.offload, "maybe", is neither on nor off`}},
		{"vip", "vip: 10.0.0\n" + good, []string{`vip, "10.0.0", is not an address`}},
		{"vip is a node's", "vip: 10.0.0.1\n" + good, []string{`vip, "10.0.0.1", is the address of a's eth0: it must be no node's own`}},
		{"role", good + "  b: {role: boss, offload: 1}\n", []string{
			`nodes.b.role, "boss", is not client, gateway, director or realserver`, `nodes.b.offload, "1", is neither on nor off`}},
		{"interface", good + "  b: {interfaces: {lo: {network: m, addresses: [10.0.0.2]}}}\n", []string{
			`nodes.b.interfaces.lo, "lo", every node has its own already`,
			`nodes.b.interfaces.lo.network, "m", is not one of the file's networks`,
			`nodes.b.interfaces.lo.addresses, "10.0.0.2", is not an address with a prefix length, as 10.0.0.1/24`}},
		{"long names", good + "  realserver10: {interfaces: {eth0: {network: n}}}\n", []string{
			`nodes.realserver10.interfaces, "eth0", is too long: node and interface name together may have 14 characters`}},
		{"address twice", good + "  b: {interfaces: {eth0: {network: n, addresses: [10.0.0.1/24]}}}\n", []string{
			`nodes.b.interfaces.eth0.addresses, "10.0.0.1/24", is already on a's eth0`}},
		{"routes", good + "  b:\n    interfaces: {eth0: {network: n, addresses: [10.0.0.2/24]}}\n    routes:\n" +
			"      - {to: default, via: x}\n      - {to: default, via: 10.9.0.1}\n      - {to: far, via: 10.0.0.1}\n" +
			"      - {to: 10.1.0.1/24, via: 10.0.0.1}\n      - {to: \"2001:db8::/32\", via: 10.0.0.1}\n", []string{
			`nodes.b.routes[0].via, "x", is not an address`,
			`nodes.b.routes[1].via, "10.9.0.1", is on none of the node's own networks`,
			`nodes.b.routes[2].to, "far", is neither default nor a network as 192.0.2.0/24`,
			`nodes.b.routes[3].to, "10.1.0.1/24", has host bits set: write 10.1.0.0/24`,
			`nodes.b.routes[4], "2001:db8::/32", goes via 10.0.0.1, which is of the other family`}},
		{"director without a VIP", good + "  d: {role: director}\n", []string{"vip, none, but node d is a director"}},
		{"director off the VIP's network", "vip: 10.7.0.1\n" + good + "  d: {role: director}\n", []string{
			`vip, "10.7.0.1", is on no network of director d`}},
		{"real server without an address", good + "  r: {role: realserver}\n", []string{`nodes.r, "realserver", has no address`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("t.yaml", []byte(tt.yaml))
			invalid, ok := errors.AsType[*Invalid](err)
			if !ok {
				t.Fatalf("Parse: %v, want an *Invalid", err)
			}
			if diff := cmp.Diff(tt.want, invalid.Problems); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := Parse("t.yaml", []byte(good)); err != nil {
		t.Errorf("the unbroken topology: %v", err)
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.yaml")
	if err := os.WriteFile(path, []byte("vip: no\nnodes: {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	want := path + ": vip, \"no\", is not an address\n" + path + ": nodes, none, but a lab needs at least one"
	if err == nil || err.Error() != want {
		t.Errorf("Load: %v\nwant: %s", err, want)
	}
	if _, err := Load(path + "2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Load of a missing file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(seed)
	f.Add([]byte(good))
	f.Add([]byte("nodes: {a: {routes: [{to: default, via: ::}]}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		top, err := Parse("f", data)
		if (top == nil) == (err == nil) {
			t.Errorf("Parse = %v, %v", top, err)
		}
	})
}
