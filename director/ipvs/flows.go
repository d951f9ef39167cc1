package ipvs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Flow is a line of the connection table. Flows are comparable.
type Flow struct {
	Protocol                 Protocol // 0 is one that the kernel does not name, or a template of a fwmark service
	Client, VIP, Destination netip.AddrPort

	// State is the kernel's name of it: "ESTABLISHED", "FIN_WAIT" and the like for TCP, "UDP".
	State string

	// Expires is when the kernel forgets the flow unless a packet comes: whole seconds, rounded down.
	Expires time.Duration

	// Template marks a record of persistence, which leads new flows of a client (port 0) and is none itself.
	Template bool
	PEName   string // the persistence engine whose data leads, or none; the data are left out here
}

// FlowCount is how many flows a host knows, its own and those it was told of by a sync daemon.
type FlowCount struct {
	States    map[string]int // the flows by their State
	Templates int            // none of which is a flow
}

// Established is the number of TCP flows that are open.
func (c FlowCount) Established() int { return c.States["ESTABLISHED"] }

// Total is the number of flows in every state.
func (c FlowCount) Total() (n int) {
	for v := range maps.Values(c.States) {
		n += v
	}
	return n
}

// CountFlows counts the flows to the VIPs that vip accepts in a connection table: see ReadFlows. Several ports of a VIP
// and TCP and UDP count together.
func CountFlows(table io.Reader, vip func(netip.Addr) bool) (FlowCount, error) {
	count := FlowCount{States: make(map[string]int)}
	for f, err := range ReadFlows(table) {
		switch {
		case err != nil:
			return FlowCount{}, err
		case !vip(f.VIP.Addr()):
		case f.Template:
			count.Templates++
		default:
			count.States[f.State]++
		}
	}
	return count, nil
}

// Columns of /proc/net/ip_vs_conn (ip_vs_conn_seq_show in net/netfilter/ipvs/ip_vs_conn.c): protocol, client, VIP and
// real server with their ports, state, seconds until it expires, and for persistence engines name and data.
const (
	colProtocol    = 0
	colClient      = 1 // and its port, as for the two others
	colVIP         = 3
	colDestination = 5
	colState       = 7
	colExpires     = 8
	flowColumns    = 9
	colPEName      = 9
	mostColumns    = 10
)

// ReadFlows reads a connection table, every flow and every template in it: the file net/ip_vs_conn below /proc/self, or
// for the network namespace of the calling thread below /proc/thread-self. It holds one line at a time. An error is the
// last that it yields. The table may change while it is read, so that a flow is missed or comes twice.
//
// Before Linux 6.14 (commit 178883fd039d) the kernel walks from the start of the table to where it was for every page of
// the file, so that the time grows with the square of the length: 35,000 lines in a second, 140,000 in a minute.
func ReadFlows(table io.Reader) iter.Seq2[Flow, error] {
	return func(yield func(Flow, error) bool) {
		lines := bufio.NewScanner(table)
		number := 0
		for lines.Scan() {
			number++
			line := lines.Bytes()
			if number == 1 {
				if !bytes.HasPrefix(line, []byte("Pro FromIP")) {
					yield(Flow{}, fmt.Errorf("read the connection table: %q is not its first line", line[:min(len(line), 40)]))
					return
				}
				continue
			}
			f, err := parseFlow(line)
			if err != nil {
				yield(Flow{}, fmt.Errorf("read the connection table: line %d: %w", number, err))
				return
			}
			if !yield(f, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(Flow{}, fmt.Errorf("read the connection table: after line %d: %w", number, err))
		} else if number == 0 {
			yield(Flow{}, errors.New("read the connection table: it is empty, without even its first line"))
		}
	}
}

// longestExpiry is above every timeout that the kernel takes. A flow whose time is up and that still is there shows as
// a negative number without its sign.
const longestExpiry = 1 << 31

func parseFlow(line []byte) (Flow, error) {
	var cols [mostColumns][]byte
	n := 0
	for col := range bytes.FieldsSeq(line) {
		if n < mostColumns {
			cols[n] = col
		}
		n++
	}
	if n < flowColumns {
		return Flow{}, fmt.Errorf("%d columns, want at least %d", n, flowColumns)
	}
	f := Flow{Protocol: protocolOf(cols[colProtocol]), State: nameOf(cols[colState]), PEName: string(cols[colPEName])}
	for _, at := range []struct {
		col  int
		addr *netip.AddrPort
		of   string
	}{{colClient, &f.Client, "client"}, {colVIP, &f.VIP, "VIP"}, {colDestination, &f.Destination, "real server"}} {
		addr, err := parseHexAddr(cols[at.col])
		if err != nil {
			return Flow{}, err
		}
		port, err := strconv.ParseUint(string(cols[at.col+1]), 16, 16)
		if err != nil {
			return Flow{}, fmt.Errorf("%s port %q", at.of, cols[at.col+1])
		}
		*at.addr = netip.AddrPortFrom(addr, uint16(port))
	}
	seconds, err := strconv.ParseUint(string(cols[colExpires]), 10, 64)
	if err != nil {
		return Flow{}, fmt.Errorf("expiry %q", cols[colExpires])
	}
	if seconds < longestExpiry {
		f.Expires = time.Duration(seconds) * time.Second
	}
	f.Template = f.Client.Port() == 0 && (f.State == templateStates[0] || f.State == templateStates[1])
	return f, nil
}

// protocolOf is the protocol by its name in ip_vs_proto_name.
func protocolOf(name []byte) Protocol {
	switch string(name) {
	case "TCP":
		return TCP
	case "UDP":
		return UDP
	case "SCTP":
		return unix.IPPROTO_SCTP
	}
	return 0
}

// The kernel's names of the states, by their numbers: IP_VS_TCP_S_NONE and on, IP_VS_UDP_S_NORMAL, and
// IP_VS_CTPL_S_NONE and on (include/net/ip_vs.h).
var (
	tcpStates = []string{"NONE", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT", "CLOSE", "CLOSE_WAIT",
		"LAST_ACK", "LISTEN", "SYNACK"}
	udpStates      = []string{"UDP"}
	templateStates = []string{"NONE", "ASSURED"}
)

// nameOf is a state's name without a copy of its own for every flow.
func nameOf(state []byte) string {
	for _, names := range [][]string{tcpStates, udpStates, templateStates} {
		for _, name := range names {
			if string(state) == name {
				return name
			}
		}
	}
	return string(state)
}

// parseHexAddr reads the kernel's %08X of an IPv4 address, or its %pI6: eight groups of four digits.
func parseHexAddr(b []byte) (netip.Addr, error) {
	if len(b) == 8 {
		if n, err := strconv.ParseUint(string(b), 16, 32); err == nil {
			return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}), nil
		}
	}
	if a, err := netip.ParseAddr(string(b)); err == nil && len(b) == 39 && a.Zone() == "" {
		return a, nil
	}
	return netip.Addr{}, fmt.Errorf("address %q", b)
}
