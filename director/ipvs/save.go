package ipvs

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Save writes the table as `ipvsadm --save -n` of ipvsadm 1.31 prints it, byte for byte: sorted its way, whose ties
// and wrap-arounds keep the order of the kernel's dump, and without thresholds, which ipvsadm does not save.
func Save(w io.Writer, services []Service) error {
	out := bufio.NewWriter(w)
	for _, s := range mergeSort(services, compareServices) {
		name := saveName(s.Key)
		fmt.Fprintf(out, "-A %s -s %s", name, s.Scheduler)
		if s.Persistent > 0 {
			fmt.Fprintf(out, " -p %d", uint32(s.Persistent/time.Second))
			if m := s.PersistenceMask; m != 0 {
				fmt.Fprintf(out, " -M %s", saveMask(m, s.family()))
			}
		}
		if s.PEName != "" {
			fmt.Fprintf(out, " --pe %s", s.PEName)
		}
		if s.OnePacket {
			fmt.Fprint(out, " -o")
		}
		if s.SchedFlags != 0 {
			fmt.Fprintf(out, " -b %s", saveSchedFlags(s.Scheduler, s.SchedFlags))
		}
		fmt.Fprintln(out)
		for _, d := range mergeSort(s.Destinations, compareDestinations) {
			fmt.Fprintf(out, "-a %s -r %s %s -w %d%s\n", name, saveAddr(d.Addr), saveMethod(d.Method), int32(d.Weight), saveTunnel(d))
		}
	}
	return out.Flush()
}

func saveName(k Key) string {
	switch {
	case k.FWMark != 0 && k.family() == IPv6:
		return fmt.Sprintf("-f %d -6", int32(k.FWMark))
	case k.FWMark != 0:
		return fmt.Sprintf("-f %d", int32(k.FWMark))
	}
	switch k.Protocol {
	case TCP:
		return "-t " + saveAddr(k.Addr)
	case UDP:
		return "-u " + saveAddr(k.Addr)
	case unix.IPPROTO_SCTP:
		return "--sctp-service " + saveAddr(k.Addr)
	}
	return "--xxx-service " + saveAddr(k.Addr)
}

// saveAddr differs from AddrPort.String where inet_ntop(3) does: it shows the last 32 bits of ::/96 as IPv4.
func saveAddr(a netip.AddrPort) string {
	if b := a.Addr().As16(); a.Addr().Is6() && [12]byte(b[:12]) == [12]byte{} && (b[12] != 0 || b[13] != 0) {
		return fmt.Sprintf("[::%s]:%d", netip.AddrFrom4([4]byte(b[12:])), a.Port())
	}
	return a.String()
}

func saveMask(mask int, f Family) string {
	if f == IPv6 {
		return fmt.Sprint(mask)
	}
	return netip.AddrFrom4([4]byte(netmaskBytes(mask, f))).String()
}

func saveSchedFlags(scheduler string, f SchedFlags) string {
	names := []string{"flag-1", "flag-2", "flag-3"}
	if scheduler == "sh" || scheduler == "mh" {
		names = []string{scheduler + "-fallback", scheduler + "-port"}
	}
	var set []string
	for i, name := range names {
		if f&(1<<i) != 0 {
			set = append(set, name)
		}
	}
	return strings.Join(set, ",")
}

func saveMethod(m Method) string {
	switch m {
	case MethodMasq:
		return "-m"
	case MethodTunnel:
		return "-i"
	}
	return "-g"
}

func saveTunnel(d Destination) string {
	if d.Method != MethodTunnel || d.Tunnel.Type > GRE {
		return ""
	}
	s := " --tun-type " + d.Tunnel.Type.String()
	if d.Tunnel.Type == GUE {
		s += fmt.Sprintf(" --tun-port %d", d.Tunnel.Port)
	}
	if d.Tunnel.Type != IPIP {
		switch d.Tunnel.Flags {
		case NoCsum:
			s += " --tun-nocsum"
		case Csum:
			s += " --tun-csum"
		case RemCsum:
			s += " --tun-remcsum"
		}
	}
	return s
}

// compareServices is ipvs_cmp_services of libipvs. Its differences wrap around in 32 bits, so 10.0.0.1 comes after
// 192.168.0.1, and the order among more than two far addresses is what the sort makes of it.
func compareServices(a, b Service) int32 {
	if r := int32(a.FWMark - b.FWMark); r != 0 {
		return r
	}
	if r := int32(a.family()) - int32(b.family()); r != 0 {
		return r
	}
	if r := int32(a.Protocol) - int32(b.Protocol); r != 0 {
		return r
	}
	return compareAddrs(a.Addr, b.Addr)
}

// compareDestinations is ipvs_cmp_dests of libipvs, which looks at the family of the first only.
func compareDestinations(a, b Destination) int32 { return compareAddrs(a.Addr, b.Addr) }

func compareAddrs(a, b netip.AddrPort) int32 {
	aw, bw := addrBytes(a.Addr()), addrBytes(b.Addr())
	for i := 0; i < familyOf(a.Addr()).bits()/8; i += 4 {
		if r := int32(binary.BigEndian.Uint32(aw[i:]) - binary.BigEndian.Uint32(bw[i:])); r != 0 {
			return r
		}
	}
	return int32(a.Port()) - int32(b.Port())
}

// mergeSort is the qsort(3) of glibc up to 2.36. An order that wraps around needs the very same comparisons.
func mergeSort[T any](list []T, compare func(a, b T) int32) []T {
	if len(list) < 2 {
		return list
	}
	a, b := mergeSort(list[:len(list)/2], compare), mergeSort(list[len(list)/2:], compare)
	sorted := make([]T, 0, len(list))
	for len(a) > 0 && len(b) > 0 {
		if compare(a[0], b[0]) <= 0 {
			sorted, a = append(sorted, a[0]), a[1:]
		} else {
			sorted, b = append(sorted, b[0]), b[1:]
		}
	}
	return append(append(sorted, a...), b...)
}
