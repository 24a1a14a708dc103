// Package search asks an index a question in plain words and gives the events
// that answer it, best first.
//
// A question is data: nothing in it is an operator. Identifiers in it
// (addresses, paths, names with numbers, units) and text in double quotes must
// be held by an event as they stand. Other words are looked for by their
// stems, by words that mean the same, and by the vector of the question's
// meaning; what a hit matched by is in its Why. Time words become a window. A
// hit that covers too little of the question is none: no good answer is an
// empty answer.
package search

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/embed"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/words"
)

// A Hit is an answer, as the format of GhostBridge's searches has it.
type Hit struct {
	Score       float64      `json:"score"`
	Message     string       `json:"message"` // of the newest occurrence
	Template    string       `json:"template"`
	Source      string       `json:"source"`
	Type        string       `json:"type"`
	Subject     string       `json:"subject,omitempty"`
	Log         string       `json:"log,omitempty"` // that the indexes are of, where the index holds several
	Host        string       `json:"host"`
	Severity    string       `json:"severity"`
	Actor       string       `json:"actor,omitempty"`
	Count       int64        `json:"count"`
	More        bool         `json:"more,omitempty"` // there may be more than Count
	First       time.Time    `json:"first"`
	Last        time.Time    `json:"last"`
	Occurrences []Occurrence `json:"occurrences"` // newest first
	Verified    *Verified    `json:"verified"`    // null while a finding stands
	Finding     string       `json:"finding,omitempty"`
	Why         *Why         `json:"why,omitempty"`
}

// An Occurrence is one event of a Hit.
type Occurrence struct {
	Index int64     `json:"index"`
	Time  time.Time `json:"time"`
}

// Verified says up to where the index has checked the log that it is of.
type Verified struct {
	TreeSize int64  `json:"tree_size"`
	Root     string `json:"root"`
}

// A State is what the index says of the log: how far it is verified, or why
// not.
type State struct {
	Verified *Verified        `json:"verified"`
	Finding  string           `json:"finding,omitempty"`
	Logs     map[string]State `json:"logs,omitempty"` // of each, where the index holds several
}

// of returns the state of one log.
func (s *State) of(log string) State {
	if log == "" {
		return *s
	}
	return s.Logs[log]
}

// ErrNoQuestion says that a question has no word to look for.
var ErrNoQuestion = errors.New("the question has no word to look for")

// A Searcher has what a search needs beside the index.
type Searcher struct {
	// Embedder makes the question's vector; the words' own vectors if nil. If
	// the index has the vectors of another one, there is no search by meaning.
	Embedder embed.Embedder
	// Now is the clock for time words, time.Now if nil.
	Now func() time.Time
}

// An Ask is a question with what limits its answer.
type Ask struct {
	Question string
	Filter   index.Filter
	Limit    int
	Explain  bool
	// Lexical looks for the question's own words only, as a baseline to
	// measure by.
	Lexical bool
	// Like asks for events similar to the one with this index, Around for
	// those around it, if HasIndex.
	Like, Around bool
	Index        int64
}

// A Result is what was found.
type Result struct {
	Hits   []Hit
	Window *Window // of the question's time words, nil if there are none or flags overrode them
	Dense  bool    // meaning was asked too
	More   bool    // more events hold the question's values than were looked at
}

// Search answers. An empty answer is no error.
func (s *Searcher) Search(ctx context.Context, ix index.Reader, a Ask, st State) (*Result, error) {
	now := time.Now
	if s.Now != nil {
		now = s.Now
	}
	var out Result
	var err error
	switch {
	case a.Around:
		out.Hits, err = s.around(ctx, ix, a)
	case a.Like:
		out.Hits, err = s.like(ctx, ix, a)
	default:
		rest, w := When(a.Question, now())
		if w != nil && a.Filter.Since.IsZero() && a.Filter.Until.IsZero() {
			out.Window = w
			if w.Since != nil {
				a.Filter.Since = *w.Since
			}
			if w.Until != nil {
				a.Filter.Until = *w.Until
			}
		}
		q := ParseQuestion(rest)
		switch {
		case !q.Empty():
			out.Hits, err = s.answer(ctx, ix, q, a)
		case w != nil:
			// "what happened in the last hour": the newest.
			out.Hits, err = s.newest(ctx, ix, a)
		default:
			return nil, ErrNoQuestion
		}
	}
	if err != nil {
		return nil, err
	}
	for i := range out.Hits {
		h := &out.Hits[i]
		out.More = out.More || h.More
		of := st.of(h.Log)
		h.Verified, h.Finding = of.Verified, of.Finding
		if !a.Explain {
			h.Why = nil
		}
	}
	return &out, nil
}

