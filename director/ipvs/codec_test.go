package ipvs

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var cmpAddrs = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

// unhex reads hexadecimal with blanks and comments to the end of the line.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	var digits strings.Builder
	for line := range strings.Lines(s) {
		line, _, _ = strings.Cut(line, "#")
		for _, f := range strings.Fields(line) {
			digits.WriteString(f)
		}
	}
	b, err := hex.DecodeString(digits.String())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The bytes of a little-endian host, as libipvs sends them for the same services and destinations.
func TestEncode(t *testing.T) {
	service := Service{Key: udp("10.0.0.50:53"), Scheduler: "mh", SchedFlags: SchedPort, OnePacket: true, PEName: "sip",
		Persistent: 300e9, PersistenceMask: 24}
	gue := Destination{Addr: netip.MustParseAddrPort("192.168.1.100:53"), Method: MethodTunnel, Weight: 7, Upper: 9, Lower: 8,
		Tunnel: Tunnel{Type: GUE, Port: 6080, Flags: RemCsum}}
	tests := []struct {
		name string
		got  []byte
		want string
	}{
		{"key", encodeKey(service.Key), `
			3000 0180                                     # service, nested
			0600 0100 0200 0000                           # family: IPv4
			0600 0200 1100 0000                           # protocol: UDP
			1400 0300 0a000032 00000000 00000000 00000000 # address
			0600 0400 0035 0000                           # port`},
		{"IPv6 key", encodeKey(tcp("[2001:db8::50]:80")), `
			3000 0180
			0600 0100 0a00 0000
			0600 0200 0600 0000
			1400 0300 20010db8 00000000 00000000 00000050
			0600 0400 0050 0000`},
		{"fwmark key", encodeKey(FWMarkKey(0x01020304, IPv6)), `
			1400 0180
			0600 0100 0a00 0000
			0800 0500 04030201`},
		{"service", encodeService(service), `
			5c00 0180
			0600 0100 0200 0000
			0600 0200 1100 0000
			1400 0300 0a000032 00000000 00000000 00000000
			0600 0400 0035 0000
			0700 0600 6d6800 00                           # scheduler
			0800 0b00 73697000                            # persistence engine
			0c00 0700 15000000 3d000000                   # flags: persistent, one packet, scheduler flag 2; mask
			0800 0800 2c010000                            # timeout
			0800 0900 ffffff00                            # netmask`},
		{"plain service", encodeService(wlc(tcp("[2001:db8::50]:80"))), `
			5400 0180
			0600 0100 0a00 0000
			0600 0200 0600 0000
			1400 0300 20010db8 00000000 00000000 00000050
			0600 0400 0050 0000
			0800 0600 776c6300
			0c00 0700 00000000 3d000000
			0800 0800 00000000
			0800 0900 80000000                            # netmask: a prefix length`},
		{"destination", encodeDestination(FWMarkKey(7, IPv6), gue), `
			1400 0180
			0600 0100 0a00 0000
			0800 0500 07000000
			6000 0280                                     # destination, nested
			0600 0b00 0200 0000                           # family: IPv4
			1400 0100 c0a80164 00000000 00000000 00000000 # address
			0600 0200 0035 0000                           # port
			0800 0300 02000000                            # method: tunnel
			0800 0400 07000000                            # weight
			0800 0500 09000000                            # upper
			0800 0600 08000000                            # lower
			0500 0d00 01 000000                           # tunnel: GUE
			0600 0e00 17c0 0000                           # port
			0600 0f00 0200 0000                           # flags`},
	}
	for _, tt := range tests {
		if d := cmp.Diff(hex.Dump(unhex(t, tt.want)), hex.Dump(tt.got)); d != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, d)
		}
	}
}

