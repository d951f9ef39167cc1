package cluster

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"lvstun/deploy/lab/topology"
)

func load(t *testing.T, yaml string) *topology.Topology {
	t.Helper()
	top, err := topology.Load("")
	if yaml != "" {
		top, err = topology.Parse("t.yaml", []byte(yaml))
	}
	if err != nil {
		t.Fatal(err)
	}
	return top
}

func node(t *testing.T, top *topology.Topology, name string) topology.Node {
	t.Helper()
	n, ok := top.Node(name)
	if !ok {
		t.Fatalf("no node %s", name)
	}
	return n
}

func TestDirector(t *testing.T) {
	top := load(t, "")
	want := `name: vs
cluster_key_file: /etc/lvstun/cluster.key
heartbeat:
  paths:
    - {local: 10.0.0.1, peer: 10.0.0.2}
api: {listen: ":3637"}
web: {listen: "127.0.0.1:3636"}
services:
  - name: HTTP
    vip: 10.0.0.50
    device: eth0
    port: 80
    protocol: tcp
    scheduler: wlc
    check: {kind: http, path: /, expect_status: 200, interval: 1s, timeout: 500ms, rise: 2, fall: 2}
    register: {from: ["192.168.1.0/24"], max_weight: 100}
`
	if diff := cmp.Diff(want, Director(top, node(t, top, "vs"))); diff != "" {
		t.Errorf("Director (-want +got):\n%s", diff)
	}
}

// One director has no peer, so no heartbeat; IPv6 addresses need quotes in YAML's flow style.
const lone = `
vip: 2001:db8::50
networks: {a: {}, b: {}}
nodes:
  d: {role: director, interfaces: {net1: {network: a, addresses: [10.0.0.1/24, "2001:db8::1/64"]}}}
  r1: {role: realserver, interfaces: {eth0: {network: a, addresses: ["2001:db8::a/64"]}}}
  r2: {role: realserver, interfaces: {eth0: {network: b, addresses: ["2001:db8:1::a/64"]}}}
`

func TestLoneDirector(t *testing.T) {
	top := load(t, lone)
	want := `name: d
cluster_key_file: /etc/lvstun/cluster.key
api: {listen: ":3637"}
web: {listen: "127.0.0.1:3636"}
services:
  - name: HTTP
    vip: "2001:db8::50"
    device: net1
    port: 80
    protocol: tcp
    scheduler: wlc
    check: {kind: http, path: /, expect_status: 200, interval: 1s, timeout: 500ms, rise: 2, fall: 2}
    register: {from: ["2001:db8::/64", "2001:db8:1::/64"], max_weight: 100}
`
	if diff := cmp.Diff(want, Director(top, node(t, top, "d"))); diff != "" {
		t.Errorf("Director (-want +got):\n%s", diff)
	}
}

func TestAgent(t *testing.T) {
	for yaml, want := range map[string]string{
		"":   "directors: [\"10.0.0.1:3637\", \"10.0.0.2:3637\"]\ntoken_file: /etc/lvstun/token\n",
		lone: "directors: [\"[2001:db8::1]:3637\"]\ntoken_file: /etc/lvstun/token\n",
	} {
		if diff := cmp.Diff(want, Agent(load(t, yaml))); diff != "" {
			t.Errorf("Agent (-want +got):\n%s", diff)
		}
	}
}

func TestBoot(t *testing.T) {
	top := load(t, "")
	for name, want := range map[string]string{
		"vs":     "start director lvs-director run --config /etc/lvstun/director.yaml\n",
		"rs1":    "start web busybox httpd -f -p 80 -h /var/lib/www\nstart agent lvs-agent run --config /etc/lvstun/agent.yaml\n",
		"client": "",
		"gw":     "",
	} {
		if diff := cmp.Diff(want, Boot(node(t, top, name))); diff != "" {
			t.Errorf("Boot of %s (-want +got):\n%s", name, diff)
		}
	}
}
