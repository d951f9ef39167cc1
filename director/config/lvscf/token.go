package lvscf

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// curly are the quotation marks that word processors and web pages put in the place of " and '.
const curly = "“”„‟‘’‚‛«»"

// tokens splits a line at its blanks. Its error is a sentence about the line.
func tokens(line string) ([]Token, error) {
	var out []Token
	for {
		line = strings.TrimLeft(line, " \t")
		if line == "" {
			return out, nil
		}
		var t Token
		var err error
		if t, line, err = next(line); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
}

// next takes the token at the start of line off it.
func next(line string) (Token, string, error) {
	if q := line[0]; q == '"' || q == '\'' {
		end := closing(line, q)
		if end < 0 {
			return Token{}, "", fmt.Errorf("the quote %c that opens here is never closed (a backslash keeps one from closing)", q)
		}
		rest := line[end+1:]
		if rest != "" && rest[0] != ' ' && rest[0] != '\t' {
			return Token{}, "", fmt.Errorf("a blank must follow the closing quote %c", q)
		}
		return Token{Text: line[1:end], Quote: q}, rest, nil
	}
	end := strings.IndexAny(line, " \t")
	if end < 0 {
		end = len(line)
	}
	if i := strings.IndexAny(line[:end], curly); i >= 0 {
		r, _ := utf8.DecodeRuneInString(line[i:])
		return Token{}, "", fmt.Errorf("the quotation mark %c (U+%04X) is not one here: write \" instead", r, r)
	}
	return Token{Text: line[:end]}, line[end:], nil
}

// closing is the index of the quote that closes the one at line[0], or -1.
func closing(line string, q byte) int {
	for i := 1; i < len(line); i++ {
		switch line[i] {
		case '\\':
			i++
		case q:
			return i
		}
	}
	return -1
}

// oddBlank tells the blanks that pulse did not take for one: the non-breaking space and its kin.
func oddBlank(r rune) bool { return r != ' ' && unicode.Is(unicode.Zs, r) }

// unreadable says what keeps a line from being text.
func unreadable(line string) string {
	if !utf8.ValidString(line) {
		return "the line is not UTF-8: save the file in that encoding"
	}
	if i := strings.IndexFunc(line, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }); i >= 0 {
		r, _ := utf8.DecodeRuneInString(line[i:])
		return fmt.Sprintf("the line holds the control character U+%04X: take it out", r)
	}
	return ""
}

// Unescape decodes the backslash sequences \n \r \t \\ \' \" as nanny did for send and expect. Any other, on which
// nanny hung, stays as it is and is returned in others.
func Unescape(s string) (text string, others []string) {
	known := map[byte]byte{'n': '\n', 'r': '\r', 't': '\t', '\\': '\\', '\'': '\'', '"': '"'}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && known[s[i+1]] != 0 {
			i++
			b.WriteByte(known[s[i]])
			continue
		}
		_, size := utf8.DecodeRuneInString(s[i+1:])
		others = append(others, s[i:i+1+size])
		b.WriteByte('\\')
	}
	return b.String(), others
}
