package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// readYAML reads director.yaml. The YAML nodes are checked against the type file first, each value by itself, for
// they know their lines; what is wrong is reported and cut out, so that the rest can be decoded and validated too.
// It returns nil if there is nothing to validate.
func readYAML(data []byte, found *findings) *file {
	root, err := parseYAML(data)
	if err != nil {
		found.add(Problem{Line: lineOf(err), Why: "this is not YAML from here on: " + plainYAML(err)})
		return nil
	}
	found.where = func(path string) (int, string) { return locate(root, path), path }
	if root.ShortTag() == "!!null" {
		found.add(Problem{Why: emptyFile})
		return nil
	}
	w := walker{findings: found, nodes: len(data) + moreNodes}
	if !w.value(root, reflect.TypeFor[file](), "") || w.nodes < 0 {
		return nil
	}
	var values map[string]any
	if err := root.Decode(&values); err != nil {
		found.add(Problem{Line: lineOf(err), Why: "this YAML cannot be read: " + plainYAML(err)})
		return nil
	}
	f := new(file)
	if err := decode(values, f); err != nil {
		found.add(Problem{Why: err.Error()})
		return nil
	}
	return f
}

// parseYAML returns the root of the only document in data.
func parseYAML(data []byte) (*yaml.Node, error) {
	var document, second yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(data))
	switch err := d.Decode(&document); {
	case errors.Is(err, io.EOF):
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}, nil // nothing but comments
	case err != nil:
		return nil, err
	}
	switch err := d.Decode(&second); {
	case errors.Is(err, io.EOF):
		return document.Content[0], nil
	case err != nil:
		return nil, err
	}
	return nil, fmt.Errorf("yaml: line %d: a second document begins: one file is one document", second.Line)
}

// The YAML library puts the line into its error's text and nowhere else.
var yamlLine = regexp.MustCompile(`^yaml: (?:unmarshal errors:\s+)?line (\d+): `)

func lineOf(err error) int {
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		n, _ := strconv.Atoi(m[1]) // at worst no line is shown
		return n
	}
	return 0
}

func plainYAML(err error) string {
	text := yamlLine.ReplaceAllString(err.Error(), "")
	return strings.TrimPrefix(strings.ReplaceAll(text, "\n", " "), "yaml: ")
}

// decode fills f with its defaults, the values of a file and the environment, in rising order.
func decode(values map[string]any, f *file) error {
	v := viper.New()
	for key, variable := range map[string]string{
		"name":             "LVSTUN_NAME",
		"cluster_key_file": "LVSTUN_CLUSTER_KEY_FILE",
	} {
		if err := v.BindEnv(key, variable); err != nil {
			return err
		}
	}
	if err := v.MergeConfigMap(values); err != nil {
		return err
	}
	hooks := viper.DecodeHook(mapstructure.ComposeDecodeHookFunc(
		setPreset,
		mapstructure.StringToTimeDurationHookFunc(),
		mapstructure.StringToNetIPAddrHookFunc(),
		mapstructure.StringToNetIPPrefixHookFunc(),
	))
	strict := func(c *mapstructure.DecoderConfig) { c.WeaklyTypedInput = false }
	return v.UnmarshalExact(f, hooks, strict)
}

// setPreset gives a struct its defaults right before the keys of its mapping are decoded into it.
func setPreset(from, to reflect.Value) (any, error) {
	if to.CanAddr() {
		if p, ok := to.Addr().Interface().(preset); ok {
			p.preset()
		}
	}
	return from.Interface(), nil
}

// locate returns the line of the value at a path, or of the nearest thing around it that is written.
func locate(n *yaml.Node, path string) int {
	line := n.Line
	for _, step := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		if n = child(resolve(n), step); n == nil {
			break
		}
		line = n.Line
	}
	return line
}

func child(n *yaml.Node, step string) *yaml.Node {
	switch n.Kind {
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i < len(n.Content) {
			return n.Content[i]
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == step {
				return n.Content[i+1]
			}
		}
	}
	return nil
}

// resolve follows an alias to the node it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}
