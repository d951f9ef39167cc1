package witness

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ms = time.Millisecond

func key(b byte) (k [32]byte) {
	for i := range k {
		k[i] = b
	}
	return k
}

// asks and answers are messages whose bytes are written out below.
func asks() message {
	return message{kind: question, wait: 30 * ms, nonce: nonce{0x10, 0x11, 15: 0x1f}, asker: "vs_bk"}
}

func answers() message {
	return message{kind: reached, role: Active, nonce: nonce{0x10, 0x11, 15: 0x1f}, term: 7, asker: "vs_bk"}
}

const (
	nonceBytes = "1011000000000000000000000000001f"
	askerBytes = "76735f626b000000000000000000000000000000000000000000000000000000" +
		"0000000000000000000000000000000000000000000000000000000000000000"
	questionBytes = "4c565357" + "01" + "01" + "00" + "1e" + nonceBytes + "0000000000000000" + askerBytes
	answerBytes   = "4c565357" + "01" + "03" + "03" + "00" + nonceBytes + "0000000000000007" + askerBytes
	// hmac.new(bytes([1]*32), bytes.fromhex(questionBytes), "sha256").hexdigest(), and the answer's
	questionMAC = "44b9d15feaee07d0b17c52dfbbb5ff2c077760cf7ca9f9817b2e0719b720434f"
	answerMAC   = "1e921faff023d4d8ad661e9a8f056ddf5d4fa7c924e08687b0ae5b10b66051c3"
)

func TestBytes(t *testing.T) {
	for _, tt := range []struct {
		name        string
		m           message
		bytes, hmac string
	}{
		{"question", asks(), questionBytes, questionMAC},
		{"answer", answers(), answerBytes, answerMAC},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := encode(&tt.m, key(1))
			if diff := cmp.Diff(tt.bytes, hex.EncodeToString(b[:offMAC])); diff != "" {
				t.Errorf("bytes (-want +got):\n%s", diff)
			}
			if got := hex.EncodeToString(b[offMAC:]); got != tt.hmac {
				t.Errorf("HMAC %s, want %s", got, tt.hmac)
			}
			back, k, drop := decode(b[:], key(2), key(1))
			if drop != Kept || k != key(1) || back != tt.m {
				t.Errorf("read %+v, %v, or under another key; want %+v", back, drop, tt.m)
			}
		})
	}
}

// change writes a message that is not sound but for f, authentic all the same.
func change(m message, f func(*message)) []byte {
	f(&m)
	b := encode(&m, key(1))
	return b[:]
}

// resign changes raw bytes and makes the datagram authentic again.
func resign(m message, at int, to ...byte) []byte {
	b := change(m, func(*message) {})
	copy(b[at:], to)
	copy(b[offMAC:], sign(b[:offMAC], key(1)))
	return b
}

