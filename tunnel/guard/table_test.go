package guard

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

func built(t *testing.T, d Desired) table {
	t.Helper()
	normal, err := d.normal()
	if err != nil {
		t.Fatal(err)
	}
	return build(normal)
}

// TestText is of the text that a test on the kernel compares with what nft prints.
func TestText(t *testing.T) {
	want := `table inet lvstun {
	counter decapsulated {
	}

	counter not_from_directors {
	}

	counter not_to_vips {
	}

	counter not_to_services {
	}

	counter gue_without_ip {
	}

	counter mss_lowered {
	}

	set directors4 {
		type ipv4_addr
		elements = { 10.0.0.1, 10.0.0.2 }
	}

	set protocols4 {
		type inet_proto
		elements = { 4, 47 }
	}

	set vips4 {
		type ipv4_addr
		elements = { 10.0.0.50, 10.0.0.51 }
	}

	set narrowed4 {
		type ipv4_addr
		elements = { 10.0.0.50 }
	}

	set services4 {
		type ipv4_addr . inet_proto . inet_service
		elements = { 10.0.0.50 . 6 . 80, 10.0.0.50 . 17 . 3638 }
	}

	set directors6 {
		type ipv6_addr
		elements = { 2001:db8::1 }
	}

	set protocols6 {
		type inet_proto
		elements = { 4, 41 }
	}

	set vips6 {
		type ipv6_addr
		elements = { 2001:db8::50 }
	}

	set narrowed6 {
		type ipv6_addr
		elements = { 2001:db8::50 }
	}

	set services6 {
		type ipv6_addr . inet_proto . inet_service
		elements = { 2001:db8::50 . 6 . 443 }
	}

	set gue_ports {
		type inet_service
		elements = { 6080 }
	}

	set tunnel_devices {
		type ifname
		elements = { "gre0", "ip6tnl0", "tunl0" }
	}

	chain encapsulated {
		type filter hook input priority -300; policy accept;
		ip saddr != @directors4 meta l4proto @protocols4 counter name "not_from_directors" drop
		ip6 saddr != @directors6 meta l4proto @protocols6 counter name "not_from_directors" drop
		frag frag-off != 0 return
		ip saddr != @directors4 udp dport @gue_ports counter name "not_from_directors" drop
		ip6 saddr != @directors6 udp dport @gue_ports counter name "not_from_directors" drop
		udp dport @gue_ports @th,72,8 != 0x4 @th,72,8 != 0x29 counter name "gue_without_ip" drop
	}

	chain decapsulated {
		type filter hook prerouting priority -300; policy accept;
		iifname != @tunnel_devices return
		counter name "decapsulated"
		ip daddr != @vips4 counter name "not_to_vips" drop
		ip6 daddr != @vips6 counter name "not_to_vips" drop
		ip frag-off & 8191 != 0 return
		frag frag-off != 0 return
		ip daddr @narrowed4 meta l4proto != 1 ip daddr . meta l4proto . th dport != @services4 counter name "not_to_services" drop
		ip6 daddr @narrowed6 meta l4proto != 58 ip6 daddr . meta l4proto . th dport != @services6 counter name "not_to_services" drop
	}

	chain answers {
		type filter hook postrouting priority 150; policy accept;
		oifname != "lo" ip saddr @vips4 tcp flags 0x2 tcp option maxseg size > 1440 counter name "mss_lowered" tcp option maxseg size set 1440
		oifname != "lo" ip6 saddr @vips6 tcp flags 0x2 tcp option maxseg size > 1400 counter name "mss_lowered" tcp option maxseg size set 1400
	}
}
`
	if diff := cmp.Diff(want, built(t, everything()).String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestWhatChangesTheTable names the lines that differ from those of everything.
func TestWhatChangesTheTable(t *testing.T) {
	lines := func(d Desired) []string {
		var all []string
		section := ""
		for line := range strings.Lines(built(t, d).String()) {
			line = strings.TrimSpace(line)
			if strings.HasSuffix(line, "{") {
				section = strings.TrimSuffix(line, " {")
			}
			all = append(all, section+": "+line)
		}
		return all
	}
	for _, test := range []struct {
		name          string
		change        func(*Desired)
		gone, instead []string
	}{
		{"no MSS", func(d *Desired) { d.MSS4, d.MSS6 = 0, 0 }, []string{
			`chain answers: oifname != "lo" ip saddr @vips4 tcp flags 0x2 tcp option maxseg size > 1440 counter name "mss_lowered" tcp option maxseg size set 1440`,
			`chain answers: oifname != "lo" ip6 saddr @vips6 tcp flags 0x2 tcp option maxseg size > 1400 counter name "mss_lowered" tcp option maxseg size set 1400`,
		}, nil},
		{"another MSS", func(d *Desired) { d.MSS6 = 1380 },
			[]string{`chain answers: oifname != "lo" ip6 saddr @vips6 tcp flags 0x2 tcp option maxseg size > 1400 counter name "mss_lowered" tcp option maxseg size set 1400`},
			[]string{`chain answers: oifname != "lo" ip6 saddr @vips6 tcp flags 0x2 tcp option maxseg size > 1380 counter name "mss_lowered" tcp option maxseg size set 1380`}},
		{"another director", func(d *Desired) { d.Directors = addrs("10.0.0.3 2001:db8::1") },
			[]string{"set directors4: elements = { 10.0.0.1, 10.0.0.2 }"}, []string{"set directors4: elements = { 10.0.0.3 }"}},
		{"only ipip", func(d *Desired) { d.Devices, d.GUEPorts = d.Devices[:1], nil }, []string{
			"set protocols4: elements = { 4, 47 }", "set protocols6: elements = { 4, 41 }", "set gue_ports: elements = { 6080 }",
			`set tunnel_devices: elements = { "gre0", "ip6tnl0", "tunl0" }`,
		}, []string{"set protocols4: elements = { 4 }", `set tunnel_devices: elements = { "tunl0" }`}},
		{"no services", func(d *Desired) { d.Services = nil }, []string{
			"set narrowed4: elements = { 10.0.0.50 }", "set services4: elements = { 10.0.0.50 . 6 . 80, 10.0.0.50 . 17 . 3638 }",
			"set narrowed6: elements = { 2001:db8::50 }", "set services6: elements = { 2001:db8::50 . 6 . 443 }",
		}, nil},
	} {
		d := everything()
		before := lines(d)
		test.change(&d)
		after := lines(d)
		if diff := cmp.Diff(test.gone, less(before, after)); diff != "" {
			t.Errorf("%s: gone (-want +got):\n%s", test.name, diff)
		}
		if diff := cmp.Diff(test.instead, less(after, before)); diff != "" && len(test.instead)+len(less(after, before)) > 0 {
			t.Errorf("%s: instead (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestElementText(t *testing.T) {
	for _, test := range []struct {
		of   nftables.SetDatatype
		key  string
		want string
	}{
		{nftables.TypeIPAddr, "\x0a\x00\x00\x01", "10.0.0.1"},
		{nftables.TypeInetService, "\x17\xc0", "6080"},
		{nftables.TypeIFName, "tunl0\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", `"tunl0"`},
		{typeService4, "\x0a\x00\x00\x32\x06\x00\x00\x00\x00\x50", "10.0.0.50 . 6 . 80"},
		{nftables.TypeMark, "\x07\x00\x00\x00", "0x07000000"},
		{nftables.TypeIPAddr, "\x0a\x00", "0x0a00"},                      // too short
		{nftables.SetDatatype{Name: "unheard of"}, "\x01\x02", "0x0102"}, // no type of the library's
		{typeService4, "\x0a\x00\x00\x32\x06", "0x0a00003206"},           // ends early
		{nftables.SetDatatype{}, "\x01", "0x01"},
	} {
		if got := elementText(test.of, []byte(test.key)); got != test.want {
			t.Errorf("%s %x: %q, want %q", test.of.Name, test.key, got, test.want)
		}
	}
}

func TestFingerprintLeavesOutTheNumberOfASet(t *testing.T) {
	one := []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: "vips4"}}
	same := []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: "vips4", SetID: 7}}
	other := []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: "vips6"}}
	inverse := []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: "vips4", Invert: true}}
	if fingerprint(one) != fingerprint(same) {
		t.Error("another number makes another fingerprint")
	}
	if fingerprint(one) == fingerprint(other) || fingerprint(one) == fingerprint(inverse) {
		t.Error("another lookup has the same fingerprint")
	}
	if same[0].(*expr.Lookup).SetID != 7 {
		t.Error("the rule was changed")
	}
}

func TestEveryRuleOfAChainHasAFingerprintOfItsOwn(t *testing.T) {
	for _, c := range built(t, everything()).chains {
		seen := map[string]string{}
		for _, r := range c.rules {
			print := fingerprint(r.exprs())
			if other, found := seen[print]; found {
				t.Errorf("the same: %s and %s", other, r)
			}
			seen[print] = r.String()
		}
	}
}
