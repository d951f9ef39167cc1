package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"lvstun/director/config/nearest"
	"lvstun/director/ipvs"
	"lvstun/httpcheck"
)

// serviceRules validates the services of a file, each by itself and against those before it.
type serviceRules struct {
	*findings
	file      *file
	heartbeat map[netip.Addr]bool // the directors' own addresses
	names     map[string]int      // name → index of the service that has it
	keys      map[ipvs.Key]int    // identity in the kernel → index
	vips      map[netip.Addr]int  // VIP → index of the first service on it
}

func newServiceRules(f *file, found *findings) *serviceRules {
	r := &serviceRules{
		findings:  found,
		file:      f,
		heartbeat: make(map[netip.Addr]bool),
		names:     make(map[string]int, len(f.Services)),
		keys:      make(map[ipvs.Key]int, len(f.Services)),
		vips:      make(map[netip.Addr]int, len(f.Services)),
	}
	for _, p := range f.Heartbeat.Paths {
		r.heartbeat[p.Local], r.heartbeat[p.Peer] = true, true
	}
	delete(r.heartbeat, netip.Addr{})
	return r
}

func (r *serviceRules) validateAll() {
	for i := range r.file.Services {
		if at := fmt.Sprintf("services[%d]", i); !r.isBroken(at) {
			r.validate(i, at)
		}
	}
}

func (r *serviceRules) validate(i int, at string) {
	s := &r.file.Services[i]
	if checkName(r.findings, at+".name", s.Name) {
		if first, taken := r.names[s.Name]; taken {
			r.fail(at+".name", s.Name, "the service of line %d has this name already", r.line(first))
		} else {
			r.names[s.Name] = i
		}
	}
	r.validateVIP(i, at)
	r.validateIdentity(i, at)
	if !slices.Contains(ipvs.Schedulers, s.Scheduler) {
		r.fail(at+".scheduler", s.Scheduler, "is not a scheduler of the kernel; %s", nearest.Hint(s.Scheduler, ipvs.Schedulers))
	}
	r.validatePersistence(s, at)
	if s.OnePacket && s.Protocol == "tcp" && s.FWMark == 0 {
		r.fail(at+".one_packet", "true", "is for datagrams only: it needs protocol udp or a fwmark")
	}
	r.validateEncapsulation(s.Encapsulation, at+".encapsulation")
	r.validateCheck(s, at+".check")
	r.validateRegister(s, at)
	r.validateServers(s, at)
}

func (r *serviceRules) line(service int) int {
	line, _ := r.where(fmt.Sprintf("services[%d]", service))
	return line
}

func (r *serviceRules) validateVIP(i int, at string) {
	s := &r.file.Services[i]
	device := checkDevice(r.findings, at+".device", s.Device)
	if !checkAddress(r.findings, at+".vip", s.VIP) {
		return
	}
	switch {
	case s.VIP.IsLoopback() || s.VIP.IsLinkLocalUnicast():
		r.fail(at+".vip", s.VIP.String(), "is an address that no client can reach through a gateway")
	case r.heartbeat[s.VIP]:
		r.fail(at+".vip", s.VIP.String(), "is a heartbeat address: the VIP moves between directors, that one must stay")
	}
	if !device {
		return
	}
	name, label := splitDevice(s.Device)
	if label != "" && s.VIP.Is6() {
		r.warn(at+".device", s.Device, "the label has no effect: an IPv6 address has none, it is put on %s", name)
	}
	first, taken := r.vips[s.VIP]
	if !taken {
		r.vips[s.VIP] = i
		return
	}
	other := r.file.Services[first].Device
	switch otherName, _ := splitDevice(other); {
	case otherName != name:
		r.fail(at+".device", s.Device, "VIP %s is on %s already (line %d): one address is on one device", s.VIP, other, r.line(first))
	case other != s.Device:
		r.warn(at+".device", s.Device, "VIP %s is %s already (line %d): that label counts", s.VIP, other, r.line(first))
	}
}

