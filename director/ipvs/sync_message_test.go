package ipvs

import (
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func entryOf(p Protocol, client, vip, destination, state string, method Method, timeout time.Duration) syncEntry {
	return syncEntry{
		Flow: Flow{Protocol: p, Client: netip.MustParseAddrPort(client), VIP: netip.MustParseAddrPort(vip),
			Destination: netip.MustParseAddrPort(destination), State: state},
		method: method, timeout: timeout,
	}
}

// The bytes of the structures, by hand. The kernel tests hold them against those of the kernel's own master.
func TestSyncMessage(t *testing.T) {
	template := entryOf(TCP, "10.9.0.0:0", "10.9.0.50:443", "10.9.0.100:443", "ASSURED", MethodTunnel, 5*time.Minute)
	template.Template = true
	marked := entryOf(UDP, "10.9.0.10:53000", "10.9.0.50:53", "10.9.0.100:53", "UDP", MethodDirect, 299*time.Second)
	marked.fwmark = 0x01020304
	tests := []struct {
		name    string
		entries []syncEntry
		want    string
	}{
		{"established", []syncEntry{entryOf(TCP, "10.9.0.10:36188", "10.9.0.50:80", "10.9.0.100:8080", "ESTABLISHED", MethodTunnel, 900*time.Second)}, `
			00 32 002c  01 01 0000              # version 0's count of entries, syncid 50, size; entries, version, spare
			00 06 0024  00000082  0001          # IPv4, TCP, size; no output, tunnel; ESTABLISHED
			8d5c 0050 1f90  00000000  00000384  # ports; fwmark; timeout
			0a09000a 0a090032 0a090064`},
		{"opening, which counts as active", []syncEntry{entryOf(TCP, "10.9.0.10:36188", "10.9.0.50:80", "10.9.0.100:80", "SYN_RECV", MethodTunnel, time.Minute)}, `
			00 32 002c  01 01 0000
			00 06 0024  00000082  0003
			8d5c 0050 0050  00000000  0000003c
			0a09000a 0a090032 0a090064`},
		{"closing, and UDP of a fwmark service", []syncEntry{
			entryOf(TCP, "10.9.0.10:36188", "10.9.0.50:80", "10.9.0.100:80", "FIN_WAIT", MethodTunnel, 2*time.Minute), marked}, `
			00 32 0050  02 01 0000
			00 06 0024  00000182  0004          # inactive
			8d5c 0050 0050  00000000  00000078
			0a09000a 0a090032 0a090064
			00 11 0024  00000183  0000          # inactive, direct
			cf08 0035 0035  01020304  0000012b
			0a09000a 0a090032 0a090064`},
		{"template", []syncEntry{template}, `
			00 32 002c  01 01 0000
			00 06 0024  00001182  0001          # template, inactive; ASSURED
			0000 01bb 01bb  00000000  0000012c
			0a090000 0a090032 0a090064`},
		{"IPv6", []syncEntry{entryOf(TCP, "[2001:db8::a]:36188", "[2001:db8::50]:80", "[2001:db8:1::100]:80", "SYNACK", MethodLocalNode, 2*time.Minute)}, `
			00 32 0050  01 01 0000
			01 06 0048  00000081  000a
			8d5c 0050 0050  00000000  00000078
			20010db8 00000000 00000000 0000000a
			20010db8 00000000 00000000 00000050
			20010db8 00010000 00000000 00000100`},
	}
	m := newSyncMessage(50, 1472)
	for _, tt := range tests {
		for _, e := range tt.entries {
			if !e.tellable() {
				t.Errorf("%s: %s is not told", tt.name, e)
			}
			m.add(e)
		}
		if d := cmp.Diff(hex.Dump(unhex(t, tt.want)), hex.Dump(m.datagram())); d != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, d)
		}
		m.reset()
	}
}

