package web

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/web/timeline"
)

// An agentsView is what AI agents did, as the log's newest events tell.
type agentsView struct {
	Clients []agentView `json:"clients"`
	Tools   []toolView  `json:"tools"`
	Recent  []eventRow  `json:"recent"` // refusals and failures, newest first
	Looked  int64       `json:"looked"` // events that were looked at
	Since   time.Time   `json:"since"`
	Events  int         `json:"events"` // of agents among them
	Chart   *bars       `json:"-"`
	Older   int64       `json:"-"`
}

type agentView struct {
	Client   string    `json:"client"`
	Program  string    `json:"program,omitempty"` // what it calls itself
	Calls    int       `json:"calls"`
	Refused  int       `json:"refused"`
	Failed   int       `json:"failed"`
	Approval int       `json:"approvals"` // calls that needed a person
	P50      float64   `json:"p50_milliseconds"`
	P99      float64   `json:"p99_milliseconds"`
	Last     time.Time `json:"last"`
	took     []float64
}

type toolView struct {
	Name    string  `json:"name"`
	Calls   int     `json:"calls"`
	Refused int     `json:"refused"`
	Failed  int     `json:"failed"`
	P50     float64 `json:"p50_milliseconds"`
	P99     float64 `json:"p99_milliseconds"`
	took    []float64
}

const agentLook = 50_000 // events

func (s *Server) agents(r *request) (any, error) {
	v := &agentsView{Clients: []agentView{}, Tools: []toolView{}, Recent: []eventRow{}}
	before, err := r.number("before", -1, 0, 1<<50)
	if err != nil {
		return nil, err
	}
	p, err := s.log.Before(r.ctx, 0, before, agentLook, timeline.NewChoice(&chain.Filter{Sources: []string{"mcp"}}, nil), agentLook)
	if err != nil {
		return nil, err
	}
	v.Looked = p.To - p.From
	clients, tools := map[string]*agentView{}, map[string]*toolView{}
	minutes := map[int64]int{}
	for _, row := range p.Rows {
		e := row.Event
		if e == nil || e.Source != "mcp" {
			continue
		}
		v.Events++
		v.Since = e.At
		minutes[e.At.Unix()/60]++
		var d struct {
			Tool, Program, Outcome, Method string
			Count                          int
			Milliseconds                   *float64
		}
		if json.Unmarshal(e.Data, &d) != nil {
			d.Outcome = ""
		}
		name := strings.TrimPrefix(e.Actor, "mcp:")
		c := clients[name]
		if c == nil {
			c = &agentView{Client: clean(name), Last: e.At}
			clients[name] = c
		}
		if c.Program == "" {
			c.Program = line(d.Program, shortField)
		}
		if d.Outcome == "" { // intents and outcomes of the Gate say the same again
			continue
		}
		if d.Tool == "" {
			d.Tool = d.Method
		}
		t := tools[d.Tool]
		if t == nil {
			t = &toolView{Name: line(d.Tool, shortField)}
			tools[d.Tool] = t
		}
		n := max(d.Count, 1)
		c.Calls += n
		t.Calls += n
		switch d.Outcome {
		case "refused":
			c.Refused += n
			t.Refused += n
		case "failed", "dropped":
			c.Failed += n
			t.Failed += n
		case "approval":
			c.Approval += n
		}
		if d.Outcome != "done" && len(v.Recent) < 12 {
			v.Recent = append(v.Recent, rowOf(row))
		}
		if d.Milliseconds != nil {
			c.took = append(c.took, *d.Milliseconds)
			t.took = append(t.took, *d.Milliseconds)
		}
	}
	for _, c := range clients {
		c.P50, c.P99 = quantiles(c.took)
		v.Clients = append(v.Clients, *c)
	}
	for _, t := range tools {
		t.P50, t.P99 = quantiles(t.took)
		v.Tools = append(v.Tools, *t)
	}
	slices.SortFunc(v.Clients, func(a, b agentView) int { return b.Last.Compare(a.Last) })
	slices.SortFunc(v.Tools, func(a, b toolView) int {
		if a.Calls != b.Calls {
			return b.Calls - a.Calls
		}
		return strings.Compare(a.Name, b.Name)
	})
	if len(v.Tools) > 40 {
		v.Tools = v.Tools[:40]
	}
	if p.From > p.First {
		v.Older = p.From
	}
	v.Chart = perMinute(minutes)
	return v, nil
}

// quantiles returns the median and the 99th percentile.
func quantiles(v []float64) (p50, p99 float64) {
	if len(v) == 0 {
		return 0, 0
	}
	slices.Sort(v)
	at := func(q float64) float64 { return v[int(math.Ceil(q*float64(len(v))))-1] }
	return at(.5), at(.99)
}

// bars are a small plot: values over time.
type bars struct {
	Width, Height int
	Bars          []plotBar
	Label         string
	Max           string
	From, To      string
	Line          float64 // y of what is wanted, if HasLine
	HasLine       bool
}

type plotBar struct {
	X, Y, W, H float64
	Look       string
	Title      string
}

const (
	plotWidth  = 600
	plotHeight = 48
)

// perMinute plots counts by Unix minute, the newest 120 of them.
func perMinute(minutes map[int64]int) *bars {
	if len(minutes) == 0 {
		return nil
	}
	last, first, top, total := int64(0), int64(math.MaxInt64), 0, 0
	for m, n := range minutes {
		last, first, top, total = max(last, m), min(first, m), max(top, n), total+n
	}
	first = min(max(first, last-119), last-29)
	count := last - first + 1
	b := &bars{Width: plotWidth, Height: plotHeight, Max: grouped(int64(top)) + " a minute"}
	w := float64(plotWidth) / float64(count)
	for m := first; m <= last; m++ {
		n := minutes[m]
		if n == 0 {
			continue
		}
		h := max(float64(n)/float64(top)*(plotHeight-2), 1)
		b.Bars = append(b.Bars, plotBar{round(float64(m-first) * w), round(plotHeight - h), round(max(w-1, 1)), round(h), "note",
			fmt.Sprintf("%s: %d", time.Unix(m*60, 0).Format("15:04"), n)})
	}
	b.From, b.To = time.Unix(first*60, 0).Format("02 Jan 15:04"), time.Unix(last*60, 0).Format("15:04")
	b.Label = fmt.Sprintf("%s from %s to %s, at most %s", grouped(int64(total)), b.From, b.To, b.Max)
	return b
}
