package httpcheck

import (
	"fmt"
	"net/url"
	"regexp"
	"regexp/syntax"
	"strings"
	"time"
	"unicode/utf8"
)

// maxText bounds Send and Expect, and the part of an answer that a regular expression sees, in bytes.
const maxText = 4096

// FieldError is one thing wrong with a Spec: the field by its key in JSON, the value, and why.
type FieldError struct {
	Field string
	Value any
	Why   string
}

// Error is "field, value, why", the order in which `check` prints it.
func (e *FieldError) Error() string {
	return fmt.Sprintf("%s, %v, %s", e.Field, quoted(e.Value), e.Why)
}

func quoted(v any) any {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("%q", v)
	case Kind:
		return fmt.Sprintf("%q", string(v))
	}
	return v
}

// Validate returns every problem of the spec, each a *FieldError; none means Probe can run it.
// Values a kind has no use for are problems too: they would be silently without effect.
func (s Spec) Validate() []error {
	v := &problems{}
	switch s.Kind {
	case HTTP, HTTPS, TCP, UDP, SendExpect:
	case None:
		if rest := (Spec{Kind: None}); s != rest {
			v.add("kind", s.Kind, "takes no other value: without a check there is nothing to set")
		}
		return v.list
	case "":
		v.add("kind", s.Kind, "is missing: one of http, https, tcp, udp, send_expect, none")
		return v.list
	default:
		v.add("kind", s.Kind, "must be one of http, https, tcp, udp, send_expect, none")
		return v.list
	}
	s.validateHTTP(v)
	s.validateText(v)
	v.within("interval", s.Interval, 10*time.Millisecond, time.Hour)
	v.within("timeout", s.Timeout, time.Millisecond, 5*time.Minute)
	v.count("rise", s.Rise)
	v.count("fall", s.Fall)
	return v.list
}

func (s Spec) validateHTTP(v *problems) {
	if s.Kind != HTTP && s.Kind != HTTPS {
		v.unused(s.Kind, "path", s.Path)
		v.unused(s.Kind, "host", s.Host)
		v.unused(s.Kind, "expect_body", s.ExpectBody)
		if s.ExpectStatus != 0 {
			v.add("expect_status", s.ExpectStatus, fmt.Sprintf("has no effect on a %s check", s.Kind))
		}
		return
	}
	if !strings.HasPrefix(s.Path, "/") {
		v.add("path", s.Path, "must begin with /")
	} else if _, err := url.ParseRequestURI(s.Path); err != nil || strings.ContainsAny(s.Path, " \r\n") {
		v.add("path", s.Path, "is not a path a request can carry")
	}
	if strings.ContainsAny(s.Host, " /\r\n\t") || !ascii(s.Host) {
		v.add("host", s.Host, "is not a host name or address")
	}
	if s.ExpectStatus < 100 || s.ExpectStatus > 599 {
		v.add("expect_status", s.ExpectStatus, "must be between 100 and 599")
	}
	v.text("expect_body", s.ExpectBody)
}

func (s Spec) validateText(v *problems) {
	switch s.Kind {
	case SendExpect:
		if s.Network != "tcp" && s.Network != "udp" {
			v.add("network", s.Network, "must be tcp or udp")
		}
		if s.Regex {
			if s.Expect == "" {
				v.add("regex", true, "needs an expect to apply to")
			} else if _, err := compile(s.Expect); err != nil {
				v.add("expect", s.Expect, err.Error())
			}
		}
	case UDP:
		v.unused(s.Kind, "network", s.Network)
	default:
		v.unused(s.Kind, "network", s.Network)
		v.unused(s.Kind, "send", s.Send)
	}
	if s.Kind != SendExpect {
		v.unused(s.Kind, "expect", s.Expect)
		if s.Regex {
			v.add("regex", true, fmt.Sprintf("has no effect on a %s check", s.Kind))
		}
	}
	v.text("send", s.Send)
	v.text("expect", s.Expect)
}

// compile gives expr the meaning regcomp(3) with REG_EXTENDED gives it: dot matches a newline too, and
// ^ and $ stand for the ends of the answer. regexp.CompilePOSIX alone would have egrep's, line by line.
func compile(expr string) (*regexp.Regexp, error) {
	tree, err := syntax.Parse(expr, syntax.POSIX|syntax.DotNL|syntax.OneLine)
	if err != nil {
		return nil, fmt.Errorf("is not a POSIX extended regular expression: %w", err)
	}
	return regexp.Compile(tree.String())
}

type problems struct{ list []error }

func (p *problems) add(field string, value any, why string) {
	p.list = append(p.list, &FieldError{Field: field, Value: value, Why: why})
}

func (p *problems) unused(kind Kind, field, value string) {
	if value != "" {
		p.add(field, value, fmt.Sprintf("has no effect on a %s check", kind))
	}
}

func (p *problems) within(field string, d Duration, low, high time.Duration) {
	if time.Duration(d) < low || time.Duration(d) > high {
		p.add(field, d, fmt.Sprintf("must be between %v and %v", low, high))
	}
}

func (p *problems) count(field string, n int) {
	if n < 1 || n > 1000 {
		p.add(field, n, "must be between 1 and 1000")
	}
}

// text bounds what goes over the wire as a JSON string, which only carries valid UTF-8 unchanged.
func (p *problems) text(field, value string) {
	if len(value) > maxText {
		p.add(field, fmt.Sprintf("%.20s…", value), fmt.Sprintf("has %d bytes, at most %d are allowed", len(value), maxText))
	}
	if !utf8.ValidString(value) {
		p.add(field, value, "is not valid UTF-8")
	}
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
