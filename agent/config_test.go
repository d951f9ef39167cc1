package agent

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lvstun/director/trust"
)

func TestParseConfig(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		text string
		want Config
		err  string
	}{
		{
			name: "the example's", text: "directors: [\"10.0.0.1:3637\", \"10.0.0.2:3637\"]\ntoken_file: /etc/lvstun/token\n",
			want: Config{Directors: []string{"10.0.0.1:3637", "10.0.0.2:3637"}, TokenFile: "/etc/lvstun/token"},
		},
		{
			name: "defaults and a weight", text: "directors:\n- 10.0.0.1\n- '[2001:db8::1]'\n- vs.yubo.com\nweight: 10\n",
			want: Config{Directors: []string{"10.0.0.1:3637", "[2001:db8::1]:3637", "vs.yubo.com:3637"}, TokenFile: "/etc/lvstun/token", Weight: 10},
		},
		{name: "empty", text: "", err: "a.yaml: directors, missing: where the directors are, such as [\"10.0.0.1:3637\", \"10.0.0.2:3637\"]"},
		{name: "comments only", text: "# nothing\n", err: "a.yaml: directors, missing: where the directors are, such as [\"10.0.0.1:3637\", \"10.0.0.2:3637\"]"},
		{name: "no directors", text: "weight: 1\ndirectors: []\n", err: "a.yaml:2: directors, missing: where the directors are, such as [\"10.0.0.1:3637\", \"10.0.0.2:3637\"]"},
		{
			name: "all problems at once",
			text: "directors: [10.0.0.1, \"10.0.0.1:3637\", \"h:0\", \"h:http\", \"\", \"a b\", \"1:2:3\"]\ntoken_file: \"\"\nweight: 70000\nwheight: 3\nweight: 5\n",
			err: `a.yaml:1: directors[1], 10.0.0.1:3637, given twice
a.yaml:1: directors[2], h:0, port "0" must be between 1 and 65535
a.yaml:1: directors[3], h:http, port "http" must be between 1 and 65535
a.yaml:1: directors[4], must be host:port, with an IPv6 address in brackets
a.yaml:1: directors[5], a b, must be host:port, with an IPv6 address in brackets
a.yaml:1: directors[6], 1:2:3, must be host:port, with an IPv6 address in brackets
a.yaml:2: token_file, empty: the path of the file that ` + "`lvs-director token`" + ` printed
a.yaml:3: weight, 70000, must be between 1 and 65535; without it the operator's weight counts
a.yaml:4: wheight, no such key: there are directors, token_file and weight
a.yaml:5: weight, given twice, first on line 3`,
		},
		{
			name: "wrong types",
			text: "directors: 10.0.0.1:3637\nweight: \"10\"\ntoken_file: [x]\n",
			err: `a.yaml:1: directors, 10.0.0.1:3637, must be a list such as ["10.0.0.1:3637", "10.0.0.2:3637"]
a.yaml:2: weight, 10, must be a whole number
a.yaml:3: token_file, must be the path of a file`,
		},
		{name: "a director that is no text", text: "directors:\n- 10.0.0.1:3637\n- 5\n", err: `a.yaml:3: directors[1], 5, must be text such as "10.0.0.1:3637"`},
		{name: "an alias of a bad list", text: "weight: 1\nx: &a [\"h:0\"]\ndirectors: *a\n", err: "a.yaml:2: x, no such key: there are directors, token_file and weight\na.yaml:2: directors[0], h:0, port \"0\" must be between 1 and 65535"},
		{
			name: "an alias", text: "token_file: &a [x]\ndirectors: *a\nweight: \"\\n\"\n",
			err: `a.yaml:1: token_file, must be the path of a file
a.yaml:3: weight, "\n", must be a whole number`,
		},
		{name: "directors are missing beside another problem", text: "wait: 1\n", err: "a.yaml: directors, missing: where the directors are, such as [\"10.0.0.1:3637\", \"10.0.0.2:3637\"]\na.yaml:1: wait, no such key: there are directors, token_file and weight"},
		{name: "weight 0", text: "directors: [a]\nweight: 0\n", err: "a.yaml:2: weight, 0, must be between 1 and 65535; without it the operator's weight counts"},
		{name: "a number too large", text: "directors: [a]\nweight: 99999999999999999999\n", err: "a.yaml:2: weight, 99999999999999999999, must be a whole number"},
		{name: "not YAML", text: "directors: [a\nweight: 1\n", err: "a.yaml:1: not YAML: did not find expected ',' or ']'"},
		{name: "a list", text: "- a\n", err: "a.yaml:1: not a list of `key: value`"},
		{name: "two documents", text: "directors: [a]\n---\nweight: 1\n", err: "a.yaml: more than one YAML document"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := parseConfig("a.yaml", []byte(tt.text))
			text := ""
			if err != nil {
				text = err.Error()
				if !errors.As(err, new(*Invalid)) {
					t.Errorf("%T, want *Invalid", err)
				}
			}
			if diff := cmp.Diff(tt.err, text); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("config (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadConfig(t *testing.T) {
	dir := t.TempDir()
	if _, err := LoadConfig(filepath.Join(dir, "absent.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
	path := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(path, []byte("directors: [a]\ntoken_file: /one\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LVSTUN_TOKEN_FILE", "/two")
	cfg, err := LoadConfig(path)
	if err != nil || cfg.TokenFile != "/two" {
		t.Errorf("token_file %q, %v; want the environment's", cfg.TokenFile, err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("#", maxConfig+1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadConfig(path); !errors.As(err, new(*Invalid)) {
		t.Errorf("huge file: %v", err)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add("directors: [\"10.0.0.1:3637\"]\ntoken_file: /etc/lvstun/token\nweight: 10\n")
	f.Add("directors: &a [x]\nweight: *a\n")
	f.Add("? {a: b}\n: c\n<<: {weight: 1}\n")
	f.Add("directors: [[x]]\n")
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := parseConfig("a.yaml", []byte(text))
		if err == nil && (len(cfg.Directors) == 0 || cfg.TokenFile == "") {
			t.Errorf("accepted %q as %+v", text, cfg)
		}
	})
}

func TestToken(t *testing.T) {
	key := trust.GenerateKey()
	token, err := key.Mint(trust.Claims{Name: "rs1", Addresses: []netip.Addr{rip}, Services: []string{"HTTP"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	if err := os.WriteFile(path, []byte(token.Bearer()+"\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	cfg := Config{TokenFile: path}
	if _, err := cfg.Token(); err == nil || !strings.Contains(err.Error(), "open to others") {
		t.Errorf("a token its group can read: %v", err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir+"/")
	got, err := cfg.Token()
	if err != nil || got.Name != "rs1" || got.Bearer() != token.Bearer() {
		t.Errorf("a credential of the service manager: %v, %v", got.Name, err)
	}
	if err := os.WriteFile(path, []byte("rubbish"), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := cfg.Token(); err == nil || strings.Contains(err.Error(), "rubbish") {
		t.Errorf("a damaged credential: %v", err)
	}
	if _, err := (Config{TokenFile: filepath.Join(dir, "absent")}).Token(); err == nil {
		t.Error("an absent credential is no error")
	}
}
