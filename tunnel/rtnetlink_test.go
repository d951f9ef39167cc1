package tunnel

import (
	"context"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Bodies of RTM_NEWADDR messages as a kernel sends them.
var (
	newAddr4 = []byte{
		2, 32, 0x80, 0, 7, 0, 0, 0, // AF_INET, /32, permanent, universe, index 7
		8, 0, 1, 0, 10, 0, 0, 50, // IFA_ADDRESS
		8, 0, 2, 0, 10, 0, 0, 50, // IFA_LOCAL
		5, 0, 11, 0, 0x6c, 0, 0, 0, // IFA_PROTO
	}
	newAddr4Peer = []byte{
		2, 32, 0x80, 0, 7, 0, 0, 0,
		8, 0, 1, 0, 10, 0, 0, 1, // the peer
		8, 0, 2, 0, 10, 0, 0, 50,
	}
	newAddr6 = []byte{
		10, 64, 0x82, 0, 1, 0, 0, 0, // AF_INET6, /64, index 1
		20, 0, 1, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50,
		5, 0, 11, 0, 2, 0, 0, 0, // IFAPROT_KERNEL_RA
	}
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		body   []byte
		index  int
		prefix string
		marked bool
		err    string
	}{
		{name: "IPv4, ours", body: newAddr4, index: 7, prefix: "10.0.0.50/32", marked: true},
		{name: "IPv4 with a peer", body: newAddr4Peer, index: 7, prefix: "10.0.0.50/32"},
		{name: "IPv6, the kernel's", body: newAddr6, index: 1, prefix: "2001:db8::50/64"},
		{name: "empty", err: "address message of 0 bytes"},
		{name: "no address", body: newAddr4[:8], err: "address message with address invalid IP and prefix length 32"},
		{name: "prefix too long", body: append([]byte{2, 33}, newAddr4[2:]...), err: "address message with address 10.0.0.50 and prefix length 33"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			index, a, err := parseAddress(tt.body)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Fatalf("error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if index != tt.index || a.prefix.String() != tt.prefix || a.marked != tt.marked {
				t.Errorf("index %d, %s, marked %v; want %d, %s, %v", index, a.prefix, a.marked, tt.index, tt.prefix, tt.marked)
			}
		})
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add(newAddr4)
	f.Add(newAddr4Peer)
	f.Add(newAddr6)
	f.Add(newAddr4[:13])
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, a, err := parseAddress(body); err == nil && !a.prefix.IsValid() {
			t.Errorf("an invalid prefix without an error from %x", body)
		}
	})
}

// The loopback device and its address are in every namespace: enough to read a real kernel by.
func TestReadsTheKernel(t *testing.T) {
	t.Parallel()
	lo, found, err := rtnetlink{}.link("lo")
	if err != nil || !found {
		t.Fatalf("lo: %v, %v", found, err)
	}
	if _, found, err := (rtnetlink{}).link("no-such-device"); found || err != nil {
		t.Errorf("no-such-device: %v, %v", found, err)
	}
	have, err := rtnetlink{}.addresses(lo)
	if err != nil {
		t.Fatal(err)
	}
	want := address{prefix: netip.MustParsePrefix("127.0.0.1/8")}
	for _, a := range have {
		if a == want {
			return
		}
	}
	t.Errorf("lo holds %v, want %v among it (-want +got):\n%s", have, want, cmp.Diff(want.prefix.String(), have))
}

func TestDeviceOf(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{"127.0.0.1": "lo", "::ffff:127.0.0.1": "lo", "192.0.2.99": ""} {
		name, found, err := DeviceOf(netip.MustParseAddr(addr))
		if err != nil || name != want || found != (want != "") {
			t.Errorf("DeviceOf(%s) = %q, %v, %v; want %q", addr, name, found, err, want)
		}
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- Watch(ctx, func() {}) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