func (s *Searcher) answer(ctx context.Context, ix index.Reader, q Question, a Ask) ([]Hit, error) {
	if len(q.Values) > 0 {
		return s.byValues(ctx, ix, q, q.Values, a)
	}
	if len(q.Numbers) > 0 && len(q.Stems) > 0 {
		// A short number is meant if an event has it beside the words.
		hits, err := s.byValues(ctx, ix, q, q.Numbers, a)
		if err != nil || len(hits) > 0 {
			return hits, err
		}
	}
	if len(q.Stems) == 0 {
		return s.byValues(ctx, ix, q, q.Numbers, a)
	}
	r, err := newRanker(ctx, ix, q.text, q.Stems, s, !a.Lexical)
	if err != nil {
		return nil, err
	}
	if a.Lexical {
		r.around = nil
	}
	list, err := r.candidates(ctx, ix, a.Filter)
	if err != nil {
		return nil, err
	}
	return s.hits(ctx, ix, r.rank(list), a)
}

// queryVector returns the question's vector in the index's space; nil if there
// is none.
func (s *Searcher) queryVector(ctx context.Context, ix index.Reader, text string, stems []string) ([]float32, error) {
	space, err := ix.Space(ctx)
	if err != nil {
		return nil, err
	}
	local := embed.LoadLocal()
	if s.Embedder == nil || s.Embedder.ID() == local.ID() {
		if space != local.ID() {
			return nil, nil
		}
		return local.Vector(stems, nil), nil
	}
	if s.Embedder.ID() != space {
		return nil, nil
	}
	v, err := s.Embedder.Embed(ctx, embed.Query, []string{text})
	if err != nil || len(v) != 1 {
		return nil, nil // words still answer while the embedder is down
	}
	return v[0], nil
}

// hits makes hits of ranked templates: those of one group on one host are one,
// as far as they match alike.
func (s *Searcher) hits(ctx context.Context, ix index.Reader, list []ranked, a Ask) ([]Hit, error) {
	type key struct{ group, log, host, source, typ string }
	at := make(map[key]int)
	best := make(map[key]float64)
	var hits []Hit
	for from, step := 0, 0; from < len(list) && len(hits) < a.Limit; from += step {
		step = max(a.Limit-len(hits), 8)
		part := list[from:min(from+step, len(list))]
		ids := make([]index.ID, len(part))
		of := make(map[index.ID]int)
		for i, c := range part {
			ids[i], of[c.ID] = c.ID, i
		}
		sums, err := ix.Summaries(ctx, ids, a.Filter)
		if err != nil {
			return nil, err
		}
		slices.SortStableFunc(sums, func(x, y index.Summary) int {
			if d := of[x.Template] - of[y.Template]; d != 0 {
				return d
			}
			return y.Last.Compare(x.Last)
		})
		for _, sum := range sums {
			c := &part[of[sum.Template]]
			k := key{c.Group, sum.Log, sum.Host, sum.Source, sum.Type}
			if i, ok := at[k]; ok {
				if c.Score >= 0.95*best[k] {
					hits[i].merge(&sum)
				}
				continue
			}
			if len(hits) >= a.Limit {
				continue
			}
			why := c.why
			h := hitOf(&sum, c.Group)
			h.Score, h.Why = c.Score, &why
			at[k], best[k] = len(hits), c.Score
			hits = append(hits, h)
		}
	}
	return hits, nil
}

func hitOf(s *index.Summary, group string) Hit {
	h := Hit{Template: group, Log: s.Log, Source: s.Source, Type: s.Type, Host: s.Host, Severity: s.Severity.String(), Count: s.Count, First: s.First, Last: s.Last}
	h.show(&s.Newest)
	for _, o := range s.Occurrences {
		h.Occurrences = append(h.Occurrences, Occurrence{o.Index, o.Time})
	}
	return h
}

