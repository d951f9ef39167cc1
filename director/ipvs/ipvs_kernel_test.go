//go:build kernel

package ipvs

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// countingTransport is the real kernel, with its writes listed.
type countingTransport struct {
	transport
	writes []uint8
}

func (c *countingTransport) do(cmd uint8, attrs []byte) error {
	c.writes = append(c.writes, cmd)
	return c.transport.do(cmd, attrs)
}

// newKernel gives the test a network namespace of its own, and with it an empty table. The thread ends with the test.
func newKernel(t *testing.T) (*Handle, *countingTransport) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	return openHere(t)
}

func openHere(t *testing.T) (*Handle, *countingTransport) {
	t.Helper()
	h, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	c := &countingTransport{transport: h.t}
	h.t = c
	return h, c
}

func ipvsadm(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("ipvsadm", args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("ipvsadm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func services(t *testing.T, h *Handle) []Service {
	t.Helper()
	got, err := h.Services(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func checkTable(t *testing.T, h *Handle, want ...Service) {
	t.Helper()
	if d := cmp.Diff(newTable(want...).String(), newTable(services(t, h)...).String()); d != "" {
		t.Fatalf("the kernel's table (-want +got)\n%s", d)
	}
}

func checkSettled(t *testing.T, h *Handle, c *countingTransport, want []Service, ours map[Key]bool) {
	t.Helper()
	c.writes = nil
	r, err := h.Apply(t.Context(), want, ours)
	if err != nil || len(c.writes) != 0 || r.Rounds != 1 {
		t.Fatalf("a second Apply wrote %d times in %d rounds: %v, %v", len(c.writes), r.Rounds, r.Ops, err)
	}
}

func TestKernelEveryKind(t *testing.T) {
	h, c := newKernel(t)
	want := everyKind()
	if _, err := h.Apply(t.Context(), want, nil); err != nil {
		t.Fatal(err)
	}
	got := services(t, h)
	byKey := func(a, b Service) int { return strings.Compare(a.String(), b.String()) }
	slices.SortFunc(want, byKey)
	slices.SortFunc(got, byKey)
	for i := range got {
		slices.SortFunc(got[i].Destinations, func(a, b Destination) int { return a.Addr.Compare(b.Addr) })
		slices.SortFunc(want[i].Destinations, func(a, b Destination) int { return a.Addr.Compare(b.Addr) })
	}
	if d := cmp.Diff(want, got, cmpAddrs); d != "" {
		t.Errorf("read back (-want +got)\n%s", d)
	}
	checkSave(t, h)
	checkSettled(t, h, c, want, nil)
}

// Every scheduler's module comes by itself. Debian builds its kernels without twos.
func TestKernelSchedulers(t *testing.T) {
	h, c := newKernel(t)
	var want []Service
	for i, name := range Schedulers {
		s := wlc(tcp(fmt.Sprintf("10.0.0.50:%d", i+1)), tun(fmt.Sprintf("192.168.1.100:%d", i+1), 1))
		s.Scheduler = name
		want = append(want, s)
	}
	_, err := h.Apply(t.Context(), want, nil)
	if d := cmp.Diff(`add virtual service 10.0.0.50:14/tcp: scheduler "twos" is not in this kernel (modprobe ip_vs_twos)`, fmt.Sprint(err)); err != nil && d != "" {
		t.Errorf("errors (-want +got)\n%s", d)
	}
	if err != nil {
		want = want[:len(want)-1]
	}
	checkTable(t, h, want...)
	checkSave(t, h)

	// And one service takes each after the other, with its destination staying.
	s := wlc(web, tun("192.168.1.100:80", 1))
	s.Scheduler = "sh"
	if _, err := h.Apply(t.Context(), []Service{s}, nil); err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		if s.Scheduler == w.Scheduler {
			continue
		}
		c.writes, s.Scheduler = nil, w.Scheduler
		r, err := h.Apply(t.Context(), []Service{s}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]uint8{cmdSetService}, c.writes); d != "" {
			t.Errorf("%v (-want +got)\n%s", r.Ops, d)
		}
	}
	checkTable(t, h, append(want, s)...)
}

func TestKernelEdits(t *testing.T) {
	h, c := newKernel(t)
	gue, gre, direct, masq, limited := tun("192.168.1.100:80", 1), tun("192.168.1.100:80", 1), tun("192.168.1.100:80", 1),
		tun("192.168.1.100:80", 1), tun("192.168.1.100:80", 1)
	gue.Tunnel = Tunnel{Type: GUE, Port: 6080, Flags: Csum}
	gre.Tunnel = Tunnel{Type: GRE, Flags: Csum}
	direct.Method = MethodDirect
	masq.Method = MethodMasq
	limited.Upper, limited.Lower = 100, 50
	steps := []struct {
		want   Service
		writes []uint8
	}{
		{wlc(web, tun("192.168.1.100:80", 1)), []uint8{cmdNewService, cmdNewDest}},
		{wlc(web, tun("192.168.1.100:80", 0)), []uint8{cmdSetDest}},
		{wlc(web, tun("192.168.1.100:80", 1<<31-1)), []uint8{cmdSetDest}},
		{wlc(web, gue), []uint8{cmdSetDest}},
		{wlc(web, gre), []uint8{cmdSetDest}},
		{wlc(web, direct), []uint8{cmdSetDest}},
		{wlc(web, gue), []uint8{cmdSetDest}},
		{wlc(web, masq), []uint8{cmdSetDest}},
		{wlc(web, limited), []uint8{cmdSetDest}},
		{Service{Key: web, Scheduler: "sh", SchedFlags: SchedPort | SchedFallback, Persistent: time.Minute, PersistenceMask: 20,
			Destinations: []Destination{limited}}, []uint8{cmdSetService}},
		{Service{Key: web, Scheduler: "sh", SchedFlags: SchedFallback, Persistent: time.Hour, Destinations: []Destination{limited}}, []uint8{cmdSetService}},
		{Service{Key: web, Scheduler: "sh", Persistent: time.Hour, PEName: "sip", Destinations: []Destination{limited}}, []uint8{cmdSetService}},
		{wlc(web, limited), []uint8{cmdSetService}},
		{wlc(web), []uint8{cmdDelDest}},
		{wlc(web, tun("192.168.1.100:80", 1)), []uint8{cmdNewDest}},
		{wlc(web, tun("192.168.1.200:80", 1)), []uint8{cmdNewDest, cmdDelDest}},
		{wlc(web, tun("192.168.1.100:80", 1)), []uint8{cmdNewDest, cmdDelDest}},
	}
	for i, step := range steps {
		c.writes = nil
		r, err := h.Apply(t.Context(), []Service{step.want}, nil)
		if err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if d := cmp.Diff(step.writes, c.writes); d != "" {
			t.Errorf("step %d: %v (-want +got)\n%s", i, r.Ops, d)
		}
		checkTable(t, h, step.want)
		checkSave(t, h)
	}
	if _, err := h.Apply(t.Context(), nil, owned(web)); err != nil {
		t.Fatal(err)
	}
	checkTable(t, h)
}

func TestKernelRandomTables(t *testing.T) {
	h, c := newKernel(t)
	for i := range 15 {
		want := genTable().Example(i)
		for i := range want {
			if want[i].Scheduler == "twos" {
				want[i].Scheduler = "rr"
			}
		}
		if _, err := h.Apply(t.Context(), want, owned(someKeys...)); err != nil {
			t.Fatal(err)
		}
		checkTable(t, h, want...)
		checkSave(t, h)
		checkSettled(t, h, c, want, owned(someKeys...))
	}
}

// A dump of many parts.
func TestKernelLargeTable(t *testing.T) {
	h, c := newKernel(t)
	var want []Service
	for i := range 100 {
		s := wlc(tcp(fmt.Sprintf("10.0.0.%d:80", i+1)))
		n := 10
		if i == 0 {
			n = 1000
		}
		for j := range n {
			s.Destinations = append(s.Destinations, tun(fmt.Sprintf("172.16.%d.%d:80", j/200, j%200+1), 1))
		}
		want = append(want, s)
	}
	began := time.Now()
	r, err := h.Apply(t.Context(), want, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("from empty: %d services, %d destinations in %s", r.Added.Services, r.Added.Destinations, time.Since(began))
	if r.Added != (Count{100, 1990}) {
		t.Errorf("added %+v", r.Added)
	}
	checkTable(t, h, want...)
	began = time.Now()
	checkSettled(t, h, c, want, nil)
	t.Logf("unchanged: %s", time.Since(began))
	checkSave(t, h)
}

func TestKernelRefusals(t *testing.T) {
	h, _ := newKernel(t)
	good := wlc(dns, tun("192.168.1.100:53", 1))
	ipvsadm(t, "", "--start-daemon", "master", "--mcast-interface", "lo")
	bad := []Service{
		{Key: web, Scheduler: "xx", Destinations: []Destination{tun("192.168.1.100:80", 1)}},
		{Key: tcp("10.0.0.51:80"), Scheduler: "rr", PEName: "xx"},
		wlc(tcp("10.0.0.52:80"), tun("192.168.1.1:80", -1), tun("224.0.0.1:80", 1), tun("192.168.1.2:80", 1)),
		wlc(web6, tun("192.168.1.1:80", 1), Destination{Addr: netip.MustParseAddrPort("192.168.1.2:80")}),
	}
	_, err := h.Apply(t.Context(), append(bad, good), nil)
	want := `add virtual service 10.0.0.50:80/tcp: scheduler "xx" is not in this kernel (modprobe ip_vs_xx)
add virtual service 10.0.0.51:80/tcp: scheduler "rr" or persistence engine "xx" is not in this kernel (modprobe ip_vs_rr ip_vs_pe_xx)
add real server 192.168.1.1:80 to 10.0.0.52:80/tcp: weight -1 is below 0, or lower threshold 0 is above upper 0
add real server 224.0.0.1:80 to 10.0.0.52:80/tcp: 224.0.0.1 is not a unicast address here, or this network namespace has no address at all (is lo up?)
add real server 192.168.1.1:80 to [2001:db8::50]:80/tcp: a real server of another family than the virtual service cannot be beside a sync daemon; or 192.168.1.1 is not a unicast address here, or this network namespace has no address at all (is lo up?)
add real server 192.168.1.2:80 to [2001:db8::50]:80/tcp: a real server of another family than the virtual service needs a tunnel, not masq`
	if d := cmp.Diff(want, fmt.Sprint(err)); d != "" {
		t.Errorf("errors (-want +got)\n%s", d)
	}
	checkTable(t, h, good, wlc(tcp("10.0.0.52:80"), tun("192.168.1.2:80", 1)), wlc(web6))
}

// Validate finds before the kernel what the kernel refuses, and nothing that it takes.
func TestKernelAgreesWithValidate(t *testing.T) {
	h, _ := newKernel(t)
	for _, s := range everyKind() {
		if errs := s.Validate(); errs != nil {
			t.Errorf("%s: %v", s.Key, errs)
		}
	}
	gue := tun("192.168.1.1:80", 1)
	gue.Tunnel = Tunnel{Type: GUE}
	lower := tun("192.168.1.1:80", 1)
	lower.Lower = 5
	for _, s := range []Service{
		{Key: web, Scheduler: "xx"}, wlc(web, gue), wlc(web, lower), wlc(web, tun("192.168.1.1:80", -1)),
		wlc(web, tun("0.0.0.0:80", 1)), wlc(web, tun("255.255.255.255:80", 1)), wlc(web, tun("224.0.0.1:80", 1)),
		wlc(web6, tun("[fe80::1]:80", 1)), wlc(web6, tun("[ff02::1]:80", 1)), wlc(web6, tun("[::]:80", 1)),
		wlc(web6, Destination{Addr: netip.MustParseAddrPort("192.168.1.1:80")}),
		{Key: web6, Scheduler: "rr", Persistent: time.Minute, PersistenceMask: 129},
		{Key: web, Scheduler: "rr", Persistent: time.Minute, PEName: "xx"},
	} {
		_, err := h.Apply(t.Context(), []Service{s}, nil)
		if errs := s.Validate(); err == nil || len(errs) == 0 {
			t.Errorf("%+v: the kernel says %v, Validate %v", s, err, errs)
		}
		if _, err := h.Apply(t.Context(), nil, owned(s.Key)); err != nil {
			t.Error(err)
		}
	}
}

func TestKernelStats(t *testing.T) {
	h, _ := newKernel(t)
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	vip, err := netlink.ParseAddr("10.0.0.50/32")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(lo, vip); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Apply(t.Context(), []Service{wlc(dns, tun("192.168.1.100:53", 1))}, nil); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("udp", "10.0.0.50:53")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write(make([]byte, 100)) // the tunnel leads nowhere, but IPVS has scheduled and counted it
	want := Stats{Conns: 1, InPkts: 1, InBytes: 128}
	deadline := time.Now().Add(20 * time.Second) // the kernel adds up every two seconds
	for {
		got := services(t, h)[0]
		if s := got.Stats; s.Conns == want.Conns && s.InPkts == want.InPkts && s.InBytes == want.InBytes {
			d := got.Destinations[0]
			if d.InactiveConns != 1 || d.ActiveConns != 0 || d.Stats.InBytes != want.InBytes {
				t.Errorf("destination %+v", d)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("statistics %+v, want %+v", got.Stats, want)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// Someone takes and gives services and destinations all the time; in the end the table is as wanted.
func TestKernelMeetsOthers(t *testing.T) {
	h, _ := newKernel(t)
	other, _ := openHere(t)
	mine := wlc(web, tun("192.168.1.1:80", 1), tun("192.168.1.2:80", 2), tun("192.168.1.3:80", 3))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			d := mine.Destinations[i%3]
			for _, o := range []Op{{Kind: DelDestination, Service: mine, Destination: d}, {Kind: AddDestination, Service: mine, Destination: tun("192.168.1.9:80", 1)},
				{Kind: AddService, Service: foreign}, {Kind: DelService, Service: foreign}} {
				other.execute(o) // any answer will do
			}
			if i%10 == 0 {
				other.execute(Op{Kind: DelService, Service: mine})
			}
		}
	})
	var failed int
	for range 300 {
		if _, err := h.Apply(t.Context(), []Service{mine}, owned(web)); err != nil {
			failed++
		}
	}
	close(stop)
	wg.Wait()
	t.Logf("%d of 300 gave up", failed)
	if _, err := h.Apply(t.Context(), []Service{mine}, owned(web)); err != nil {
		t.Fatal(err)
	}
	other.execute(Op{Kind: DelService, Service: foreign})
	checkTable(t, h, mine)
}

func TestKernelWithoutCapability(t *testing.T) {
	h, _ := newKernel(t)
	hdr, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	if err := unix.Capset(&hdr, &data[0]); err != nil { // of this thread, which ends with the test
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"read":  func() error { _, err := h.Services(t.Context()); return err },
		"write": func() error { return explain(Op{}, h.execute(Op{Kind: AddService, Service: wlc(web)})) },
	} {
		err := call()
		if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The family has another number after the module was loaded anew.
func TestKernelFamilyMoves(t *testing.T) {
	h, c := newKernel(t)
	c.transport.(*kernelTransport).family.Add(1000)
	if _, err := h.Apply(t.Context(), everyKind(), nil); err != nil {
		t.Fatal(err)
	}
	checkTable(t, h, everyKind()...)
}
