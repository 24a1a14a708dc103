package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/web/timeline"
)

// An eventRow is an event in a list. Its texts are cleaned and cut: they are for
// people. The event's own page has all of it.
type eventRow struct {
	Index    int64     `json:"index"`
	Time     time.Time `json:"time"`
	Host     string    `json:"host"`
	Source   string    `json:"source"`
	Type     string    `json:"type"`
	Subject  string    `json:"subject,omitempty"`
	Severity string    `json:"severity"`
	Actor    string    `json:"actor,omitempty"`
	Message  string    `json:"message"`
	Damaged  bool      `json:"damaged,omitempty"`
	Look     string    `json:"look"`  // one of crit, err, warn, note, info, debug
	Clock    string    `json:"clock"` // the time in the host's zone, as lists show it
	Day      string    `json:"day"`
}

const shortField = 120

func rowOf(r timeline.Row) eventRow {
	e := r.Event
	if e == nil {
		return eventRow{Index: r.Index, Severity: "alert", Look: "crit", Damaged: true, Source: "log", Type: "damaged",
			Message: line(fmt.Sprintf("this line is damaged: %v", r.Damaged), messageInList), Clock: "--:--:--.---"}
	}
	message := e.Message
	if message == "" && e.Data != nil {
		message = string(e.Data[:min(len(e.Data), 2*messageInList)])
	}
	return eventRow{Index: r.Index, Time: e.Time, Host: line(e.Host, shortField), Source: line(e.Source, shortField), Type: line(e.Type, shortField),
		Subject: line(e.Subject, shortField), Severity: e.Severity.String(), Actor: line(e.Actor, shortField), Message: line(message, messageInList),
		Look: severityClass(e.Severity), Clock: e.Time.Local().Format(timeOfDay), Day: e.Time.Local().Format("2006-01-02")}
}

// frame is an event for those who follow the log, as a server-sent event whose
// id is its index.
func frame(r timeline.Row) []byte {
	data, err := json.Marshal(rowOf(r))
	if err != nil {
		panic(err)
	}
	var b bytes.Buffer
	b.Grow(len(data) + 32)
	fmt.Fprintf(&b, "id: %d\ndata: ", r.Index)
	b.Write(data)
	b.WriteString("\n\n")
	return b.Bytes()
}

// A filterForm is what a person chose of the log's events.
type filterForm struct {
	Sources  []string
	Types    []string
	Hosts    []string
	Actors   []string
	Severity string // this grave or graver
	Text     string // in the stored line, in any case
	Range    string // of the histogram and the list: 15m, 1h, ..., all
	Since    string // instead of Range
	Until    string

	choice       *timeline.Choice // nil for everything
	since, until time.Time
}

var ranges = []struct {
	Name, Title string
	d           time.Duration
}{
	{"15m", "15 min", 15 * time.Minute}, {"1h", "1 h", time.Hour}, {"6h", "6 h", 6 * time.Hour}, {"24h", "24 h", 24 * time.Hour},
	{"7d", "7 days", 7 * 24 * time.Hour}, {"30d", "30 days", 30 * 24 * time.Hour}, {"all", "all", 0},
}

// readFilter reads the parameters that the timeline, the live stream and the
// JSON interface have in common.
func (r *request) readFilter(now time.Time) (*filterForm, error) {
	f := &filterForm{}
	for name, list := range map[string]*[]string{"source": &f.Sources, "type": &f.Types, "host": &f.Hosts, "actor": &f.Actors} {
		var err error
		if *list, err = r.list(name); err != nil {
			return nil, err
		}
	}
	var err error
	if f.Severity, err = r.text("severity", 20); err != nil {
		return nil, err
	}
	if f.Text, err = r.text("text", 400); err != nil {
		return nil, err
	}
	var c chain.Filter
	c.Sources, c.Types, c.Hosts, c.Actors = f.Sources, f.Types, f.Hosts, f.Actors
	if f.Severity != "" {
		if c.Severity, err = event.ParseSeverity(f.Severity); err != nil {
			return nil, fail(http.StatusBadRequest, "%v", err)
		}
		c.HasSeverity = c.Severity != event.Debug
	}
	if len(f.Sources)+len(f.Types)+len(f.Hosts)+len(f.Actors) > 0 || c.HasSeverity || f.Text != "" {
		// Stored lines are JSON: what is looked for is written as they write it.
		quoted := dbusjson.AppendString(nil, f.Text)
		f.choice = timeline.NewChoice(&c, quoted[1:len(quoted)-1])
	}
	for name, at := range map[string]*time.Time{"since": &f.since, "until": &f.until} {
		text, err := r.text(name, 60)
		if err != nil {
			return nil, err
		}
		if text == "" {
			continue
		}
		if *at, err = chain.ParseTime(text, now); err != nil {
			return nil, fail(http.StatusBadRequest, "%s: %v", name, err)
		}
		if name == "since" {
			f.Since = text
		} else {
			f.Until = text
		}
	}
	if f.Range, err = r.text("range", 10); err != nil {
		return nil, err
	}
	if f.Range != "" && !slices.ContainsFunc(ranges, func(x struct {
		Name, Title string
		d           time.Duration
	}) bool {
		return x.Name == f.Range
	}) {
		return nil, fail(http.StatusBadRequest, "range %.20q: want 15m, 1h, 6h, 24h, 7d, 30d or all", f.Range)
	}
	return f, nil
}

