package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// The bounds of validate.
const (
	minInterval = 5 * time.Millisecond
	maxInterval = time.Minute
	maxDead     = 10 * time.Minute
	maxLease    = time.Hour
	maxPersist  = 31 * 24 * time.Hour // of ipvsadm(8)
	maxWeight   = 65535               // of ipvsadm(8)
	maxName     = 128
	maxOwnName  = 64 // of heartbeat.MaxName
	maxDevice   = 15 // IFNAMSIZ less the final NUL
)

// validate reports everything that is wrong with the values of a file, or only strange.
func (f *file) validate(found *findings) {
	if f.Name != "" && checkName(found, "name", f.Name) && (len(f.Name) > maxOwnName || strings.Contains(f.Name, " ")) {
		found.fail("name", f.Name, "must be at most %d bytes without a blank: every heartbeat carries it", maxOwnName)
	}
	if f.ClusterKeyFile == "" {
		found.fail("cluster_key_file", "", "is empty: it must name the file that lvs-director keygen wrote")
	}
	f.Heartbeat.validate(found)
	if l := f.VIP.Lease; l < time.Second || l > maxLease || l%time.Second != 0 {
		found.fail("vip.lease", l.String(), "must be whole seconds between 1s and %s: the kernel counts an address's life in seconds", short(maxLease))
	}
	if f.Sync != nil {
		f.Sync.validate(found)
	}
	if s := Sysctls(f.Sysctls); s != KeepSysctls && s != AuditSysctls {
		found.fail("sysctls", f.Sysctls, "must be %s or %s", KeepSysctls, AuditSysctls)
	}
	f.validateListeners(found)
	if len(f.Services) == 0 {
		found.fail("services", "", "there is no service: a director needs at least one")
	}
	newServiceRules(f, found).validateAll()
}

func (h *heartbeat) validate(found *findings) {
	if !isPort(h.Port) {
		found.fail("heartbeat.port", strconv.Itoa(h.Port), "must be a port between 1 and 65535")
	}
	switch {
	case h.Interval < minInterval || h.Interval > maxInterval:
		found.fail("heartbeat.interval", short(h.Interval), "must be between %s and %s", short(minInterval), short(maxInterval))
	case found.isBroken("heartbeat.interval"): // the default says nothing about dead
	case h.Dead < 2*h.Interval:
		found.fail("heartbeat.dead", short(h.Dead), "must be at least twice the interval of %s: one lost datagram is not a death", short(h.Interval))
	}
	if h.Dead > maxDead {
		found.fail("heartbeat.dead", short(h.Dead), "must be at most %s", short(maxDead))
	}
	if len(h.Paths) == 0 {
		found.warn("heartbeat.paths", "", "there is no path to another director: nobody takes over when this one dies")
	}
	for i, p := range h.Paths {
		at := fmt.Sprintf("heartbeat.paths[%d]", i)
		local := checkAddress(found, at+".local", p.Local)
		peer := checkAddress(found, at+".peer", p.Peer)
		switch {
		case !local || !peer:
		case p.Local == p.Peer:
			found.fail(at+".peer", p.Peer.String(), "is the local address too: it must be the other director's")
		case p.Local.Is4() != p.Peer.Is4():
			found.fail(at+".peer", p.Peer.String(), "is not of the same family as the local address %s", p.Local)
		case slices.Contains(h.Paths[:i], p) || slices.Contains(h.Paths[:i], path{Local: p.Peer, Peer: p.Local}):
			found.fail(at, p.Local.String()+"–"+p.Peer.String(), "is a path already given: a second one needs other addresses")
		}
	}
}

func (s *syncDaemon) validate(found *findings) {
	checkDevice(found, "sync.device", s.Device)
	if s.ID < 0 || s.ID > 255 {
		found.fail("sync.id", strconv.Itoa(s.ID), "must be between 0 and 255")
	}
}

func (f *file) validateListeners(found *findings) {
	api, apiOK := checkListen(found, "api.listen", f.API.Listen)
	web, webOK := checkListen(found, "web.listen", f.Web.Listen)
	overlap := api.Addr() == web.Addr() || api.Addr().IsUnspecified() || web.Addr().IsUnspecified()
	if apiOK && webOK && api.Port() == web.Port() && overlap {
		found.fail("web.listen", f.Web.Listen, "is taken by api.listen %s: give it another port", f.API.Listen)
	}
}

// checkListen reads "address:port" or ":port"; every address is the unspecified one.
func checkListen(found *findings, path, listen string) (netip.AddrPort, bool) {
	host, port, err := net.SplitHostPort(listen)
	n, portErr := strconv.Atoi(port)
	addr := netip.IPv6Unspecified()
	if err == nil && host != "" {
		addr, err = netip.ParseAddr(host)
	}
	if err != nil || portErr != nil || !isPort(n) {
		found.fail(path, listen, "must be an IP address and a port, such as 127.0.0.1:3636, or a port of every address, such as :3637")
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(addr, uint16(n)), true
}

func checkName(found *findings, path, name string) bool {
	switch {
	case name == "":
		found.fail(path, "", "is missing")
	case len(name) > maxName:
		found.fail(path, name, "has %d bytes: at most %d are allowed", len(name), maxName)
	case strings.TrimSpace(name) != name, strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		found.fail(path, strconv.Quote(name), "must be printable, without a blank at either end")
	default:
		return true
	}
	return false
}

// checkDevice wants what the kernel takes for the name of a device or label (dev_valid_name, IFNAMSIZ).
func checkDevice(found *findings, path, device string) bool {
	switch {
	case device == "":
		found.fail(path, "", "is missing: name a network device such as eth0")
	case len(device) > maxDevice:
		found.fail(path, device, "is longer than the %d bytes of a device's name", maxDevice)
	case device == "." || device == ".." || device[0] == ':' ||
		strings.ContainsFunc(device, func(r rune) bool { return r == '/' || r <= ' ' || r > '~' }):
		found.fail(path, device, "is not the name of a network device")
	default:
		return true
	}
	return false
}

// checkAddress wants an address that one host can have.
func checkAddress(found *findings, path string, a netip.Addr) bool {
	why := ""
	switch {
	case !a.IsValid():
		found.fail(path, "", "is missing")
		return false
	case a.Is4In6():
		why = fmt.Sprintf("is IPv4 within IPv6: write %s", a.Unmap())
	case a.Zone() != "":
		why = "has a zone: it must be an address without one"
	case !isUnicast(a):
		why = "is not a unicast address: no host can have it"
	default:
		return true
	}
	found.fail(path, a.String(), "%s", why)
	return false
}

func isUnicast(a netip.Addr) bool {
	if a.Is4() {
		first := a.As4()[0]
		return first != 0 && first < 224 // 0/8 is "this network", 224/4 multicast, 240/4 reserved, with the broadcast
	}
	return !a.IsUnspecified() && !a.IsMulticast()
}

func isPort(n int) bool { return n >= 1 && n <= 65535 }

// short is a duration without the zeros that time.Duration writes: "1m", not "1m0s".
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
