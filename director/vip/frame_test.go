package vip

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	ownMAC  = MAC{0x02, 0, 0, 0, 0, 0x01}
	peerMAC = MAC{0x02, 0, 0, 0, 0, 0x02}
	v4      = netip.MustParseAddr("10.0.0.50")
	v6      = netip.MustParseAddr("2001:db8::50")

	compareAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The frames, written out by hand from the RFCs.
const (
	arpProbeBytes = `
		ffffffffffff 020000000001 0806
		0001 0800 06 04 0001
		020000000001 00000000 000000000000 0a000032`
	arpRequestBytes = `
		ffffffffffff 020000000001 0806
		0001 0800 06 04 0001
		020000000001 0a000032 000000000000 0a000032`
	arpReplyBytes = `
		ffffffffffff 020000000001 0806
		0001 0800 06 04 0002
		020000000001 0a000032 020000000001 0a000032`
	ndProbeBytes = `
		3333ff000050 020000000001 86dd
		60000000 0018 3a ff
		00000000000000000000000000000000
		ff0200000000000000000001ff000050
		87 00 4c4f 00000000
		20010db8000000000000000000000050`
	ndAnnouncementBytes = `
		333300000001 020000000001 86dd
		60000000 0020 3a ff
		20010db8000000000000000000000050
		ff020000000000000000000000000001
		88 00 f88c 20000000
		20010db8000000000000000000000050
		02 01 020000000001`
	// An answer of the Linux kernel to arpProbe, padded to the shortest frame.
	arpAnswerBytes = `
		020000000001 020000000002 0806
		0001 0800 06 04 0002
		020000000002 0a000032 020000000001 00000000
		000000000000000000000000000000000000`
)

func TestFrames(t *testing.T) {
	arps := arpAnnouncements(ownMAC, v4)
	for _, test := range []struct {
		name string
		got  []byte
		want string
	}{
		{"ARP probe", probe(ownMAC, v4), arpProbeBytes},
		{"ARP announcement as a request", arps[0], arpRequestBytes},
		{"ARP announcement as a reply", arps[1], arpReplyBytes},
		{"neighbour solicitation", probe(ownMAC, v6), ndProbeBytes},
		{"neighbour advertisement", announcements(ownMAC, v6)[0], ndAnnouncementBytes},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(hex.EncodeToString(unhex(t, test.want)), hex.EncodeToString(test.got)); diff != "" {
				t.Errorf("frame (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSight(t *testing.T) {
	change := func(s string, at int, to ...byte) []byte {
		b := unhex(t, s)
		copy(b[at:], to)
		return b
	}
	for _, test := range []struct {
		name string
		b    []byte
		want Sighting
		ok   bool
	}{
		{"an answer", unhex(t, arpAnswerBytes), Sighting{Addr: v4, MAC: peerMAC}, true},
		{"an announcement as a request", unhex(t, arpRequestBytes), Sighting{Addr: v4, MAC: ownMAC}, true},
		{"an announcement as a reply", unhex(t, arpReplyBytes), Sighting{Addr: v4, MAC: ownMAC}, true},
		{"a rival's probe", unhex(t, arpProbeBytes), Sighting{Addr: v4, MAC: ownMAC, Asks: true}, true},
		{"a neighbour's advertisement", unhex(t, ndAnnouncementBytes), Sighting{Addr: v6, MAC: ownMAC}, true},
		{"a rival's solicitation", unhex(t, ndProbeBytes), Sighting{Addr: v6, MAC: ownMAC, Asks: true}, true},
		{"ARP: cut", unhex(t, arpAnswerBytes)[:41], Sighting{}, false},
		{"ARP: not IPv4", change(arpAnswerBytes, 16, 0x86, 0xdd), Sighting{}, false},
		{"ARP: operation 3", change(arpAnswerBytes, 21, 3), Sighting{}, false},
		{"ARP: a reply from nobody", change(arpProbeBytes, 21, 2), Sighting{}, false},
		{"another protocol", change(arpAnswerBytes, 12, 8, 0), Sighting{}, false},
		{"neighbour: from beyond a router", change(ndAnnouncementBytes, 21, 64), Sighting{}, false},
		{"neighbour: wrong checksum", change(ndAnnouncementBytes, 56, 0, 0), Sighting{}, false},
		{"neighbour: longer than the frame", change(ndAnnouncementBytes, 18, 0, 40), Sighting{}, false},
		{"neighbour: cut", unhex(t, ndProbeBytes)[:77], Sighting{}, false},
		{"an ordinary solicitation", ndFrame(ownMAC, netip.MustParseAddr("fe80::1"), solicitedNode(v6),
			append([]byte{ndSolicitation, 0, 0, 0, 0, 0, 0, 0}, v6.AsSlice()...)), Sighting{}, false},
		{"nothing", nil, Sighting{}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, ok := sight(test.b)
			if diff := cmp.Diff(test.want, got, compareAddr); diff != "" || ok != test.ok {
				t.Errorf("ok %v, want %v; sighting (-want +got):\n%s", ok, test.ok, diff)
			}
		})
	}
}

func TestMACString(t *testing.T) {
	if got := (MAC{0x02, 0, 0xab, 0xcd, 0xef, 0x10}).String(); got != "02:00:ab:cd:ef:10" {
		t.Error(got)
	}
}

// FuzzSight holds that no frame from the LAN makes the parser fall, and that
// what it sees is an address.
func FuzzSight(f *testing.F) {
	for _, s := range []string{arpProbeBytes, arpRequestBytes, arpReplyBytes, arpAnswerBytes, ndProbeBytes, ndAnnouncementBytes} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := sight(b); ok && !s.Addr.IsValid() {
			t.Errorf("%x: %+v", b, s)
		}
	})
}
