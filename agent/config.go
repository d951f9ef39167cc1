package agent

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"

	"lvstun/director/client"
	"lvstun/director/trust"
)

// DefaultPort is where directors listen for agents.
const DefaultPort = 3637

// maxConfig bounds agent.yaml, in bytes.
const maxConfig = 1 << 20

// Config is a valid agent.yaml.
type Config struct {
	Directors []string `mapstructure:"directors"`  // host:port, each once, at least one
	TokenFile string   `mapstructure:"token_file"` // default /etc/lvstun/token
	Weight    int      `mapstructure:"weight"`     // 1–65535 asked for in every service; 0: the operator's
}

// Problem is one thing wrong with the file.
type Problem struct {
	Path  string
	Line  int // from 1; 0: the file as a whole
	What  string
	Value string
	Why   string
}

// String is "path:line: what, value, why", without the parts that are absent.
func (p Problem) String() string {
	parts := []string{p.Why}
	for _, part := range []string{p.Value, p.What} {
		if strings.ContainsFunc(part, func(r rune) bool { return !unicode.IsPrint(r) }) {
			part = strconv.Quote(part)
		}
		if part != "" {
			parts = append([]string{part}, parts...)
		}
	}
	if p.Line == 0 {
		return fmt.Sprintf("%s: %s", p.Path, strings.Join(parts, ", "))
	}
	return fmt.Sprintf("%s:%d: %s", p.Path, p.Line, strings.Join(parts, ", "))
}

// Invalid is the error of a file that was refused: all its problems, by line.
type Invalid struct{ Problems []Problem }

// Error is one line for each problem.
func (e *Invalid) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// LoadConfig reads the file at path. The environment variable LVSTUN_TOKEN_FILE stands above
// token_file. A file that was read and refused is an *Invalid.
func LoadConfig(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration: %w", err)
	}
	if len(text) > maxConfig {
		return Config{}, &Invalid{[]Problem{{Path: path, Why: fmt.Sprintf("longer than %d bytes", maxConfig)}}}
	}
	return parseConfig(path, text)
}

// keys are those of the file, each with the shape of its value.
var keys = map[string]struct{ tag, shape string }{
	"directors":  {"!!seq", `a list such as ["10.0.0.1:3637", "10.0.0.2:3637"]`},
	"token_file": {"!!str", "the path of a file"},
	"weight":     {"!!int", "a whole number"},
}

// parseConfig checks the file's nodes, which know their lines, before viper decodes what is left of
// them: viper keeps no lines.
func parseConfig(path string, text []byte) (Config, error) {
	p := &parser{path: path, lines: map[string]int{}, values: map[string]any{}}
	cfg, err := Config{}, error(nil)
	if p.read(text) {
		if cfg, err = p.decode(); err != nil {
			return Config{}, err
		}
		p.validate(&cfg)
	}
	if len(p.problems) > 0 {
		slices.SortStableFunc(p.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
		return Config{}, &Invalid{p.problems}
	}
	return cfg, nil
}

type parser struct {
	path     string
	lines    map[string]int // of every known key that is there, sound or not
	members  []int          // lines of the directors
	values   map[string]any // of sound keys
	problems []Problem
}

func (p *parser) add(line int, what, value, why string) {
	p.problems = append(p.problems, Problem{Path: p.path, Line: line, What: what, Value: value, Why: why})
}

var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

// read reports whether there are keys to judge.
func (p *parser) read(text []byte) bool {
	var document, second yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(text))
	err := d.Decode(&document)
	if err == nil && d.Decode(&second) != io.EOF {
		p.add(0, "", "", "more than one YAML document")
		return false
	}
	if err != nil && err != io.EOF {
		line := 0
		if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
			line, _ = strconv.Atoi(m[1]) // digits; at worst no line is shown
		}
		p.add(line, "", "", "not YAML: "+strings.TrimPrefix(yamlLine.ReplaceAllString(err.Error(), ""), "yaml: "))
		return false
	}
	if err == io.EOF || document.Content[0].ShortTag() == "!!null" {
		return true // as if every key were absent
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode {
		p.add(root.Line, "", "", "not a list of `key: value`")
		return false
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		p.key(root.Content[i], root.Content[i+1])
	}
	return true
}

