package web

import (
	"fmt"
	"os"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/web/timeline"
)

// States of what the overview shows.
const (
	isOK      = "ok"
	isWarn    = "warn"
	isBad     = "bad"
	isUnknown = "unknown"
	isOff     = "off" // it is not meant to be there
)

// A verdict is one line about a part of the host.
type verdict struct {
	Name  string `json:"name"`
	State string `json:"state"` // ok, warn, bad, unknown or off
	Text  string `json:"text"`
	Path  string `json:"path"` // of the view that says more
}

// An overview is how the host is.
type overview struct {
	Host      string     `json:"host"`
	Summary   string     `json:"summary"`
	Verdict   []verdict  `json:"verdict"`
	Checks    []check    `json:"checks"`
	CheckedAt *time.Time `json:"checked_at,omitempty"`
	Grave     []eventRow `json:"grave"`   // the newest errors
	Changes   []eventRow `json:"changes"` // the newest changes through the daemon
	Looked    int64      `json:"looked"`  // events among which they were looked for
}

// A check is one of opdbus doctor's.
type check struct {
	Name   string `json:"name"`
	Title  string `json:"title"`
	State  string `json:"state"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

const (
	overviewRows = 6
	overviewLook = 5000 // events: the page must not wait
)

func (s *Server) overview(r *request) (any, error) {
	v := &overview{Grave: []eventRow{}, Changes: []eventRow{}, Checks: []check{}, Verdict: []verdict{}}
	v.Host, _ = os.Hostname()
	v.Verdict = append(v.Verdict, s.logVerdict())
	grave, err := s.log.Before(r.ctx, 0, -1, overviewRows, &chain.Filter{HasSeverity: true, Severity: event.Error}, overviewLook)
	if err != nil {
		return nil, err
	}
	changes, err := s.log.Before(r.ctx, 0, -1, overviewRows, &chain.Filter{Types: []string{"opdbus.*"}}, overviewLook)
	if err != nil {
		return nil, err
	}
	v.Grave, v.Changes = rowsOf(grave.Rows), rowsOf(changes.Rows)
	v.Looked = min(grave.End-grave.First, overviewLook)
	bad := 0
	for _, x := range v.Verdict {
		if x.State == isBad {
			bad++
		}
	}
	switch bad {
	case 0:
		v.Summary = "nothing is wrong that can be seen from here"
	case 1:
		v.Summary = "one thing is wrong"
	default:
		v.Summary = fmt.Sprintf("%d things are wrong", bad)
	}
	return v, nil
}

func rowsOf(rows []timeline.Row) []eventRow {
	out := make([]eventRow, len(rows))
	for i, r := range rows {
		out[i] = rowOf(r)
	}
	return out
}

func (s *Server) logVerdict() verdict {
	c := s.checker.view()
	v := verdict{Name: "Log", Path: "/log"}
	switch {
	case c.Error != "":
		v.State, v.Text = isBad, clean(c.Error)
	case !c.Known:
		v.State, v.Text = isUnknown, "being verified for the first time"
	case !c.OK:
		v.State, v.Text = isBad, fmt.Sprintf("%d faults: %s", len(c.Faults), c.Faults[0])
	default:
		v.State, v.Text = isOK, fmt.Sprintf("verified to #%s, %s ago", grouped(c.Size-1), span(time.Since(c.At)))
		if c.Size == 0 {
			v.Text = "verified; nothing is signed yet"
		}
	}
	return v
}
