package ipvs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/ipv4"
)

// tellServices forward the flows of the tables below.
func tellServices() []Service {
	masq := Destination{Addr: netip.MustParseAddrPort("10.9.0.100:8080")}
	persistent := wlc(tcp("10.9.0.50:443"), tun("10.9.0.100:443", 1))
	persistent.Persistent = 5 * time.Minute
	allPorts := wlc(tcp("10.9.0.51:0"), tun("10.9.0.100:0", 1))
	allPorts.Persistent = time.Hour
	return []Service{
		wlc(tcp("10.9.0.50:80"), tun("10.9.0.100:80", 0), masq), persistent, allPorts,
		wlc(tcp("[2001:db8::50]:80"), tun("[2001:db8::64]:80", 1)),
		wlc(FWMarkKey(7, IPv4), tun("10.9.0.101:0", 1)), wlc(FWMarkKey(8, IPv6), tun("[2001:db8::65]:80", 1)),
		wlc(udp("10.9.0.50:53"), Destination{Addr: netip.MustParseAddrPort("10.9.0.100:53"), Method: MethodDirect}),
	}
}

const tellTable = connHeader +
	"TCP 0A09000A 0001 0A090032 0050 0A090064 0050 ESTABLISHED     899\n" +
	"TCP 0A09000A 0002 0A090032 0050 0A090064 0050 SYN_RECV         59\n" +
	"TCP 0A09000A 0003 0A090032 0050 0A090064 0050 FIN_WAIT          0\n" +
	"TCP 0A09000A 0004 0A090032 0050 0A090064 0050 CLOSE       18446744073709551\n" + // past its time
	"TCP 0A09000A 0005 0A090032 0050 0A090064 1F90 ESTABLISHED     899\n" + // masq
	"TCP 0A09000A 0006 0A090032 0050 0A090066 0050 ESTABLISHED     899\n" + // no such real server
	"TCP 0A09000A 0007 0A090034 0050 0A090064 0050 ESTABLISHED     899\n" + // no such service
	"TCP 0A09000A 0008 0A090032 0050 0A090064 0050 NONE              1\n" +
	"TCP 0A09000A 0000 0A090032 01BB 0A090064 01BB ASSURED         100\n" +
	"TCP 0A09000A 0009 0A090032 01BB 0A090064 01BB ESTABLISHED     100\n" +
	"TCP 0A09000A 0000 0A090032 0050 0A090064 0050 NONE             10\n" + // its service is not persistent any more
	"TCP 0A09000A 0000 0A090033 0000 0A090064 0000 NONE             10\n" +
	"TCP 0A09000A 000A 0A090033 0016 0A090064 0016 ESTABLISHED      10\n" +
	"IP  0A09000A 0000 00000007 0000 0A090065 0000 NONE            299\n" + // of a fwmark service
	"TCP 0A09000A 000B 0A090034 0051 0A090065 0051 ESTABLISHED      10\n" +
	"UDP 0A09000A 000C 0A090032 0035 0A090064 0035 UDP             299\n" +
	"UDP 0A09000A 000C 0A090032 13C4 0A090064 13C4 UDP             299 sip abc@example.org\n" +
	"SCTP 0A09000A 000D 0A090032 0050 0A090064 0050 ESTABLISHED    299\n" +
	"TCP 2001:0db8:0000:0000:0000:0000:0000:000a 000E 2001:0db8:0000:0000:0000:0000:0000:0050 0050 2001:0db8:0000:0000:0000:0000:0000:0064 0050 SYN_RECV         57\n" +
	"TCP 2001:0db8:0000:0000:0000:0000:0000:000a 000F 2001:0db8:0000:0000:0000:0000:0000:0051 0050 2001:0db8:0000:0000:0000:0000:0000:0065 0050 ESTABLISHED      57\n" +
	"TCP 2001:0db8:0000:0000:0000:0000:0000:000a 0010 2001:0db8:0000:0000:0000:0000:0000:0050 0050 0A090064 0050 ESTABLISHED     57\n"

