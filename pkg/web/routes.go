package web

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/web/access"
)

// A view is one function from a request to a value, its page and its place in
// the JSON interface.
type view struct {
	method string // GET if ""
	page   string // path of its page, "" if it has none
	api    string // path of its JSON, "" if it has none
	role   access.Role
	name   string // of its template, and of its entry in the navigation
	title  string
	do     func(s *Server, r *request) (any, error)

	// For openapi.json: what it gives, a value of the type that it answers
	// with, and the names of its parameters.
	doc    string
	answer any
	params []string
}

// A goTo as the value of a view that changed something is the page that shows
// what came of it; the JSON interface gives its Value.
type goTo struct {
	Page  string
	Value any
}

const apiPrefix = "/api/v1"

func (s *Server) routes(mux *http.ServeMux) {
	for i := range views {
		v := &views[i]
		method := v.method
		if method == "" {
			method = http.MethodGet
		}
		if v.page != "" {
			mux.HandleFunc(method+" "+v.page, func(w http.ResponseWriter, r *http.Request) { s.servePage(w, r, v) })
		}
		if v.api != "" {
			mux.HandleFunc(method+" "+apiPrefix+v.api, func(w http.ResponseWriter, r *http.Request) { s.serveJSON(w, r, v) })
		}
	}
	mux.HandleFunc("GET "+apiPrefix+"/live", s.live)
	mux.HandleFunc("GET "+apiPrefix+"/openapi.json", s.openAPI)
	mux.HandleFunc("GET /events/{index}/proof", s.proof)
	mux.HandleFunc("GET "+apiPrefix+"/events/{index}/proof", s.proof)
	mux.HandleFunc("GET /login", s.loginPage)
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("POST /logout", s.logout)
	mux.HandleFunc("POST /jsonrpc", s.jsonRPC)
	mux.HandleFunc("GET /healthz", s.health)
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /static/{hash}/{file}", s.assets.serve)
	mux.Handle("GET /tlog/", s.only(access.Viewer, http.StripPrefix("/tlog", &chain.TileHandler{FS: s.log.FS})))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		f := fail(http.StatusNotFound, "there is no page %s", r.URL.Path)
		if strings.HasPrefix(r.URL.Path, "/api/") {
			s.answerFailure(w, r, f)
			return
		}
		s.failurePage(w, r, f, "Not here")
	})
}

// only lets through who has at least a role.
func (s *Server) only(role access.Role, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := s.allowed(r, role); f != nil {
			s.answerFailure(w, r, f)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) allowed(r *http.Request, role access.Role) *failure {
	have := access.Of(r.Context())
	switch {
	case have.Role == access.Nobody:
		return fail(http.StatusUnauthorized, "log in first").hint("gb-web login gives a link")
	case have.Role < role:
		return fail(http.StatusForbidden, "this needs the role %s; you are logged in as %s", role, have.Role).hint("gb-web login --role " + role.String())
	}
	return nil
}

// viewTime bounds what a view may take.
const viewTime = 20 * time.Second

func (s *Server) run(r *http.Request, v *view) (any, error) {
	if f := s.allowed(r, v.role); f != nil {
		return nil, f
	}
	session := access.Of(r.Context())
	ctx, cancel := context.WithTimeout(r.Context(), viewTime)
	defer cancel()
	if err := r.ParseForm(); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return nil, fail(http.StatusRequestEntityTooLarge, "more than %d bytes", large.Limit)
		}
		return nil, fail(http.StatusBadRequest, "the form can't be read: %v", err)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		token := r.Header.Get("X-Form-Token")
		if token == "" {
			token = r.PostFormValue("form_token")
		}
		if !access.ByHeader(r) && !access.CheckForm(session.Token, token) {
			return nil, fail(http.StatusForbidden, "the form is not of this session").hint("load the page anew")
		}
	}
	return v.do(s, &request{r, session, ctx})
}

func (s *Server) serveJSON(w http.ResponseWriter, r *http.Request, v *view) {
	value, err := s.run(r, v)
	if err != nil {
		s.answerFailure(w, r, failureOf(err))
		return
	}
	if g, ok := value.(*goTo); ok {
		value = g.Value
	}
	s.writeJSON(w, r, http.StatusOK, value)
}

func (s *Server) writeJSON(w http.ResponseWriter, r *http.Request, status int, value any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(true)
	if err := enc.Encode(value); err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	s.write(w, r, status, b.Bytes())
}

