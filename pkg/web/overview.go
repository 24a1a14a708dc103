package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/search"
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
	v.Verdict = append(v.Verdict, s.logVerdict(), s.snapshotVerdict(r), s.indexVerdict(), s.networkVerdict(r), s.approvalVerdict(r))
	v.Checks, v.CheckedAt = s.doctor.view()
	grave, err := s.log.Before(r.ctx, 0, -1, overviewRows, timeline.NewChoice(&chain.Filter{HasSeverity: true, Severity: event.Error}, nil), overviewLook)
	if err != nil {
		return nil, err
	}
	changes, err := s.log.Before(r.ctx, 0, -1, overviewRows, timeline.NewChoice(&chain.Filter{Types: []string{"opdbus.*"}}, nil), overviewLook)
	if err != nil {
		return nil, err
	}
	v.Grave, v.Changes = rowsOf(grave.Rows), rowsOf(changes.Rows)
	v.Looked = min(grave.End-grave.First, overviewLook)
	bad, unknown, unmet := 0, 0, 0
	for _, c := range v.Checks {
		if c.State == "failed" {
			unmet++
		}
	}
	for _, x := range v.Verdict {
		if x.State == isBad {
			bad++
		}
		if x.State == isUnknown {
			unknown++
		}
	}
	switch {
	case bad == 0 && unknown > 0:
		v.Summary = "nothing is wrong as far as it can be seen; some can't"
	case bad == 0 && unmet > 0:
		v.Summary = fmt.Sprintf("all parts are well; %d of %d success factors are not met", unmet, len(v.Checks))
	case bad == 0:
		v.Summary = "all is well"
	case bad == 1:
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

// overviewPatience is how long the overview waits for another part.
const overviewPatience = 1500 * time.Millisecond

func (s *Server) snapshotVerdict(r *request) verdict {
	v := verdict{Name: "Snapshots", Path: "/snapshots", State: isOff, Text: "not looked at here"}
	if s.Snapshots == nil {
		return v
	}
	st, err := s.Snapshots.Look(r.ctx)
	switch {
	case err != nil:
		v.State, v.Text = isUnknown, line(err.Error(), 160)
	case st.Status == nil:
		v.State, v.Text = isUnknown, line(st.Trouble, 160)
	default:
		v.State, v.Text = isOK, fmt.Sprintf("%d, the source is as the newest", st.Status.Live)
		if st.Status.Newest != nil {
			v.Text = fmt.Sprintf("%d, newest %s ago", st.Status.Live, span(time.Since(*st.Status.Newest)))
		}
		if !st.Status.Healthy {
			v.State, v.Text = isBad, line(st.Status.Faults[0], 160)
		}
	}
	return v
}

// indexLag is how many signed events the index has not applied; ok is false if
// nobody knows.
func (s *Server) indexLag() (lag int64, ok bool, err error) {
	if s.CursorFile == "" {
		return 0, false, nil
	}
	data, err := os.ReadFile(s.CursorFile)
	if errors.Is(err, fs.ErrPermission) && s.Search != nil {
		return s.asked.lag(s)
	}
	if err != nil {
		return 0, false, err
	}
	var c struct {
		TreeSize int64 `json:"tree_size"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return 0, false, err
	}
	return max(s.signed()-c.TreeSize, 0), true, nil
}

// askedIndex is how far the index said that it is, some seconds ago: each
// question may start the search.
type askedIndex struct {
	mu   sync.Mutex
	at   time.Time
	size int64
	err  error
}

const askIndexEvery = 10 * time.Second

func (a *askedIndex) lag(s *Server) (int64, bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Since(a.at) > askIndexEvery {
		ctx, cancel := context.WithTimeout(context.Background(), overviewPatience)
		defer cancel()
		_, end, err := s.Search.Ask(ctx, search.Request{Question: "log", Limit: 1})
		a.at, a.err = time.Now(), err
		if err == nil {
			if a.size = 0; end.Verified != nil {
				a.size = end.Verified.TreeSize
			}
			if end.Finding != "" {
				a.err = errors.New(end.Finding)
			}
		}
	}
	return max(s.signed()-a.size, 0), a.err == nil, a.err
}

func (s *Server) indexVerdict() verdict {
	v := verdict{Name: "Index", Path: "/search", State: isOff, Text: "not looked at here"}
	lag, ok, err := s.indexLag()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.State, v.Text = isUnknown, "nothing is indexed yet"
	case err != nil:
		v.State, v.Text = isUnknown, line(err.Error(), 160)
	case ok:
		v.State, v.Text = isOK, "all signed events are searchable"
		if lag > 0 {
			v.Text = grouped(lag) + " events behind the log"
		}
		if lag > indexLagBad {
			v.State = isWarn
		}
	}
	return v
}

// indexLagBad is how many events behind an index gets a warning.
const indexLagBad = 10_000

func (s *Server) networkVerdict(r *request) verdict {
	v := verdict{Name: "Bridges", Path: "/network", State: isOff, Text: "no switch is looked at here"}
	if s.Switch == nil {
		return v
	}
	ctx, cancel := context.WithTimeout(r.ctx, overviewPatience)
	defer cancel()
	st, err := s.Switch.Status(ctx, r.session)
	switch {
	case err != nil:
		v.State, v.Text = isUnknown, line(failureOf(err).Text, 160)
	case len(st.Problems) > 0 && len(st.Bridges) == 0 && st.Confirmed == "":
		v.State, v.Text = isOff, "no switch runs here, and none is wanted"
	case len(st.Problems) > 0:
		v.State, v.Text = isBad, line(st.Problems[0], 160)
	case st.Pending != "":
		v.State, v.Text = isWarn, "a change awaits its confirmation until "+st.ConfirmBy.Local().Format(time.TimeOnly)
	case !st.Healthy:
		v.State, v.Text = isBad, fmt.Sprintf("%d differences from what is wanted", len(st.Drift))
	default:
		ports, ours := 0, 0
		for _, b := range st.Bridges {
			ports += len(b.Ports)
			if b.Ours {
				ours++
			}
		}
		v.State, v.Text = isOK, fmt.Sprintf("%d bridges with %d ports, as wanted", len(st.Bridges), ports)
		if ours == 0 {
			v.State, v.Text = isOff, fmt.Sprintf("%d bridges with %d ports, none of them ours", len(st.Bridges), ports)
		}
	}
	return v
}

func (s *Server) approvalVerdict(r *request) verdict {
	v := verdict{Name: "Approvals", Path: "/approvals", State: isOff, Text: "no daemon is asked here"}
	if s.Daemon == nil {
		return v
	}
	ctx, cancel := context.WithTimeout(r.ctx, overviewPatience)
	defer cancel()
	list, err := s.readApprovals(&request{r.Request, r.session, ctx})
	if err != nil {
		v.State, v.Text = isUnknown, line(failureOf(err).Text, 160)
		return v
	}
	n := 0
	for _, a := range list {
		if a.State == "pending" {
			n++
		}
	}
	v.State, v.Text = isOK, "nobody waits"
	switch {
	case n == 1:
		v.State, v.Text = isWarn, "one change waits for a person"
	case n > 1:
		v.State, v.Text = isWarn, fmt.Sprintf("%d changes wait for a person", n)
	}
	return v
}
