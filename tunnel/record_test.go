package tunnel

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// full is a record with everything in it.
func full() record {
	return record{
		Version: recordVersion, Life: "today",
		Devices: map[string]origin{
			"tunl0":   {Index: 7, Up: true, MTU: 1480, Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.9.9/24")}},
			"ip6tnl0": {Loaded: true, Index: 8, MTU: 1000, Protocol: 41},
			"sit0":    {Made: true},
		},
		Addresses: []place{{"sit0", netip.MustParsePrefix("2001:db8::50/128")}, {"tunl0", netip.MustParsePrefix("10.0.0.50/32")}},
		Ports:     []port{{false, 6080}, {true, 6080}},
	}
}

var samePrefixes = cmpopts.EquateComparable(netip.Prefix{})

func TestRecordFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state", "tunnel.json") // the folder is made
	if _, found, err := file(path).load(); found || err != nil {
		t.Fatalf("no file: %v, %v", found, err)
	}
	must(t, file(path).save(record{})) // nothing to remove
	must(t, file(path).save(full()))
	got, found, err := file(path).load()
	if diff := cmp.Diff(full(), got, samePrefixes); diff != "" || !found || err != nil {
		t.Errorf("%v, %v; (-want +got):\n%s", found, err, diff)
	}
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	must(t, file(path).save(record{Life: "today"}))
	if left, err := os.ReadDir(filepath.Dir(path)); len(left) != 0 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
}

// While the new record cannot be written, the old one is there.
func TestRecordFileIsReplacedWhole(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tunnel.json")
	must(t, file(path).save(full()))
	must(t, os.Mkdir(filepath.Join(filepath.Dir(path), ".tunnel.json.new"), 0o700))
	changed := full()
	changed.Ports = nil
	err := file(path).save(changed)
	if err == nil || !strings.HasPrefix(err.Error(), "record how this host was: ") || !strings.HasSuffix(err.Error(), "; nothing is changed") {
		t.Errorf("error %v", err)
	}
	if got, _, err := file(path).load(); err != nil || !cmp.Equal(full(), got, samePrefixes) {
		t.Errorf("%v; (-want +got):\n%s", err, cmp.Diff(full(), got, samePrefixes))
	}
}

func TestRecordsThatAreRefused(t *testing.T) {
	t.Parallel()
	whole := string(full().text())
	tests := map[string]struct{ text, want string }{
		"empty":             {"", "it is cut short or damaged: unexpected end of JSON input"},
		"something else":    {"hello", "it is cut short or damaged: invalid character 'h' looking for beginning of value"},
		"newer":             {`{"version": 2, "what": []}`, "it has version 2, this program knows only 1: use the program that wrote it"},
		"without a version": {`{}`, "it has version 0, this program knows only 1: use the program that wrote it"},
		"an unknown field":  {`{"version": 1, "life": "x", "what": 1}`, `it is damaged: json: unknown field "what"`},
		"no life":           {`{"version": 1}`, "it is damaged: it does not say of which life of the host it is"},
		"a device":          {strings.Replace(whole, `"tunl0": {`, `"eth0": {`, 1), `it is damaged: "eth0" is no device of ours`},
		"an address's":      {strings.Replace(whole, `"device": "tunl0"`, `"device": "eth0"`, 1), "it is damaged: 10.0.0.50/32 on eth0 is no address of ours"},
		"a network":         {strings.Replace(whole, `10.0.0.50/32`, `10.0.0.0/24`, 1), "it is damaged: 10.0.0.0/24 on tunl0 is no address of ours"},
		"no address":        {strings.Replace(whole, `10.0.0.50/32`, ``, 1), "it is damaged: invalid Prefix on tunl0 is no address of ours"},
		"a port":            {strings.Replace(whole, `"port": 6080`, `"port": 0`, 1), "it is damaged: a port without a number"},
		"two":               {whole + whole, "it is cut short or damaged: invalid character '{' after top-level value"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parseRecord([]byte(tt.text))
			if text(err) != tt.want {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
	for n := range len(strings.TrimSpace(whole)) {
		if _, err := parseRecord([]byte(whole[:n])); err == nil {
			t.Fatalf("taken, though cut after %d of %d bytes", n, len(whole))
		}
	}
	path := filepath.Join(t.TempDir(), "tunnel.json")
	must(t, os.WriteFile(path, []byte(`{"version": 2}`), 0o600))
	want := "the record of how this host was, " + path + ": it has version 2, this program knows only 1: use the program that wrote it; nothing is changed: " +
		"look at `ip address` and `ip fou show`, put right what is not wanted, then remove the file"
	if _, _, err := file(path).load(); text(err) != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestRecordsAreReadAsWritten(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := record{Version: recordVersion, Life: "today"}
		for _, d := range devices {
			if rapid.Bool().Draw(t, d.name) {
				if r.Devices == nil {
					r.Devices = map[string]origin{}
				}
				r.Devices[d.name] = origin{
					Made: rapid.Bool().Draw(t, "made"), Loaded: rapid.Bool().Draw(t, "loaded"), Up: rapid.Bool().Draw(t, "up"),
					Index: rapid.Int().Draw(t, "index"), MTU: rapid.Int().Draw(t, "MTU"), Protocol: rapid.Uint8().Draw(t, "protocol"),
				}
				r.Addresses = append(r.Addresses, place{d.name, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "address")}), 32)})
				r.Ports = append(r.Ports, port{rapid.Bool().Draw(t, "IPv6"), rapid.Uint16Range(1, 65535).Draw(t, "port")})
			}
		}
		got, err := parseRecord(r.text())
		if diff := cmp.Diff(r, got, samePrefixes); diff != "" || err != nil {
			t.Fatalf("%v; (-want +got):\n%s", err, diff)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add(full().text())
	f.Add([]byte(`{"version": 1, "life": "x"}`))
	f.Add([]byte(`{"version": 1, "life": "x", "addresses": [{"device": "tunl0", "prefix": "10.0.0.50/24"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseRecord(text)
		if err != nil {
			return
		}
		if again, err := parseRecord(r.text()); err != nil || string(again.text()) != string(r.text()) {
			t.Errorf("%v: %s became %s", err, r.text(), again.text())
		}
	})
}
