package ipvs

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var cmpAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// The bytes of a little-endian host, as libipvs sends them, which leaves out what is not set.
func TestEncodeDaemon(t *testing.T) {
	tests := []struct {
		name string
		got  []byte
		want string
	}{
		{"master", encodeDaemon(master), `
			3800 0380                                     # daemon, nested
			0800 0100 01000000                            # state: master
			0900 0200 65746830 00 000000                  # device: eth0
			0800 0300 32000000                            # id
			0800 0500 e0000051                            # group, in network order
			0600 0700 9022 0000                           # port, in the host's order
			0500 0800 01 000000                           # ttl`},
		{"backup", encodeDaemon(other), `
			4c00 0380
			0800 0100 02000000
			0900 0200 65746831 00 000000
			0800 0300 07000000
			0600 0400 e803 0000                           # size
			1400 0600 ff020000 00000000 00000000 00000051 # IPv6 group
			0600 0700 2823 0000
			0500 0800 02 000000`},
		{"stop", encodeDaemonState(Backup), `
			0c00 0380
			0800 0100 02000000`},
	}
	for _, tt := range tests {
		if d := cmp.Diff(hex.Dump(unhex(t, tt.want)), hex.Dump(tt.got)); d != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, d)
		}
	}
}

// What the kernel answers: ip_vs_genl_fill_daemon. It does not mark what is nested.
const daemonMessage = `
	4000 0300
	0800 0100 02000000
	0900 0200 65746830 00 000000
	0800 0300 ff000000
	0600 0400 c005 0000
	0600 0700 9022 0000
	0500 0800 01 000000
	0800 0500 e0000051`

func TestDecodeDaemon(t *testing.T) {
	tests := []struct {
		name, msg string
		want      SyncDaemon
	}{
		{"all of it", daemonMessage, SyncDaemon{State: Backup, Device: "eth0", ID: 255, MaxLen: 1472,
			Group: netip.MustParseAddr("224.0.0.81"), Port: 8848, TTL: 1}},
		{"IPv6", `2000 0300 0800 0100 01000000 1400 0600 ff020000 00000000 00000000 00000051`,
			SyncDaemon{State: Master, Group: netip.MustParseAddr("ff02::51")}},
		{"an old kernel", `1800 0300 0800 0100 01000000 0900 0200 65746830 00 000000`, SyncDaemon{State: Master, Device: "eth0"}},
		{"an attribute of tomorrow", `1400 0300 0800 0100 01000000 0800 6300 65746830`, SyncDaemon{State: Master}},
	}
	for _, tt := range tests {
		got, err := decodeDaemon(unhex(t, tt.msg))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if d := cmp.Diff(tt.want, got, cmpAddr); d != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, d)
		}
	}
}

func TestDecodeDaemonRefuses(t *testing.T) {
	tests := []struct{ name, msg, err string }{
		{"nothing", ``, "attribute 3 is missing"},
		{"a service", `0800 0100 00000000`, "attribute 3 is missing"},
		{"too long", `0900 0300 00000000`, "attribute 3 is 9 bytes long where 8 are left"},
		{"empty", `0400 0300`, "it has no state"},
		{"both states", `0c00 0300 0800 0100 03000000`, "attribute 3: attribute 1: state 3"},
		{"no state in 32 bits", `0c00 0300 0800 0100 01010000`, "attribute 3: attribute 1: state 257"},
		{"state of two bytes", `0c00 0300 0600 0100 0100 0000`, "attribute 3: attribute 1: 2 bytes, want 4"},
		{"id of one byte", `0c00 0300 0500 0300 01000000`, "attribute 3: attribute 3: 1 bytes, want 4"},
		{"size of four bytes", `0c00 0300 0800 0400 01000000`, "attribute 3: attribute 4: 4 bytes, want 2"},
		{"group of two bytes", `0c00 0300 0600 0500 e000 0000`, "attribute 3: attribute 5: 2 bytes, want 4"},
		{"IPv6 group of four bytes", `0c00 0300 0800 0600 e0000051`, "attribute 3: attribute 6: 4 bytes, want 16"},
		{"port of four bytes", `0c00 0300 0800 0700 90220000`, "attribute 3: attribute 7: 4 bytes, want 2"},
		{"ttl of four bytes", `0c00 0300 0800 0800 01000000`, "attribute 3: attribute 8: 4 bytes, want 1"},
	}
	for _, tt := range tests {
		_, err := decodeDaemon(unhex(t, tt.msg))
		if want := "read a sync daemon from the kernel: " + tt.err; err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", tt.name, err, want)
		}
	}
}

func TestDaemonRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := SyncDaemon{
			State:  rapid.SampledFrom([]SyncState{Master, Backup}).Draw(t, "state"),
			Device: rapid.StringMatching(`[a-z][a-z0-9.]{0,14}`).Draw(t, "device"),
			ID:     rapid.IntRange(0, 255).Draw(t, "id"),
			MaxLen: rapid.IntRange(0, 65487).Draw(t, "size"),
			Group:  netip.MustParseAddr(rapid.SampledFrom([]string{"224.0.0.81", "239.1.2.3", "ff02::51", "ff05::1:2"}).Draw(t, "group")),
			Port:   uint16(rapid.IntRange(1, 65535).Draw(t, "port")),
			TTL:    uint8(rapid.IntRange(1, 255).Draw(t, "ttl")),
		}
		if errs := want.Validate(); errs != nil {
			t.Fatal(errs)
		}
		got, err := decodeDaemon(encodeDaemon(want))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmpAddr); d != "" {
			t.Fatalf("(-want +got)\n%s", d)
		}
	})
}

func FuzzDecodeDaemon(f *testing.F) {
	f.Add(unhex(f, daemonMessage))
	f.Add(encodeDaemon(master))
	f.Add(encodeDaemon(other))
	f.Add(encodeDaemonState(Master))
	f.Add([]byte{4, 0, 3, 0})
	f.Add([]byte{5, 0, 3, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := decodeDaemon(b)
		if err != nil {
			return
		}
		if d.State != Master && d.State != Backup || strings.Contains(d.Device, "\x00") || len(d.Device) > len(b) {
			t.Fatalf("%x became %+v", b, d)
		}
		if len(d.Device) > maxDeviceName { // a name that no kernel has
			return
		}
		again, err := decodeDaemon(encodeDaemon(d))
		if err != nil || again != d.normal() {
			t.Errorf("%+v became %+v: %v", d, again, err)
		}
	})
}
