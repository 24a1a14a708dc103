// Package indextest is what every index must hold, whatever keeps it: the same
// tests run against each back end. What an index answers is compared with what
// a plain list of the events says.
package indextest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
)

// An Index is a back end under test: a writer, and a reader of what it has
// committed.
type Index struct {
	W index.Writer
	R index.Reader
}

// Close closes both.
func (x *Index) Close() error {
	err := x.W.Close()
	if rerr := x.R.Close(); err == nil {
		err = rerr
	}
	return err
}

// Events returns n events in order, with some hosts, sources, actors and kinds
// of lines, values of many kinds, long texts and times that go back now and
// then. The same seed gives the same ones.
func Events(seed uint64, n int) []*event.Event {
	r := rand.New(rand.NewPCG(seed, seed))
	lines := []struct {
		source, typ, message string
		severity             event.Severity
	}{
		{"journald", "journal.sshd", "Failed password for %s from %s port %d ssh2", event.Info},
		{"journald", "journal.sshd", "Accepted publickey for %s from %s port %d", event.Notice},
		{"kernel", "kernel", "enp3s0f%[3]d: NIC Link is Down, peer %[2]s", event.Warning},
		{"ovs", "port.added", "port vnet%[3]d added for %[1]s", event.Notice},
		{"web", "login.failed", "login of %s from %s failed after %d tries", event.Error},
		{"dbus", "property.changed", "", event.Info},
	}
	at := time.Unix(1_770_000_000, 0).UTC()
	list := make([]*event.Event, n)
	for i := range list {
		at = at.Add(time.Duration(r.IntN(240)-20) * time.Second)
		k := lines[r.IntN(len(lines))]
		user := []string{"alice", "bob", "carol"}[r.IntN(3)]
		e := &event.Event{Index: int64(i), Time: at, At: at, Host: fmt.Sprint("hv", r.IntN(3)), Source: k.source, Type: k.typ, Severity: k.severity,
			Actor: []string{"", "uid:0", "uid:1000"}[r.IntN(3)]}
		if k.message == "" {
			e.Data = []byte(fmt.Sprintf(`{"interface":"org.example.Thing%d","value":{"on":%t,"of":"%s"}}`, r.IntN(4), r.IntN(2) == 0, user))
		} else {
			e.Message = fmt.Sprintf(k.message, user, fmt.Sprintf("10.0.%d.%d", r.IntN(3), r.IntN(90)), r.IntN(5000))
		}
		if r.IntN(60) == 0 {
			e.Message = strings.Repeat("line of a long trace at "+user+"\n", 40+r.IntN(200))
		}
		list[i] = e
	}
	return list
}

// Fill adds events, in transactions of size each.
func Fill(t testing.TB, w index.Writer, events []*event.Event, size int) {
	t.Helper()
	for part := range slices.Chunk(events, size) {
		x, err := w.Begin()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range part {
			if err := x.Add(e); err != nil {
				t.Fatal(err)
			}
		}
		if err := x.Commit(); err != nil {
			t.Fatal(err)
		}
	}
}

// filters are some of each kind, and mixtures.
func filters(events []*event.Event) []index.Filter {
	mid, late := events[len(events)/3].Time.Add(7*time.Second), events[2*len(events)/3].Time
	return []index.Filter{
		{},
		{Hosts: []string{"hv1"}},
		{Hosts: []string{"hv1", "hv2"}, Sources: []string{"kernel", "ovs"}},
		{Types: []string{"login.failed"}},
		{Actors: []string{"uid:0"}},
		{Severity: event.Warning, HasSeverity: true},
		{Since: mid},
		{Until: mid},
		{Since: mid, Until: late},
		{Since: late, Until: late.Add(time.Minute)},
		{Since: mid, Until: late, Hosts: []string{"hv0"}, Actors: []string{"uid:1000", ""}, Severity: event.Notice, HasSeverity: true},
		{Hosts: []string{"nowhere"}},
		{Since: events[len(events)-1].Time.Add(time.Hour)},
	}
}