// query is the form as a URL's query, with some values replaced; "" removes one.
func (f *filterForm) query(replace map[string]string) string {
	q := url.Values{}
	for name, list := range map[string][]string{"source": f.Sources, "type": f.Types, "host": f.Hosts, "actor": f.Actors} {
		for _, v := range list {
			q.Add(name, v)
		}
	}
	for name, v := range map[string]string{"severity": f.Severity, "text": f.Text, "range": f.Range, "since": f.Since, "until": f.Until} {
		if v != "" {
			q.Set(name, v)
		}
	}
	for name, v := range replace {
		if v == "" {
			q.Del(name)
		} else {
			q.Set(name, v)
		}
	}
	return q.Encode()
}

// Query is the form as a URL's query.
func (f *filterForm) Query() string { return f.query(nil) }

// toggled is the query with a facet's value added, or taken away.
func (f *filterForm) toggled(facet, value string) string {
	q, _ := url.ParseQuery(f.query(nil))
	if i := slices.Index(q[facet], value); i >= 0 {
		q[facet] = slices.Delete(q[facet], i, i+1)
	} else {
		q[facet] = append(q[facet], value)
	}
	return q.Encode()
}

// A timelineView is the timeline.
type timelineView struct {
	Events  []eventRow `json:"events"`          // newest first
	First   int64      `json:"first"`           // index of the log's first event
	End     int64      `json:"end"`             // number of the log's next event
	Signed  int64      `json:"signed"`          // events that the latest checkpoint covers
	From    int64      `json:"from"`            // what was looked at: from here
	To      int64      `json:"to"`              // to below here
	Partial bool       `json:"partial"`         // looking stopped at from, before the page was full
	Older   string     `json:"older,omitempty"` // query of the page before, "" if there is none
	Newer   string     `json:"newer,omitempty"` // query of the page after

	Form      *filterForm `json:"-"`
	Histogram *histogram  `json:"-"`
	Facets    []facetView `json:"-"`
	Live      bool        `json:"-"` // the newest page, which grows
	LiveQuery string      `json:"-"`
	Ranges    []rangeLink `json:"-"`
	PageSize  int         `json:"-"`
	Looked    int64       `json:"-"`
	Pad       []int       `json:"-"`
}

type rangeLink struct {
	Title, Query string
	Current      bool
}

// A facetView is the values of a facet that events have.
type facetView struct {
	Name   string       `json:"name"`
	Values []facetValue `json:"values"`
}

type facetValue struct {
	Value  string `json:"value"`
	Count  uint32 `json:"count"`
	Query  string `json:"-"`
	Chosen bool   `json:"-"`
}

const (
	pageSize    = 100
	maxPageSize = 1000
	facetShown  = 12
)

