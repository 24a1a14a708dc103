// Package web is the web interface: pages that the server makes whole, a JSON
// interface with the same content, and a stream of the log's events.
//
// It reads the log and asks others: the search's socket, the opdbus daemon, the
// bus. It changes nothing itself; a change goes to the daemon, in the name of
// who has logged in.
//
// Each view is one function from a request to a value. The page shows that
// value and the JSON interface gives it, so that neither has more than the
// other.
package web

import (
	"context"
	"crypto/tls"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/web/access"
	"github.com/ghostbridge/ghostbridge/pkg/web/timeline"
)

// Options are what a Server needs. What is nil is not there, and its view says
// so.
type Options struct {
	LogDir     string
	Sessions   *access.Sessions
	Hosts      []string // names under which people reach the server, beside loopback's
	Secure     bool     // TLS
	Search     Searcher
	Daemon     Daemon
	Bus        *BusLink // to look at: names, objects, properties
	PolicyFile string   // of the daemon
	Snapshots  Snapshots
	Switch     Switch
	Doctor     func(ctx context.Context) []Finding // nil: nothing is checked
	CursorFile string                              // that the index has published
	Version    string
	WitnessDir string // where the log's witnesses are kept, "" if nowhere
	NoVNC      string // URL of the screens of virtual machines, "" if there is none
	Logger     *slog.Logger
	Alive      func() // called every second or so, may be nil
}

// A Server is the web interface of one host.
type Server struct {
	Options
	log      *timeline.Log
	tail     *timeline.Tail
	summary  *timeline.Summary
	checker  *checker
	prover   prover
	doctor   doctor
	asked    askedIndex
	guard    *access.Guard
	pages    *template.Template
	assets   *assets
	handler  http.Handler
	started  time.Time
	requests counters

	mu      sync.Mutex
	closing chan struct{} // closed when streams are to end
}

//go:embed templates
var templateFiles embed.FS

// New makes a server. Run starts what it does in the background.
func New(o Options) (*Server, error) {
	s := &Server{Options: o, started: time.Now(), closing: make(chan struct{})}
	fsys := os.DirFS(o.LogDir)
	s.log = &timeline.Log{FS: fsys}
	s.summary = &timeline.Summary{Log: s.log}
	s.tail = &timeline.Tail{Log: s.log, Frame: frame, Fresh: s.summary.Add}
	s.checker = &checker{dir: o.LogDir}
	s.prover = prover{fsys: fsys}
	s.guard = &access.Guard{Sessions: o.Sessions, Hosts: o.Hosts, Secure: o.Secure}
	var err error
	if s.assets, err = newAssets(); err != nil {
		return nil, err
	}
	s.pages, err = template.New("").Funcs(s.functions()).ParseFS(templateFiles, "templates/*.html")
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	s.routes(mux)
	s.handler = s.guard.Wrap(s.outermost(mux))
	return s, nil
}

// Handler returns the server's handler.
func (s *Server) Handler() http.Handler { return s.handler }