// validateIdentity looks at what makes the service the one it is in the kernel: protocol, VIP and port, or mark.
func (r *serviceRules) validateIdentity(i int, at string) {
	s := &r.file.Services[i]
	protocol, err := ipvs.ParseProtocol(s.Protocol)
	if err != nil || s.Protocol != protocol.String() {
		r.fail(at+".protocol", s.Protocol, "must be tcp or udp")
		return
	}
	if s.FWMark < 0 || s.FWMark > 1<<32-1 {
		r.fail(at+".fwmark", strconv.Itoa(s.FWMark), "must be between 1 and 4294967295, or 0 for none")
		return
	}
	switch {
	case s.Port != nil && !isPort(*s.Port) && (s.FWMark == 0 || *s.Port != 0):
		r.fail(at+".port", strconv.Itoa(*s.Port), "must be a port between 1 and 65535")
		return
	case s.Port == nil && s.FWMark == 0:
		r.fail(at+".port", "", "is missing")
		return
	case !s.VIP.IsValid() || r.isBroken(at+".fwmark"):
		return
	}
	key := s.key()
	if first, taken := r.keys[key]; taken {
		r.fail(at, key.String(), "is the service of line %d, %s, once more: the kernel has one of each", r.line(first), r.file.Services[first].Name)
	} else {
		r.keys[key] = i
	}
}

func (r *serviceRules) validatePersistence(s *service, at string) {
	if p := s.Persistent; p < 0 || p > maxPersist || p%time.Second != 0 {
		r.fail(at+".persistent", short(p), "must be whole seconds between 1s and %s, or 0s for none", short(maxPersist))
	}
	most := 32
	if s.VIP.Is6() {
		most = 128
	}
	switch mask := s.PersistenceMask; {
	case mask < 0 || mask > most:
		r.fail(at+".persistence_mask", strconv.Itoa(mask), "must be a prefix length between 1 and %d for the VIP's family, or 0 for a full one", most)
	case mask != 0 && s.Persistent == 0:
		r.warn(at+".persistence_mask", strconv.Itoa(mask), "has no effect without persistent")
	}
}

func (r *serviceRules) validateEncapsulation(e encapsulation, at string) {
	checksums := map[string][]string{
		"ipip": {"none"},
		"gre":  {"none", "full"},
		"gue":  {"none", "full", "remote"},
	}[e.Type]
	switch {
	case checksums == nil:
		r.fail(at+".type", e.Type, "must be ipip, gue or gre")
		return
	case e.Type == "gue" && !isPort(e.Port):
		r.fail(at+".port", strconv.Itoa(e.Port), "gue needs the UDP port on which the real servers take it, 1–65535")
	case e.Type != "gue" && e.Port != 0:
		r.fail(at+".port", strconv.Itoa(e.Port), "only gue has a port, %s has none", e.Type)
	}
	if !slices.Contains(checksums, e.Checksum) {
		r.fail(at+".checksum", e.Checksum, "is not known to %s; %s", e.Type, nearest.Hint(e.Checksum, checksums))
	}
}

func (r *serviceRules) validateCheck(s *service, at string) {
	if p := s.Check.Port; p != 0 && !isPort(p) {
		r.fail(at+".port", strconv.Itoa(p), "must be a port between 1 and 65535, or 0 for the service's")
	}
	spec := s.checkSpec()
	for _, err := range spec.Validate() {
		field := new(httpcheck.FieldError)
		if !errors.As(err, &field) {
			r.fail(at, "", "%v", err)
			continue
		}
		value := fmt.Sprint(field.Value)
		if field.Field == "send" { // it may hold a password
			value = ""
		}
		r.fail(at+"."+field.Field, value, "%s", field.Why)
	}
	switch {
	case spec.Kind != httpcheck.None && spec.Port == 0 && s.port() == 0 && s.FWMark > 0:
		r.fail(at+".port", "", "is missing: a service by firewall mark has no port of its own to check")
	case spec.Kind == httpcheck.None && len(s.Servers) > 0:
		r.warn(at, "", "the servers listed count as up at all times: there is no check")
	}
}