// answerFailure answers a program.
func (s *Server) answerFailure(w http.ResponseWriter, r *http.Request, f *failure) {
	if f.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="gb-web"`)
	}
	s.writeJSON(w, r, f.Status, f)
}

// A page is what templates see.
type page struct {
	Name, Title string
	Login       access.Session
	FormToken   string
	Path        string // with its query
	View        any
	Failure     *failure
	Status      int
	Server      *Server
	Now         time.Time
}

func (s *Server) newPage(r *http.Request, name, title string) *page {
	session := access.Of(r.Context())
	p := &page{Name: name, Title: title, Login: session, Path: r.URL.RequestURI(), Server: s, Now: time.Now()}
	if session.Role != access.Nobody {
		p.FormToken = access.FormToken(session.Token)
	}
	return p
}

func (s *Server) servePage(w http.ResponseWriter, r *http.Request, v *view) {
	value, err := s.run(r, v)
	if err != nil {
		f := failureOf(err)
		if f.Status == http.StatusUnauthorized && r.Method == http.MethodGet {
			http.Redirect(w, r, "/login?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
			return
		}
		s.failurePage(w, r, f, v.title)
		return
	}
	if g, ok := value.(*goTo); ok {
		http.Redirect(w, r, g.Page, http.StatusSeeOther)
		return
	}
	p := s.newPage(r, v.name, v.title)
	p.View = value
	s.render(w, r, http.StatusOK, v.name+".html", p)
}

func (s *Server) failurePage(w http.ResponseWriter, r *http.Request, f *failure, title string) {
	p := s.newPage(r, "", title)
	p.Failure, p.Status = f, f.Status
	s.render(w, r, f.Status, "failure.html", p)
}

func (s *Server) render(w http.ResponseWriter, r *http.Request, status int, name string, p *page) {
	var b bytes.Buffer
	if err := s.pages.ExecuteTemplate(&b, name, p); err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	s.write(w, r, status, b.Bytes())
}

var gzips = sync.Pool{New: func() any { z, _ := gzip.NewWriterLevel(nil, 5); return z }}

// write writes a body, compressed where that is worth it and wanted.
func (s *Server) write(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	s.requests.add(status)
	w.Header().Add("Vary", "Accept-Encoding")
	if len(body) > 1400 && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		var b bytes.Buffer
		z := gzips.Get().(*gzip.Writer)
		z.Reset(&b)
		z.Write(body)
		z.Close()
		gzips.Put(z)
		body = b.Bytes()
		w.Header().Set("Content-Encoding", "gzip")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(body)
	}
}

// loginPage shows whose link it is. Looking at it does not use it up: what
// previews links would.
func (s *Server) loginPage(w http.ResponseWriter, r *http.Request) {
	p := s.newPage(r, "login", "Log in")
	ticket := r.FormValue("ticket")
	l, ok := s.Sessions.Peek(ticket)
	if ticket == "" && p.Login.Role != access.Nobody {
		http.Redirect(w, r, local(r.FormValue("next")), http.StatusSeeOther)
		return
	}
	v := struct {
		Ticket, Next string
		Login        access.Login
		Good         bool
	}{ticket, local(r.FormValue("next")), l, ok}
	if ticket != "" && !ok {
		p.Failure = fail(http.StatusGone, "%v", access.ErrTicket)
	}
	p.View = v
	status := http.StatusOK
	if p.Failure != nil {
		status = p.Failure.Status
	}
	s.render(w, r, status, "login.html", p)
}

// local returns a path of ours, the first page if next is anything else.
func local(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") ||
		strings.ContainsAny(next, "\\\x00\r\n\t") || strings.HasPrefix(u.Path, "/login") {
		return "/"
	}
	return next
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	token, l, err := s.Sessions.Redeem(r.PostFormValue("ticket"))
	if err != nil {
		p := s.newPage(r, "login", "Log in")
		p.Failure = fail(http.StatusGone, "%v", err)
		p.View = struct {
			Ticket, Next string
			Login        access.Login
			Good         bool
		}{}
		s.render(w, r, http.StatusGone, "login.html", p)
		return
	}
	s.Logger.Info("logged in", "user", l.User, "uid", l.UID, "role", l.Role.String(), "session", l.ID)
	s.guard.SetCookie(w, token)
	http.Redirect(w, r, local(r.PostFormValue("next")), http.StatusSeeOther)
}

func (s *Server) logout(w http.ResponseWriter, r *http.Request) {
	session := access.Of(r.Context())
	if session.Role != access.Nobody && access.CheckForm(session.Token, r.PostFormValue("form_token")) {
		s.Sessions.End(session.Token)
		s.Logger.Info("logged out", "user", session.User, "session", session.ID)
		s.guard.ClearCookie(w)
	}
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// health says whether the server can do its work: read the log.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if _, _, err := s.log.Bounds(); err != nil {
		s.write(w, r, http.StatusServiceUnavailable, []byte("the log can't be read\n"))
		return
	}
	if err := s.tail.Err(); err != nil {
		s.write(w, r, http.StatusServiceUnavailable, []byte("the log can't be followed\n"))
		return
	}
	s.write(w, r, http.StatusOK, []byte("ok\n"))
}
