package heartbeat

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var compareAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func key(b byte) (k [32]byte) {
	for i := range k {
		k[i] = b
	}
	return k
}

// sample is a packet whose bytes are written out below.
func sample() Packet {
	return Packet{
		Kind: Beat, Role: 2, Sync: 1, Incarnation: 0x0102030405060708, Sequence: 9,
		EchoOf: 0x1112131415161718, EchoSeq: 0x20, Term: 7, Digest: [DigestSize]byte{0: 0xd1, 23: 0xd2}, MAC: [6]byte{0x02, 0, 0, 0, 0, 0x01},
		Addr: netip.MustParseAddr("10.0.0.1"), Name: "vs",
	}
}

const sampleBytes = "4c565354" + "01" + "01" + "02" + "01" +
	"0102030405060708" + "0000000000000009" + "1112131415161718" + "0000000000000020" + "0000000000000007" +
	"d100000000000000000000000000000000000000000000d2" + "020000000001" + "0000" +
	"00000000000000000000ffff0a000001" +
	"7673000000000000000000000000000000000000000000000000000000000000" +
	"0000000000000000000000000000000000000000000000000000000000000000"

const sampleMAC = "6430ac77d4a8ec3aa5b4d7939641245190ed7b1783244c70b8ca07c481c5c40c"

func TestPacketBytes(t *testing.T) {
	c := NewCodec(key(1))
	p := sample()
	b := c.Encode(&p)
	if got := hex.EncodeToString(b[:offMAC]); got != sampleBytes {
		t.Errorf("bytes (-want +got):\n%s", cmp.Diff(sampleBytes, got))
	}
	// hmac.new(bytes([1]*32), bytes.fromhex(sampleBytes), "sha256").hexdigest()
	if got, want := hex.EncodeToString(b[offMAC:]), sampleMAC; got != want {
		t.Errorf("HMAC %s, want %s", got, want)
	}
	var back Packet
	if drop := c.Decode(b[:], &back); drop != Kept {
		t.Fatalf("dropped: %v", drop)
	}
	if diff := cmp.Diff(p, back, compareAddr); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
}

