package lvscf

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// report is what Parse makes of a text: its canonical form, then its problems.
func report(text string) string {
	block, problems := Parse([]byte(text))
	var b strings.Builder
	b.WriteString(block.String())
	for _, p := range problems {
		mark := "!"
		if p.Warning {
			mark = "?"
		}
		fmt.Fprintf(&b, "%s%d %s|%s|%s\n", mark, p.Line, p.What, p.Value, p.Why)
	}
	return b.String()
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"blanks", "  keepalive\t=   6 \t", "keepalive = 6\n"},
		{"comment at any depth", "# a\n\t # b {\nvirtual HTTP {\n  # }\n}", "virtual HTTP {\n}\n"},
		{"quotes", `debug_level = "a # b" ` + "\n" + `rsh_command = 'say "hi"'`, "debug_level = \"a # b\"\nrsh_command = 'say \"hi\"'\n"},
		{"quoted name", `virtual "the web" { `, "virtual \"the web\" {\n}\n!1 virtual the web||the block that opens here is never closed: write } on a line of its own\n"},
		{"escaped quote", `debug_level = "a \" b"`, "debug_level = \"a \\\" b\"\n"},
		{"quoted brace is no brace", `debug_level = "{"`, "debug_level = \"{\"\n"},
		{"value that is a brace", "debug_level = {", "debug_level = {\n"},
		{"empty text", `debug_level = ""`, "debug_level = \"\"\n"},
		{"nested", "virtual a {\nserver b {\nweight = 0x10\n}\n}", "virtual a {\n     server b {\n          weight = 0x10\n     }\n}\n"},
		{"failover has servers", "failover a {\nserver b {\n}\n}", "failover a {\n     server b {\n     }\n}\n"},
		{"non-breaking space", "keepalive\u00a0= 6\n#\u00a0\ndeadtime = \u300018", "keepalive = 6\ndeadtime = 18\n" +
			"?1 ||non-breaking spaces, as in text copied from a web page, are read as blanks on lines 1, 3\n"},
		{"within quotes", "debug_level = \"a\u00a0b\"", "debug_level = \"a b\"\n" +
			"?1 ||non-breaking spaces, as in text copied from a web page, are read as blanks on line 1\n"},
		{"CRLF", "keepalive = 6\r\ndeadtime = 18\r\n\r\n", "keepalive = 6\ndeadtime = 18\n" +
			"?1 ||CRLF line ends are read as line ends on lines 1–3\n"},
		{"one CRLF", "keepalive = 6\r\ndeadtime = 18", "keepalive = 6\ndeadtime = 18\n" +
			"?1 ||CRLF line ends are read as line ends on line 1\n"},
		{"a virtual in what is read over", "mystery {\nvirtual a {\nactive = 1\n}\n}", "" +
			"!1 mystery||unknown block; known are virtual NAME {, failover NAME { and, in them, server NAME {\n"},
		{"byte order mark", "\ufeffkeepalive = 6", "keepalive = 6\n" +
			"?1 ||the file begins with a byte order mark, which is passed over\n"},
		{"not UTF-8", "# \xa0\nkeepalive = \xa06", "!2 ||the line is not UTF-8: save the file in that encoding\n"},
		{"control character", "keepalive = 6\x00", "!1 ||the line holds the control character U+0000: take it out\n"},
		{"the last one counts", "keepalive = 1\ndeadtime = 9\nkeepalive = 2", "deadtime = 9\nkeepalive = 2\n" +
			"?3 keepalive|2|stands in place of the value on line 1: the last one counts\n"},
		{"what is sent stays secret", "virtual a {\nsend=pw\nsend = p w\nsend = \"pw\n}", "virtual a {\n     send = \n}\n" +
			"!2 virtual a: send||= must stand between blanks: write send = VALUE\n" +
			"!3 virtual a: send||one value is expected: put a text with blanks in quotes\n" +
			"?3 virtual a: send||stands in place of the value on line 2: the last one counts\n" +
			"!4 virtual a: send||the quote \" that opens here is never closed (a backslash keeps one from closing)\n"},
		{"after a bad block", "mystery {\nfoo\n{ {\nbar\n}\n}\nkeepalive = 6", "keepalive = 6\n" +
			"!1 mystery||unknown block; known are virtual NAME {, failover NAME { and, in them, server NAME {\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, report(tt.text)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Every type of value, with the spellings that fit and some that do not.
func TestTypes(t *testing.T) {
	for key, spellings := range map[string][2][]string{
		"serial_no":                   {{"0", "-5", "+5", "0x1F", "010", "4294967295"}, {"", "x", "1.5", "08", "0b1", "0o7", "1_0", "4294967296", "-2147483649"}},
		"keepalive":                   {{"0", "6"}, {"-1", "6s"}},
		"backup_active":               {{"0", "1"}, {"2", "yes", "01"}},
		"heartbeat_port":              {{"539", "http", "0x50"}, {"", "nosuch", "5x", "-x"}},
		"primary":                     {{"10.0.0.1", "0.0.0.0"}, {"", "10.1", "10.0.0.256", "010.0.0.1", "vs", "::1", "::ffff:10.0.0.1", "10.0.0.1/8"}},
		"nat_nmask":                   {{"0.0.0.0", "255.255.255.255", "255.254.0.0"}, {"", "/24", "255.0.255.0", "0.255.255.255", "::"}},
		"nat_router":                  {{"10.0.0.1 eth0:1"}, {"10.0.0.1", "eth0 10.0.0.1", "10.0.0.1 eth0 eth1"}},
		"service":                     {{"lvs", "fos"}, {"LVS", ""}},
		"network":                     {{"nat", "direct", "tunnel"}, {"tun"}},
		"reservation_conflict_action": {{"nothing", "preempt"}, {"x"}},
		"ipvsadm":                     {{"/sbin/ipvsadm", `"a b"`, `'#'`}, {"a b", "#"}},
	} {
		for i, values := range spellings {
			for _, v := range values {
				_, problems := Parse([]byte(key + " = " + v))
				if fits := len(problems) == 0; fits != (i == 0) {
					t.Errorf("%s = %s: problems %v", key, v, problems)
				}
			}
		}
	}
}

func TestValues(t *testing.T) {
	block, problems := Parse([]byte("serial_no = 0x1F\nkeepalive = 010\nheartbeat_port = https\nprimary = 10.0.0.1\nnat_nmask = 255.255.255.0\nnat_router = 10.0.0.2 eth1:1"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	get := func(key string) Entry {
		e, ok := block.Get(key)
		if !ok {
			t.Fatalf("%s is not there", key)
		}
		return e
	}
	got := fmt.Sprint(get("serial_no").Int(), get("keepalive").Int(), get("heartbeat_port").Port(), get("primary").Addr(),
		get("nat_nmask").MaskBits(), get("nat_router").Addr(), get("nat_router").Values[1])
	if want := "31 8 443 10.0.0.1 24 10.0.0.2 eth1:1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, ok := block.Get("backup"); ok {
		t.Error("backup is there")
	}
}

func TestUnescape(t *testing.T) {
	for _, tt := range []struct {
		in, want string
		others   []string
	}{
		{`GET / HTTP/1.0\r\n\r\n`, "GET / HTTP/1.0\r\n\r\n", nil},
		{`\t\\\'\"`, "\t\\'\"", nil},
		{`\\n`, `\n`, nil},
		{`a\.b\d`, `a\.b\d`, []string{`\.`, `\d`}},
		{`\ü\`, `\ü\`, []string{`\ü`, `\`}},
		{``, ``, nil},
	} {
		got, others := Unescape(tt.in)
		if got != tt.want || cmp.Diff(tt.others, others) != "" {
			t.Errorf("%s: got %q and %q, want %q and %q", tt.in, got, others, tt.want, tt.others)
		}
	}
}

// The keys of lvs.cf(5) and of piranha 0.8.6's parser.
func TestEveryKeyIsKnown(t *testing.T) {
	for kind, keys := range map[string]string{
		"": `active_cmd backup backup_active backup_private backup_shared deadtime debug_level hard_shutdown heartbeat
			heartbeat_port inactive_cmd ipvsadm keepalive monitor_links nat_nmask nat_router network primary
			primary_private primary_shared reservation_conflict_action rsh_command serial_no service sync syncd_id
			syncd_iface syncdaemon tcp_timeout tcpfin_timeout udp_timeout`,
		"virtual": `active address client_monitor dirs expect fwmark load_monitor master persistent pmask port protocol
			quiesce_server reentry scheduler send send_program sorry_server start_cmd stop_cmd timeout use_regex vip_nmask`,
		"server": `active address port weight`,
	} {
		if diff := cmp.Diff(strings.Fields(keys), Keys(kind)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", kind, diff)
		}
	}
	if diff := cmp.Diff(Keys("virtual"), Keys("failover")); diff != "" {
		t.Errorf("(-virtual +failover):\n%s", diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("virtual \"a b\" {\n\tsend = 'x\\'y'\n server {\n}\n }\n}\r\n\u00a0# c"))
	f.Fuzz(func(t *testing.T, data []byte) {
		block, problems := Parse(data)
		for _, p := range problems {
			if !p.Warning {
				return
			}
		}
		canonical := block.String()
		again, problems := Parse([]byte(canonical))
		if len(problems) > 0 || again.String() != canonical {
			t.Fatalf("%q and then %q: %v", canonical, again, problems)
		}
	})
}
