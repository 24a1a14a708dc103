package web

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/search"
)

// A Searcher answers questions.
type Searcher interface {
	// Ask returns hits, best first, and what stands at the end of an answer.
	Ask(ctx context.Context, r search.Request) ([]search.Hit, *search.End, error)
}

// A SearchSocket is the search at a Unix socket.
type SearchSocket string

// Ask implements Searcher.
func (s SearchSocket) Ask(ctx context.Context, r search.Request) ([]search.Hit, *search.End, error) {
	return search.AskSocket(ctx, string(s), r)
}

// A searchView is a question with its answer.
type searchView struct {
	Hits     []hitView        `json:"hits"`
	Verified *search.Verified `json:"verified"` // null while a finding stands
	Finding  string           `json:"finding,omitempty"`
	Window   string           `json:"window,omitempty"` // what the question's time words were taken for
	Question string           `json:"question"`
	Like     int64            `json:"like,omitempty"`
	Asked    bool             `json:"asked"`
	Best     float64          `json:"-"`
	Severity string           `json:"-"`
	Sources  []string         `json:"-"`
	Since    string           `json:"-"`
	Until    string           `json:"-"`
}

type hitView struct {
	search.Hit
	Index  int64   `json:"index"` // of the newest occurrence
	Look   string  `json:"-"`
	Marked []piece `json:"-"`
	Others []int64 `json:"-"`
	Why    string  `json:"reason,omitempty"`
}

// A piece of a text, marked or not.
type piece struct {
	Text string
	On   bool
}

const (
	markOn  = "\x02"
	markOff = "\x03"
)

// pieces are a hit's message with the words marked that it matched by.
func pieces(h *search.Hit) []piece {
	text := strings.NewReplacer(markOn, "", markOff, "").Replace(h.Message)
	if len(text) > 4*messageInList {
		text = strings.ToValidUTF8(text[:4*messageInList], "") + "…"
	}
	if h.Why == nil {
		return []piece{{clean(text), false}}
	}
	var out []piece
	for k, part := range strings.Split(h.Why.Mark(text, markOn, markOff), markOn) {
		on, off, ok := strings.Cut(part, markOff)
		if k == 0 || !ok {
			out = append(out, piece{clean(part), false})
			continue
		}
		out = append(out, piece{clean(on), true}, piece{clean(off), false})
	}
	return out
}

func (s *Server) search(r *request) (any, error) {
	v := &searchView{Hits: []hitView{}}
	var err error
	if v.Question, err = r.text("q", 1000); err != nil {
		return nil, err
	}
	limit, err := r.number("limit", 20, 1, 200)
	if err != nil {
		return nil, err
	}
	q := search.Request{Question: v.Question, Limit: int(limit), Explain: true}
	if q.Types, err = r.list("type"); err != nil {
		return nil, err
	}
	if q.Hosts, err = r.list("host"); err != nil {
		return nil, err
	}
	if q.Actors, err = r.list("actor"); err != nil {
		return nil, err
	}
	sources, err := r.list("source")
	if err != nil {
		return nil, err
	}
	v.Sources = strings.Fields(strings.Join(sources, " "))
	q.Sources = v.Sources
	if v.Severity, err = r.text("severity", 20); err != nil {
		return nil, err
	}
	if v.Severity != "" {
		if _, err := event.ParseSeverity(v.Severity); err != nil {
			return nil, fail(http.StatusBadRequest, "%v", err)
		}
		q.Severity = v.Severity
	}
	for name, at := range map[string]**time.Time{"since": &q.Since, "until": &q.Until} {
		text, err := r.text(name, 60)
		if err != nil {
			return nil, err
		}
		if text == "" {
			continue
		}
		t, err := chain.ParseTime(text, time.Now())
		if err != nil {
			return nil, fail(http.StatusBadRequest, "%s: %v", name, err)
		}
		*at = &t
		if name == "since" {
			v.Since = text
		} else {
			v.Until = text
		}
	}
	like, err := r.number("like", -1, 0, 1<<50)
	if err != nil {
		return nil, err
	}
	if like >= 0 {
		v.Like, q.Like, q.Question = like, &like, ""
	}
	if v.Question == "" && like < 0 {
		return v, nil
	}
	v.Asked = true
	if s.Search == nil {
		return nil, fail(http.StatusServiceUnavailable, "there is no search here").hint("gb-web serve --search names its socket")
	}
	hits, end, err := s.Search.Ask(r.ctx, q)
	if err != nil {
		return nil, searchFailure(err)
	}
	v.Verified, v.Finding = end.Verified, end.Finding
	if w := end.Window; w != nil {
		v.Window = "“" + clean(w.Words) + "” is taken for " + w.String() + "; since and until say otherwise"
	}
	for i := range hits {
		h := hitView{Hit: hits[i], Marked: pieces(&hits[i])}
		if sev, err := event.ParseSeverity(h.Severity); err == nil {
			h.Look = severityClass(sev)
		}
		for k, o := range h.Occurrences {
			if k == 0 {
				h.Index = o.Index
			} else if k < 6 {
				h.Others = append(h.Others, o.Index)
			}
		}
		if h.Hit.Why != nil {
			h.Why = clean(h.Hit.Why.String())
		}
		h.Hit.Message, h.Hit.Subject, h.Hit.Actor, h.Hit.Template = clean(h.Hit.Message), clean(h.Hit.Subject), clean(h.Hit.Actor), clean(h.Hit.Template)
		v.Best = max(v.Best, h.Score)
		v.Hits = append(v.Hits, h)
	}
	return v, nil
}

// searchFailure says whose fault it is that there is no answer.
func searchFailure(err error) error {
	var none *search.UnavailableError
	if errors.As(err, &none) {
		return fail(http.StatusServiceUnavailable, "the search does not answer").hint("systemctl start blockchain-search.socket; the timeline works without it")
	}
	var f *search.Failure
	if errors.As(err, &f) {
		status := http.StatusBadGateway
		if f.Code == 1 || f.Code == 2 {
			status = http.StatusUnprocessableEntity
		}
		return fail(status, "%s", clean(f.Text)).hint(clean(f.HintText))
	}
	return err
}
