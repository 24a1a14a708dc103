package search

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
)

// A Request is a question, as a line of JSON over a Unix stream socket. The
// server answers with a line {"hit":{…}} for each hit, best first, and then
// {"end":{…}}, or {"error":{…}}; then it takes the next request.
type Request struct {
	Question string     `json:"question"`
	Limit    int        `json:"limit,omitempty"` // DefaultLimit if 0
	Since    *time.Time `json:"since,omitempty"` // of the events' time
	Until    *time.Time `json:"until,omitempty"` // not included
	Sources  []string   `json:"sources,omitempty"`
	Types    []string   `json:"types,omitempty"`
	Hosts    []string   `json:"hosts,omitempty"`
	Actors   []string   `json:"actors,omitempty"`
	Severity string     `json:"severity,omitempty"` // this grave or graver
	Explain  bool       `json:"explain,omitempty"`  // say why each hit is one
	Like     *int64     `json:"like,omitempty"`     // similar to the event with this index, instead of a question
	Around   *int64     `json:"around,omitempty"`   // around that event
}

// Limits of a Request.
const (
	DefaultLimit = 10
	MaxLimit     = 10000
	maxRequest   = 64 << 10 // bytes
)

// An End says how an answer ended.
type End struct {
	Hits     int              `json:"hits"`
	Verified *Verified        `json:"verified"` // null while a finding stands, or if the index is empty
	Finding  string           `json:"finding,omitempty"`
	Window   *Window          `json:"window,omitempty"` // what the question's time words were taken for
	More     bool             `json:"more,omitempty"`   // more events hold what was asked for than the newest that were looked at
	Logs     map[string]State `json:"logs,omitempty"`   // where the index holds several: of each
}

// A Failure is an answer that is none.
type Failure struct {
	Text     string `json:"text"`
	HintText string `json:"hint,omitempty"`
	Code     int    `json:"code"` // exit code that fits
}

func (f *Failure) Error() string { return f.Text }

// ExitCode returns Code.
func (f *Failure) ExitCode() int { return f.Code }

// Hint returns HintText.
func (f *Failure) Hint() string { return f.HintText }

// A line is one line of an answer. Exactly one field is set.
type line struct {
	Hit   *Hit     `json:"hit,omitempty"`
	End   *End     `json:"end,omitempty"`
	Error *Failure `json:"error,omitempty"`
}

// ask returns what r asks for.
func (r *Request) ask() (Ask, error) {
	a := Ask{Question: r.Question, Limit: r.Limit, Explain: r.Explain,
		Filter: index.Filter{Sources: r.Sources, Types: r.Types, Hosts: r.Hosts, Actors: r.Actors}}
	if a.Limit == 0 {
		a.Limit = DefaultLimit
	}
	if a.Limit < 0 || a.Limit > MaxLimit {
		return a, &Failure{Text: fmt.Sprintf("limit %d: want 1 to %d", r.Limit, MaxLimit), Code: 2}
	}
	if r.Since != nil {
		a.Filter.Since = *r.Since
	}
	if r.Until != nil {
		a.Filter.Until = *r.Until
	}
	if r.Severity != "" {
		var err error
		if a.Filter.Severity, err = event.ParseSeverity(r.Severity); err != nil {
			return a, &Failure{Text: err.Error(), Code: 2}
		}
		a.Filter.HasSeverity = true
	}
	for _, of := range []struct {
		index *int64
		set   *bool
	}{{r.Like, &a.Like}, {r.Around, &a.Around}} {
		switch {
		case of.index == nil:
		case a.Like || a.Question != "":
			return a, &Failure{Text: "a question, like and around: want one of them", Code: 2}
		case *of.index < 0:
			return a, &Failure{Text: fmt.Sprintf("event %d: want an index from 0", *of.index), Code: 2}
		default:
			a.Index, *of.set = *of.index, true
		}
	}
	return a, nil
}

// Answer asks ix what r says.
func (s *Searcher) Answer(ctx context.Context, ix index.Reader, r Request, st State) ([]Hit, *End, error) {
	a, err := r.ask()
	if err != nil {
		return nil, nil, err
	}
	found, err := s.Search(ctx, ix, a, st)
	if errors.Is(err, ErrNoQuestion) {
		return nil, nil, &Failure{Text: err.Error(), HintText: `gb-vecsync search "what changed on the bridge"`, Code: 2}
	}
	if err != nil {
		return nil, nil, err
	}
	return found.Hits, &End{Hits: len(found.Hits), Verified: st.Verified, Finding: st.Finding, Window: found.Window, More: found.More, Logs: st.Logs}, nil
}

// A Server answers requests. It opens the index for each one, so that an index
// that was made anew, or is not there yet, is found.
type Server struct {
	Open   func() (index.Reader, State, error)
	Logger *slog.Logger

	Searcher Searcher

	// Idle is how long Serve goes on with no connection open; forever if 0.
	Idle time.Duration
	// Alive is called about once a second, may be nil.
	Alive func()

	mu      sync.Mutex
	conns   map[net.Conn]bool
	since   time.Time // when conns became empty
	closing bool
}

// quiet is how long a connection may say nothing, or take nothing.
const quiet = 5 * time.Minute

// grace is how long Serve waits at its end for requests and answers that are
// under way.
const grace = time.Second

// patience is how long one request may take.
const patience = 30 * time.Second

