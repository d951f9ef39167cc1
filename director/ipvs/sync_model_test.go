package ipvs

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// standby is a model of a backup: ip_vs_process_message and ip_vs_proc_conn in net/netfilter/ipvs/ip_vs_sync.c. What the
// kernel drops, or would log, fails the test.
type standby struct {
	t        testing.TB
	id       int
	messages []int // their lengths
	told     []syncEntry
}

// Write takes a datagram.
func (s *standby) Write(b []byte) (int, error) {
	s.t.Helper()
	s.messages = append(s.messages, len(b))
	be := binary.BigEndian
	switch {
	case len(b) < syncHeaderSize:
		s.t.Fatalf("a message of %d bytes", len(b))
	case int(be.Uint16(b[2:])) != len(b):
		s.t.Fatalf("bogus message size %d, it is %d", be.Uint16(b[2:]), len(b))
	case int(b[1]) != s.id:
		s.t.Fatalf("syncid %d", b[1])
	case b[0] != 0 || b[5] != 1 || b[6] != 0 || b[7] != 0:
		s.t.Fatalf("not version 1: % x", b[:8])
	}
	rest := b[8:]
	for range int(b[4]) {
		if len(rest) < 36 {
			s.t.Fatalf("too small: %d bytes left", len(rest))
		}
		size := int(be.Uint16(rest[2:]) & 0x0fff)
		if version := rest[2] >> 4; size > len(rest) || version != 0 {
			s.t.Fatalf("an entry of %d bytes, version %d, where %d are left", size, version, len(rest))
		}
		s.entry(rest[:size])
		rest = rest[(size+3)&^3:]
	}
	if len(rest) > 0 {
		s.t.Fatalf("%d bytes after the last entry", len(rest))
	}
	return len(b), nil
}

func (s *standby) entry(b []byte) {
	s.t.Helper()
	be := binary.BigEndian
	width := 4
	if b[0]&1 != 0 {
		width = 16
	} else if b[0] != 0 {
		s.t.Fatalf("type %d", b[0])
	}
	if len(b) != 24+3*width {
		s.t.Fatalf("%d bytes of options", len(b)-24-3*width)
	}
	flags, state := be.Uint32(b[4:]), be.Uint16(b[8:])
	e := syncEntry{Flow: Flow{Protocol: Protocol(b[1]), Template: flags&0x1000 != 0}, method: Method(flags & 7),
		fwmark: be.Uint32(b[16:]), timeout: time.Duration(be.Uint32(b[20:])) * time.Second}
	if mask := uint32(0x7 | 0x80 | 0x100 | 0x600 | 0x800 | 0x1000); flags&^mask != 0 || flags&0x600 != 0 {
		s.t.Fatalf("flags %#x", flags)
	}
	if e.timeout == 0 {
		s.t.Fatal("no timeout: the backup takes its own")
	}
	names := map[Protocol][]string{
		6:  {"NONE", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "SYNACK"},
		17: {"UDP"},
	}[e.Protocol]
	if e.Template {
		names = []string{"NONE", "ASSURED"}
	}
	if int(state) >= len(names) {
		s.t.Fatalf("protocol %d has no state %d", e.Protocol, state)
	}
	e.State = names[state]
	for i, at := range []*netip.AddrPort{&e.Client, &e.VIP, &e.Destination} {
		addr, _ := netip.AddrFromSlice(b[24+i*width:][:width])
		*at = netip.AddrPortFrom(addr, be.Uint16(b[10+2*i:]))
	}
	if got := e.flags(); got != flags {
		s.t.Fatalf("flags %#x of %+v, want %#x", flags, e, got)
	}
	s.told = append(s.told, e)
}

// String is a line for every entry.
func (s *standby) String() (text string) {
	for _, e := range s.told {
		text += e.String() + "\n"
	}
	return text
}

func (e syncEntry) String() string {
	text := fmt.Sprintf("%s %s > %s > %s %s %s, %s", e.Protocol, e.Client, e.VIP, e.Destination, e.State, e.method, e.timeout)
	if e.fwmark != 0 {
		text += fmt.Sprintf(", fwmark %d", e.fwmark)
	}
	if e.Template {
		text += ", template"
	}
	return text
}
