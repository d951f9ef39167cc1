package lvscf

import (
	"fmt"
	"slices"
	"strings"
)

// Parse reads a whole file. The block is what could be read of it, for further tests; it is the file's meaning only
// if no problem but warnings came with it.
func Parse(data []byte) (*Block, []Problem) {
	p := &parser{stack: []*Block{{}}}
	text := strings.TrimPrefix(string(data), "\uFEFF")
	if len(text) < len(data) {
		p.warn(1, "", "", "the file begins with a byte order mark, which is passed over")
	}
	for line := range strings.SplitSeq(text, "\n") {
		p.line++
		if cut, isCRLF := strings.CutSuffix(line, "\r"); isCRLF {
			p.crlf = append(p.crlf, p.line)
			line = cut
		}
		p.statement(line)
	}
	for len(p.stack) > 1 {
		b := p.top()
		p.fail(b.Line, p.what(""), "", "the block that opens here is never closed: write } on a line of its own")
		p.close()
	}
	if len(p.odd) > 0 {
		p.warn(p.odd[0], "", "", fmt.Sprintf("non-breaking spaces, as in text copied from a web page, are read as blanks on %s", ranges(p.odd)))
	}
	if len(p.crlf) > 0 {
		p.warn(p.crlf[0], "", "", fmt.Sprintf("CRLF line ends are read as line ends on %s", ranges(p.crlf)))
	}
	return p.stack[0], p.problems
}

// parser holds the blocks that are open, the file first. A block without a known kind is read over.
type parser struct {
	line     int
	stack    []*Block
	problems []Problem
	odd      []int // lines with blanks that are not ASCII
	crlf     []int // lines that end in CRLF
}

func (p *parser) fail(line int, what, value, why string) {
	p.problems = append(p.problems, Problem{Line: line, What: what, Value: value, Why: why})
}

func (p *parser) warn(line int, what, value, why string) {
	p.problems = append(p.problems, Problem{Line: line, What: what, Value: value, Why: why, Warning: true})
}

func (p *parser) top() *Block { return p.stack[len(p.stack)-1] }

// what names a key by the blocks it is in, or with no key the innermost block.
func (p *parser) what(key string) string {
	var parts []string
	for _, b := range p.stack[1:] {
		parts = append(parts, b.Title())
	}
	if key != "" {
		parts = append(parts, key)
	}
	return strings.Join(parts, ": ")
}

func (p *parser) statement(line string) {
	if trimmed := strings.TrimLeftFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || oddBlank(r) }); trimmed == "" || trimmed[0] == '#' {
		return
	}
	if why := unreadable(line); why != "" {
		p.fail(p.line, "", "", why)
		return
	}
	if strings.ContainsFunc(line, oddBlank) {
		p.odd = append(p.odd, p.line)
		line = strings.Map(func(r rune) rune {
			if oddBlank(r) {
				return ' '
			}
			return r
		}, line)
	}
	ts, err := tokens(line)
	if err != nil {
		key := strings.Fields(line)[0]
		p.fail(p.line, p.what(key), "", err.Error())
		p.bad(key)
		return
	}
	first, last := ts[0], ts[len(ts)-1]
	switch {
	case first == Token{Text: "}"}:
		p.end(ts)
	case first.Quote == 0 && isBlock(first.Text), last == Token{Text: "{"} && !(len(ts) > 1 && ts[1] == Token{Text: "="}):
		p.begin(ts)
	default:
		p.entry(ts)
	}
}

func isBlock(word string) bool { return word == "virtual" || word == "failover" || word == "server" }

func (p *parser) end(ts []Token) {
	if len(ts) > 1 {
		p.fail(p.line, p.what("}"), "", "nothing may follow a }: move it to a line of its own")
	}
	if len(p.stack) == 1 {
		p.fail(p.line, "}", "", "no block is open here")
		return
	}
	p.close()
}

// close puts the innermost block into the one around it.
func (p *parser) close() {
	b := p.top()
	p.stack = p.stack[:len(p.stack)-1]
	if b.Kind != "" && p.top().admits(b.Kind) {
		p.top().Blocks = append(p.top().Blocks, *b)
	}
}

// admits tells whether a block of a kind may stand in b. Only the file holds virtual and failover blocks.
func (b *Block) admits(kind string) bool {
	if kind == "server" {
		return b.Kind == "virtual" || b.Kind == "failover"
	}
	return b.Kind == "" && b.Line == 0
}

