package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"lvstun/director/config/nearest"
)

// moreNodes is by how much the YAML nodes looked at may outnumber the bytes of the file. Without aliases a node takes
// a byte at least; with them a small file can be an endless one.
const moreNodes = 1 << 18

// walker checks YAML nodes against the Go type they will be decoded into. A mapping entry that does not fit is
// reported and taken out; so are unknown keys and those given twice.
type walker struct {
	*findings
	nodes  int // that may still be looked at
	merges int // how deep in merge keys the walk is
}

// maxMerges bounds merge keys within merge keys, which may even stand for themselves.
const maxMerges = 8

// value reports whether n fits t. Where it does not, it has been reported at path.
func (w *walker) value(n *yaml.Node, t reflect.Type, path string) bool {
	n = resolve(n)
	if w.nodes--; w.nodes < 0 {
		if w.nodes == -1 {
			w.add(Problem{Line: n.Line, Why: "aliases make this file too large"})
		}
		return false
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if s, ok := scalars[t]; ok {
		return w.scalar(n, s, path)
	}
	kind, want := yaml.MappingNode, "a mapping with some of the keys "+strings.Join(keysOf(t), ", ")
	if t.Kind() == reflect.Slice {
		kind, want = yaml.SequenceNode, "a list"
	}
	if n.Kind != kind {
		w.misfit(n, path, want)
		return false
	}
	if kind == yaml.SequenceNode {
		w.sequence(n, t.Elem(), path)
	} else {
		w.mapping(n, t, path)
	}
	return true
}

func (w *walker) sequence(n *yaml.Node, elem reflect.Type, path string) {
	for i, c := range n.Content {
		if !w.value(c, elem, fmt.Sprintf("%s[%d]", path, i)) {
			n.Content[i] = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Line: c.Line} // keeps the others' numbers
		}
	}
}

func (w *walker) mapping(n *yaml.Node, t reflect.Type, path string) {
	lines := make(map[string]int, len(n.Content)/2)
	kept := make([]*yaml.Node, 0, len(n.Content))
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if w.entry(key, value, t, path, lines) {
			kept = append(kept, key, value)
		}
	}
	n.Content = kept
}

// entry reports whether one entry of a mapping may stay. lines holds the keys met before.
func (w *walker) entry(key, value *yaml.Node, t reflect.Type, path string, lines map[string]int) bool {
	if key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge" {
		return w.merge(value, t, path)
	}
	at := strings.TrimPrefix(path+"."+key.Value, ".")
	field, known := fieldOf(t, key.Value)
	switch {
	case key.Kind != yaml.ScalarNode:
		w.add(Problem{Line: key.Line, What: path, Why: "a key must be one plain word"})
		return false
	case !known: // without the value: it may be a secret in the wrong place
		w.add(Problem{Line: key.Line, What: at, Why: "unknown key; " + nearest.Hint(key.Value, keysOf(t))})
		return false
	case lines[key.Value] != 0:
		w.add(Problem{Line: key.Line, What: at, Why: fmt.Sprintf("given twice: line %d has it already", lines[key.Value])})
		return false
	}
	lines[key.Value] = key.Line
	return w.value(value, field, at)
}

// merge checks what a merge key (<<) brings in: a mapping of the same type, or a list of such.
func (w *walker) merge(value *yaml.Node, t reflect.Type, path string) bool {
	w.merges++
	defer func() { w.merges-- }()
	if w.merges > maxMerges {
		w.breaks(value.Line, path, "", "has merge keys (<<) more than %d deep", maxMerges)
		return false
	}
	target := resolve(value)
	if target.Kind == yaml.SequenceNode {
		return !slices.ContainsFunc(target.Content, func(c *yaml.Node) bool { return !w.value(c, t, path) })
	}
	return w.value(target, t, path)
}

// scalar is how a Go type is written: the YAML tag its values have, in words, and a test of its text.
type scalar struct {
	tag, want string
	parse     func(*yaml.Node) error
}

var scalars = map[reflect.Type]scalar{
	reflect.TypeFor[string](): {"!!str", "text", nil},
	reflect.TypeFor[bool]():   {"!!bool", "true or false", nil},
	reflect.TypeFor[int]():    {"!!int", "a whole number", func(n *yaml.Node) error { return n.Decode(new(int)) }},
	reflect.TypeFor[time.Duration](): {"!!str", "a duration with its unit, such as 2s or 500ms",
		func(n *yaml.Node) error { _, err := time.ParseDuration(n.Value); return err }},
	reflect.TypeFor[netip.Addr](): {"!!str", "an IP address such as 10.0.0.50",
		func(n *yaml.Node) error { _, err := netip.ParseAddr(n.Value); return err }},
	reflect.TypeFor[netip.Prefix](): {"!!str", "a network such as 192.168.1.0/24",
		func(n *yaml.Node) error { _, err := netip.ParsePrefix(n.Value); return err }},
}

func (w *walker) scalar(n *yaml.Node, s scalar, path string) bool {
	switch {
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		w.breaks(n.Line, path, "", "has no value: it must be %s, or the key be left out", s.want)
	case n.Kind != yaml.ScalarNode:
		w.misfit(n, path, s.want)
	case n.ShortTag() != s.tag && s.want == "text":
		w.breaks(n.Line, path, n.Value, "must be text: put it in quotes")
	case n.ShortTag() != s.tag, s.parse != nil && s.parse(n) != nil:
		w.misfit(n, path, s.want)
	default:
		return true
	}
	return false
}

func (w *walker) misfit(n *yaml.Node, path, want string) {
	switch {
	case path == "":
		w.breaks(n.Line, "the file", "", "must be %s", want)
	case n.Kind == yaml.MappingNode:
		w.breaks(n.Line, path, "", "must be %s, not a mapping", want)
	case n.Kind == yaml.SequenceNode:
		w.breaks(n.Line, path, "", "must be %s, not a list", want)
	default:
		w.breaks(n.Line, path, n.Value, "must be %s", want)
	}
}

func fieldOf(t reflect.Type, key string) (reflect.Type, bool) {
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("mapstructure") == key {
			return t.Field(i).Type, true
		}
	}
	return nil, false
}

func keysOf(t reflect.Type) []string {
	var keys []string
	if t.Kind() == reflect.Struct {
		for i := range t.NumField() {
			keys = append(keys, t.Field(i).Tag.Get("mapstructure"))
		}
	}
	return keys
}