const (
	serviceMessage = `
		3001 0100
		0600 0100 0200 0000
		0600 0200 0600 0000
		1400 0300 0a000032 00000000 00000000 00000000
		0600 0400 0050 0000
		0800 0600 776c6300
		0c00 0700 03000000 ffffffff                       # persistent and the kernel's own "hashed"
		0800 0800 2c010000
		0800 0900 fffff000
		5c00 0a00                                         # statistics in 32 bits
		  0800 0100 63000000
		  0800 0200 63000000
		  0800 0300 63000000
		  0c00 0400 6300000000000000
		  0c00 0500 6300000000000000
		  0800 0600 63000000 0800 0700 63000000 0800 0800 63000000 0800 0900 63000000 0800 0a00 63000000
		8000 0c00                                         # and in 64
		  0c00 0100 0100000001000000
		  0c00 0200 0200000000000000
		  0c00 0300 0300000000000000
		  0400 0b00                                       # padding
		  0c00 0400 0400000000000000
		  0c00 0500 0500000000000000
		  0c00 0600 0600000000000000
		  0c00 0700 0700000000000000
		  0c00 0800 0800000000000000
		  0c00 0900 0900000000000000
		  0c00 0a00 0a00000000000000`

	destinationMessage = `
		d800 0200
		1400 0100 20010db8 00000000 00000000 00000064
		0600 0200 0050 0000
		0800 0300 22010000                                # tunnel, with flags of connections
		0800 0400 ffffff7f                                # weight
		0500 0d00 02 000000                               # GRE
		0600 0e00 0000 0000
		0600 0f00 0100 0000
		0800 0500 0a000000
		0800 0600 05000000
		0800 0700 01000000                                # connections: active
		0800 0800 02000000                                # inactive
		0800 0900 03000000                                # persistent
		0600 0b00 0a00 0000                               # family
		5400 0c00                                         # statistics in 64 bits, not all of them
		  0c00 0100 0100000001000000 0c00 0200 0200000000000000 0c00 0300 0300000000000000 0c00 0400 0400000000000000
		  0c00 0500 0500000000000000 0c00 0600 0600000000000000 0800 0700 07000000
		0c00 0a00 0800 0100 63000000                      # and in 32, after the better ones`
)

func TestDecode(t *testing.T) {
	s, err := decodeService(unhex(t, serviceMessage))
	if err != nil {
		t.Fatal(err)
	}
	want := Service{Key: tcp("10.0.0.50:80"), Scheduler: "wlc", Persistent: 300e9, PersistenceMask: 20,
		Stats: Stats{Conns: 1<<32 + 1, InPkts: 2, OutPkts: 3, InBytes: 4, OutBytes: 5, CPS: 6, InPPS: 7, OutPPS: 8, InBPS: 9, OutBPS: 10}}
	if d := cmp.Diff(want, s, cmpAddrs); d != "" {
		t.Errorf("service (-want +got)\n%s", d)
	}

	d, err := decodeDestination(unhex(t, destinationMessage), IPv4)
	if err != nil {
		t.Fatal(err)
	}
	wantDest := Destination{Addr: netip.MustParseAddrPort("[2001:db8::64]:80"), Method: MethodTunnel, Weight: 1<<31 - 1,
		Upper: 10, Lower: 5, Tunnel: Tunnel{Type: GRE, Flags: Csum}, ActiveConns: 1, InactiveConns: 2, PersistConns: 3,
		Stats: Stats{Conns: 1<<32 + 1, InPkts: 2, OutPkts: 3, InBytes: 4, OutBytes: 5, CPS: 6, InPPS: 7}}
	if d := cmp.Diff(wantDest, d, cmpAddrs); d != "" {
		t.Errorf("destination (-want +got)\n%s", d)
	}
}

