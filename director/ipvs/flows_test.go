package ipvs

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const connHeader = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"

// connTable is a table of /proc/net/ip_vs_conn with every kind of line.
const connTable = connHeader +
	"TCP 0A09000A 8D5C 0A090032 0050 0A090064 0050 ESTABLISHED     899\n" +
	"TCP 0A09000A 8D5E 0A090032 0050 0A090064 0050 ESTABLISHED       5\n" +
	"TCP 0A09000A 8D60 0A090032 01BB 0A090064 01BB FIN_WAIT        119\n" +
	"TCP 0A09000A 0000 0A090032 0050 0A090064 0050 NONE            299\n" +
	"TCP 0A09000A 8D64 0A090033 0050 0A090064 0050 NONE              9\n" +
	"IP  0A09000A 0000 00000007 0000 0A090064 0000 ASSURED         299\n" +
	"UDP 0A09000A 8D60 0A090032 13C4 0A090064 13C4 UDP             299 sip abc@example.org\n" +
	"TCP 0A09000A 8D62 0A090033 0050 0A090064 0050 ESTABLISHED     899\n" +
	"TCP 2001:0db8:0000:0000:0000:0000:0000:000a 8D5C 2001:0db8:0000:0000:0000:0000:0000:0050 0050 2001:0db8:0001:0000:0000:0000:0000:0100 0050 SYN_RECV         57\n" +
	"TCP 2001:0db8:0000:0000:0000:0000:0000:000a 8D5C 2001:0db8:0000:0000:0000:0000:0000:0050 0050  0A090064 0050 ESTABLISHED    899\n"

func only(addrs ...string) func(netip.Addr) bool {
	m := make(map[netip.Addr]bool)
	for _, a := range addrs {
		m[netip.MustParseAddr(a)] = true
	}
	return func(a netip.Addr) bool { return m[a] }
}

func TestCountFlows(t *testing.T) {
	tests := []struct {
		name, table        string
		vip                func(netip.Addr) bool
		want               FlowCount
		established, total int
	}{
		{"one VIP", connTable, only("10.9.0.50"), FlowCount{States: map[string]int{"ESTABLISHED": 2, "FIN_WAIT": 1, "UDP": 1}, Templates: 1}, 2, 4},
		{"IPv6", connTable, only("2001:db8::50"), FlowCount{States: map[string]int{"ESTABLISHED": 1, "SYN_RECV": 1}}, 1, 2},
		{"two VIPs", connTable, only("10.9.0.51", "2001:db8::50"), FlowCount{States: map[string]int{"ESTABLISHED": 2, "SYN_RECV": 1, "NONE": 1}}, 2, 4},
		{"every one", connTable, func(netip.Addr) bool { return true }, FlowCount{States: map[string]int{"ESTABLISHED": 4, "FIN_WAIT": 1, "UDP": 1, "SYN_RECV": 1, "NONE": 1}, Templates: 2}, 4, 8},
		{"a VIP without flows", connTable, only("10.9.0.52"), FlowCount{States: map[string]int{}}, 0, 0},
		{"no flows", connHeader, only("10.9.0.50"), FlowCount{States: map[string]int{}}, 0, 0},
	}
	for _, tt := range tests {
		got, err := CountFlows(iotest.OneByteReader(strings.NewReader(tt.table)), tt.vip)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got)\n%s", tt.name, d)
		}
		if got.Established() != tt.established || got.Total() != tt.total {
			t.Errorf("%s: %d established of %d, want %d of %d", tt.name, got.Established(), got.Total(), tt.established, tt.total)
		}
	}
}

func TestCountFlowsRefuses(t *testing.T) {
	const good = "TCP 0A09000A 8D5C 0A090032 0050 0A090064 0050 ESTABLISHED 899\n"
	broken := errors.New("broken")
	tests := []struct {
		name string
		r    io.Reader
		err  string
	}{
		{"nothing", strings.NewReader(""), "it is empty, without even its first line"},
		{"another file", strings.NewReader("Inter-|   Receive\n"), `"Inter-|   Receive" is not its first line`},
		{"a line cut off", strings.NewReader(connHeader + good + "TCP 0A09000A 8D5C 0A09\n"), "line 3: 4 columns, want at least 9"},
		{"an empty line", strings.NewReader(connHeader + "\n"), "line 2: 0 columns, want at least 9"},
		{"short address", strings.NewReader(connHeader + strings.Replace(good, "0A090032", "A090032", 1)), `line 2: address "A090032"`},
		{"signed address", strings.NewReader(connHeader + strings.Replace(good, "0A090032", "-A090032", 1)), `line 2: address "-A090032"`},
		{"dotted address", strings.NewReader(connHeader + strings.Replace(good, "0A090032", "10.9.0.50", 1)), `line 2: address "10.9.0.50"`},
		{"short IPv6 address", strings.NewReader(connHeader + strings.Replace(good, "0A090032", "2001:db8::50", 1)), `line 2: address "2001:db8::50"`},
		{"real server", strings.NewReader(connHeader + strings.Replace(good, "0A090064", "0A09006", 1)), `line 2: address "0A09006"`},
		{"VIP port", strings.NewReader(connHeader + strings.Replace(good, "0050", "+050", 1)), `line 2: VIP port "+050"`},
		{"real server port", strings.NewReader(connHeader + strings.Replace(good, "0050 E", "10050 E", 1)), `line 2: real server port "10050"`},
		{"port", strings.NewReader(connHeader + strings.Replace(good, "8D5C", "18D5C", 1)), `line 2: client port "18D5C"`},
		{"columns moved", strings.NewReader(connHeader + strings.Replace(good, "899", "CLOSE 899", 1)), `line 2: expiry "CLOSE"`},
		{"a line without end", strings.NewReader(connHeader + strings.Repeat("x", 1<<17)), "after line 1: bufio.Scanner: token too long"},
		{"unreadable", io.MultiReader(strings.NewReader(connHeader+good), iotest.ErrReader(broken)), "after line 2: broken"},
	}
	for _, tt := range tests {
		got, err := CountFlows(tt.r, func(netip.Addr) bool { return true })
		if d := cmp.Diff("read the connection table: "+tt.err, fmt.Sprint(err)); d != "" {
			t.Errorf("%s: error (-want +got)\n%s", tt.name, d)
		}
		if d := cmp.Diff(FlowCount{}, got); d != "" {
			t.Errorf("%s: counted all the same (-want +got)\n%s", tt.name, d)
		}
	}
}

