package trust

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func testClaims() Claims {
	return Claims{
		Name:      "rs1.yubo.org",
		Addresses: []netip.Addr{netip.MustParseAddr("192.168.1.100"), netip.MustParseAddr("2001:db8::100")},
		Services:  []string{"HTTP", "DNS_udp"},
	}
}

var cmpAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestTokenRoundTrip(t *testing.T) {
	k := testKey()
	token, err := k.Mint(testClaims())
	if err != nil {
		t.Fatal(err)
	}
	got, err := k.Verify(token.Bearer())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testClaims(), got, cmpAddr); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	read, err := ParseToken(token.Bearer())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testClaims(), read.Claims, cmpAddr); diff != "" {
		t.Errorf("claims as the agent reads them (-want +got):\n%s", diff)
	}
	if pin, _ := k.Pin(); read.Pin != pin {
		t.Error("the token has another pin than the directors")
	}
	if age := time.Since(read.Issued); age < -time.Second || age > time.Minute {
		t.Errorf("issued %v", read.Issued)
	}
	if read.Bearer() != token.Bearer() {
		t.Error("Bearer is not the text that was read")
	}
}

// A token of an earlier version of this program must go on working. This one was
// made apart from it, by python and openssl.
func TestTokenStays(t *testing.T) {
	const token = "lvstun1.eyJ2IjoxLCJuYW1lIjoicnMxLnl1Ym8ub3JnIiwiYWRkcmVzc2VzIjpbIjE5Mi4xNjguMS4xMDAiLCIyMDAxOmRiODo6MTAwIl0sInNlcnZpY2VzIjpbIkhUVFAiLCJETlNfdWRwIl0sInBpbiI6InpOdjBxcjMtZTJOZjY5dW4zY3N1Ym5RR3JtOEU4clJqZHdBYy1wZlNFZ0UiLCJpYXQiOjE3MDAwMDAwMDB9.GyfmSIxl6ON9mYd251nRvQ0FcF7M6zEolbr5I0u_KRU"
	got, err := testKey().Verify(token)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testClaims(), got, cmpAddr); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
}

// seal makes a token of any payload, with a MAC that is right.
func seal(k ClusterKey, body string) string {
	signed := tokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(body))
	return signed + "." + base64.RawURLEncoding.EncodeToString(k.mac(signed))
}

