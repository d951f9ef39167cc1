package guard

import (
	"fmt"
	"slices"
	"strings"
)

// state is a table as compared: what it holds, in lines.
type state struct {
	present bool
	things  map[string][]string // "set directors4" → "10.0.0.1", "10.0.0.2"
	counts  map[string]Count
}

// The keys of a state's things.
const (
	ofChain   = "chain "
	ofRules   = "rules of chain "
	ofSet     = "set "
	ofType    = "type of set "
	ofCounter = "counter "
)

// named are the names of the things of a kind, sorted.
func (s state) named(kind string) []string {
	var all []string
	for thing := range s.things {
		if name, ok := strings.CutPrefix(thing, kind); ok {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// things are what a state that holds t has; rules by their fingerprints.
func (t table) things() map[string][]string {
	things := map[string][]string{}
	for _, name := range t.counters {
		things[ofCounter+name] = []string{"present"}
	}
	for _, s := range t.sets {
		things[ofType+s.name] = []string{s.of.Name}
		things[ofSet+s.name] = s.elements()
	}
	for _, c := range t.chains {
		things[ofChain+c.name] = []string{c.kind()}
		for _, r := range c.rules {
			things[ofRules+c.name] = append(things[ofRules+c.name], fingerprint(r.exprs()))
		}
	}
	return things
}

// diff says what makes have another table than want, sorted; nothing where they are the same. Of old, the
// table before, come the texts of rules that are no longer wanted.
func diff(have state, want, old table) []Change {
	if !have.present {
		return []Change{{What: "nftables table " + Name, Old: "missing", New: "present"}}
	}
	wanted := want.things()
	var all []Change
	for thing := range union(have.things, wanted) {
		from, found := have.things[thing]
		to, needed := wanted[thing]
		if slices.Equal(from, to) && found == needed {
			continue
		}
		c := Change{What: "nftables " + thing, Old: list(from, found), New: list(to, needed)}
		if strings.HasPrefix(thing, ofRules) {
			c.Old, c.New = ruleTexts(less(from, to), want, old), ruleTexts(less(to, from), want, old)
			if c.Old == "" && c.New == "" {
				c.Old, c.New = "in another order", "in order"
			}
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Change) int { return strings.Compare(a.What, b.What) })
	return all
}

func union(a, b map[string][]string) map[string]bool {
	all := map[string]bool{}
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return all
}

// less is a without one of each in b.
func less(a, b []string) []string {
	rest := slices.Clone(a)
	for _, s := range b {
		if i := slices.Index(rest, s); i >= 0 {
			rest = slices.Delete(rest, i, i+1)
		}
	}
	return rest
}

// list shortens what would fill a screen.
func list(items []string, found bool) string {
	const most = 8
	switch {
	case !found:
		return "missing"
	case len(items) == 0:
		return "empty"
	case len(items) > most:
		return fmt.Sprintf("%s and %d more", strings.Join(items[:most], ", "), len(items)-most)
	}
	return strings.Join(items, ", ")
}

func ruleTexts(prints []string, tables ...table) string {
	var all []string
	for _, p := range prints {
		text := "a rule of somebody else"
		for _, t := range tables {
			if known, ok := t.find(p); ok {
				text = known
				break
			}
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}
