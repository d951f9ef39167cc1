package fabric

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"lvstun/deploy/lab/topology"
)

func seed(t *testing.T) *topology.Topology {
	t.Helper()
	top, err := topology.Load("")
	if err != nil {
		t.Fatal(err)
	}
	return top
}

func TestHosts(t *testing.T) {
	want := `127.0.0.1 localhost
::1 localhost
10.0.0.3 client
192.168.1.10 gw
192.168.1.100 rs1 rs1.yubo.com rs1.yubo.org
192.168.1.200 rs2 rs2.yubo.com rs2.yubo.org
10.0.0.1 vs
10.0.0.2 vs_bk
`
	if diff := cmp.Diff(want, hosts(seed(t))); diff != "" {
		t.Errorf("hosts (-want +got):\n%s", diff)
	}
}

func TestMAC(t *testing.T) {
	f := &Fabric{top: seed(t)}
	seen := map[string]string{}
	for _, n := range f.top.Nodes {
		for _, i := range n.Interfaces {
			mac := f.mac(n, i)
			if mac[0]&3 != 2 {
				t.Errorf("%s of %s is not a locally administered unicast address", mac, port(n, i))
			}
			if other, taken := seen[mac.String()]; taken {
				t.Errorf("%s and %s share %s", other, port(n, i), mac)
			}
			seen[mac.String()] = port(n, i)
		}
	}
	if len(seen) != 7 {
		t.Errorf("%d interfaces, want 7", len(seen))
	}
}

func TestOperationsRefused(t *testing.T) {
	f := &Fabric{top: seed(t)}
	for _, tt := range []struct {
		op   Op
		want string
	}{
		{Op{Verb: "cut", Node: "x"}, "x is no node of this topology: it has client, gw, rs1, rs2, vs, vs_bk"},
		{Op{Verb: "heal", Node: "vs"}, "heal vs: it is down"},
		{Op{Verb: "crash", Node: "vs"}, "crash vs: it is down already"},
		{Op{Verb: "boot", Node: "x"}, "x is no node of this topology: it has client, gw, rs1, rs2, vs, vs_bk"},
		{Op{Verb: "melt", Node: "vs"}, `"melt" is no operation`},
	} {
		if err := f.do(tt.op); err == nil || err.Error() != tt.want {
			t.Errorf("%+v: %v, want %s", tt.op, err, tt.want)
		}
	}
}