func (p *parser) key(key, value *yaml.Node) {
	known, ok := keys[key.Value]
	switch {
	case !ok:
		p.add(key.Line, key.Value, "", "no such key: there are directors, token_file and weight")
		return
	case p.lines[key.Value] != 0:
		p.add(key.Line, key.Value, "", fmt.Sprintf("given twice, first on line %d", p.lines[key.Value]))
		return
	}
	p.lines[key.Value] = key.Line
	if value.Kind == yaml.AliasNode {
		value = value.Alias
	}
	if value.ShortTag() != known.tag {
		p.add(value.Line, key.Value, value.Value, "must be "+known.shape)
		return
	}
	for i, member := range value.Content {
		if member.ShortTag() != "!!str" {
			p.add(member.Line, fmt.Sprintf("directors[%d]", i), member.Value, "must be text such as \"10.0.0.1:3637\"")
			return
		}
		p.members = append(p.members, member.Line)
	}
	var v any
	if err := value.Decode(&v); err != nil {
		p.add(value.Line, key.Value, value.Value, "must be "+known.shape)
		return
	}
	p.values[key.Value] = v
}

// decode fills a Config with its defaults, the file's sound values and the environment, in rising order.
func (p *parser) decode() (Config, error) {
	v := viper.New()
	v.SetDefault("token_file", "/etc/lvstun/token")
	if err := v.BindEnv("token_file", "LVSTUN_TOKEN_FILE"); err != nil {
		return Config{}, fmt.Errorf("read the environment: %w", err)
	}
	if err := v.MergeConfigMap(p.values); err != nil {
		return Config{}, fmt.Errorf("%s: %w", p.path, err)
	}
	var cfg Config
	if err := v.UnmarshalExact(&cfg); err != nil {
		return Config{}, fmt.Errorf("%s: %w", p.path, err)
	}
	return cfg, nil
}

func (p *parser) validate(cfg *Config) {
	_, sound := p.values["directors"]
	if (sound || p.lines["directors"] == 0) && len(cfg.Directors) == 0 {
		p.add(p.lines["directors"], "directors", "", `missing: where the directors are, such as ["10.0.0.1:3637", "10.0.0.2:3637"]`)
	}
	seen := map[string]bool{}
	for i, text := range cfg.Directors {
		what := fmt.Sprintf("directors[%d]", i)
		address, err := withPort(text)
		switch {
		case err != nil:
			p.add(p.members[i], what, text, err.Error())
		case seen[address]:
			p.add(p.members[i], what, text, "given twice")
		}
		seen[address] = true
		cfg.Directors[i] = address
	}
	if cfg.TokenFile == "" {
		p.add(p.lines["token_file"], "token_file", "", "empty: the path of the file that `lvs-director token` printed")
	}
	if cfg.Weight < 0 || cfg.Weight > client.MaxWeight || cfg.Weight == 0 && p.values["weight"] != nil {
		p.add(p.lines["weight"], "weight", strconv.Itoa(cfg.Weight), fmt.Sprintf("must be between 1 and %d; without it the operator's weight counts", client.MaxWeight))
	}
}

// withPort returns text as host:port, with DefaultPort if it names none.
func withPort(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = strings.Trim(text, "[]"), strconv.Itoa(DefaultPort)
	}
	if host == "" || strings.ContainsAny(host, " \t/@") || strings.Contains(host, ":") && net.ParseIP(host) == nil {
		return "", errors.New("must be host:port, with an IPv6 address in brackets")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("port %q must be between 1 and 65535", port)
	}
	return net.JoinHostPort(host, port), nil
}

// Token reads the token that the configuration names.
func (c Config) Token() (trust.Token, error) {
	token, err := trust.ReadTokenFile(c.TokenFile)
	if err != nil {
		return trust.Token{}, fmt.Errorf("read the token: %w", err)
	}
	return token, nil
}
