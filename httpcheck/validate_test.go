package httpcheck

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	ok := Spec{Kind: HTTP}.WithDefaults()
	tests := []struct {
		name string
		spec Spec
		want []string
	}{
		{name: "http", spec: ok},
		{name: "tcp", spec: Spec{Kind: TCP}.WithDefaults()},
		{name: "udp with a payload", spec: Spec{Kind: UDP, Send: "x"}.WithDefaults()},
		{name: "none", spec: Spec{Kind: None}.WithDefaults()},
		{name: "the seed's", spec: Spec{Kind: SendExpect, Send: "GET / HTTP/1.0\r\n\r\n", Expect: "HTTP", Interval: Duration(6 * time.Second), Timeout: Duration(6 * time.Second), Rise: 2, Fall: 1}.WithDefaults()},
		{name: "no kind", spec: Spec{}, want: []string{`kind, "", is missing: one of http, https, tcp, udp, send_expect, none`}},
		{name: "unknown kind", spec: Spec{Kind: "ftp"}, want: []string{`kind, "ftp", must be one of http, https, tcp, udp, send_expect, none`}},
		{name: "none with more", spec: Spec{Kind: None, Path: "/"}, want: []string{`kind, "none", takes no other value: without a check there is nothing to set`}},
		{
			name: "every problem of http at once",
			spec: Spec{Kind: HTTP, Network: "tcp", Path: "x", Host: "a b", ExpectStatus: 99, Send: "s", Expect: "e", Regex: true, Interval: Duration(time.Millisecond), Timeout: Duration(time.Hour), Rise: -1, Fall: 1001},
			want: []string{
				`path, "x", must begin with /`,
				`host, "a b", is not a host name or address`,
				`expect_status, 99, must be between 100 and 599`,
				`network, "tcp", has no effect on a http check`,
				`send, "s", has no effect on a http check`,
				`expect, "e", has no effect on a http check`,
				`regex, true, has no effect on a http check`,
				`interval, 1ms, must be between 10ms and 1h0m0s`,
				`timeout, 1h0m0s, must be between 1ms and 5m0s`,
				`rise, -1, must be between 1 and 1000`,
				`fall, 1001, must be between 1 and 1000`,
			},
		},
		{
			name: "http words on tcp",
			spec: Spec{Kind: TCP, Path: "/", Host: "h", ExpectBody: "b", ExpectStatus: 200}.WithDefaults(),
			want: []string{
				`path, "/", has no effect on a tcp check`,
				`host, "h", has no effect on a tcp check`,
				`expect_body, "b", has no effect on a tcp check`,
				`expect_status, 200, has no effect on a tcp check`,
			},
		},
		{name: "path with a blank", spec: Spec{Kind: HTTP, Path: "/a b"}.WithDefaults(), want: []string{`path, "/a b", is not a path a request can carry`}},
		{name: "header injection", spec: Spec{Kind: HTTP, Host: "h\r\nX: y"}.WithDefaults(), want: []string{`host, "h\r\nX: y", is not a host name or address`}},
		{name: "network", spec: Spec{Kind: SendExpect, Network: "sctp"}.WithDefaults(), want: []string{`network, "sctp", must be tcp or udp`}},
		{name: "regex without expect", spec: Spec{Kind: SendExpect, Regex: true}.WithDefaults(), want: []string{`regex, true, needs an expect to apply to`}},
		{name: "bad regex", spec: Spec{Kind: SendExpect, Regex: true, Expect: "(a"}.WithDefaults(), want: []string{"expect, \"(a\", is not a POSIX extended regular expression: error parsing regexp: missing closing ): `(a`"}},
		{name: "too long", spec: Spec{Kind: SendExpect, Expect: strings.Repeat("x", 4097)}.WithDefaults(), want: []string{`expect, "xxxxxxxxxxxxxxxxxxxx…", has 4097 bytes, at most 4096 are allowed`}},
		{name: "not UTF-8", spec: Spec{Kind: SendExpect, Send: "\xff"}.WithDefaults(), want: []string{`send, "\xff", is not valid UTF-8`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, err := range tt.spec.Validate() {
				got = append(got, err.Error())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Validate() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSpecJSON(t *testing.T) {
	t.Parallel()
	spec := Spec{Kind: SendExpect, Network: "tcp", Send: "GET / HTTP/1.0\r\n\r\n", Expect: "HTTP", Interval: Duration(6 * time.Second), Timeout: Duration(500 * time.Millisecond), Rise: 2, Fall: 1}
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"kind":"send_expect","network":"tcp","send":"GET / HTTP/1.0\r\n\r\n","expect":"HTTP","interval":"6s","timeout":"500ms","rise":2,"fall":1}`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("Marshal (-want +got):\n%s", diff)
	}
	var back Spec
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if back != spec {
		t.Errorf("read back %+v, want %+v", back, spec)
	}
	if err := json.Unmarshal([]byte(`{"interval":"soon"}`), &back); err == nil || !strings.Contains(err.Error(), `"soon" is not a duration`) {
		t.Errorf("a bad duration gave %v", err)
	}
}

// A spec comes from a director over the wire: whatever it holds, Validate must answer, and what it
// accepts must be possible to prepare.
func FuzzSpec(f *testing.F) {
	f.Add([]byte(`{"kind":"http","path":"/","expect_status":200,"interval":"2s","timeout":"1s","rise":2,"fall":2}`))
	f.Add([]byte(`{"kind":"send_expect","network":"udp","expect":"^(a|b)+$","regex":true,"interval":"2s","timeout":"1s","rise":1,"fall":1}`))
	f.Add([]byte(`{"kind":"https","path":"/%zz","host":"[::1]:443"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var spec Spec
		if json.Unmarshal(text, &spec) != nil {
			return
		}
		valid := len(spec.Validate()) == 0
		if _, err := New(spec); (err == nil) != valid {
			t.Errorf("Validate says %v, New says %v", valid, err)
		}
	})
}
