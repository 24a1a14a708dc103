package mcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// HTTPOptions are for Handler.
type HTTPOptions struct {
	Tokens *Tokens
	// Hosts are names beside localhost, 127.0.0.1 and [::1] that a request may
	// give as its Host, those of a proxy in front.
	Hosts []string
}

// Endpoint is the path of the one URL.
const Endpoint = "/mcp"

// Bounds of HTTP.
const (
	maxRequests    = 512 // under way
	maxSessions    = 1024
	sessionTimeout = 30 * time.Minute
	bodyTimeout    = 15 * time.Second
	maxHeader      = 32 << 10
)

// stateless is the first revision of the protocol without sessions.
const stateless = "2026-07-28"

// Handler serves agents over streamable HTTP, those of both eras at one URL.
func (s *Server) Handler(o HTTPOptions) http.Handler {
	s.byToken.Store(true)
	pick := func(r *http.Request) *mcp.Server {
		t := auth.TokenInfoFromContext(r.Context())
		if t == nil {
			return nil
		}
		return s.forScopes(t.Scopes)
	}
	options := mcp.StreamableHTTPOptions{Logger: s.o.Logger, SessionTimeout: sessionTimeout, MaxRequestBodyBytes: maxRequest, PropagateRequestCancellation: true,
		DisableLocalhostProtection: true} // hosts does it for every address
	old := mcp.NewStreamableHTTPHandler(pick, &options)
	options.Stateless = true
	recent := mcp.NewStreamableHTTPHandler(pick, &options)
	eras := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Mcp-Protocol-Version") >= stateless {
			recent.ServeHTTP(w, r)
			return
		}
		if r.Header.Get("Mcp-Session-Id") == "" && s.sessions() >= maxSessions {
			http.Error(w, "too many sessions", http.StatusServiceUnavailable)
			return
		}
		old.ServeHTTP(w, r)
	})
	verify := func(_ context.Context, secret string, r *http.Request) (*auth.TokenInfo, error) {
		t, err := o.Tokens.Check(secret)
		if errors.Is(err, ErrNoToken) {
			s.turnedAway(r, "the token is not valid")
			return nil, fmt.Errorf("%w: unknown, expired or revoked", auth.ErrInvalidToken)
		}
		if err != nil {
			s.o.Logger.Error("tokens can't be read", "error", err)
			return nil, errors.New("tokens can't be read")
		}
		return &auth.TokenInfo{UserID: t.Name, Scopes: t.Scopes, Expiration: t.Expires}, nil
	}
	h := auth.RequireBearerToken(verify, nil)(eras)
	h = s.sameOrigin(h)
	h = s.knownHost(o.Hosts, promptBody(h))
	return atMost(maxRequests, h)
}

// sessions counts those of the era that has them.
func (s *Server) sessions() int {
	n := 0
	for _, srv := range s.protocolServers() {
		for range srv.Sessions() {
			n++
		}
	}
	return n
}

// turnedAway has a request recorded that was not let in.
func (s *Server) turnedAway(r *http.Request, why string) {
	s.log.add(step{who: claim{Client: "-"}, method: "http", subject: r.Method + " " + clean(r.URL.Path, 100), start: time.Now(), note: note{outcome: "refused", reason: why}})
}

// sameOrigin refuses what a page of another origin has a browser send: fetch
// metadata and Origin (CSRF), and, since the spec asks for it, any Origin but
// this host's.
func (s *Server) sameOrigin(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := protection.Check(r)
		origins := r.Header.Values("Origin")
		switch {
		case err != nil, len(origins) > 1:
		case len(origins) == 1 && !sameHost(origins[0], r.Host):
		default:
			next.ServeHTTP(w, r)
			return
		}
		s.turnedAway(r, "another origin")
		http.Error(w, "Forbidden: another origin", http.StatusForbidden)
	})
}

func sameHost(origin, host string) bool {
	rest, ok := strings.CutPrefix(origin, "http://")
	if !ok {
		rest, ok = strings.CutPrefix(origin, "https://")
	}
	return ok && rest == host
}

// knownHost refuses a Host that is not this host's: a name of a stranger that
// was made to mean 127.0.0.1 (DNS rebinding).
func (s *Server) knownHost(more []string, next http.Handler) http.Handler {
	known := append([]string{"localhost", "127.0.0.1", "::1"}, more...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.Host
		if h, port, err := net.SplitHostPort(name); err == nil && digits(port) {
			name = h
		} else {
			name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
		}
		if !slices.Contains(known, strings.ToLower(name)) {
			s.turnedAway(r, "host "+clean(r.Host, 100))
			http.Error(w, "Forbidden: invalid Host header", http.StatusForbidden)
			return
		}
		if r.URL.Path != Endpoint {
			http.NotFound(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// promptBody reads the body before anything is done, so that nobody holds a
// request open by sending it slowly. The server's ReadTimeout would end answers
// that take longer, too.
func promptBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body == nil || r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		c := http.NewResponseController(w)
		if err := c.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil {
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		var long *http.MaxBytesError
		switch {
		case errors.As(err, &long):
			http.Error(w, fmt.Sprintf("the body is longer than %d bytes", maxRequest), http.StatusRequestEntityTooLarge)
			return
		case err != nil:
			http.Error(w, "the body can't be read", http.StatusBadRequest)
			return
		}
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			http.Error(w, "internal error", http.StatusInternalServerError)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}

// atMost refuses more than n requests at once.
func atMost(n int, next http.Handler) http.Handler {
	slots := make(chan struct{}, n)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			next.ServeHTTP(w, r)
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many requests at once", http.StatusServiceUnavailable)
		}
	})
}

// Serve serves agents on listeners until ctx ends, then for as long as what is
// under way takes, at most five seconds.
func (s *Server) Serve(ctx context.Context, o HTTPOptions, listeners ...net.Listener) error {
	srv := &http.Server{Handler: s.Handler(o), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: maxHeader}
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- srv.Serve(l) }()
	}
	select {
	case err := <-failed:
		srv.Close()
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if srv.Shutdown(stop) != nil {
		srv.Close() // streams of agents that wait for something
	}
	return nil
}