func TestTokenRefused(t *testing.T) {
	k := testKey()
	token, err := k.Mint(testClaims())
	if err != nil {
		t.Fatal(err)
	}
	good := token.Bearer()
	parts := strings.Split(good, ".")
	raw, _ := base64.RawURLEncoding.DecodeString(parts[1])
	body := string(raw)
	foreign, err := GenerateKey().Mint(testClaims())
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) string {
		changed := strings.Replace(body, old, new, 1)
		if changed == body {
			t.Fatalf("%q is not in %s", old, body)
		}
		return seal(k, changed)
	}
	flip := func(s string, i int) string {
		b := []byte(s)
		if b[i] == 'A' {
			b[i] = 'B'
		} else {
			b[i] = 'A'
		}
		return string(b)
	}
	tests := []struct{ name, token, want string }{
		{"empty", "", "is empty"},
		{"not a token", "secret", "must begin with lvstun1."},
		{"another version", "lvstun2" + strings.TrimPrefix(good, "lvstun1"), "must begin with lvstun1."},
		{"only the prefix", "lvstun1.", "has no MAC"},
		{"no MAC", parts[0] + "." + parts[1], "has no MAC"},
		{"MAC cut short", good[:len(good)-4], "MAC is incomplete"},
		{"MAC changed", flip(good, len(good)-20), "not made with this cluster's key"},
		{"claims changed", flip(good, len("lvstun1.")+20), "not made with this cluster's key"},
		{"another cluster", foreign.Bearer(), "not made with this cluster's key"},
		{"blank at the end", good + " ", "MAC is incomplete"},
		{"end of line inside", parts[0] + "." + parts[1] + "." + parts[2][:8] + "\n" + parts[2][8:], "MAC is incomplete"},
		{"four parts", good + "." + parts[2], "not made with this cluster's key"},
		{"too long", good + strings.Repeat("A", MaxToken), "longer than 4096"},
		{"padding", parts[0] + "." + parts[1] + "=." + parts[2], "not made with this cluster's key"},
		{"unknown field", replace(`"name"`, `"admin":true,"name"`), `unknown field "admin"`},
		{"claims of another version", replace(`"v":1`, `"v":2`), "of version 2"},
		{"claims after the claims", seal(k, body+"{}"), "not in the form"},
		{"a field twice", replace(`"name"`, `"v":1,"name"`), "not in the form"},
		{"blanks", replace(`:`, `: `), "not in the form"},
		{"another case", replace(`"name"`, `"NAME"`), "not in the form"},
		{"not JSON", seal(k, "hello"), "cannot be read"},
		{"null", seal(k, "null"), "of version 0"},
		{"wildcard", replace("192.168.1.100", "0.0.0.0"), "is a wildcard"},
		{"wildcard of IPv6", replace("2001:db8::100", "::"), "is a wildcard"},
		{"no services", replace(`["HTTP","DNS_udp"]`, `[]`), "services: 0 given"},
		{"a name with a slash", replace("rs1.yubo.org", "rs1/../rs2"), `holds '/'`},
		{"a short pin", replace(`"pin":"`, `"pin":"AAAA","x":"`), "a pin is 32 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := k.Verify(tt.token)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if diff := cmp.Diff(Claims{}, c, cmpAddr); diff != "" {
				t.Errorf("claims came with the error: %s", diff)
			}
			if err != nil && len(tt.token) > 40 && strings.Contains(err.Error(), tt.token[len(tt.token)-20:]) {
				t.Errorf("the error repeats the token: %v", err)
			}
		})
	}
}

func TestMintRefuses(t *testing.T) {
	var many Claims
	many.Name, many.Addresses = "rs1", testClaims().Addresses
	for i := range MaxServices {
		many.Services = append(many.Services, fmt.Sprintf("%0200d", i))
	}
	if _, err := testKey().Mint(many); err == nil || !strings.Contains(err.Error(), "name fewer services") {
		t.Errorf("claims beyond a token's length: error %v", err)
	}
	bad := Claims{Name: "a b", Addresses: []netip.Addr{{}}, Services: []string{"", ""}}
	_, err := testKey().Mint(bad)
	for _, want := range []string{`name: "a b" holds ' '`, "no address given", "service: 0 bytes long", `service "" is given twice`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q too", err, want)
		}
	}
}

func TestClaimsValidate(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Claims)
		want   string
	}{
		{"sound", func(*Claims) {}, ""},
		{"longest name", func(c *Claims) { c.Name = strings.Repeat("a", 253) }, ""},
		{"no name", func(c *Claims) { c.Name = "" }, "name: 0 bytes long, want 1 to 253"},
		{"name too long", func(c *Claims) { c.Name = strings.Repeat("a", 254) }, "name: 254 bytes long, want 1 to 253"},
		{"not ASCII", func(c *Claims) { c.Name = "rs1.müller" }, "'.', '-' and '_' are allowed"},
		{"control character", func(c *Claims) { c.Name = "rs1\n" }, "'.', '-' and '_' are allowed"},
		{"dots", func(c *Claims) { c.Name = ".." }, `name: ".." is not a name`},
		{"no addresses", func(c *Claims) { c.Addresses = nil }, "addresses: 0 given, want 1 to 16"},
		{"addresses twice", func(c *Claims) { c.Addresses = append(c.Addresses, c.Addresses[0]) }, "address 192.168.1.100 is given twice"},
		{"multicast", func(c *Claims) { c.Addresses[0] = netip.MustParseAddr("224.0.0.1") }, "is not the address of one host"},
		{"broadcast", func(c *Claims) { c.Addresses[0] = netip.MustParseAddr("255.255.255.255") }, "is not the address of one host"},
		{"zone", func(c *Claims) { c.Addresses[0] = netip.MustParseAddr("fe80::1%eth0") }, "has a zone"},
		{"IPv4 as IPv6", func(c *Claims) { c.Addresses[0] = netip.MustParseAddr("::ffff:192.0.2.1") }, "write it as 192.0.2.1"},
		{"services twice", func(c *Claims) { c.Services = []string{"HTTP", "HTTP"} }, `service "HTTP" is given twice`},
		{"too many services", func(c *Claims) {
			for i := range MaxServices {
				c.Services = append(c.Services, fmt.Sprint(i))
			}
		}, "services: 66 given, want 1 to 64"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := testClaims()
			tt.change(&c)
			errs := c.Validate()
			if tt.want == "" {
				if len(errs) > 0 {
					t.Errorf("faulted: %v", errs)
				}
				return
			}
			if len(errs) != 1 || !strings.Contains(errs[0].Error(), tt.want) {
				t.Errorf("faults %v, want %q alone", errs, tt.want)
			}
		})
	}
}