func TestDecodeDrops(t *testing.T) {
	flip := func(at int) []byte {
		b := change(asks(), func(*message) {})
		b[at] ^= 1
		return b
	}
	good := change(asks(), func(*message) {})
	a, q := answers(), asks()
	foreign := encode(&q, key(2))
	for _, tt := range []struct {
		name string
		b    []byte
		want Drop
	}{
		{"question", good, Kept},
		{"answer", change(a, func(*message) {}), Kept},
		{"nobody was reached", change(a, func(m *message) { m.kind, m.role, m.term = unreached, 0, 0 }), Kept},
		{"reached one of no known role", change(a, func(m *message) { m.role = Unknown }), Kept},
		{"the shortest wait", change(q, func(m *message) { m.wait = ms }), Kept},
		{"the longest wait", change(q, func(m *message) { m.wait = MaxWait }), Kept},
		{"the longest name", change(q, func(m *message) { m.asker = strings.Repeat("n", MaxName) }), Kept},
		{"nothing", nil, Short},
		{"one byte short", good[:Size-1], Short},
		{"one byte long", append(bytes.Clone(good), 0), Long},
		{"another protocol", flip(0), Alien},
		{"a heartbeat's first bytes", resign(q, 0, 0x4c, 0x56, 0x53, 0x54), Alien},
		{"a later version", resign(q, offVersion, Version+1), Skewed},
		{"another key", foreign[:], Forged},
		{"kind changed", flip(offKind), Forged},
		{"nonce changed", flip(offNonce), Forged},
		{"last byte of the name changed", flip(offMAC - 1), Forged},
		{"HMAC changed at its first byte", flip(offMAC), Forged},
		{"HMAC changed at its last byte", flip(Size - 1), Forged},
		{"kind 0", resign(q, offKind, 0), Malformed},
		{"kind 4", resign(q, offKind, 4), Malformed},
		{"no wait", change(q, func(m *message) { m.wait = 0 }), Malformed},
		{"too long a wait", resign(q, offWait, 61), Malformed},
		{"a question with a role", change(q, func(m *message) { m.role = Active }), Malformed},
		{"a question with a term", change(q, func(m *message) { m.term = 1 }), Malformed},
		{"an answer with a wait", change(a, func(m *message) { m.wait = ms }), Malformed},
		{"an answer with a role from nowhere", change(a, func(m *message) { m.role = roles }), Malformed},
		{"a role of nobody", change(a, func(m *message) { m.kind, m.term = unreached, 0 }), Malformed},
		{"a term of nobody", change(a, func(m *message) { m.kind, m.role = unreached, 0 }), Malformed},
		{"nobody after a wait", change(a, func(m *message) { *m = message{kind: unreached, wait: ms, asker: "vs"} }), Malformed},
		{"no name", change(q, func(m *message) { m.asker = "" }), Malformed},
		{"a zero within the name", resign(q, offAsker, 'a', 0, 'b'), Malformed},
		{"a control character in the name", resign(q, offAsker, 'a', '\n'), Malformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, got := decode(tt.b, key(1)); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
	if _, _, got := decode(good); got != Forged {
		t.Errorf("without any key: %v, want %v", got, Forged)
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := message{
			kind:  kind(rapid.IntRange(1, 3).Draw(t, "kind")),
			nonce: nonce(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "nonce")),
			asker: rapid.StringMatching(`[!-~]{1,64}`).Draw(t, "asker"),
		}
		switch m.kind {
		case question:
			m.wait = time.Duration(rapid.IntRange(1, 60).Draw(t, "wait")) * ms
		case reached:
			m.role = Role(rapid.IntRange(0, 4).Draw(t, "role"))
			m.term = rapid.Uint64().Draw(t, "term")
		}
		k := key(rapid.Byte().Draw(t, "key"))
		b := encode(&m, k)
		back, used, drop := decode(b[:], k)
		if drop != Kept || used != k || back != m {
			t.Fatalf("wrote %+v, read %+v, %v", m, back, drop)
		}
	})
}

// FuzzDecode holds that what is kept is written as it was read.
func FuzzDecode(f *testing.F) {
	q, a := asks(), answers()
	good, answer := encode(&q, key(1)), encode(&a, key(1))
	f.Add(good[:], false)
	f.Add(good[:], true)
	f.Add(answer[:], true)
	f.Add(good[:Size-1], true)
	f.Add(resign(q, offWait, 0xff), true)
	f.Add(make([]byte, Size), true)
	f.Fuzz(func(t *testing.T, b []byte, authentic bool) {
		b = bytes.Clone(b)
		if authentic && len(b) == Size { // else the fuzzer never gets past the HMAC
			copy(b[offMAC:], sign(b[:offMAC], key(1)))
		}
		m, _, drop := decode(b, key(1))
		if drop > Malformed {
			t.Fatalf("decode has no reason to say %v", drop)
		}
		if drop != Kept {
			return
		}
		if back := encode(&m, key(1)); !bytes.Equal(back[:], b) {
			t.Fatalf("read %x, wrote %x", b, back)
		}
	})
}

func TestRoles(t *testing.T) {
	for r := range roles {
		if got := ParseRole(r.String()); got != r {
			t.Errorf("%v is read as %v", r, got)
		}
	}
	for _, name := range []string{"", "master", "Active"} {
		if got := ParseRole(name); got != Unknown {
			t.Errorf("%q is read as %v", name, got)
		}
	}
	if got := roles.String(); got != "role(5)" {
		t.Errorf("a role from nowhere is %s", got)
	}
}

func TestDropNames(t *testing.T) {
	var tally Tally
	for d := Kept; d < drops; d++ {
		for range d {
			tally.add(d)
		}
	}
	tally.add(Kept)
	got := tally.Dropped()
	want := map[string]uint64{
		"source": 1, "short": 2, "long": 3, "alien": 4, "version": 5, "forged": 6,
		"malformed": 7, "stray": 8, "replayed": 9, "busy": 10, "alone": 11,
	}
	if diff := cmp.Diff(want, got); diff != "" || tally.Kept() != 1 {
		t.Errorf("kept %d, dropped (-want +got):\n%s", tally.Kept(), diff)
	}
	if got := drops.String(); got != "drop(12)" {
		t.Errorf("a drop from nowhere is %s", got)
	}
}
