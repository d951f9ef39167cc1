package config

import (
	"fmt"
	"os"
	"strings"

	"lvstun/director/ipvs"
	"lvstun/httpcheck"
)

// build turns a file without errors into the Config it means.
func (f *file) build(path string) (*Config, error) {
	c := &Config{
		Path:           path,
		Name:           f.Name,
		ClusterKeyFile: f.ClusterKeyFile,
		Heartbeat:      Heartbeat{Port: uint16(f.Heartbeat.Port), Interval: f.Heartbeat.Interval, Dead: f.Heartbeat.Dead},
		VIPLease:       f.VIP.Lease,
		Sysctls:        Sysctls(f.Sysctls),
		API:            f.API.Listen,
		Web:            f.Web.Listen,
		Services:       make([]Service, len(f.Services)),
	}
	if c.Name == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("name this director, for the host has no name: %w", err)
		}
		c.Name = host
	}
	for _, p := range f.Heartbeat.Paths {
		c.Heartbeat.Paths = append(c.Heartbeat.Paths, Path(p))
	}
	if f.Sync != nil {
		c.Sync = Sync(*f.Sync)
	}
	labels := make(map[string]string) // VIP → the label of the first service on it
	for i := range f.Services {
		s := f.Services[i].domain()
		if label, seen := labels[s.VIP.String()]; seen {
			s.Label = label
		} else {
			labels[s.VIP.String()] = s.Label
		}
		c.Services[i] = s
	}
	c.Digest = digest(c)
	return c, nil
}

func (s *service) domain() Service {
	out := Service{
		Name:             s.Name,
		VIP:              s.VIP,
		Port:             uint16(s.port()),
		FWMark:           uint32(s.FWMark),
		Scheduler:        s.Scheduler,
		Persistent:       s.Persistent,
		PersistenceMask:  s.PersistenceMask,
		OnePacket:        s.OnePacket,
		Encapsulation:    s.Encapsulation.domain(),
		Check:            s.checkSpec(),
		QuiesceOnFailure: s.QuiesceOnFailure,
	}
	out.Device, out.Label = splitDevice(s.Device)
	if s.VIP.Is6() {
		out.Label = ""
	}
	if s.Persistent == 0 || s.PersistenceMask == s.VIP.BitLen() {
		out.PersistenceMask = 0 // without effect, or as full as none
	}
	out.Protocol, _ = ipvs.ParseProtocol(s.Protocol) // validate refuses any other
	if s.Register != nil {
		out.Register = Register(*s.Register)
	}
	for _, sv := range s.Servers {
		out.Servers = append(out.Servers, Server{Name: sv.name(), Address: sv.Address, Port: out.Port, Weight: sv.Weight})
	}
	return out
}

func (s *service) key() ipvs.Key {
	protocol, _ := ipvs.ParseProtocol(s.Protocol) // validate refuses any other
	return Service{VIP: s.VIP, Port: uint16(s.port()), Protocol: protocol, FWMark: uint32(s.FWMark)}.Key()
}

func (s *service) port() int {
	if s.Port == nil {
		return 0
	}
	return *s.Port
}

func (s *server) name() string {
	if s.Name == "" {
		return s.Address.String()
	}
	return s.Name
}

func (e encapsulation) domain() ipvs.Tunnel {
	t := ipvs.Tunnel{Port: uint16(e.Port)}
	switch e.Type {
	case "gue":
		t.Type = ipvs.GUE
	case "gre":
		t.Type = ipvs.GRE
	}
	switch e.Checksum {
	case "full":
		t.Flags = ipvs.Csum
	case "remote":
		t.Flags = ipvs.RemCsum
	}
	return t
}

// checkSpec is the check the file asks for. Without a kind it is a connect to the service's port: tcp, or udp for a
// service of that protocol; none for a service by firewall mark that has no port.
func (s *service) checkSpec() httpcheck.Spec {
	c := s.Check
	spec := httpcheck.Spec{
		Kind:         httpcheck.Kind(c.Kind),
		Port:         uint16(c.Port),
		Path:         c.Path,
		Host:         c.Host,
		ExpectStatus: c.ExpectStatus,
		ExpectBody:   c.ExpectBody,
		Send:         c.Send,
		Expect:       c.Expect,
		Regex:        c.Regex,
		Interval:     httpcheck.Duration(c.Interval),
		Timeout:      httpcheck.Duration(c.Timeout),
		Rise:         c.Rise,
		Fall:         c.Fall,
	}
	if spec.Kind == "" {
		switch {
		case c.Port == 0 && s.port() == 0 && s.FWMark > 0:
			spec.Kind = httpcheck.None
		case s.Protocol == "udp":
			spec.Kind = httpcheck.UDP
		default:
			spec.Kind = httpcheck.TCP
		}
	}
	switch spec.Kind {
	case httpcheck.HTTP, httpcheck.HTTPS:
		if spec.Path == "" {
			spec.Path = "/"
		}
		if spec.ExpectStatus == 0 {
			spec.ExpectStatus = 200
		}
	case httpcheck.SendExpect:
		spec.Network = s.Protocol
	case httpcheck.None: // timing it did not ask for is not a contradiction
		var without service
		without.preset()
		if c.Interval == without.Check.Interval && c.Timeout == without.Check.Timeout &&
			c.Rise == without.Check.Rise && c.Fall == without.Check.Fall {
			spec.Interval, spec.Timeout, spec.Rise, spec.Fall = 0, 0, 0, 0
		}
	}
	return spec
}

// splitDevice reads "eth0" or an alias label such as "eth0:1", whose device is eth0.
func splitDevice(s string) (device, label string) {
	device, _, isLabel := strings.Cut(s, ":")
	if isLabel {
		label = s
	}
	return device, label
}