func TestTokenFile(t *testing.T) {
	token, err := testKey().Mint(testClaims())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("  "+token.Bearer()+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadTokenFile(path)
	if err != nil || got.Bearer() != token.Bearer() {
		t.Errorf("error %v, or another token", err)
	}
	if err := os.WriteFile(path, []byte("lvstun1.x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadTokenFile(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want one that names the file", err)
	}
}

// Every sound claim survives its token, and no other key believes it.
func TestTokenProperty(t *testing.T) {
	name := rapid.StringMatching(`[A-Za-z0-9_-][A-Za-z0-9._-]{0,30}`)
	other := GenerateKey()
	rapid.Check(t, func(t *rapid.T) {
		c := Claims{
			Name:     name.Draw(t, "name"),
			Services: rapid.SliceOfNDistinct(name, 1, 20, rapid.ID[string]).Draw(t, "services"),
		}
		for _, b := range rapid.SliceOfNDistinct(rapid.Byte(), 1, MaxAddresses, rapid.ID[byte]).Draw(t, "addresses") {
			if b%2 == 0 {
				c.Addresses = append(c.Addresses, netip.AddrFrom4([4]byte{10, 0, 0, b}))
			} else {
				c.Addresses = append(c.Addresses, netip.AddrFrom16([16]byte{0x20, 0x01, 15: b}))
			}
		}
		token, err := testKey().Mint(c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := testKey().Verify(token.Bearer())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, got, cmpAddr); diff != "" {
			t.Fatalf("claims (-want +got):\n%s", diff)
		}
		if _, err := other.Verify(token.Bearer()); err == nil {
			t.Fatal("another cluster's key believes the token")
		}
	})
}

func FuzzToken(f *testing.F) {
	k := testKey()
	token, err := k.Mint(testClaims())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token.Bearer())
	f.Add(seal(k, `{"v":1,"name":"a","addresses":["::"],"services":["b"],"pin":"","iat":0}`))
	f.Add(seal(k, `{}`))
	f.Add("lvstun1..")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		claims, err := k.Verify(s)
		if err == nil && s != token.Bearer() {
			// Only a holder of the key could have made it: a seed, or the fuzzer's own seal.
			if errs := claims.Validate(); len(errs) > 0 {
				t.Errorf("claims that are not sound were believed: %v", errs)
			}
		}
		parsed, err := ParseToken(s)
		if err != nil {
			return
		}
		if errs := parsed.Validate(); len(errs) > 0 {
			t.Errorf("unsound claims were read: %v", errs)
		}
		body, err := json.Marshal(payload{1, parsed.Name, parsed.Addresses, parsed.Services, parsed.Pin, parsed.Issued.Unix()})
		if err != nil {
			t.Fatal(err)
		}
		if again := tokenPrefix + base64.RawURLEncoding.EncodeToString(body) + s[strings.LastIndex(s, "."):]; again != s {
			t.Errorf("a second form of a token was read:\n%s\n%s", s, again)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	token, err := testKey().Mint(testClaims())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := testKey().Verify(token.Bearer()); err != nil {
			b.Fatal(err)
		}
	}
}