func TestDecodeDrops(t *testing.T) {
	c := NewCodec(key(1))
	change := func(f func(*Packet)) []byte {
		p := sample()
		f(&p)
		b := c.Encode(&p)
		return b[:]
	}
	// resign changes raw bytes and makes the packet authentic again.
	resign := func(at int, to ...byte) []byte {
		b := change(func(*Packet) {})
		copy(b[at:], to)
		copy(b[offMAC:], c.sign(b[:offMAC]))
		return b
	}
	flip := func(at int) []byte {
		b := change(func(*Packet) {})
		b[at] ^= 1
		return b
	}
	good := change(func(*Packet) {})
	p := sample()
	foreign := NewCodec(key(2)).Encode(&p)
	for _, test := range []struct {
		name string
		b    []byte
		want Drop
	}{
		{"good", good, Kept},
		{"nothing", nil, Short},
		{"one of pulse", []byte{0xda, 0xdb, 0xda, 0xbd}, Short},
		{"one byte short", good[:Size-1], Short},
		{"one byte long", append(bytes.Clone(good), 0), Long},
		{"another protocol", flip(0), Alien},
		{"a later version", resign(offVersion, Version+1), Skewed},
		{"another key", foreign[:], Forged},
		{"kind changed", flip(offKind), Forged},
		{"term changed", flip(offTerm + 7), Forged},
		{"last byte of the name changed", flip(offMAC - 1), Forged},
		{"HMAC changed at its first byte", flip(offMAC), Forged},
		{"HMAC changed at its last byte", flip(Size - 1), Forged},
		{"kind 0", resign(offKind, 0), Malformed},
		{"kind 5", resign(offKind, 5), Malformed},
		{"no name", resign(offName, 0, 0), Malformed},
		{"a zero within the name", resign(offName, 'a', 0, 'b'), Malformed},
		{"a control character in the name", resign(offName, 'a', '\n'), Malformed},
		{"something in the spare bytes", resign(offSpare+1, 1), Malformed},
		{"incarnation 0", change(func(p *Packet) { p.Incarnation = 0 }), Malformed},
		{"sequence 0", change(func(p *Packet) { p.Sequence = 0 }), Malformed},
		{"longest name", change(func(p *Packet) { p.Name = strings.Repeat("n", MaxName) }), Kept},
	} {
		t.Run(test.name, func(t *testing.T) {
			var p Packet
			if got := c.Decode(test.b, &p); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

func TestRoundTrip(t *testing.T) {
	c := NewCodec(key(3))
	rapid.Check(t, func(t *rapid.T) {
		p := Packet{
			Kind:        Kind(rapid.IntRange(1, 4).Draw(t, "kind")),
			Role:        rapid.Byte().Draw(t, "role"),
			Sync:        rapid.Byte().Draw(t, "sync"),
			Incarnation: rapid.Uint64Min(1).Draw(t, "incarnation"),
			Sequence:    rapid.Uint64Min(1).Draw(t, "sequence"),
			EchoOf:      rapid.Uint64().Draw(t, "echoOf"),
			EchoSeq:     rapid.Uint64().Draw(t, "echoSeq"),
			Term:        rapid.Uint64().Draw(t, "term"),
			Digest:      [DigestSize]byte(rapid.SliceOfN(rapid.Byte(), DigestSize, DigestSize).Draw(t, "digest")),
			MAC:         [6]byte(rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "mac")),
			Addr:        netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "addr"))).Unmap(),
			Name:        rapid.StringMatching(`[a-z0-9._-]{1,64}`).Draw(t, "name"),
		}
		b := c.Encode(&p)
		var back Packet
		if drop := c.Decode(b[:], &back); drop != Kept {
			t.Fatalf("dropped: %v", drop)
		}
		if diff := cmp.Diff(p, back, compareAddr); diff != "" {
			t.Fatalf("decoded (-want +got):\n%s", diff)
		}
	})
}

func TestDecodeAllocatesNothing(t *testing.T) {
	c := NewCodec(key(1))
	p := sample()
	b := c.Encode(&p)
	var back Packet
	c.Decode(b[:], &back)
	if n := testing.AllocsPerRun(100, func() { c.Decode(b[:], &back) }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func TestDropNames(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range Drops() {
		if name := d.String(); name == "" || seen[name] {
			t.Errorf("drop %d: name %q is empty or used twice", d, name)
		}
		seen[d.String()] = true
	}
	if len(seen) != int(drops)-1 || drops.String() != "drop(12)" {
		t.Errorf("%d names, %s", len(seen), drops)
	}
}

// FuzzDecode holds that what is kept is authentic, and that it is written as
// it was read.
func FuzzDecode(f *testing.F) {
	c := NewCodec(key(1))
	p := sample()
	good := c.Encode(&p)
	f.Add(good[:], false)
	f.Add(good[:], true)
	f.Add(good[:Size-1], true)
	f.Add([]byte{0xda, 0xdb, 0xda, 0xbd}, false)
	f.Add(make([]byte, Size), true)
	f.Fuzz(func(t *testing.T, b []byte, sign bool) {
		b = bytes.Clone(b)
		if sign && len(b) == Size { // else the fuzzer never gets past the HMAC
			copy(b[offMAC:], c.sign(b[:offMAC]))
		}
		var p Packet
		switch drop := c.Decode(b, &p); {
		case drop >= Self:
			t.Fatalf("Decode has no reason to say %v", drop)
		case drop != Kept:
			return
		}
		if back := c.Encode(&p); !bytes.Equal(back[:], b) {
			t.Fatalf("read %x, wrote %x", b, back)
		}
	})
}