// How many entries a message takes.
func TestSyncMessageFills(t *testing.T) {
	v4 := entryOf(TCP, "10.9.0.10:1", "10.9.0.50:80", "10.9.0.100:80", "ESTABLISHED", MethodTunnel, time.Second)
	v6 := entryOf(TCP, "[2001:db8::a]:1", "[2001:db8::50]:80", "[2001:db8::64]:80", "ESTABLISHED", MethodTunnel, time.Second)
	for _, tt := range []struct {
		most   int
		e      syncEntry
		want   int
		length int
	}{{1472, v4, 40, 1448}, {1452, v6, 20, 1448}, {80, v4, 2, 80}, {79, v4, 1, 44}, {80, v6, 1, 80}, {65507, v4, 255, 9188}} {
		m := newSyncMessage(0, tt.most)
		for range 2 {
			n := 0
			for ; m.fits(tt.e); n++ {
				m.add(tt.e)
			}
			s := &standby{t: t}
			s.Write(m.datagram())
			if n != tt.want || len(m.datagram()) != tt.length || len(s.told) != n {
				t.Errorf("%d bytes: %d entries in %d bytes, %d told, want %d in %d", tt.most, n, len(m.datagram()), len(s.told), tt.want, tt.length)
			}
			m.reset()
		}
	}
}

func TestTellable(t *testing.T) {
	good := entryOf(TCP, "10.9.0.10:36188", "10.9.0.50:80", "10.9.0.100:80", "ESTABLISHED", MethodTunnel, time.Second).Flow
	for name, change := range map[string]func(*Flow){
		"the flow itself":             func(f *Flow) {},
		"not SCTP":                    func(f *Flow) { f.Protocol = 132 },
		"not another protocol":        func(f *Flow) { f.Protocol = 0 },
		"not without a state":         func(f *Flow) { f.State = "NONE" },
		"not in an unknown state":     func(f *Flow) { f.State = "BUG!" },
		"not without a client's":      func(f *Flow) { f.Client = netip.AddrPortFrom(f.Client.Addr(), 0) },
		"not to another family":       func(f *Flow) { f.Destination = netip.MustParseAddrPort("[2001:db8::64]:80") },
		"not a UDP flow of TCP":       func(f *Flow) { f.Protocol = UDP },
		"a UDP flow":                  func(f *Flow) { f.Protocol, f.State = UDP, "UDP" },
		"a template":                  func(f *Flow) { f.Template, f.Client, f.State = true, netip.AddrPortFrom(f.Client.Addr(), 0), "NONE" },
		"not a template of an engine": func(f *Flow) { f.Template, f.State, f.PEName = true, "NONE", "sip" },
	} {
		f := good
		change(&f)
		if want := name[:3] != "not"; f.tellable() != want {
			t.Errorf("%s: %t", name, !want)
		}
	}
}

func genEntry() *rapid.Generator[syncEntry] {
	return rapid.Custom(func(t *rapid.T) syncEntry {
		e := syncEntry{method: rapid.SampledFrom([]Method{MethodLocalNode, MethodTunnel, MethodDirect}).Draw(t, "method"),
			fwmark: rapid.Uint32().Draw(t, "fwmark"), timeout: time.Duration(rapid.IntRange(1, 1<<31).Draw(t, "timeout")) * time.Second}
		e.Template = rapid.Bool().Draw(t, "template")
		e.Protocol = rapid.SampledFrom([]Protocol{TCP, UDP}).Draw(t, "protocol")
		e.State = rapid.SampledFrom(e.states()).Draw(t, "state")
		width := rapid.SampledFrom([]int{4, 16}).Draw(t, "width")
		for _, at := range []*netip.AddrPort{&e.Client, &e.VIP, &e.Destination} {
			addr, _ := netip.AddrFromSlice(rapid.SliceOfN(rapid.Byte(), width, width).Draw(t, "address"))
			*at = netip.AddrPortFrom(addr, rapid.Uint16().Draw(t, "port"))
		}
		return e
	})
}

func TestSyncMessageRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		entries := rapid.SliceOfN(genEntry(), 0, 60).Draw(rt, "entries")
		s := &standby{t: t, id: rapid.IntRange(0, 255).Draw(rt, "id")}
		m := newSyncMessage(s.id, rapid.IntRange(80, 1472).Draw(rt, "size"))
		for _, e := range entries {
			if !m.fits(e) {
				s.Write(m.datagram())
				m.reset()
			}
			m.add(e)
		}
		s.Write(m.datagram())
		want := standby{told: entries}
		if d := cmp.Diff(want.String(), s.String()); d != "" {
			rt.Fatalf("(-want +got)\n%s", d)
		}
	})
}