func (h *Hit) show(e *index.Event) {
	h.Message, h.Subject, h.Actor = e.Message, e.Subject, e.Actor
	if h.Message == "" {
		h.Message = string(e.Data)
	}
}

func (h *Hit) merge(s *index.Summary) {
	h.Count += s.Count
	if s.First.Before(h.First) {
		h.First = s.First
	}
	if s.Last.After(h.Last) {
		h.Last = s.Last
		h.show(&s.Newest)
	}
	if v, err := event.ParseSeverity(h.Severity); err == nil && s.Severity < v {
		h.Severity = s.Severity.String()
	}
	for _, o := range s.Occurrences {
		h.Occurrences = append(h.Occurrences, Occurrence{o.Index, o.Time})
	}
	h.newestFirst()
}

func (h *Hit) newestFirst() {
	slices.SortFunc(h.Occurrences, func(a, b Occurrence) int {
		if c := b.Time.Compare(a.Time); c != 0 {
			return c
		}
		return int(b.Index - a.Index)
	})
	h.Occurrences = h.Occurrences[:min(len(h.Occurrences), index.MaxSamples)]
}

// byValues answers with the events that hold all values; the question's other
// words rank them.
func (s *Searcher) byValues(ctx context.Context, ix index.Reader, q Question, values []string, a Ask) ([]Hit, error) {
	events, more, err := ix.Holding(ctx, values, a.Filter, MaxHolding)
	if err != nil || len(events) == 0 {
		return nil, err
	}
	var ids []index.ID
	by := make(map[index.ID][]index.Event)
	for _, e := range events {
		if by[e.Template] == nil {
			ids = append(ids, e.Template)
		}
		by[e.Template] = append(by[e.Template], e)
	}
	templates, err := ix.Templates(ctx, ids)
	if err != nil {
		return nil, err
	}
	var r *ranker
	if len(q.Stems) > 0 {
		if r, err = newRanker(ctx, ix, q.text, q.Stems, s, false); err != nil {
			return nil, err
		}
	}
	numbers := len(q.Values) == 0
	var list []ranked
	for _, c := range templates {
		x := ranked{Candidate: c, why: Why{Route: "values"}}
		if r != nil {
			x = r.score(c)
			x.why.Route = "values"
			if numbers && len(x.why.Matched) == 0 {
				continue // the number alone is chance
			}
		}
		x.why.Values = values
		list = append(list, x)
	}
	// The words decide, then which is newer.
	slices.SortStableFunc(list, func(a, b ranked) int {
		switch {
		case a.Score > b.Score:
			return -1
		case a.Score < b.Score:
			return 1
		}
		return by[b.ID][0].Time.Compare(by[a.ID][0].Time)
	})
	type key struct{ group, log, host, source, typ string }
	at := make(map[key]int)
	var hits []Hit
	for _, c := range list {
		for _, e := range by[c.ID] {
			k := key{c.Group, e.Log, e.Host, e.Source, e.Type}
			i, ok := at[k]
			if !ok {
				if len(hits) >= a.Limit {
					continue
				}
				why := c.why
				h := Hit{Score: 1 + c.Score, Template: c.Group, Log: e.Log, Source: e.Source, Type: e.Type, Host: e.Host, Severity: e.Severity.String(),
					First: e.Time, Last: e.Time, Why: &why, More: more}
				h.show(&e)
				i, at[k] = len(hits), len(hits)
				hits = append(hits, h)
			}
			h := &hits[i]
			h.Count++
			if e.Time.Before(h.First) {
				h.First = e.Time
			}
			if e.Time.After(h.Last) {
				h.Last = e.Time
				h.show(&e)
			}
			if v, err := event.ParseSeverity(h.Severity); err == nil && e.Severity < v {
				h.Severity = e.Severity.String()
			}
			h.Occurrences = append(h.Occurrences, Occurrence{e.Index, e.Time})
			if len(h.Occurrences) > 4*index.MaxSamples {
				h.newestFirst()
			}
		}
	}
	for i := range hits {
		hits[i].newestFirst()
	}
	return hits, nil
}

