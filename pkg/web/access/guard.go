package access

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
)

// A Guard is what every request passes: it must be addressed to a name of ours,
// a request that changes something must come from a page of ours, and who asks
// must be known.
type Guard struct {
	Sessions *Sessions
	Hosts    []string // names, without a port, beside those of loopback
	Secure   bool     // TLS
}

// cookie is the name of the session's cookie. Over TLS the browser holds it to
// this very host.
func (g *Guard) cookie() string {
	if g.Secure {
		return "__Host-gb"
	}
	return "gb"
}

type loginKey struct{}

// Session is a login with its token.
type Session struct {
	Login
	Token string
}

// Of returns the session of a request; its role is Nobody if there is none.
func Of(ctx context.Context) Session {
	s, _ := ctx.Value(loginKey{}).(Session)
	return s
}

// host says whether a Host header names us: a name that an attacker's DNS made
// to mean this address does not.
func (g *Guard) host(h string) bool {
	name := h
	if n, _, err := net.SplitHostPort(h); err == nil {
		name = n
	}
	name = strings.TrimSuffix(strings.ToLower(strings.Trim(name, "[]")), ".")
	return name == "localhost" || name == "127.0.0.1" || name == "::1" || slices.Contains(g.Hosts, name)
}

const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"frame-ancestors 'none'; form-action 'self'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Wrap returns next behind the checks.
func (g *Guard) Wrap(next http.Handler) http.Handler {
	cross := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		// Not no-referrer: with it browsers say Origin: null of our own forms.
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=()")
		if g.Secure {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		if !g.host(r.Host) {
			http.Error(w, "this server does not go by that name; gb-web serve --host names it", http.StatusMisdirectedRequest)
			return
		}
		// A page of another site can't read what it gets, but it must not
		// make requests either, whatever the browser sends with them.
		if err := cross.Check(r); err != nil {
			http.Error(w, "a request of another site's page", http.StatusForbidden)
			return
		}
		if origin := r.Header.Get("Origin"); origin != "" && !g.origin(origin, r) {
			http.Error(w, "a request of another site's page", http.StatusForbidden)
			return
		}
		if token := g.token(r); token != "" {
			if l, ok := g.Sessions.Find(token); ok {
				r = r.WithContext(context.WithValue(r.Context(), loginKey{}, Session{l, token}))
			}
		}
		next.ServeHTTP(w, r)
	})
}

func (g *Guard) origin(origin string, r *http.Request) bool {
	scheme := "http://"
	if g.Secure {
		scheme = "https://"
	}
	return strings.EqualFold(origin, scheme+r.Host)
}

// token returns the token that a request brings: a browser's cookie, a
// program's header.
func (g *Guard) token(r *http.Request) string {
	if t, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return t
	}
	if c, err := r.Cookie(g.cookie()); err == nil {
		return c.Value
	}
	return ""
}

// ByHeader says whether a request brings its token in a header, which no form
// of another page can.
func ByHeader(r *http.Request) bool { return r.Header.Get("Authorization") != "" }

// SetCookie gives a browser its session.
func (g *Guard) SetCookie(w http.ResponseWriter, token string) {
	http.SetCookie(w, &http.Cookie{Name: g.cookie(), Value: token, Path: "/", HttpOnly: true, Secure: g.Secure, SameSite: http.SameSiteStrictMode, MaxAge: int(SessionLife.Seconds())})
}

// ClearCookie takes it back.
func (g *Guard) ClearCookie(w http.ResponseWriter) {
	http.SetCookie(w, &http.Cookie{Name: g.cookie(), Value: "", Path: "/", HttpOnly: true, Secure: g.Secure, SameSite: http.SameSiteStrictMode, MaxAge: -1})
}