// What an older kernel leaves out, and what is left of a tunnel after another method was set.
func TestDecodeOthers(t *testing.T) {
	d, err := decodeDestination(unhex(t, `
		3000 0200
		1400 0100 c0a80164 00000000 00000000 00000000
		0600 0200 0050 0000
		0800 0300 02000000
		0800 0400 01000000`), IPv4)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(tun("192.168.1.100:80", 1), d, cmpAddrs); d != "" {
		t.Errorf("destination (-want +got)\n%s", d)
	}
	d, err = decodeDestination(unhex(t, `
		4400 0200
		1400 0100 c0a80164 00000000 00000000 00000000
		0600 0200 0050 0000
		0800 0300 03000000
		0500 0d00 01 000000
		0600 0e00 17c0 0000
		0a00 0a00 0600 0b00 0000 0000`), IPv4)
	if want := (Destination{Addr: netip.MustParseAddrPort("192.168.1.100:80"), Method: MethodDirect}); err != nil || d != want {
		t.Errorf("%+v, %v; want %+v", d, err, want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	tests := []struct{ name, msg, err string }{
		{"nothing", ``, "attribute 1 is missing"},
		{"another attribute", `0800 0200 00000000`, "attribute 1 is missing"},
		{"too long", `0900 0100 00000000`, "attribute 1 is 9 bytes long where 8 are left"},
		{"too short", `0300 0100 00000000`, "attribute 1 is 3 bytes long where 8 are left"},
		{"empty", `0400 0100`, "it has no family, or not one of address and fwmark"},
		{"no address", `0c00 0100 0600 0100 0200 0000`, "it has no family, or not one of address and fwmark"},
		{"family unknown", `0c00 0100 0600 0100 0900 0000`, "attribute 1: attribute 1: address family 9"},
		{"family of three bytes", `0c00 0100 0700 0100 0900 0000`, "attribute 1: attribute 1: 3 bytes, want 2"},
		{"address of four bytes", `1400 0100 0600 0100 0200 0000 0800 0300 0a000032`, "address: 4 bytes, want 16"},
		{"persistent without mask", `2000 0100 0600 0100 0200 0000 0800 0500 01000000 0c00 0700 01000000 ffffffff`, "netmask: 0 bytes, want 4"},
		{"prefix of 129", `2800 0100 0600 0100 0a00 0000 0800 0500 01000000 0c00 0700 01000000 ffffffff 0800 0900 81000000`, "netmask: prefix length 129"},
		{"flags of four bytes", `1400 0100 0600 0100 0200 0000 0800 0700 01000000`, "attribute 1: attribute 7: 4 bytes, want 8"},
		{"counter of two bytes", `1800 0100 0600 0100 0200 0000 0c00 0a00 0600 0100 0100 0000`, "attribute 1: attribute 10: attribute 1: 2 bytes, want 8"},
	}
	for _, tt := range tests {
		_, err := decodeService(unhex(t, tt.msg))
		if want := "read a service from the kernel: " + tt.err; err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", tt.name, err, want)
		}
	}
	if _, err := decodeDestination(unhex(t, `0400 0200`), IPv4); err == nil ||
		err.Error() != "read a destination from the kernel: address: 0 bytes, want 16" {
		t.Errorf("a destination without address: %v", err)
	}
	if _, err := decodeDestination(unhex(t, `0c00 0200 0600 0d00 0100 0000`), IPv4); err == nil ||
		err.Error() != "read a destination from the kernel: attribute 2: attribute 13: 2 bytes, want 1" {
		t.Errorf("a wide tunnel type: %v", err)
	}
}

func TestNetmask(t *testing.T) {
	tests := []struct {
		mask   int
		family Family
		wire   string
	}{
		{0, IPv4, "ffffffff"}, {1, IPv4, "80000000"}, {24, IPv4, "ffffff00"}, {31, IPv4, "fffffffe"},
		{-1, IPv4, "00000000"}, {^0xff00ff00, IPv4, "ff00ff00"}, {^1, IPv4, "00000001"},
		{0, IPv6, "80000000"}, {1, IPv6, "01000000"}, {127, IPv6, "7f000000"},
	}
	for _, tt := range tests {
		b := netmaskBytes(tt.mask, tt.family)
		if got := hex.EncodeToString(b); got != tt.wire {
			t.Errorf("%s mask %d is %s on the wire, want %s", tt.family, tt.mask, got, tt.wire)
		}
		if got, err := netmaskPrefix(b, tt.family); got != tt.mask || err != nil {
			t.Errorf("%s netmask %s reads %d, %v; want %d", tt.family, tt.wire, got, err, tt.mask)
		}
	}
	if got := netmaskBytes(99, IPv4); !bytes.Equal(got, []byte{255, 255, 255, 255}) {
		t.Errorf("a mask of 99 bits became %x", got)
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.SampledFrom(someKeys).Draw(t, "key")
		want := genService(k).Draw(t, "service")
		got, err := decodeService(encodeService(want))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range want.Destinations {
			back, err := decodeDestination(encodeDestination(k, d), IPv4+IPv6-k.family()) // the attribute says the family, not the hint
			if err != nil {
				t.Fatal(err)
			}
			got.Destinations = append(got.Destinations, back)
		}
		if len(want.Destinations) == 0 {
			want.Destinations = nil
		}
		if d := cmp.Diff(want, got, cmpAddrs); d != "" {
			t.Fatalf("(-want +got)\n%s", d)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(unhex(f, serviceMessage))
	f.Add(unhex(f, destinationMessage))
	f.Add([]byte{4, 0, 1, 0})
	f.Add([]byte{5, 0, 1, 0, 0})
	f.Add([]byte{0, 0, 1, 0})
	for _, s := range everyKind() {
		f.Add(encodeService(s))
		for _, d := range s.Destinations {
			f.Add(encodeDestination(s.Key, d))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decodeService(b); err == nil {
			if len(s.Scheduler)+len(s.PEName) > len(b) {
				t.Errorf("%d bytes grew to %q and %q", len(b), s.Scheduler, s.PEName)
			}
			again, err := decodeService(encodeService(s))
			if err != nil || again.Key != s.Key {
				t.Errorf("%s became %s: %v", s.Key, again.Key, err)
			}
		}
		for _, fam := range []Family{IPv4, IPv6} {
			if d, err := decodeDestination(b, fam); err == nil {
				if again, err := decodeDestination(encodeDestination(tcp("10.0.0.50:80"), d), fam); err != nil || again.Addr != d.Addr {
					t.Errorf("%s became %s: %v", d.Addr, again.Addr, err)
				}
			}
		}
	})
}
