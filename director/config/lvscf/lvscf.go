// Package lvscf reads lvs.cf, the configuration file of Red Hat's piranha (lvs.cf(5)), into blocks of typed entries.
// It knows the grammar and the type of every key, not what the keys mean together.
//
// The grammar is pulse's: one statement a line, tokens separated by blanks, = a token of its own, comments on lines
// of their own. Where pulse went wrong in silence this package speaks up: an unterminated quote, text after a }, a
// missing } at the end and lines after the first of a file with CRLF line ends are errors or are read. Non-breaking
// spaces, which text copied from a web page holds, are read as blanks. Both are warned of.
package lvscf

import (
	"fmt"
	"strings"
)

// Block is a virtual, failover or server block; the file itself is the block without a Kind.
type Block struct {
	Kind    string // "virtual", "failover", "server" or ""
	Name    Token
	Line    int
	Entries []Entry // each key once: where the file repeats one, the last counts
	Blocks  []Block
}

// Entry is one "key = value…" line whose key is known in its block.
type Entry struct {
	Line   int
	Key    string
	Values Values
	Bad    bool // the values have the wrong type, which has been reported
}

// Token is a word or a quoted text. A quoted text may hold backslash sequences, which Unescape decodes.
type Token struct {
	Text  string
	Quote byte // '"', '\'' or 0
}

// Values are the tokens after the = of an entry.
type Values []Token

// String is the values as they are written.
func (v Values) String() string {
	texts := make([]string, len(v))
	for i, t := range v {
		texts[i] = t.String()
	}
	return strings.Join(texts, " ")
}

// Problem is something wrong with a line, or, as a Warning, something not as it looks.
type Problem struct {
	Line             int
	What, Value, Why string // Value may be empty
	Warning          bool
}

// Get returns the entry of a key.
func (b *Block) Get(key string) (Entry, bool) {
	for _, e := range b.Entries {
		if e.Key == key {
			return e, true
		}
	}
	return Entry{}, false
}

// Title is how problems name the block: "virtual HTTP", or "" for the file.
func (b *Block) Title() string {
	return strings.TrimSpace(b.Kind + " " + b.Name.Text)
}

// String is the file in its canonical form, which Parse reads back to the same blocks but for their lines.
func (b *Block) String() string {
	var s strings.Builder
	b.write(&s, "")
	return s.String()
}

func (b *Block) write(s *strings.Builder, indent string) {
	for _, e := range b.Entries {
		fmt.Fprintf(s, "%s%s = %s\n", indent, e.Key, e.Values)
	}
	for i := range b.Blocks {
		inner := &b.Blocks[i]
		fmt.Fprintf(s, "%s%s %s {\n", indent, inner.Kind, inner.Name)
		inner.write(s, indent+"     ")
		fmt.Fprintf(s, "%s}\n", indent)
	}
}

// String is the token as it is written.
func (t Token) String() string {
	if t.Quote == 0 {
		return t.Text
	}
	return string(t.Quote) + t.Text + string(t.Quote)
}