func passes(f *index.Filter, e *event.Event) bool {
	in := func(list []string, v string) bool { return len(list) == 0 || slices.Contains(list, v) }
	return f.Time(e.Time) && in(f.Sources, e.Source) && in(f.Types, e.Type) && in(f.Hosts, e.Host) && in(f.Actors, e.Actor) &&
		(!f.HasSeverity || e.Severity <= f.Severity)
}

// Run runs the tests. open returns an empty index, which is closed in the end.
func Run(t *testing.T, open func(t *testing.T) *Index) {
	fresh := func(t *testing.T) *Index {
		x := open(t)
		t.Cleanup(func() { x.Close() })
		return x
	}
	t.Run("filters", func(t *testing.T) {
		x, events := fresh(t), Events(1, 1500)
		Fill(t, x.W, events, 97)
		checkAll(t, x, events)
	})
	t.Run("removal", func(t *testing.T) {
		x, events := fresh(t), Events(2, 900)
		Fill(t, x.W, events, 300)
		for _, span := range [][2]int64{{0, 111}, {400, 640}, {890, 900}} {
			w, err := x.W.Begin()
			if err == nil {
				err = w.Remove(span[0], span[1])
			}
			if err == nil {
				err = w.Commit()
			}
			if err != nil {
				t.Fatal(err)
			}
			events = slices.DeleteFunc(events, func(e *event.Event) bool { return e.Index >= span[0] && e.Index < span[1] })
		}
		checkAll(t, x, events)
	})
	t.Run("same", func(t *testing.T) {
		// However the events came, the index says the same.
		x, y, events := fresh(t), fresh(t), Events(3, 800)
		Fill(t, x.W, events, len(events))
		Fill(t, y.W, events[:500], 13)
		w, err := y.W.Begin()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events[500:600] {
			if err := w.Add(e); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Rollback(); err != nil {
			t.Fatal(err)
		}
		Fill(t, y.W, events[500:], 170)
		if a, b := Points(t, x.R), Points(t, y.R); !slices.Equal(a, b) {
			t.Errorf("%d and %d points that differ", len(a), len(b))
		}
	})
}

// Points describes all that an index holds, a line for each template on each
// host, sorted. Indexes of the same events give the same lines.
func Points(t testing.TB, x index.Reader) []string {
	t.Helper()
	list, err := Describe(t.Context(), x)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Describe is Points for programs that are no tests.
func Describe(ctx context.Context, x index.Reader) (list []string, err error) {
	all, err := x.Newest(ctx, index.Filter{}, 1<<30)
	if err != nil {
		return nil, err
	}
	ids := make([]index.ID, len(all))
	for i, c := range all {
		ids[i] = c.ID
	}
	sums, err := x.Summaries(ctx, ids, index.Filter{})
	if err != nil {
		return nil, err
	}
	for _, s := range sums {
		list = append(list, fmt.Sprintf("%s %s %s %s %s %d %d %d %v", s.Template, s.Host, s.Source, s.Type, s.Severity, s.Count, s.First.UnixNano(), s.Last.UnixNano(), s.Occurrences))
	}
	totals, err := x.Totals()
	if err != nil {
		return nil, err
	}
	slices.Sort(list)
	return append(list, fmt.Sprint(totals.Events, totals.Points, totals.Templates, totals.Newest.UnixNano())), nil
}

// A group is what events of one template on one host come to.
type group struct {
	count       int64
	first, last time.Time
	newest      int64
	newestTime  time.Time
}

func checkAll(t *testing.T, x *Index, events []*event.Event) {
	t.Helper()
	totals, err := x.R.Totals()
	if err != nil || totals.Events != int64(len(events)) {
		t.Fatalf("%+v, %v; want %d events", totals, err, len(events))
	}
	type key struct {
		template index.ID
		host     string
	}
	points := make(map[index.ID]bool)
	for _, f := range filters(events) {
		want := make(map[key]*group)
		wanted := make(map[index.ID]bool)
		for _, e := range events {
			for _, d := range index.Documents(e, nil) {
				points[d.Point] = true
				if !passes(&f, e) {
					continue
				}
				k := key{d.Template, e.Host}
				g := want[k]
				if g == nil {
					g = &group{first: e.Time, last: e.Time}
					want[k] = g
				}
				wanted[d.Template] = true
				g.count++
				if e.Time.Before(g.first) {
					g.first = e.Time
				}
				if !e.Time.Before(g.last) {
					g.last = e.Time
				}
				if g.newest == 0 || !e.Time.Before(g.newestTime) {
					g.newest, g.newestTime = e.Index, e.Time
				}
			}
		}
		got, err := x.R.Newest(t.Context(), f, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		var ids []index.ID
		for _, c := range got {
			ids = append(ids, c.ID)
			if !wanted[c.ID] {
				t.Errorf("%+v: template %q does not pass", f, c.Masked)
			}
		}
		if len(got) != len(wanted) {
			t.Errorf("%+v: %d templates, want %d", f, len(got), len(wanted))
		}
		sums, err := x.R.Summaries(t.Context(), ids, f)
		if err != nil {
			t.Fatal(err)
		}
		if len(sums) != len(want) {
			t.Errorf("%+v: %d summaries, want %d", f, len(sums), len(want))
		}
		for _, s := range sums {
			g := want[key{s.Template, s.Host}]
			if g == nil || s.Count != g.count || !s.First.Equal(g.first) || !s.Last.Equal(g.last) || !s.Newest.Time.Equal(g.newestTime) ||
				s.Occurrences[0].Index != s.Newest.Index || int64(len(s.Occurrences)) != min(g.count, index.MaxSamples) {
				t.Errorf("%+v: summary %+v, want %+v", f, s, g)
			}
		}
		checkLexical(t, x, f, wanted)
		checkHolding(t, x, f, events)
	}
	if totals, err := x.R.Totals(); err != nil || totals.Points != int64(len(points)) {
		t.Errorf("%d points, want %d; %v", totals.Points, len(points), err)
	}
	all, err := x.R.Events(t.Context(), 100, 700)
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for _, e := range events {
		if e.Index < 100 || e.Index >= 700 {
			continue
		}
		if i >= len(all) || all[i].Index != e.Index || all[i].Message != e.Message || !all[i].Time.Equal(e.Time) || all[i].Host != e.Host || all[i].Actor != e.Actor || string(all[i].Data) != string(e.Data) {
			t.Fatalf("event %d is not as it was added", e.Index)
		}
		i++
	}
	if i != len(all) {
		t.Errorf("%d events, want %d", len(all), i)
	}
}

func checkLexical(t *testing.T, x *Index, f index.Filter, wanted map[index.ID]bool) {
	t.Helper()
	found, err := x.R.Lexical(t.Context(), []index.Term{{Stem: "password", Weight: 1}, {Stem: "port", Weight: 0.5}}, f, 1000)
	if err != nil {
		t.Fatal(err)
	}
	last := 1e9
	for _, c := range found {
		if !wanted[c.ID] {
			t.Errorf("%+v: %q is found and does not pass", f, c.Masked)
		}
		if c.Score > last || c.Score <= 0 {
			t.Errorf("%+v: score %v behind %v", f, c.Score, last)
		}
		last = c.Score
	}
}

func checkHolding(t *testing.T, x *Index, f index.Filter, events []*event.Event) {
	t.Helper()
	for _, values := range [][]string{{"10.0.1.17"}, {"alice"}, {"vnet7"}, {"bob", "10.0.2.4"}, {"org.example.thing2"}, {"true", "carol"}, {"10.0.1"}, {"nosuchvalue"}} {
		var want []int64
		for _, e := range events {
			k := index.Kept(e)
			if passes(&f, e) && !slices.ContainsFunc(values, func(v string) bool { return !k.Holds(v) }) {
				want = append(want, e.Index)
			}
		}
		got, more, err := x.R.Holding(t.Context(), values, f, 10_000)
		if err != nil {
			t.Fatal(err)
		}
		var list []int64
		for _, e := range got {
			list = append(list, e.Index)
		}
		slices.Sort(list)
		for _, i := range list {
			if !slices.Contains(want, i) {
				t.Errorf("%+v: event %d does not hold %q", f, i, values)
			}
		}
		// A part of an address is no value: that it is not found is right.
		if values[0] != "10.0.1" && (more || !slices.Equal(list, want)) {
			t.Errorf("%+v: %q: %d events (more: %t), want %d", f, values, len(list), more, len(want))
		}
	}
}