const toldTable = `tcp 10.9.0.10:1 > 10.9.0.50:80 > 10.9.0.100:80 ESTABLISHED tunnel, 15m0s
tcp 10.9.0.10:2 > 10.9.0.50:80 > 10.9.0.100:80 SYN_RECV tunnel, 1m0s
tcp 10.9.0.10:3 > 10.9.0.50:80 > 10.9.0.100:80 FIN_WAIT tunnel, 1s
tcp 10.9.0.10:4 > 10.9.0.50:80 > 10.9.0.100:80 CLOSE tunnel, 1s
tcp 10.9.0.10:0 > 10.9.0.50:443 > 10.9.0.100:443 ASSURED tunnel, 5m0s, template
tcp 10.9.0.10:9 > 10.9.0.50:443 > 10.9.0.100:443 ESTABLISHED tunnel, 1m41s
tcp 10.9.0.10:0 > 10.9.0.51:0 > 10.9.0.100:0 NONE tunnel, 1h0m0s, template
tcp 10.9.0.10:10 > 10.9.0.51:22 > 10.9.0.100:22 ESTABLISHED tunnel, 11s
tcp 10.9.0.10:11 > 10.9.0.52:81 > 10.9.0.101:81 ESTABLISHED tunnel, 11s, fwmark 7
udp 10.9.0.10:12 > 10.9.0.50:53 > 10.9.0.100:53 UDP direct, 5m0s
tcp [2001:db8::a]:14 > [2001:db8::50]:80 > [2001:db8::64]:80 SYN_RECV tunnel, 58s
tcp [2001:db8::a]:15 > [2001:db8::51]:80 > [2001:db8::65]:80 ESTABLISHED tunnel, 58s, fwmark 8
`

func every(Flow) bool { return true }

// tell copies a table to a writer with the services of tellServices.
func tell(ctx context.Context, t testing.TB, f *fakeKernel, to io.Writer, table io.Reader, pace int, want func(Flow) bool) (int, error) {
	t.Helper()
	r, err := (&Handle{t: f}).routes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w := &flowWriter{to: to, message: newSyncMessage(50, 1472), perFlow: time.Second / time.Duration(pace)}
	return w.copy(ctx, table, r, want)
}

func TestTellFlows(t *testing.T) {
	s := &standby{t: t, id: 50}
	sent, err := tell(t.Context(), t, &fakeKernel{table: newTable(tellServices()...)}, s, iotest.OneByteReader(strings.NewReader(tellTable)), 1e9, every)
	if d := cmp.Diff(toldTable, s.String()); d != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}
	if sent != len(s.told) {
		t.Errorf("sent %d of %d", sent, len(s.told))
	}
}

// Only what is wanted goes, and only of its services the real servers are read.
func TestTellWanted(t *testing.T) {
	s := &standby{t: t, id: 50}
	f := &fakeKernel{table: newTable(tellServices()...)}
	var asked int
	sent, err := tell(t.Context(), t, f, s, strings.NewReader(tellTable), 1e9, func(f Flow) bool {
		asked++
		return f.Client.Port() == 9
	})
	if d := cmp.Diff("tcp 10.9.0.10:9 > 10.9.0.50:443 > 10.9.0.100:443 ESTABLISHED tunnel, 1m41s\n", s.String()); d != "" || err != nil || sent != 1 {
		t.Errorf("%d, %v (-want +got)\n%s", sent, err, d)
	}
	if asked != 16 || f.calls != 2 {
		t.Errorf("asked for %d flows, %d reads of the table", asked, f.calls)
	}
}

// manyFlows is a table of n flows of one service.
func manyFlows(n int) string {
	var b strings.Builder
	b.WriteString(connHeader)
	for i := range n {
		fmt.Fprintf(&b, "TCP 0A%06X %04X 0A090032 0050 0A090064 0050 ESTABLISHED     899\n", i/60000, i%60000+1)
	}
	return b.String()
}

func TestTellPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const flows, pace = 100_000, 128_000
		s := &standby{t: t, id: 50}
		began, last, inARow := time.Now(), time.Now(), 0
		to := writerFunc(func(b []byte) (int, error) {
			if inARow++; !time.Now().Equal(last) {
				last, inARow = time.Now(), 1
			}
			if inARow > 17 { // 640 flows and one more datagram
				t.Fatalf("%d datagrams at a time", inARow)
			}
			return s.Write(b)
		})
		sent, err := tell(t.Context(), t, &fakeKernel{table: newTable(tellServices()...)}, to, strings.NewReader(manyFlows(flows)), pace, every)
		took, least := time.Since(began), (flows-1000)*time.Second/pace
		if err != nil || sent != flows || len(s.told) != flows || took < least || took > time.Second {
			t.Errorf("%d flows, %d told, in %s, want at least %s: %v", sent, len(s.told), took, least, err)
		}
		if len(s.messages) != flows/40 || s.messages[0] != 1448 {
			t.Errorf("%d datagrams of %d bytes", len(s.messages), s.messages[0])
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// What was said to be wanted goes, whatever ends it.
func TestTellEnds(t *testing.T) {
	broken := errors.New("broken")
	services := newTable(tellServices()...)
	for name, tt := range map[string]struct {
		table  io.Reader
		kernel *fakeKernel
		accept int // datagrams
		cancel int // after so many flows
		told   int
		err    string
	}{
		"its context":    {strings.NewReader(manyFlows(100)), &fakeKernel{table: services}, 10, 50, 50, "context canceled"},
		"the table":      {io.MultiReader(strings.NewReader(manyFlows(50)), iotest.ErrReader(broken)), &fakeKernel{table: services}, 10, 0, 50, "read the connection table: after line 51: broken"},
		"the network":    {strings.NewReader(manyFlows(100)), &fakeKernel{table: services}, 1, 0, 40, "broken"},
		"the last of it": {strings.NewReader(manyFlows(50)), &fakeKernel{table: services}, 1, 0, 40, "broken"},
		"the real server": {strings.NewReader(manyFlows(50)), &fakeKernel{table: services, fail: func(_ int, cmd uint8) error {
			if cmd == cmdGetDest {
				return broken
			}
			return nil
		}}, 1, 0, 0, "read the real servers of 10.9.0.50:80/tcp: broken"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		s := &standby{t: t, id: 50}
		wanted := 0
		sent, err := tell(ctx, t, tt.kernel, writerFunc(func(b []byte) (int, error) {
			if len(s.messages) == tt.accept {
				return 0, broken
			}
			return s.Write(b)
		}), tt.table, 1e9, func(Flow) bool {
			if wanted++; wanted == tt.cancel {
				cancel()
			}
			return true
		})
		cancel()
		if fmt.Sprint(err) != tt.err || sent != tt.told || len(s.told) != tt.told {
			t.Errorf("%s: sent %d, told %d, %v, want %d and %s", name, sent, len(s.told), err, tt.told, tt.err)
		}
	}
}

// The socket on loopback: where its datagrams come from and how.
func TestDialGroup(t *testing.T) {
	group := netip.MustParseAddr("224.0.0.81")
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	in, err := net.ListenMulticastUDP("udp4", lo, &net.UDPAddr{IP: group.AsSlice()})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	raw := ipv4.NewPacketConn(in)
	if err := raw.SetControlMessage(ipv4.FlagTTL|ipv4.FlagDst, true); err != nil {
		t.Fatal(err)
	}
	to := SyncDaemon{State: Master, Device: "lo", ID: 50, TTL: 3, Port: uint16(in.LocalAddr().(*net.UDPAddr).Port)}
	out, size, err := to.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := out.Write([]byte("flows")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	in.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, cm, from, err := raw.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%s to %s from %s, ttl %d, size %d", b[:n], cm.Dst, from.(*net.UDPAddr).IP, cm.TTL, size); got != "flows to 224.0.0.81 from 127.0.0.1, ttl 3, size 1472" {
		t.Error(got)
	}
}

func TestSendFlowsRefuses(t *testing.T) {
	h := &Handle{t: &fakeKernel{table: newTable()}}
	want := `tell the flows to 224.0.0.81, of which 0 went out: device "": must be the name of a network device, of at most 15 bytes
id 300: must be between 0 and 255`
	if _, err := h.SendFlows(t.Context(), SyncDaemon{State: Master, ID: 300}, 1, every); fmt.Sprint(err) != want {
		t.Error(err)
	}
	if _, _, err := (SyncDaemon{Device: "nothere"}).dial(t.Context()); fmt.Sprint(err) != "nothere: route ip+net: no such network interface" {
		t.Error(err)
	}
}
