package client

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// witnessKey is 00 01 02 … 1f.
func witnessKey() (k WitnessKey) {
	for i := range k {
		k[i] = byte(i)
	}
	return k
}

const witnessKeyText = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"

func TestWitnessKeyOnTheWire(t *testing.T) {
	a := soundAnswer()
	a.WitnessKey = witnessKey()
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if want := `,"witness_key":"` + witnessKeyText + `"}`; !strings.HasSuffix(string(b), want) {
		t.Errorf("written %s, want it to end with %s", b, want)
	}
	var got Answer
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, got, cmpAddr); diff != "" {
		t.Errorf("read (-want +got):\n%s", diff)
	}
}

func TestAnswerOfAnEarlierVersionHasNoWitnessKey(t *testing.T) {
	b, err := json.Marshal(soundAnswer())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "witness") {
		t.Errorf("without a key is written %s", b)
	}
	var got Answer
	if err := json.Unmarshal(b, &got); err != nil || got.WitnessKey != (WitnessKey{}) {
		t.Errorf("error %v, or a key from nowhere", err)
	}
}

func TestWitnessKeyRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "short": "AAEC", "long": witnessKeyText + "AA", "padded": witnessKeyText + "=",
		"spare bits": witnessKeyText[:42] + "9", "line end": witnessKeyText + "\n", "not base64url": strings.Repeat("*", 43),
	} {
		k := witnessKey()
		err := k.UnmarshalText([]byte(text))
		if err == nil || err.Error() != "the witness key is not 32 bytes in base64url" || k != witnessKey() {
			t.Errorf("%s: error %v, or the key was changed", name, err)
		}
	}
}

func TestWitnessKeyDoesNotPrint(t *testing.T) {
	a := soundAnswer()
	a.WitnessKey = witnessKey()
	var out bytes.Buffer
	for _, secret := range []any{a.WitnessKey, &a.WitnessKey, a, &a, []any{a}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b"} {
			fmt.Fprintf(&out, verb+"\n", secret)
		}
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("x", "key", a.WitnessKey, "answer", a, "pointer", &a)
	}
	fmt.Fprint(&out, a.WitnessKey.String())
	text := out.String()
	for _, leak := range []string{witnessKeyText[:8], "000102", "00010203", "1 2 3", "0x1e, 0x1f", "1e1f", "1E1F", "11110 11111"} {
		if strings.Contains(text, leak) {
			t.Errorf("%q was printed", leak)
		}
	}
	if !strings.Contains(text, redacted) || !strings.Contains(text, "answer.director=vs answer.role=active answer.term=3") {
		t.Error("what was printed does not say that it hides something, or lacks the rest")
	}
}

func FuzzWitnessKey(f *testing.F) {
	f.Add([]byte(witnessKeyText))
	f.Add([]byte(witnessKeyText[:42] + "9"))
	f.Add([]byte(witnessKeyText + "\r\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, text []byte) {
		var k WitnessKey
		if k.UnmarshalText(text) != nil {
			return
		}
		if back, _ := k.MarshalText(); !bytes.Equal(back, text) {
			t.Errorf("%q is read as a key that is written %q", text, back)
		}
	})
}