func (p *parser) begin(ts []Token) {
	kind, last := ts[0].Text, ts[len(ts)-1]
	opens := last == Token{Text: "{"}
	b := &Block{Line: p.line}
	switch {
	case !isBlock(kind) || ts[0].Quote != 0:
		if !p.skipping() {
			p.fail(p.line, p.what(ts[0].Text), "", "unknown block; "+unknownBlock(kind))
		}
	case !p.top().admits(kind):
		if !p.skipping() {
			p.fail(p.line, p.what(kind), "", "a "+kind+" block cannot stand here: "+place(kind))
		}
	default:
		b.Kind = kind
		if len(ts) == 3 && opens {
			b.Name = ts[1]
			break
		}
		p.fail(p.line, p.what(kind), "", fmt.Sprintf("write %s NAME {, with the name in quotes if it holds blanks and a blank before the brace", kind))
		opens = opens || strings.HasSuffix(last.Text, "{")
		b.Name.Text = strings.TrimRight(ts[min(1, len(ts)-1)].Text, "{")
	}
	if opens {
		p.stack = append(p.stack, b)
	}
}

// skipping tells whether the innermost block is one that is read over.
func (p *parser) skipping() bool { return len(p.stack) > 1 && p.top().Kind == "" }

func place(kind string) string {
	if kind == "server" {
		return "it belongs into a virtual block"
	}
	return "it belongs to the file itself; is a } missing above?"
}

func (p *parser) entry(ts []Token) {
	if p.skipping() {
		return
	}
	b, key := p.top(), ts[0].Text
	keys := scope(b.Kind)
	name, value, glued := strings.Cut(key, "=")
	if !glued && len(ts) > 1 && ts[1].Quote == 0 && len(ts[1].Text) > 1 && ts[1].Text[0] == '=' {
		name, value, glued = key, ts[1].Text[1:], true
	}
	check, known := keys[key]
	switch {
	case ts[0].Quote != 0:
		p.fail(p.line, p.what(ts[0].String()), "", "a line begins with a command, which is not quoted")
		return
	case glued && keys[name] != nil:
		if value == "" || name == secret {
			value = "VALUE"
		}
		p.fail(p.line, p.what(name), "", fmt.Sprintf("= must stand between blanks: write %s = %s", name, value))
		p.bad(name)
		return
	case !known:
		p.fail(p.line, p.what(key), "", "unknown command; "+unknownKey(key, b.Kind))
		return
	case len(ts) == 1 || ts[1] != Token{Text: "="}:
		p.fail(p.line, p.what(key), "", fmt.Sprintf("= must follow: write %s = VALUE", key))
		p.bad(key)
		return
	}
	e := Entry{Line: p.line, Key: key, Values: ts[2:]}
	if why := check.fits(e.Values); why != "" {
		e.Bad = true
		p.fail(p.line, p.what(key), e.shown(), why)
	}
	if i := slices.IndexFunc(b.Entries, func(o Entry) bool { return o.Key == key }); i >= 0 {
		p.warn(p.line, p.what(key), e.shown(), fmt.Sprintf("stands in place of the value on line %d: the last one counts", b.Entries[i].Line))
		b.Entries = slices.Delete(b.Entries, i, i+1)
	}
	b.Entries = append(b.Entries, e)
}

// secret is the key whose value no problem repeats: what is sent to a server may hold a password.
const secret = "send"

func (e Entry) shown() string {
	if e.Key == secret {
		return ""
	}
	return e.Values.String()
}

// bad notes that a key was given, if it is one, though its line is no entry.
func (p *parser) bad(key string) {
	if b := p.top(); scope(b.Kind)[key] != nil && !p.skipping() {
		b.Entries = slices.DeleteFunc(b.Entries, func(e Entry) bool { return e.Key == key })
		b.Entries = append(b.Entries, Entry{Line: p.line, Key: key, Bad: true})
	}
}

// ranges writes rising line numbers as "line 3" or "lines 3–5, 9".
func ranges(lines []int) string {
	var parts []string
	for i := 0; i < len(lines); {
		j := i
		for j+1 < len(lines) && lines[j+1] == lines[j]+1 {
			j++
		}
		part := fmt.Sprint(lines[i])
		if j > i {
			part += fmt.Sprintf("–%d", lines[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	if len(lines) == 1 {
		return "line " + parts[0]
	}
	return "lines " + strings.Join(parts, ", ")
}
