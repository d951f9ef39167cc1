package ipvs

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestValidate(t *testing.T) {
	rs := func(edit func(*Destination)) Service {
		d := tun("192.168.1.100:80", 1)
		edit(&d)
		return wlc(web, d)
	}
	svc := func(k Key, edit func(*Service)) Service {
		s := wlc(k)
		edit(&s)
		return s
	}
	tests := []struct {
		name string
		s    Service
		want []string
	}{
		{"plain", wlc(web, tun("192.168.1.100:80", 1)), nil},
		{"fwmark", wlc(Key{FWMark: 7}, tun("192.168.1.100:0", 1)), nil},
		{"sip over fwmark", svc(FWMarkKey(7, IPv4), func(s *Service) { s.Persistent, s.PEName = time.Minute, "sip" }), nil},
		{"nothing", Service{}, []string{`protocol "protocol 0": must be tcp or udp`, `address "invalid IP" is missing`,
			`port 0, which means every port, is served for persistent services only`,
			`scheduler "" is unknown: must be one of rr, wrr, lc, wlc, fo, ovf, lblc, lblcr, dh, sh, mh, sed, nq, twos`}},
		{"both", svc(Key{FWMark: 7, Protocol: TCP, Addr: web.Addr}, func(*Service) {}),
			[]string{"a virtual service has either a fwmark or an address with a protocol, not both"}},
		{"family", wlc(Key{FWMark: 7, Family: 9}), []string{"family 9: must be IPv4 or IPv6"}},
		{"family of an address", wlc(Key{Protocol: TCP, Addr: web.Addr, Family: IPv4}),
			[]string{"a family goes with a fwmark only, an address has its own"}},
		{"mapped", wlc(Key{Protocol: TCP, Addr: netip.MustParseAddrPort("[::ffff:10.0.0.50]:80")}),
			[]string{`address "::ffff:10.0.0.50" is IPv4 written as IPv6: say 10.0.0.50`}},
		{"zone", wlc(tcp("[2001:db8::1%eth0]:80")), []string{`address "2001:db8::1%eth0" has a zone, which IPVS knows nothing of`}},
		{"multicast", wlc(udp("224.0.0.1:80")), []string{`address "224.0.0.1" is not a unicast address`}},
		{"port 0", wlc(tcp("10.0.0.50:0")), []string{"port 0, which means every port, is served for persistent services only"}},
		{"flags of wlc", svc(web, func(s *Service) { s.SchedFlags = SchedPort }), []string{`scheduler "wlc" has no flags: only sh and mh have`}},
		{"flag 3", svc(web, func(s *Service) { s.Scheduler, s.SchedFlags = "sh", SchedPort|SchedFlag3 }),
			[]string{"scheduler flags 0x4: there are fallback and port only"}},
		{"one packet", svc(web, func(s *Service) { s.OnePacket = true }), []string{"one-packet scheduling is for UDP and fwmark services, not for tcp"}},
		{"mask alone", svc(web, func(s *Service) { s.PersistenceMask = 24 }), []string{"persistence mask 24 without persistence"}},
		{"engine alone", svc(dns, func(s *Service) { s.PEName = "sip" }), []string{`persistence engine "sip" without persistence`}},
		{"half a second", svc(web, func(s *Service) { s.Persistent = time.Second / 2 }),
			[]string{"persistence 500ms: must be whole seconds, from 1s to 744h0m0s"}},
		{"32 days", svc(web, func(s *Service) { s.Persistent = 32 * 24 * time.Hour }),
			[]string{"persistence 768h0m0s: must be whole seconds, from 1s to 744h0m0s"}},
		{"before now", svc(web, func(s *Service) { s.Persistent = -time.Second }),
			[]string{"persistence -1s: must be whole seconds, from 1s to 744h0m0s"}},
		{"mask of 33", svc(web, func(s *Service) { s.Persistent, s.PersistenceMask = time.Minute, 33 }),
			[]string{"persistence mask 33: must be a prefix length of 1 to 32, or 0 for all of the address"}},
		{"mask of 33 for IPv6", svc(web6, func(s *Service) { s.Persistent, s.PersistenceMask = time.Minute, 33 }), nil},
		{"mask below 0", svc(web, func(s *Service) { s.Persistent, s.PersistenceMask = time.Minute, -1 }),
			[]string{"persistence mask -1: must be a prefix length of 1 to 32, or 0 for all of the address"}},
		{"engine unknown", svc(web, func(s *Service) { s.Persistent, s.PEName = time.Minute, "rtp" }),
			[]string{`persistence engine "rtp" is unknown: the kernel has sip only`}},
		{"sip over TCP", svc(web, func(s *Service) { s.Persistent, s.PEName = time.Minute, "sip" }),
			[]string{`persistence engine "sip" is for UDP, not for tcp`}},

		{"twice", wlc(web, tun("192.168.1.1:80", 1), tun("192.168.1.1:80", 2)), []string{"real server 192.168.1.1:80: listed more than once"}},
		{"no address", rs(func(d *Destination) { d.Addr = netip.AddrPortFrom(netip.Addr{}, 80) }),
			[]string{"real server invalid AddrPort: the address is missing"}},
		{"broadcast", rs(func(d *Destination) { d.Addr = netip.MustParseAddrPort("255.255.255.255:80") }),
			[]string{"real server 255.255.255.255:80: the address is not a unicast address"}},
		{"link-local", wlc(web6, tun("[fe80::1]:80", 1)), []string{"real server [fe80::1]:80: the address is link-local"}},
		{"mixed", wlc(web6, tun("192.168.1.1:80", 1)), nil},
		{"mixed without tunnel", wlc(web6, Destination{Addr: netip.MustParseAddrPort("192.168.1.1:80")}),
			[]string{"real server 192.168.1.1:80: IPv4 behind IPv6 needs a tunnel, not masq"}},
		{"method", rs(func(d *Destination) { d.Method = 5 }), []string{"real server 192.168.1.100:80: method 5 is unknown"}},
		{"another port", wlc(web, tun("192.168.1.1:8080", 1)),
			[]string{"real server 192.168.1.1:8080: the port must be the virtual service's 80, because tunnel leaves the packet's port as it is"}},
		{"another port behind NAT", wlc(web, Destination{Addr: netip.MustParseAddrPort("192.168.1.1:8080")}), nil},
		{"weight", rs(func(d *Destination) { d.Weight = -1 }), []string{"real server 192.168.1.100:80: weight -1: must be from 0 to 2147483647"}},
		{"much weight", rs(func(d *Destination) { d.Weight = math.MaxInt32 + 1 }),
			[]string{"real server 192.168.1.100:80: weight 2147483648: must be from 0 to 2147483647"}},
		{"thresholds", rs(func(d *Destination) { d.Lower = 5 }), []string{"real server 192.168.1.100:80: lower threshold 5 is above upper 0"}},
		{"tunnel without tunnel", rs(func(d *Destination) { d.Method, d.Tunnel = MethodDirect, Tunnel{Type: GRE} }),
			[]string{"real server 192.168.1.100:80: gre is for the method tunnel, not for direct"}},
		{"tunnel unknown", rs(func(d *Destination) { d.Tunnel.Type = 3 }), []string{"real server 192.168.1.100:80: tunnel type 3 is unknown"}},
		{"gue without port", rs(func(d *Destination) { d.Tunnel.Type = GUE }), []string{"real server 192.168.1.100:80: gue needs a port from 1 to 65535"}},
		{"port without gue", rs(func(d *Destination) { d.Tunnel = Tunnel{Type: GRE, Port: 1} }),
			[]string{"real server 192.168.1.100:80: gre has no port, only gue has"}},
		{"ipip csum", rs(func(d *Destination) { d.Tunnel.Flags = Csum }), []string{"real server 192.168.1.100:80: ipip has no checksum"}},
		{"gre remcsum", rs(func(d *Destination) { d.Tunnel = Tunnel{Type: GRE, Flags: RemCsum} }),
			[]string{"real server 192.168.1.100:80: remcsum is for gue, not for gre"}},
		{"both sums", rs(func(d *Destination) { d.Tunnel = Tunnel{Type: GUE, Port: 1, Flags: Csum | RemCsum} }),
			[]string{"real server 192.168.1.100:80: csum and remcsum exclude each other"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, err := range tt.s.Validate() {
				got = append(got, err.Error())
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
	for _, s := range everyKind() {
		if errs := s.Validate(); errs != nil {
			t.Errorf("%s: %v", s.Key, errs)
		}
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		TCP.String(): "tcp", UDP.String(): "udp", Protocol(132).String(): "sctp", Protocol(50).String(): "protocol 50",
		IPv4.String(): "IPv4", IPv6.String(): "IPv6", Family(9).String(): "family 9",
		web.String(): "10.0.0.50:80/tcp", web6.String(): "[2001:db8::50]:80/tcp",
		Key{FWMark: 7}.String(): "fwmark 7", FWMarkKey(7, IPv6).String(): "fwmark 7 of IPv6",
		MethodMasq.String(): "masq", MethodLocalNode.String(): "localnode", MethodTunnel.String(): "tunnel",
		MethodDirect.String(): "direct", Method(5).String(): "method 5",
		Tunnel{}.String(): "ipip", Tunnel{Type: GUE, Port: 6080, Flags: RemCsum}.String(): "gue port 6080 remcsum",
		Tunnel{Type: GRE, Flags: Csum}.String(): "gre csum",
		Op{Kind: 9, Service: wlc(web)}.String(): "operation 9 on 10.0.0.50:80/tcp",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for in, want := range map[string]Protocol{"tcp": TCP, "UDP": UDP} {
		if got, err := ParseProtocol(in); got != want || err != nil {
			t.Errorf("ParseProtocol(%q) = %v, %v", in, got, err)
		}
	}
	if _, err := ParseProtocol("icmp"); err == nil || err.Error() != `protocol "icmp": must be tcp or udp` {
		t.Errorf("ParseProtocol(icmp): %v", err)
	}
}
