package ipvs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"strconv"
)

// FlowCount is how many flows a host knows, its own and those it was told of by a sync daemon.
type FlowCount struct {
	// States are the flows by the kernel's name of their state: "ESTABLISHED", "FIN_WAIT" and the like for TCP, "UDP".
	States map[string]int

	// Templates are the records of persistence, which lead new flows of a client and are none themselves.
	Templates int
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

// Columns of /proc/net/ip_vs_conn (ip_vs_conn_seq_show in net/netfilter/ipvs/ip_vs_conn.c): protocol, client, VIP and
// real server with their ports, state, seconds until it expires, and for persistence engines two more.
const (
	colClientPort = 2
	colVIP        = 3
	colState      = 7
	colExpires    = 8
	flowColumns   = 9
)

// CountFlows counts the flows to the VIPs that vip accepts in a connection table: the file net/ip_vs_conn below
// /proc/self, or for the network namespace of the calling thread below /proc/thread-self. It holds one line at a time.
// The table may change while it is read, so that a flow is missed or counted twice. Several ports of a VIP and TCP and
// UDP count together.
func CountFlows(r io.Reader, vip func(netip.Addr) bool) (FlowCount, error) {
	count := FlowCount{States: make(map[string]int)}
	lines := bufio.NewScanner(r)
	number := 0
	for lines.Scan() {
		number++
		line := lines.Bytes()
		if number == 1 {
			if !bytes.HasPrefix(line, []byte("Pro FromIP")) {
				return FlowCount{}, fmt.Errorf("read the connection table: %q is not its first line", line[:min(len(line), 40)])
			}
			continue
		}
		addr, state, template, err := parseFlow(line)
		switch {
		case err != nil:
			return FlowCount{}, fmt.Errorf("read the connection table: line %d: %w", number, err)
		case !vip(addr):
		case template:
			count.Templates++
		default:
			count.States[string(state)]++
		}
	}
	if err := lines.Err(); err != nil {
		return FlowCount{}, fmt.Errorf("read the connection table: after line %d: %w", number, err)
	}
	if number == 0 {
		return FlowCount{}, errors.New("read the connection table: it is empty, without even its first line")
	}
	return count, nil
}

func parseFlow(line []byte) (vip netip.Addr, state []byte, template bool, err error) {
	var cols [flowColumns][]byte
	n := 0
	for f := range bytes.FieldsSeq(line) {
		if n < flowColumns {
			cols[n] = f
		}
		n++
	}
	if n < flowColumns {
		return vip, nil, false, fmt.Errorf("%d columns, want at least %d", n, flowColumns)
	}
	if vip, err = parseHexAddr(cols[colVIP]); err != nil {
		return vip, nil, false, err
	}
	port, err := strconv.ParseUint(string(cols[colClientPort]), 16, 16)
	if err != nil {
		return vip, nil, false, fmt.Errorf("client port %q", cols[colClientPort])
	}
	if _, err := strconv.ParseUint(string(cols[colExpires]), 10, 64); err != nil {
		return vip, nil, false, fmt.Errorf("expiry %q", cols[colExpires])
	}
	state = cols[colState]
	template = port == 0 && (string(state) == "NONE" || string(state) == "ASSURED")
	return vip, state, template, nil
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