func (s *Server) timeline(r *request) (any, error) {
	now := time.Now()
	f, err := r.readFilter(now)
	if err != nil {
		return nil, err
	}
	n, err := r.number("limit", pageSize, 1, maxPageSize)
	if err != nil {
		return nil, err
	}
	before, err := r.number("before", -1, 0, 1<<50)
	if err != nil {
		return nil, err
	}
	after, err := r.number("after", -1, 0, 1<<50)
	if err != nil {
		return nil, err
	}
	low := int64(0)
	if !f.since.IsZero() {
		if low, err = s.log.Find(r.ctx, f.since); err != nil {
			return nil, err
		}
	}
	if !f.until.IsZero() {
		high, err := s.log.Find(r.ctx, f.until)
		if err != nil {
			return nil, err
		}
		if before < 0 || before > high {
			before = high
		}
	}
	var p *timeline.Page
	if after >= 0 {
		p, err = s.log.After(r.ctx, max(after, low), int(n), f.choice, timeline.Budget)
		if err == nil && len(p.Rows) < int(n) && !p.Partial {
			// The newest page, whole.
			p, err = s.log.Before(r.ctx, low, -1, int(n), f.choice, timeline.Budget)
			before = -1
		}
	} else {
		p, err = s.log.Before(r.ctx, low, before, int(n), f.choice, timeline.Budget)
	}
	if err != nil {
		return nil, err
	}
	v := &timelineView{Events: make([]eventRow, len(p.Rows)), First: p.First, End: p.End, Signed: s.signed(), From: p.From, To: p.To, Partial: p.Partial, Form: f, PageSize: int(n), Looked: p.To - p.From}
	for k, row := range p.Rows {
		v.Events[k] = rowOf(row)
	}
	limit := ""
	if n != pageSize {
		limit = strconv.FormatInt(n, 10)
	}
	if p.From > max(low, p.First) {
		v.Older = f.query(map[string]string{"before": strconv.FormatInt(p.From, 10), "limit": limit})
	}
	v.Live = before < 0 && after < 0 && f.until.IsZero() || p.To >= p.End && f.until.IsZero()
	if !v.Live {
		v.Newer = f.query(map[string]string{"after": strconv.FormatInt(p.To, 10), "limit": limit})
	}
	v.LiveQuery = f.query(map[string]string{"range": "", "since": "", "until": "", "from": strconv.FormatInt(p.To, 10)})
	if strings.HasPrefix(r.URL.Path, apiPrefix) {
		return v, nil
	}
	v.Histogram, v.Facets = s.counts(f, now)
	for _, x := range ranges {
		v.Ranges = append(v.Ranges, rangeLink{x.Title, f.query(map[string]string{"range": x.Name, "since": "", "until": ""}), f.Since == "" && f.Range == x.Name})
	}
	if v.Live {
		v.Pad = make([]int, max(0, int(n)-len(v.Events)))
	}
	return v, nil
}

// window is the time that the histogram shows.
func (f *filterForm) window(now time.Time) (since, until time.Time) {
	until = now
	if !f.until.IsZero() {
		until = f.until
	}
	d := time.Hour
	for _, x := range ranges {
		if x.Name == f.Range && x.d > 0 {
			d = x.d
		} else if x.Name == f.Range {
			d = 30 * 24 * time.Hour
		}
	}
	since = until.Add(-d)
	if !f.since.IsZero() && f.since.Before(until) {
		since = f.since
	}
	return since, until
}

// counts are histogram and facets of the window: of all events, whatever the
// filter, so that they show what a filter leaves out.
func (s *Server) counts(f *filterForm, now time.Time) (*histogram, []facetView) {
	since, until := f.window(now)
	c := s.summary.Between(since, until, histogramBars)
	chosen := [...][]string{timeline.BySource: f.Sources, timeline.ByType: f.Types, timeline.ByHost: f.Hosts, timeline.ByActor: f.Actors}
	facets := make([]facetView, len(c.Facets))
	for k := range c.Facets {
		name := timeline.FacetNames[k]
		facets[k].Name = name
		facets[k].Values = []facetValue{}
		for i, v := range c.Facets[k] {
			is := slices.Contains(chosen[k], v.Value)
			if i < facetShown || is {
				facets[k].Values = append(facets[k].Values, facetValue{v.Value, v.Count, f.toggled(name, v.Value), is})
			}
		}
		for _, v := range chosen[k] {
			if !slices.ContainsFunc(c.Facets[k], func(x timeline.Value) bool { return x.Value == v }) {
				facets[k].Values = append(facets[k].Values, facetValue{v, 0, f.toggled(name, v), true})
			}
		}
	}
	return newHistogram(c, f), facets
}

// A countsView is histogram and facets for programs.
type countsView struct {
	Since   time.Time         `json:"since"`
	Until   time.Time         `json:"until"`
	Step    float64           `json:"step_seconds"`
	Buckets []timeline.Bucket `json:"buckets"`
	Facets  []facetView       `json:"facets"`
	From    int64             `json:"counted_from"` // index from which on events are counted
	Done    bool              `json:"done"`         // nothing older is left to count
	Bars    []bar             `json:"bars"`         // the histogram's bars, as the page draws them
	Axis    []axisTick        `json:"axis"`
	Peak    uint32            `json:"peak"`
}

func (s *Server) countsJSON(r *request) (any, error) {
	now := time.Now()
	f, err := r.readFilter(now)
	if err != nil {
		return nil, err
	}
	h, facets := s.counts(f, now)
	return &countsView{h.count.Since.UTC(), h.count.Until.UTC(), h.count.Step.Seconds(), h.count.Buckets, facets, h.count.From, h.count.Done, h.Bars, h.Axis, h.Peak}, nil
}