func TestReadFlows(t *testing.T) {
	at := netip.MustParseAddrPort
	want := []Flow{
		{Protocol: TCP, Client: at("10.9.0.10:36188"), VIP: at("10.9.0.50:80"), Destination: at("10.9.0.100:8080"), State: "ESTABLISHED", Expires: 899 * time.Second},
		{Protocol: TCP, Client: at("10.9.0.0:0"), VIP: at("10.9.0.50:80"), Destination: at("10.9.0.100:80"), State: "NONE", Expires: 299 * time.Second, Template: true},
		{Client: at("10.9.0.10:0"), VIP: at("0.0.0.7:0"), Destination: at("10.9.0.100:0"), State: "ASSURED", Template: true},
		{Protocol: UDP, Client: at("10.9.0.10:36192"), VIP: at("10.9.0.50:5060"), Destination: at("10.9.0.100:5060"), State: "UDP", PEName: "sip"},
		{Protocol: 132, Client: at("10.9.0.10:36192"), VIP: at("10.9.0.50:80"), Destination: at("10.9.0.100:80"), State: "COOKIE_WAIT", Expires: time.Second},
		{Protocol: TCP, Client: at("[2001:db8::a]:36188"), VIP: at("[2001:db8::50]:80"), Destination: at("10.9.0.100:80"), State: "SYN_RECV", Expires: 57 * time.Second},
	}
	table := connHeader +
		"TCP 0A09000A 8D5C 0A090032 0050 0A090064 1F90 ESTABLISHED     899\n" +
		"TCP 0A090000 0000 0A090032 0050 0A090064 0050 NONE            299\n" +
		"IP  0A09000A 0000 00000007 0000 0A090064 0000 ASSURED   18446744073709551\n" + // past its time
		"UDP 0A09000A 8D60 0A090032 13C4 0A090064 13C4 UDP               0 sip abc@example.org\n" +
		"SCTP 0A09000A 8D60 0A090032 0050 0A090064 0050 COOKIE_WAIT      1\n" +
		"TCP 2001:0db8:0000:0000:0000:0000:0000:000a 8D5C 2001:0db8:0000:0000:0000:0000:0000:0050 0050  0A090064 0050 SYN_RECV         57\n"
	var got []Flow
	for f, err := range ReadFlows(iotest.HalfReader(strings.NewReader(table))) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, f)
	}
	if d := cmp.Diff(want, got, cmpAddrs); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	n := 0
	for range ReadFlows(strings.NewReader(table)) { // which need not be read to its end
		if n++; n == 2 {
			break
		}
	}
}

// Whatever a table holds is counted as it is read, and what is told of it is a message that a standby takes.
func FuzzFlows(f *testing.F) {
	f.Add(connTable)
	f.Add(tellTable)
	f.Add(connHeader)
	f.Add(connHeader + "TCP")
	for line := range strings.Lines(connTable + tellTable) {
		f.Add(connHeader + line)
	}
	kernel := &fakeKernel{table: newTable(tellServices()...)}
	f.Fuzz(func(t *testing.T, table string) {
		var flows []Flow
		var failed error
		for f, err := range ReadFlows(strings.NewReader(table)) {
			if failed != nil {
				t.Fatalf("%+v, %v after %v", f, err, failed)
			}
			if failed = err; err == nil {
				flows = append(flows, f)
			}
		}
		asked, taken := 0, 0
		count, err := CountFlows(strings.NewReader(table), func(a netip.Addr) bool {
			if !a.IsValid() || a.Zone() != "" || a != flows[asked].VIP.Addr() {
				t.Errorf("asked for %v", a)
			}
			asked++
			taken += asked & 1
			return asked&1 != 0
		})
		if fmt.Sprint(err) != fmt.Sprint(failed) {
			t.Errorf("counting says %v, reading %v", err, failed)
		}
		if err == nil && (asked != len(flows) || count.Total()+count.Templates != taken || count.Established() > taken) {
			t.Errorf("%+v of %d flows, %d taken", count, len(flows), taken)
		}
		s := &standby{t: t, id: 50}
		sent, err := tell(t.Context(), t, kernel, s, strings.NewReader(table), 1e9, every)
		if sent != len(s.told) || fmt.Sprint(err) != fmt.Sprint(failed) {
			t.Errorf("sent %d, told %d: %v, want %v", sent, len(s.told), err, failed)
		}
	})
}
