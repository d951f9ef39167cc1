package tunnel

import (
	"testing"
)

// Bodies of FOU_CMD_GET answers as a kernel sends them: the generic header, then attributes.
var (
	fouGUE  = []byte{3, 1, 0, 0, 5, 0, 2, 0, 2, 0, 0, 0, 6, 0, 1, 0, 0x17, 0xc0, 0, 0, 6, 0, 10, 0, 0, 0, 0, 0, 5, 0, 3, 0, 0, 0, 0, 0, 5, 0, 4, 0, 2, 0, 0, 0, 8, 0, 11, 0, 0, 0, 0, 0}
	fou6GUE = []byte{3, 1, 0, 0, 5, 0, 2, 0, 10, 0, 0, 0, 6, 0, 1, 0, 0x17, 0xc0, 0, 0, 5, 0, 4, 0, 2, 0, 0, 0}
	fouIPIP = []byte{3, 1, 0, 0, 6, 0, 1, 0, 0x15, 0xb3, 0, 0, 5, 0, 2, 0, 2, 0, 0, 0, 5, 0, 3, 0, 4, 0, 0, 0, 5, 0, 4, 0, 1, 0, 0, 0}
)

func TestParsePort(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		body []byte
		port port
		gue  bool
		err  string
	}{
		"GUE":            {body: fouGUE, port: port{false, 6080}, gue: true},
		"GUE over IPv6":  {body: fou6GUE, port: port{true, 6080}, gue: true},
		"plain FOU":      {body: fouIPIP, port: port{false, 5555}},
		"empty":          {err: "FOU message of 0 bytes"},
		"no port":        {body: fouGUE[:12], err: "FOU message without a port"},
		"half attribute": {body: fouGUE[:6], err: "FOU message: invalid argument"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, gue, err := parsePort(tt.body)
			if text(err) != tt.err || p != tt.port || gue != tt.gue {
				t.Errorf("%v, %v, %v; want %v, %v, %s", p, gue, err, tt.port, tt.gue, tt.err)
			}
		})
	}
}

func FuzzParsePort(f *testing.F) {
	f.Add(fouGUE)
	f.Add(fou6GUE)
	f.Add(fouIPIP)
	f.Add(append(fouGUE[:4:4], 6, 0, 1, 0, 0x17, 0xc0)) // not filled up
	f.Fuzz(func(t *testing.T, body []byte) {
		if p, _, err := parsePort(body); err == nil && p.Number == 0 {
			t.Errorf("no port, no error: %x", body)
		}
	})
}
