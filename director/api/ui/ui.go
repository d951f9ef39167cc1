// Package ui is the read-only page that shows how a director stands. It is one
// template, one style sheet and one script, all inside the program.
package ui

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"lvstun/director/client"
)

//go:embed page.html style.css app.js icon.svg
var files embed.FS

var page = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"ago":      ago,
	"endpoint": endpoint,
	"tone":     tone,
	"dropped":  dropped,
	"instant":  func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"newest":   newest,
}).ParseFS(files, "page.html"))

// policy lets a browser load what this package serves and nothing else: even
// markup that slipped through could run nothing and tell nobody.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// view is what the page is made from.
type view struct {
	client.Status
	Refused []counter // the counters above zero, the largest first
}

type counter struct {
	Name  string
	Count uint64
}

// Handler serves the page at / and what belongs to it. Only GET and HEAD are
// answered.
func Handler(status func() client.Status) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		var b bytes.Buffer
		if err := page.Execute(&b, viewOf(status())); err != nil {
			http.Error(w, "the page cannot be made: "+err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.Write(b.Bytes()) // a reader that is gone needs no page
	})
	for _, name := range []string{"style.css", "app.js", "icon.svg"} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "no-cache")
			http.ServeFileFS(w, r, files, name)
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "no-referrer")
		mux.ServeHTTP(w, r)
	})
}

func viewOf(s client.Status) view {
	v := view{Status: s}
	for _, name := range slices.Sorted(maps.Keys(s.Counters)) {
		if n := s.Counters[name]; n > 0 {
			v.Refused = append(v.Refused, counter{name, n})
		}
	}
	slices.SortStableFunc(v.Refused, func(a, b counter) int {
		switch {
		case a.Count > b.Count:
			return -1
		case a.Count < b.Count:
			return 1
		}
		return 0
	})
	return v
}

// ago is how long t is past, in the largest unit that fits.
func ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := time.Since(t)
	switch {
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return fmt.Sprintf("%d s ago", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", d/time.Hour)
	}
	return fmt.Sprintf("%d days ago", d/(24*time.Hour))
}

// endpoint is where a service is reached: by address and port, or by mark.
func endpoint(vip netip.Addr, port uint16, protocol string, mark uint32) string {
	if mark != 0 {
		return "firewall mark " + strconv.FormatUint(uint64(mark), 10)
	}
	return net.JoinHostPort(vip.String(), strconv.Itoa(int(port))) + "/" + protocol
}

// tone is the colour of a role, a state, a path: good, warn, bad or plain.
func tone(s string) string {
	switch s {
	case "active", "ready", client.PathUp:
		return "good"
	case "draining", "confirming", "unknown", "silent":
		return "warn"
	case "down", "gone", "fault", "unbound":
		return "bad"
	}
	return "plain"
}

func dropped(by map[string]uint64) (n uint64) {
	for _, k := range by {
		n += k
	}
	return n
}

// newest are the last eight transitions, the latest first.
func newest(all []client.Transition) []client.Transition {
	out := slices.Clone(all[max(0, len(all)-8):])
	slices.Reverse(out)
	return out
}
