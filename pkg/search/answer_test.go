package search

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/embed"
	"github.com/ghostbridge/ghostbridge/pkg/enrich"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/redact"
)

type documents struct {
	*embed.Local
	down bool
}

func (d *documents) EmbedDocuments(ctx context.Context, texts []string) ([][]float32, error) {
	if d.down {
		return nil, &embed.UnavailableError{ID: "x", Err: errors.New("down")}
	}
	return d.Embed(ctx, embed.Document, texts)
}

// hostIndex is an index of a host's few lines, an hour each before testNow.
func hostIndex(t *testing.T, d *documents) *local.DB {
	t.Helper()
	db, err := local.Open(filepath.Join(t.TempDir(), "index.db"), local.Options{Embedder: d, Enrich: enrich.Load("").Event, Redact: redact.Text})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	addEvents(t, db, 0)
	return db
}

func addEvents(t *testing.T, db *local.DB, from int64) {
	t.Helper()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range []string{
		"ovs|bridge.changed|notice|bridge ovsbr0: fail_mode changed from standalone to secure",
		"ovs|port.removed|notice|port vnet3 removed from bridge ovsbr0",
		"kernel|kernel|err|Out of memory: Killed process 4711 (mysqld) total-vm:4194304kB",
		"kernel|kernel|err|I/O error, dev sda, sector 123456 op 0x0:(READ)",
		"journald|journal.sshd|info|Failed password for root from 10.0.0.9 port 4022 ssh2",
		"journald|journal.sshd|info|Failed password for alice from 10.0.0.10 port 4023 ssh2",
		"journald|journal.sshd|info|Accepted publickey for bob from 10.0.0.11 port 4024 ssh2",
		"journald|journal.systemd|info|Started nginx.service.",
		"journald|journal.restic|info|backup done with password=hunter2 to rest:https://u:pa55w0rd@b/",
		"journald|journal.cron|info|(root) CMD (run-parts /etc/cron.hourly)",
		"journald|journal.certbot|info|Certificate for example.net renewed",
		"journald|journal.chronyd|info|System clock wrong by 1.2 seconds",
	} {
		f := strings.SplitN(line, "|", 4)
		severity, err := event.ParseSeverity(f[2])
		if err != nil {
			t.Fatal(err)
		}
		e := &event.Event{Index: from + int64(i), Time: testNow.Add(-time.Duration(12-i) * time.Hour), Host: "hv1", Source: f[0], Type: f[1], Severity: severity, Message: f[3]}
		if err := tx.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestSearch(t *testing.T) {
	db := hostIndex(t, &documents{Local: embed.LoadLocal()})
	s := &Searcher{Now: func() time.Time { return testNow }}
	for _, c := range []struct {
		question string
		filter   index.Filter
		want     int64 // the best hit's newest event, -1 for no answer
		hits     int   // how many there are, 0 for any number
	}{
		{question: "failed password", want: 5},
		{question: "which process was killed because memory ran out", want: 2},
		{question: "somebody guessed passwords", want: 5},
		{question: "the disk is broken", want: 3},
		{question: "10.0.0.9", want: 4, hits: 1},
		{question: "logins from 10.0.0.11", want: 6, hits: 1},
		{question: "10.0.0.99", want: -1},
		{question: "vnet3", want: 1, hits: 1},
		{question: `"ovsbr0: fail_mode"`, want: 0, hits: 1},
		{question: "/etc/cron.hourly", want: 9, hits: 1},
		{question: "nginx.service", want: 7, hits: 1},
		{question: "process 4711", want: 2, hits: 1},
		{question: "recipe for an apple pie", want: -1},
		{question: "bluetooth headphones paired", want: -1},
		{question: "failed password", filter: index.Filter{Sources: []string{"kernel"}}, want: -1},
		{question: "failed password", filter: index.Filter{Hosts: []string{"hv2"}}, want: -1},
		{question: "failed password in the last 2 hours", want: -1},
		{question: "what happened in the last 2 hours", want: 11, hits: 2},
		{question: "errors", filter: index.Filter{Severity: event.Error, HasSeverity: true}, want: 3},
		{question: "hunter2", want: -1},
		{question: "pa55w0rd", want: -1},
		{question: "time of the clock is off", want: 11},
	} {
		r, err := s.Search(t.Context(), db, Ask{Question: c.question, Filter: c.filter, Limit: 10, Explain: true}, State{})
		if err != nil {
			t.Errorf("%q: %v", c.question, err)
			continue
		}
		got := int64(-1)
		if len(r.Hits) > 0 {
			got = r.Hits[0].Occurrences[0].Index
			if r.Hits[0].Why == nil || r.Hits[0].Why.String() == "" {
				t.Errorf("%q: no reason", c.question)
			}
		}
		if got != c.want || c.hits > 0 && len(r.Hits) != c.hits {
			t.Errorf("%q: event %d of %d hits, want %d: %v", c.question, got, len(r.Hits), c.want, show(r.Hits))
		}
		for _, h := range r.Hits {
			if strings.Contains(fmt.Sprintf("%+v", h), "hunter2") || strings.Contains(h.Message, "pa55w0rd") {
				t.Errorf("%q: a secret is shown: %+v", c.question, h)
			}
		}
	}
	if _, err := s.Search(t.Context(), db, Ask{Question: "?", Limit: 1}, State{}); !errors.Is(err, ErrNoQuestion) {
		t.Error(err)
	}
}

func show(hits []Hit) (list []string) {
	for _, h := range hits {
		list = append(list, fmt.Sprintf("%.2f %q (%s)", h.Score, h.Message, h.Why))
	}
	return list
}

// Lines that differ in values only are one hit, with all their occurrences.
func TestHitsAreGrouped(t *testing.T) {
	db := hostIndex(t, &documents{Local: embed.LoadLocal()})
	r, err := new(Searcher).Search(t.Context(), db, Ask{Question: "failed password", Limit: 10}, State{Verified: &Verified{TreeSize: 12, Root: "r"}})
	if err != nil || len(r.Hits) == 0 {
		t.Fatal(err)
	}
	h := r.Hits[0]
	if h.Count != 2 || len(h.Occurrences) != 2 || h.Occurrences[0].Index != 5 || h.Occurrences[1].Index != 4 || !h.Last.After(h.First) || h.Verified.TreeSize != 12 || h.Why != nil {
		t.Errorf("%+v", h)
	}
	if !strings.Contains(h.Message, "alice") {
		t.Errorf("not the newest: %q", h.Message)
	}
}

func TestAroundAndLike(t *testing.T) {
	db := hostIndex(t, &documents{Local: embed.LoadLocal()})
	s := new(Searcher)
	r, err := s.Search(t.Context(), db, Ask{Around: true, Index: 5, Limit: 4}, State{})
	if err != nil {
		t.Fatal(err)
	}
	var got []int64
	for _, h := range r.Hits {
		got = append(got, h.Occurrences[0].Index)
	}
	if fmt.Sprint(got) != "[3 4 5 6]" {
		t.Errorf("around 5: %v", got)
	}
	r, err = s.Search(t.Context(), db, Ask{Around: true, Index: 5, Limit: 10, Filter: index.Filter{Sources: []string{"ovs"}}}, State{})
	if err != nil || len(r.Hits) != 3 {
		t.Errorf("around 5 of ovs: %v, %v", show(r.Hits), err)
	}
	r, err = s.Search(t.Context(), db, Ask{Like: true, Index: 4, Limit: 3}, State{})
	if err != nil || len(r.Hits) == 0 || r.Hits[0].Occurrences[0].Index != 6 {
		t.Errorf("like 4: %v, %v", r, err)
	}
	var missing *MissingError
	for _, a := range []Ask{{Like: true, Index: 99, Limit: 1}, {Around: true, Index: 99, Limit: 1}} {
		if _, err := s.Search(t.Context(), db, a, State{}); !errors.As(err, &missing) {
			t.Errorf("%+v: %v", a, err)
		}
	}
}

// While the embedder is down, words find the events; when it is up again, the
// vectors follow.
func TestEmbedderDown(t *testing.T) {
	d := &documents{Local: embed.LoadLocal(), down: true}
	db := hostIndex(t, d)
	totals, err := db.Totals()
	if err != nil || totals.Pending == 0 || totals.Pending != totals.Templates {
		t.Fatalf("%+v, %v", totals, err)
	}
	v := embed.LoadLocal().Vector([]string{"memori"}, nil)
	if list, err := db.Dense(t.Context(), v, index.Filter{}, 5); err != nil || len(list) != 0 {
		t.Error(list, err)
	}
	r, err := new(Searcher).Search(t.Context(), db, Ask{Question: "failed password", Limit: 1}, State{})
	if err != nil || len(r.Hits) != 1 {
		t.Error(r, err)
	}
	d.down = false
	addEvents(t, db, 100)
	if totals, err = db.Totals(); err != nil || totals.Pending != 0 {
		t.Fatalf("%+v, %v", totals, err)
	}
	if list, err := db.Dense(t.Context(), v, index.Filter{}, 5); err != nil || len(list) != 5 {
		t.Error(list, err)
	}
}

func TestMark(t *testing.T) {
	w := &Why{Matched: []Matched{{Word: "password", As: "password"}, {Word: "fail", As: "fail"}}, Values: []string{"10.0.0.9"}}
	if got, want := w.Mark("Failed passwords from 10.0.0.9 <b>", "[", "]"), "[Failed] [passwords] from [10.0.0.9] <b>"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
