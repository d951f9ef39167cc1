package api

import (
	"io"
	"net"
	"net/http"
	"net/netip"

	"lvstun/director/api/ui"
)

// localHandler serves this host: who may open the socket needs no token.
func (s *Server) localHandler() http.Handler {
	mux := http.NewServeMux()
	s.readOnly(mux)
	mux.HandleFunc("POST /v1/handover", func(w http.ResponseWriter, r *http.Request) {
		if err := s.cfg.Backend.Handover(r.Context()); err != nil {
			refusal{status: http.StatusConflict, sentence: err.Error()}.write(w)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// webHandler serves the page and what monitoring reads. It changes nothing.
func (s *Server) webHandler() http.Handler {
	mux := http.NewServeMux()
	s.readOnly(mux)
	mux.Handle("/", ui.Handler(s.status))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.rightHost(r) {
			f := refusal{status: http.StatusMisdirectedRequest, reason: wrongHost,
				sentence: "ask by address or as localhost: this page is for its own host"}
			s.refused.record(f, sourceOf(r.RemoteAddr), "")
			f.write(w)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) readOnly(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, s.status())
	})
	mux.Handle("GET /metrics", s.metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "ok\n")
	})
}

// rightHost refuses names on a loopback listener. A page somewhere on the
// internet could otherwise have its own name point at 127.0.0.1 and read all of
// this through the operator's browser.
func (s *Server) rightHost(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok || !sourceOf(local.String()).IsLoopback() {
		return true
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "localhost" {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}
