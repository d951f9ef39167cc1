package lvscf

import (
	"fmt"
	"maps"
	"math"
	"math/bits"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// kind is the type of a key's values.
type kind struct {
	count int // of values; 0 is one or more
	// parse returns a sentence on what is wrong with the values, which are as many as count says.
	parse func([]Token) string
}

func (k *kind) fits(ts []Token) string {
	for _, t := range ts {
		if t.Quote == 0 && strings.HasPrefix(t.Text, "#") {
			return "a comment stands on a line of its own"
		}
	}
	switch {
	case len(ts) == 0:
		return "the value is missing after ="
	case len(ts) > k.count && k.count == 1:
		return "one value is expected: put a text with blanks in quotes"
	case k.count != 0 && len(ts) != k.count:
		return "an IPv4 address and a device are expected, such as 10.0.0.50 eth0:1"
	}
	return k.parse(ts)
}

func one(parse func(string) error) *kind {
	return &kind{count: 1, parse: func(ts []Token) string {
		if err := parse(ts[0].Text); err != nil {
			return err.Error()
		}
		return ""
	}}
}

func enum(words ...string) *kind {
	return one(func(s string) error {
		if !slices.Contains(words, s) {
			return fmt.Errorf("must be %s", strings.Join(words, " or "))
		}
		return nil
	})
}

var (
	text    = one(func(string) error { return nil })
	list    = &kind{parse: func([]Token) string { return "" }}
	integer = one(func(s string) error { _, err := parseInt(s); return err })
	boolean = enum("0", "1")
	seconds = one(func(s string) error {
		switch n, err := parseInt(s); {
		case err != nil:
			return err
		case n < 0:
			return fmt.Errorf("must be a number of seconds, not less than 0")
		}
		return nil
	})
	port    = one(func(s string) error { _, err := parsePort(s); return err })
	address = one(func(s string) error { _, err := parseAddr(s); return err })
	mask    = one(func(s string) error { _, err := parseMask(s); return err })

	addressDevice = &kind{count: 2, parse: func(ts []Token) string { return address.parse(ts[:1]) }}
)

// The keys of lvs.cf(5) and those that piranha 0.8.6 reads besides.
var (
	globalKeys = map[string]*kind{
		"serial_no": integer, "service": enum("lvs", "fos"),
		"primary": address, "primary_private": address, "primary_shared": text,
		"backup": address, "backup_private": address, "backup_shared": text, "backup_active": boolean,
		"heartbeat": boolean, "heartbeat_port": port, "keepalive": seconds, "deadtime": seconds,
		"network": enum("nat", "direct", "tunnel"), "nat_router": addressDevice, "nat_nmask": mask,
		"debug_level": text, "monitor_links": boolean, "rsh_command": text,
		"reservation_conflict_action": enum("nothing", "preempt"),
		"tcp_timeout":                 seconds, "tcpfin_timeout": seconds, "udp_timeout": seconds,
		"syncdaemon": boolean, "syncd_iface": text, "syncd_id": integer,
		"active_cmd": text, "inactive_cmd": text, "hard_shutdown": boolean, "ipvsadm": text, "sync": boolean,
	}
	virtualKeys = map[string]*kind{
		"active": boolean, "address": addressDevice, "vip_nmask": mask, "port": port, "protocol": text,
		"fwmark": integer, "scheduler": text, "persistent": seconds, "pmask": mask,
		"send": text, "expect": text, "use_regex": boolean, "send_program": text,
		"timeout": seconds, "reentry": seconds, "quiesce_server": boolean, "load_monitor": text,
		"sorry_server": address, "client_monitor": text, "master": list, "dirs": list,
		"start_cmd": text, "stop_cmd": text,
	}
	serverKeys = map[string]*kind{"address": address, "active": boolean, "port": integer, "weight": integer}
)

func scope(blockKind string) map[string]*kind {
	switch blockKind {
	case "virtual", "failover":
		return virtualKeys
	case "server":
		return serverKeys
	}
	return globalKeys
}

// Keys returns the known keys of a kind of block, sorted; "" is the file.
func Keys(blockKind string) []string { return slices.Sorted(maps.Keys(scope(blockKind))) }

// Int is the value of an entry that is a number: an integer, a boolean or seconds.
func (e Entry) Int() int {
	n, _ := parseInt(e.Values[0].Text) // Parse has tested it
	return n
}

// Port is the value of an entry that is a port, which may be written as its name in /etc/services.
func (e Entry) Port() int {
	n, _ := parsePort(e.Values[0].Text) // Parse has tested it
	return n
}

// Addr is the address of an entry that has one.
func (e Entry) Addr() netip.Addr {
	a, _ := parseAddr(e.Values[0].Text) // Parse has tested it
	return a
}

// MaskBits is the prefix length of an entry that is a mask.
func (e Entry) MaskBits() int {
	n, _ := parseMask(e.Values[0].Text) // Parse has tested it
	return n
}

// parseInt reads what strtol with base 0 does: 16, 0x10 and 020 are the same.
func parseInt(s string) (int, error) {
	n, err := strconv.ParseInt(s, 0, 64)
	digits := strings.ToLower(strings.TrimLeft(s, "+-"))
	if err != nil || strings.Contains(s, "_") || strings.HasPrefix(digits, "0b") || strings.HasPrefix(digits, "0o") {
		return 0, fmt.Errorf("must be a whole number") // Go's own spellings among them
	}
	if n < math.MinInt32 || n > math.MaxUint32 {
		return 0, fmt.Errorf("is out of range")
	}
	return int(n), nil
}

func parsePort(s string) (int, error) {
	if n, err := parseInt(s); err == nil {
		return n, nil
	}
	if s == "" || strings.ContainsAny(s[:1], "-+.0123456789") {
		return 0, fmt.Errorf("must be a port, as a number or as a name of /etc/services")
	}
	n, err := net.LookupPort("tcp", s)
	if err != nil {
		return 0, fmt.Errorf("is no service that /etc/services knows: write the port's number")
	}
	return n, nil
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err == nil && a.Is4():
		return a, nil
	case err == nil:
		return a, fmt.Errorf("lvs.cf knows IPv4 only: IPv6 needs a director.yaml")
	case strings.Trim(s, "0123456789./") == "" || s == "":
		return a, fmt.Errorf("must be an IPv4 address of four numbers, such as 10.0.0.50")
	}
	return a, fmt.Errorf("must be an IPv4 address: host names are not looked up, for a file must mean the same without DNS")
}

func parseMask(s string) (int, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return 0, fmt.Errorf("must be a mask such as 255.255.255.0")
	}
	b := a.As4()
	m := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	n := bits.LeadingZeros32(^m)
	if m<<n != 0 {
		return 0, fmt.Errorf("must be a mask whose set bits all come first, such as 255.255.255.0")
	}
	return n, nil
}
