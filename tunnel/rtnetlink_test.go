package tunnel

import (
	"net/netip"
	"slices"
	"testing"

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
	newAddrLocal = []byte{
		10, 64, 0x82, 0, 1, 0, 0, 0,
		20, 0, 1, 0, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50,
	}
	newAddrSit = []byte{
		10, 96, 0x82, 0, 1, 0, 0, 0,
		20, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 50,
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
		auto   bool
		err    string
	}{
		{name: "IPv4, ours", body: newAddr4, index: 7, prefix: "10.0.0.50/32", marked: true},
		{name: "IPv4 with a peer", body: newAddr4Peer, index: 7, prefix: "10.0.0.50/32"},
		{name: "IPv6, the kernel's", body: newAddr6, index: 1, prefix: "2001:db8::50/64"},
		{name: "IPv6, link-local", body: newAddrLocal, index: 1, prefix: "fe80::50/64", auto: true},
		{name: "IPv6, IPv4 on a sit device", body: newAddrSit, index: 1, prefix: "::10.0.0.50/96", auto: true},
		{name: "empty", err: "address message of 0 bytes"},
		{name: "no address", body: newAddr4[:8], err: "address message with address invalid IP and prefix length 32"},
		{name: "prefix too long", body: append([]byte{2, 33}, newAddr4[2:]...), err: "address message with address 10.0.0.50 and prefix length 33"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, err := parseAddress(tt.body)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Fatalf("error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := address{index: tt.index, prefix: netip.MustParsePrefix(tt.prefix), marked: tt.marked, auto: tt.auto}
			if a != want {
				t.Errorf("%+v, want %+v", a, want)
			}
		})
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add(newAddr4)
	f.Add(newAddr4Peer)
	f.Add(newAddr6)
	f.Add(newAddr4[:13])
	f.Add(append(newAddr4[:8:8], 5, 0, 11, 0, 0x6c)) // not filled up
	f.Fuzz(func(t *testing.T, body []byte) {
		if a, err := parseAddress(body); err == nil && !a.prefix.IsValid() {
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
	have, err := rtnetlink{}.addresses()
	must(t, err)
	if !slices.ContainsFunc(have, func(a address) bool { return a.index == lo.index && a.prefix.String() == "127.0.0.1/8" }) {
		t.Errorf("the host holds %v, without 127.0.0.1/8 on lo", have)
	}
	if name, found, err := (rtnetlink{}).name(lo.index); name != "lo" || !found || err != nil {
		t.Errorf("device %d: %q, %v, %v", lo.index, name, found, err)
	}
	if _, found, err := (rtnetlink{}).name(1 << 30); found || err != nil {
		t.Errorf("device %d: %v, %v", 1<<30, found, err)
	}
	one, err := rtnetlink{}.life()
	must(t, err)
	if two, err := (rtnetlink{}).life(); err != nil || one != two || len(one) < 38 {
		t.Errorf("lives %q and %q: %v", one, two, err)
	}
}

func TestKeepsMarks(t *testing.T) {
	t.Parallel()
	for release, want := range map[string]bool{"5.18.0": true, "5.17.9-arch": false, "4.19": false, "6.1.0-56-cloud-amd64": true, "10.0": true, "": false} {
		if keepsMarks(release) != want {
			t.Errorf("%q: %v", release, !want)
		}
	}
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
