package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/search"
	"github.com/ghostbridge/ghostbridge/pkg/words"
)

// lines returns n lines that differ beyond their values, of the words that the
// templates and the questions have.
func lines(n int) ([]string, error) {
	kinds, err := loadKinds()
	if err != nil {
		return nil, err
	}
	var vocabulary []string
	seen := make(map[string]bool)
	for _, k := range kinds {
		for _, w := range words.Split(k.message) {
			if !seen[w] {
				seen[w] = true
				vocabulary = append(vocabulary, w)
			}
		}
	}
	r := rand.New(rand.NewPCG(3, 3))
	list := make([]string, 0, n)
	for done := make(map[string]bool); len(list) < n; {
		var b strings.Builder
		for range 5 + r.IntN(6) {
			// Some words are far more frequent than others.
			b.WriteString(vocabulary[int(float64(len(vocabulary))*r.Float64()*r.Float64())] + " ")
		}
		if l := b.String(); !done[l] {
			done[l] = true
			list = append(list, l)
		}
	}
	return list, nil
}

// speed fills an index with points, one an event, and asks it.
func speed(ctx context.Context, w io.Writer, points, distinct int, keep string) error {
	dir, err := os.MkdirTemp("", "gb-search-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "index.db")
	if keep != "" {
		path = keep
	}
	list, err := lines(distinct)
	if err != nil {
		return err
	}
	start := now.Add(-time.Duration(points/distinct+1) * time.Hour)
	events := func(from, to int) []*event.Event {
		out := make([]*event.Event, 0, to-from)
		for i := from; i < to; i++ {
			at := start.Add(time.Duration(i/distinct)*time.Hour + time.Duration(i%3600)*time.Second)
			out = append(out, &event.Event{Index: int64(i), Time: at, Host: hosts[i%3], Source: "journald", Type: "journal.app", Severity: event.Info, Message: list[i%distinct] + fmt.Sprint(i)})
		}
		return out
	}
	if _, err := os.Stat(path); err != nil {
		if err := fillPoints(w, path, points, distinct, events); err != nil {
			return err
		}
	}
	r, err := local.OpenReader(path)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := latency(ctx, w, r, list); err != nil {
		return err
	}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") {
			fmt.Fprint(w, line)
		}
	}
	return recall(ctx, w, r, list)
}

func fillPoints(w io.Writer, path string, points, distinct int, events func(from, to int) []*event.Event) error {
	db, err := openIndex(path, nil)
	if err != nil {
		return err
	}
	var spent time.Duration
	for from := 0; from < points; from += 50_000 {
		part := events(from, min(from+50_000, points))
		t := time.Now()
		if err := fill(db, part); err != nil {
			return err
		}
		spent += time.Since(t)
	}
	fmt.Fprintf(w, "%d points of %d lines: %.0f points/s, file %d MB\n", points, distinct, float64(points)/spent.Seconds(), size(path)>>20)
	return db.Close()
}

func size(path string) int64 {
	var n int64
	for _, suffix := range []string{"", "-wal"} {
		if info, err := os.Stat(path + suffix); err == nil {
			n += info.Size()
		}
	}
	return n
}

func latency(ctx context.Context, w io.Writer, r index.Reader, list []string) error {
	rng := rand.New(rand.NewPCG(5, 5))
	s := search.Searcher{Now: clock}
	var took []time.Duration
	hits := 0
	begin := time.Now()
	for i := range 420 {
		f := strings.Fields(list[rng.IntN(len(list))])
		q := strings.Join(f[:min(len(f), 2+i%4)], " ")
		a := search.Ask{Question: q, Limit: 10}
		switch i % 4 {
		case 1:
			a.Filter.Hosts = hosts[:1]
		case 2:
			a.Filter.Since = now.Add(-20 * time.Hour)
			a.Filter.Until = now.Add(-4 * time.Hour)
		}
		t := time.Now()
		found, err := s.Search(ctx, r, a, search.State{})
		if errors.Is(err, search.ErrNoQuestion) {
			continue
		}
		if err != nil {
			return err
		}
		if i == 0 {
			fmt.Fprintf(w, "first question: %v\n", time.Since(begin).Round(time.Millisecond))
		}
		hits += len(found.Hits)
		if i >= 20 {
			took = append(took, time.Since(t))
		}
	}
	slices.Sort(took)
	fmt.Fprintf(w, "hybrid search: p50 %v, p99 %v (%d questions, %d hits)\n", took[len(took)/2].Round(10*time.Microsecond), took[len(took)*99/100].Round(10*time.Microsecond), len(took), hits)
	return nil
}

// recall compares the nearest vectors that the index finds with the nearest
// there are, of vectors that are not quantised.
func recall(ctx context.Context, w io.Writer, r index.Reader, list []string) error {
	exact, err := loadExact(ctx, r)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(9, 9))
	found, wanted := 0, 0
	var took []time.Duration
	for range 100 {
		f := strings.Fields(list[rng.IntN(len(list))])
		q := exact.l.Vector(words.Terms(strings.Join(f[:3], " ")), nil)
		if q == nil {
			continue
		}
		best := exact.nearest(q, 10)
		t := time.Now()
		got, err := r.Dense(ctx, q, index.Filter{}, 10)
		if err != nil {
			return err
		}
		took = append(took, time.Since(t))
		wanted += len(best)
		found += foundOf(best, got)
	}
	slices.Sort(took)
	fmt.Fprintf(w, "vectors: recall@10 %.3f against exact, p50 %v\n", float64(found)/float64(wanted), took[len(took)/2].Round(10*time.Microsecond))
	return nil
}

// logText measures how fast events are indexed as logs have them.
func logText(w io.Writer, n int) error {
	dir, err := os.MkdirTemp("", "gb-search-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := build(n)
	if err != nil {
		return err
	}
	db, err := openIndex(filepath.Join(dir, "index.db"), nil)
	if err != nil {
		return err
	}
	defer db.Close()
	t := time.Now()
	if err := fill(db, c.events); err != nil {
		return err
	}
	spent := time.Since(t)
	totals, err := db.Totals()
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "log text: %d events, %d points, %d lines: %.0f events/s\n", totals.Events, totals.Points, totals.Templates, float64(len(c.events))/spent.Seconds())
	return nil
}