// Run follows the log, counts and checks it until ctx ends.
func (s *Server) Run(ctx context.Context) {
	// The log may be made later than this process.
	for {
		err := s.tail.Start()
		if err == nil {
			break
		}
		s.Logger.Warn("the log can't be read", "log", s.LogDir, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
	s.summary.Start(s.tail.Next())
	var all sync.WaitGroup
	all.Go(func() { s.tail.Run(ctx) })
	all.Go(func() {
		if err := s.summary.Run(ctx); err != nil && ctx.Err() == nil {
			s.Logger.Warn("counting the log's events", "error", err)
		}
	})
	all.Go(func() { s.checker.run(ctx) })
	if s.Doctor != nil {
		all.Go(func() { s.doctor.run(ctx, s.Doctor) })
	}
	all.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			if s.Alive != nil {
				s.Alive()
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	all.Wait()
}

// sendBuffer bounds what the kernel keeps for a reader that does not read; the
// default may grow to megabytes for each.
const sendBuffer = 256 << 10

// Serve answers on ls until ctx ends; then streams are ended, and what is being
// answered has a moment.
func (s *Server) Serve(ctx context.Context, ls ...net.Listener) error {
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if t, ok := c.(*tls.Conn); ok {
				c = t.NetConn()
			}
			if t, ok := c.(*net.TCPConn); ok {
				t.SetWriteBuffer(sendBuffer)
			}
			return ctx
		},
	}
	failed := make(chan error, len(ls))
	for _, l := range ls {
		go func() { failed <- srv.Serve(l) }()
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.mu.Lock()
	close(s.closing)
	s.mu.Unlock()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if serr := srv.Shutdown(stop); serr != nil {
		srv.Close()
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// A request is an HTTP request with what views need of it.
type request struct {
	*http.Request
	session access.Session
	ctx     context.Context
}

// A failure is an error that is the asker's to mend, or another part's.
type failure struct {
	Status int    `json:"-"`
	Text   string `json:"error"`
	Advice string `json:"hint,omitempty"`
}

func (f *failure) Error() string { return f.Text }

func fail(status int, format string, args ...any) *failure {
	return &failure{Status: status, Text: fmt.Sprintf(format, args...)}
}

func (f *failure) hint(text string) *failure {
	f.Advice = text
	return f
}

// failureOf says how an error is answered. What nobody foresaw is another
// part's failure, which is not this server's: 502.
func failureOf(err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	var gone *timeline.GoneError
	var refusal *Refusal
	switch {
	case errors.As(err, &refusal):
		return refusal.failure()
	case errors.As(err, &gone):
		return fail(http.StatusNotFound, "%v", err).hint("the timeline shows what there is")
	case errors.Is(err, fs.ErrNotExist):
		return fail(http.StatusServiceUnavailable, "the log can't be read: %v", err).hint("gb-chain init makes a log; gb-web serve --log names its directory")
	case errors.Is(err, fs.ErrPermission):
		return fail(http.StatusServiceUnavailable, "the log can't be read: %v", err).hint("the user of gb-web must be in the group ghostbridge")
	case errors.Is(err, context.DeadlineExceeded):
		return fail(http.StatusGatewayTimeout, "it took too long: %v", err)
	}
	f = fail(http.StatusBadGateway, "%v", err)
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		f.Advice = h.Hint()
	}
	return f
}

// text returns a parameter, checked for what no text of ours has.
func (r *request) text(name string, most int) (string, error) {
	v := r.FormValue(name)
	if len(v) > most {
		return "", fail(http.StatusBadRequest, "%s: longer than %d bytes", name, most)
	}
	if !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
		return "", fail(http.StatusBadRequest, "%s: no text", name)
	}
	return strings.TrimSpace(v), nil
}

// number returns a parameter that is a number, else otherwise.
func (r *request) number(name string, otherwise, least, most int64) (int64, error) {
	v := r.FormValue(name)
	if v == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(strings.TrimPrefix(v, "#"), 10, 64)
	if err != nil || n < least || n > most {
		return 0, fail(http.StatusBadRequest, "%s %.40q: want a number from %d to %d", name, v, least, most)
	}
	return n, nil
}

// index returns the path's index.
func (r *request) index() (int64, error) {
	n, err := strconv.ParseInt(r.PathValue("index"), 10, 64)
	if err != nil || n < 0 {
		return 0, fail(http.StatusNotFound, "%.40q is no index of an event", r.PathValue("index"))
	}
	return n, nil
}

// list returns the values of a parameter that may be repeated.
func (r *request) list(name string) ([]string, error) {
	if r.Form == nil {
		r.FormValue(name)
	}
	var out []string
	for _, v := range r.Form[name] {
		if v = strings.TrimSpace(v); v == "" {
			continue
		}
		if len(v) > 400 || len(out) >= 50 {
			return nil, fail(http.StatusBadRequest, "%s: too much", name)
		}
		out = append(out, v)
	}
	return out, nil
}

const maxBody = 1 << 20

// outermost catches what must not happen.
func (s *Server) outermost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler {
				s.Logger.Error("panic", "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
				s.requests.add(http.StatusInternalServerError)
				http.Error(w, "internal error; the service's journal says more", http.StatusInternalServerError)
			}
		}()
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

// sizes returns how far the log is signed.
func (s *Server) signed() int64 {
	n, err := chain.Sizes(s.log.FS)
	if err != nil {
		return 0
	}
	return n
}