func (r *serviceRules) validateRegister(s *service, at string) {
	if s.Register == nil {
		return
	}
	at += ".register"
	if w := s.Register.MaxWeight; w < 1 || w > maxWeight {
		r.fail(at+".max_weight", strconv.Itoa(w), "must be between 1 and %d", maxWeight)
	}
	for i, p := range s.Register.From {
		from := fmt.Sprintf("%s.from[%d]", at, i)
		switch {
		case !p.IsValid():
		case p != p.Masked():
			r.fail(from, p.String(), "has bits outside its mask: write %s", p.Masked())
		case p.Bits() == 0:
			r.warn(from, p.String(), "every address may register with a token")
		case s.VIP.IsValid() && r.file.Sync != nil && p.Addr().Is4() != s.VIP.Is4():
			r.fail(from, p.String(), "%s", mixedFamilies)
		}
	}
}

// The rule of ip_vs_add_dest and of the sync daemon's start in net/netfilter/ipvs/ip_vs_ctl.c.
const mixedFamilies = "is not of the VIP's family, which the kernel refuses while sync is configured"

func (r *serviceRules) validateServers(s *service, at string) {
	addresses := make(map[netip.Addr]int, len(s.Servers))
	names := make(map[string]int, len(s.Servers))
	weights := 0
	for i := range s.Servers {
		key := func(key string) string { return fmt.Sprintf("%s.servers[%d].%s", at, i, key) } // only where it is needed
		if len(r.broken) > 0 && r.isBroken(key("")) {
			continue
		}
		sv := &s.Servers[i]
		r.validateServer(s, sv, key)
		if first, taken := addresses[sv.Address]; taken && sv.Address.IsValid() {
			r.fail(key("address"), sv.Address.String(), "is server %s of this service already", s.Servers[first].name())
		} else {
			addresses[sv.Address] = i
		}
		if first, taken := names[sv.name()]; taken && sv.Name != "" {
			r.warn(key("name"), sv.Name, "is the name of %s as well: the two cannot be told apart", s.Servers[first].Address)
		} else {
			names[sv.name()] = i
		}
		weights |= sv.Weight
	}
	switch {
	case len(s.Servers) > 0 && weights == 0:
		r.warn(at+".servers", "", "every server has weight 0: none takes a new connection")
	case len(s.Servers) == 0 && (s.Register == nil || len(s.Register.From) == 0):
		r.warn(at, "", "no server is listed and none may register: nothing can serve it")
	}
}

func (r *serviceRules) validateServer(s *service, sv *server, at func(key string) string) {
	if sv.Name != "" {
		checkName(r.findings, at("name"), sv.Name)
	}
	if sv.Weight < 0 || sv.Weight > maxWeight {
		r.fail(at("weight"), strconv.Itoa(sv.Weight), "must be between 0 and %d", maxWeight)
	} else if s.Register != nil && sv.Weight > s.Register.MaxWeight {
		r.fail(at("weight"), strconv.Itoa(sv.Weight), "is more than the service's register.max_weight of %d", s.Register.MaxWeight)
	}
	if sv.Port != nil && (s.Port == nil || *sv.Port != *s.Port) {
		r.fail(at("port"), strconv.Itoa(*sv.Port), "is not the service's own: a tunnel delivers packets as they came, so the port cannot change")
	}
	switch {
	case !sv.Address.IsValid():
		r.fail(at("address"), "", "is missing")
	case !isUnicast(sv.Address) || sv.Address.IsLoopback() || sv.Address.Is4In6() || sv.Address.Zone() != "" || sv.Address.IsLinkLocalUnicast():
		r.fail(at("address"), sv.Address.String(), "must be the unicast address of a real server")
	case sv.Address == s.VIP:
		r.fail(at("address"), sv.Address.String(), "is the VIP: it must be the real server's own address")
	case s.VIP.IsValid() && r.file.Sync != nil && sv.Address.Is4() != s.VIP.Is4():
		r.fail(at("address"), sv.Address.String(), "%s", mixedFamilies)
	}
}