// maxConns is how many are answered at the same time; others wait.
const maxConns = 64

// Serve answers on ls until ctx ends or nobody has been there for s.Idle; both
// are no error. Who has connected by then is still answered; who waits in the
// queue of a socket of systemd's is for the next process.
func (s *Server) Serve(ctx context.Context, ls ...net.Listener) error {
	s.conns, s.since = make(map[net.Conn]bool), time.Now()
	slots := make(chan struct{}, maxConns)
	failed := make(chan error, len(ls))
	var running sync.WaitGroup
	for _, l := range ls {
		running.Go(func() {
			for {
				slots <- struct{}{}
				conn, err := l.Accept()
				if err != nil {
					failed <- err
					return
				}
				s.enter(conn)
				running.Go(func() {
					defer func() { <-slots }()
					defer s.leave(conn)
					s.serve(conn)
				})
			}
		})
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var err error
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case err = <-failed:
			done = true
		case <-tick.C:
			if s.Alive != nil {
				s.Alive()
			}
			done = s.idle()
		}
	}
	for _, l := range ls {
		l.Close()
	}
	s.mu.Lock()
	s.closing = true
	for conn := range s.conns {
		conn.SetDeadline(time.Now().Add(grace))
	}
	s.mu.Unlock()
	running.Wait()
	return err
}

func (s *Server) enter(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[conn] = true
}

func (s *Server) leave(conn net.Conn) {
	conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
	s.since = time.Now()
}

func (s *Server) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Idle > 0 && len(s.conns) == 0 && time.Since(s.since) > s.Idle
}

// await gives conn time for one more request, unless Serve is at its end.
func (s *Server) await(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		conn.SetDeadline(time.Now().Add(quiet))
	}
}

// serve answers one connection.
func (s *Server) serve(conn net.Conn) {
	r := bufio.NewReaderSize(conn, maxRequest)
	w := bufio.NewWriter(conn)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for {
		s.await(conn)
		request, err := r.ReadSlice('\n')
		if len(bytes.TrimSpace(request)) == 0 && err != nil {
			return
		}
		var lines []line
		if errors.Is(err, bufio.ErrBufferFull) {
			lines = []line{{Error: &Failure{Text: fmt.Sprintf("a request of more than %d bytes", maxRequest), Code: 2}}}
		} else {
			lines = s.answer(request)
		}
		for _, l := range lines {
			if enc.Encode(l) != nil {
				return
			}
		}
		if w.Flush() != nil || err != nil {
			return
		}
	}
}

func (s *Server) answer(request []byte) []line {
	hits, end, err := s.ask(request)
	if err != nil {
		f := new(Failure)
		if !errors.As(err, &f) {
			f = &Failure{Text: err.Error(), Code: 1}
			var coded interface{ ExitCode() int }
			if errors.As(err, &coded) {
				f.Code = coded.ExitCode()
			}
			var hinted interface{ Hint() string }
			if errors.As(err, &hinted) {
				f.HintText = hinted.Hint()
			}
			s.Logger.Warn("no answer", "error", err)
		}
		return []line{{Error: f}}
	}
	lines := make([]line, 0, len(hits)+1)
	for i := range hits {
		lines = append(lines, line{Hit: &hits[i]})
	}
	return append(lines, line{End: end})
}

func (s *Server) ask(request []byte) ([]Hit, *End, error) {
	var r Request
	dec := json.NewDecoder(bytes.NewReader(request))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return nil, nil, &Failure{Text: "request: " + err.Error(), Code: 2}
	}
	ix, state, err := s.Open()
	if err != nil {
		return nil, nil, err
	}
	defer ix.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.Searcher.Answer(ctx, ix, r, state)
}

// An UnavailableError says that no search answers: exit code 75.
type UnavailableError struct {
	Socket string
	Err    error
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("search at %s: %v", e.Socket, e.Err)
}
func (e *UnavailableError) Unwrap() error { return e.Err }

// ExitCode is EX_TEMPFAIL.
func (e *UnavailableError) ExitCode() int { return 75 }

// Hint says what to do.
func (e *UnavailableError) Hint() string {
	return "is blockchain-search.socket active, and are you in the group ghostbridge?"
}

// answerTime is how long an answer may take: a socket takes connections even if
// the service behind it does not start.
const answerTime = 30 * time.Second

// AskSocket asks the server at a Unix socket. The error is an
// *UnavailableError if none answers, and a *Failure if it can't.
func AskSocket(ctx context.Context, socket string, r Request) ([]Hit, *End, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, nil, &UnavailableError{socket, err}
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	conn.SetDeadline(time.Now().Add(answerTime))
	request, err := json.Marshal(r)
	if err != nil {
		return nil, nil, err
	}
	if _, err := conn.Write(append(request, '\n')); err != nil {
		return nil, nil, &UnavailableError{socket, err}
	}
	var hits []Hit
	for dec := json.NewDecoder(conn); ; {
		var l line
		if err := dec.Decode(&l); err != nil {
			return nil, nil, &UnavailableError{socket, errors.Join(err, context.Cause(ctx))}
		}
		switch {
		case l.Error != nil:
			return nil, nil, l.Error
		case l.End != nil:
			return hits, l.End, nil
		case l.Hit != nil:
			hits = append(hits, *l.Hit)
		}
	}
}
