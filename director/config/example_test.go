package config

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const example = "../../deploy/examples/director.yaml"

func readExample(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func mustParse(t *testing.T, name, text string) (*Config, []Problem) {
	t.Helper()
	cfg, warnings, err := Parse(name, []byte(text), Options{})
	if err != nil {
		t.Fatal(err)
	}
	return cfg, warnings
}

// What the example calls a default is one: without those lines it means the same.
func TestExampleDefaults(t *testing.T) {
	text := readExample(t)
	full, warnings := mustParse(t, "director.yaml", text)
	if len(warnings) > 0 {
		t.Errorf("the example has warnings: %v", warnings)
	}
	marked := regexp.MustCompile(`(?m)^\s*\w+: .* # \(default\).*\n`)
	if n := len(marked.FindAllString(text, -1)); n < 20 {
		t.Fatalf("only %d lines are marked as defaults", n)
	}
	short := marked.ReplaceAllString(text, "")
	short = regexp.MustCompile(`(?m)^(vip|api|web|    encapsulation):.*\n(\s*#.*\n)*`).ReplaceAllString(short, "")
	got, _ := mustParse(t, "director.yaml", short)
	if diff := cmp.Diff(full, got, addresses); diff != "" {
		t.Errorf("without the lines marked as defaults (-with +without):\n%s\n%s", diff, short)
	}
}

func TestExampleShowsEveryKey(t *testing.T) {
	text := readExample(t)
	var visit func(reflect.Type)
	visit = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if _, isScalar := scalars[typ]; isScalar {
			return
		}
		for i := range typ.NumField() {
			key := typ.Field(i).Tag.Get("mapstructure")
			if !regexp.MustCompile(`(?m)^[\s#-]*` + key + `:`).MatchString(text) {
				t.Errorf("the example does not show %s of %s", key, typ)
			}
			visit(typ.Field(i).Type)
		}
	}
	visit(reflect.TypeFor[file]())
}

func TestEnvironmentOverrides(t *testing.T) {
	t.Setenv("LVSTUN_NAME", "other")
	t.Setenv("LVSTUN_CLUSTER_KEY_FILE", "/run/key")
	for name, text := range map[string]string{"director.yaml": readExample(t), "lvs.cf": seed(t, "vs.lvs.cf")} {
		cfg, _ := mustParse(t, name, text)
		if cfg.Name != "other" || cfg.ClusterKeyFile != "/run/key" {
			t.Errorf("%s: name %q, key file %q: the environment does not count", name, cfg.Name, cfg.ClusterKeyFile)
		}
	}
}

func TestNameIsTheHostsByDefault(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	cfg, _ := mustParse(t, "director.yaml", strings.Replace(readExample(t), "name: vs\n", "", 1))
	if cfg.Name != host {
		t.Errorf("name %q, want the host's, %q", cfg.Name, host)
	}
}