func (s *Searcher) newest(ctx context.Context, ix index.Reader, a Ask) ([]Hit, error) {
	templates, err := ix.Newest(ctx, a.Filter, a.Limit)
	if err != nil {
		return nil, err
	}
	list := make([]ranked, len(templates))
	for i, c := range templates {
		list[i] = ranked{Candidate: c, why: Why{Route: "newest"}}
	}
	hits, err := s.hits(ctx, ix, list, a)
	slices.SortStableFunc(hits, func(x, y Hit) int { return y.Last.Compare(x.Last) })
	return hits, err
}

// A MissingError says that the index has no such event: exit code 1.
type MissingError struct{ Index int64 }

func (e *MissingError) Error() string {
	return "the index has no event " + formatIndex(e.Index)
}

// aroundEvents is how many events before and behind one are around it.
const aroundEvents = 500

// around answers with the events next to one, each a hit, in order. The score
// is 1 for the event itself and less the further away another one is.
func (s *Searcher) around(ctx context.Context, ix index.Reader, a Ask) ([]Hit, error) {
	half := min(max(a.Limit/2, 1), aroundEvents)
	events, err := ix.Events(ctx, max(a.Index-aroundEvents, 0), a.Index+aroundEvents+1)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(events, func(e index.Event) bool { return e.Index == a.Index })
	if at < 0 {
		return nil, &MissingError{a.Index}
	}
	keep := func(e *index.Event) bool { return e.Index == a.Index || passes(&a.Filter, e) }
	var hits []Hit
	add := func(e *index.Event) {
		d := float64(e.Index - a.Index)
		h := Hit{Score: 1 / (1 + max(d, -d)), Source: e.Source, Type: e.Type, Host: e.Host, Severity: e.Severity.String(), Count: 1,
			First: e.Time, Last: e.Time, Occurrences: []Occurrence{{e.Index, e.Time}}, Why: &Why{Route: "around"}}
		h.show(e)
		h.Template = h.Message
		hits = append(hits, h)
	}
	before := 0
	for i := at - 1; i >= 0 && before < half; i-- {
		if keep(&events[i]) {
			add(&events[i])
			before++
		}
	}
	slices.Reverse(hits)
	for i := at; i < len(events) && len(hits) < a.Limit; i++ {
		if keep(&events[i]) {
			add(&events[i])
		}
	}
	return hits, nil
}

func passes(f *index.Filter, e *index.Event) bool {
	in := func(list []string, v string) bool { return len(list) == 0 || slices.Contains(list, v) }
	return f.Time(e.Time) && in(f.Sources, e.Source) && in(f.Types, e.Type) && in(f.Hosts, e.Host) && in(f.Actors, e.Actor) && (!f.HasSeverity || e.Severity <= f.Severity)
}

// like answers with what is similar to one event: what its template has in
// words and meaning. The template itself is left out.
func (s *Searcher) like(ctx context.Context, ix index.Reader, a Ask) ([]Hit, error) {
	events, err := ix.Events(ctx, a.Index, a.Index+1)
	if err != nil {
		return nil, err
	}
	if len(events) == 0 {
		return nil, &MissingError{a.Index}
	}
	self, err := ix.Templates(ctx, []index.ID{events[0].Template})
	if err != nil {
		return nil, err
	}
	if len(self) == 0 {
		return nil, &MissingError{a.Index}
	}
	stems := words.Terms(self[0].Masked)
	slices.Sort(stems)
	stems = slices.Compact(stems)
	if len(stems) > maxTerms {
		stems = stems[:maxTerms]
	}
	if len(stems) == 0 {
		return nil, nil
	}
	r, err := newRanker(ctx, ix, self[0].Masked, stems, s, true)
	if err != nil {
		return nil, err
	}
	list, err := r.candidates(ctx, ix, a.Filter)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(c index.Candidate) bool {
		return c.ID == self[0].ID || c.Group == self[0].Group && c.Source == self[0].Source && c.Type == self[0].Type
	})
	ranked := r.rank(list)
	for i := range ranked {
		ranked[i].why.Route = "like"
	}
	return s.hits(ctx, ix, ranked, a)
}

func formatIndex(i int64) string { return strconv.FormatInt(i, 10) }
