// Search measures how well questions in plain words are answered, side by side
// with BM25 alone (SQLite's FTS5) and with grep, over a corpus that it builds.
//
//	search [-n EVENTS] [-questions FILE] [-half 0|1] [-v]
//	search -points N [-lines N] [-keep FILE]
//
// For each stratum it prints nDCG@10, Recall@10, MRR, how often the first is
// right, and how many questions come back empty; then the difference in nDCG@10
// to BM25 alone, question by question, with its 95 % interval (bootstrap).
// Labels are kinds of lines; an engine's list has each once.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"
)

func clock() time.Time { return now }

func main() {
	n := flag.Int("n", 40_000, "`EVENTS` in the corpus")
	file := flag.String("questions", "questions.txt", "`FILE` of testdata")
	half := flag.Int("half", -1, "0 or 1: every second question only, from the first or the second")
	points := flag.Int("points", 0, "measure the speed of an index of `N` points instead")
	distinct := flag.Int("lines", 40_000, "with -points: `N` lines that differ beyond their values")
	keep := flag.String("keep", "", "with -points: make the index in `FILE`, and leave it there")
	verbose := flag.Bool("v", false, "print the questions that are answered badly")
	flag.Parse()
	if *points > 0 {
		if err := errors.Join(logText(os.Stdout, 200_000), speed(context.Background(), os.Stdout, *points, *distinct, *keep)); err != nil {
			fmt.Fprintln(os.Stderr, "search:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(context.Background(), os.Stdout, *n, *file, *half, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "search:", err)
		os.Exit(1)
	}
}

// A table has the mean scores of engines by stratum.
type table map[string]map[string]mean

type mean struct {
	n                               int
	ndcg, recall, mrr, first, empty float64
	versus, low, high               float64 // nDCG less that of BM25
}

func run(ctx context.Context, w io.Writer, n int, file string, half int, verbose bool) error {
	dir, err := os.MkdirTemp("", "gb-search-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c, err := build(n)
	if err != nil {
		return err
	}
	t, wrong, err := evaluate(ctx, w, dir, c, file, half, verbose)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%d events\n%-12s %-12s %4s %7s %7s %7s %7s %7s   %s\n", len(c.events), "stratum", "engine", "n", "nDCG", "Recall", "MRR", "first", "empty", "nDCG less BM25's (95 %)")
	for _, s := range strata {
		for _, e := range []string{"grep", "BM25", "GhostBridge"} {
			m := t[s][e]
			fmt.Fprintf(w, "%-12s %-12s %4d %7.3f %7.3f %7.3f %7.3f %7.3f   %+.3f (%+.3f to %+.3f)\n", s, e, m.n, m.ndcg, m.recall, m.mrr, m.first, m.empty, m.versus, m.low, m.high)
		}
	}
	fmt.Fprintf(w, "hits outside of their filter: %d\n", wrong)
	return nil
}

func evaluate(ctx context.Context, w io.Writer, dir string, c *corpus, file string, half int, verbose bool) (table, int, error) {
	questions, err := loadQuestions(file, c)
	if err != nil {
		return nil, 0, err
	}
	h, err := newHybrid(dir, c)
	if err != nil {
		return nil, 0, err
	}
	defer h.db.Close()
	b, err := newBM25(c)
	if err != nil {
		return nil, 0, err
	}
	defer b.db.Close()
	engines := []engine{newGrep(c), b, h}
	scores := make(map[string]map[string][]score)
	for i := range questions {
		q := &questions[i]
		if half >= 0 && i%2 != half {
			continue
		}
		if scores[q.stratum] == nil {
			scores[q.stratum] = make(map[string][]score)
		}
		var lines []string
		for _, e := range engines {
			labels, err := e.ask(ctx, q)
			if err != nil {
				return nil, 0, fmt.Errorf("%s: %q: %w", e.name(), q.text, err)
			}
			s := q.judge(labels)
			scores[q.stratum][e.name()] = append(scores[q.stratum][e.name()], s)
			lines = append(lines, fmt.Sprintf("%-11s %.2f %s", e.name(), s.ndcg, strings.Join(labels, " ")))
		}
		last := scores[q.stratum]["GhostBridge"]
		if s := last[len(last)-1]; verbose && (q.stratum == "none") != s.empty || verbose && q.full > 0 && s.ndcg < 0.9 {
			want := make([]string, 0, len(q.gain))
			for l, g := range q.gain {
				want = append(want, fmt.Sprintf("%s:%.0f", l, g))
			}
			slices.Sort(want)
			fmt.Fprintf(w, "%s: %s\n  want %s\n  %s\n", q.stratum, q.text, strings.Join(want, " "), strings.Join(lines, "\n  "))
		}
	}
	t := make(table)
	for stratum, by := range scores {
		t[stratum] = make(map[string]mean)
		for e, list := range by {
			t[stratum][e] = average(list, by["BM25"])
		}
	}
	return t, h.wrong, nil
}

func average(list, base []score) (m mean) {
	m.n = len(list)
	diff := make([]float64, len(list))
	for i, s := range list {
		m.ndcg += s.ndcg
		m.recall += s.recall
		m.mrr += s.rr
		m.first += s.first
		if s.empty {
			m.empty++
		}
		diff[i] = s.ndcg - base[i].ndcg
		m.versus += diff[i]
	}
	for _, v := range []*float64{&m.ndcg, &m.recall, &m.mrr, &m.first, &m.empty, &m.versus} {
		*v /= float64(len(list))
	}
	r := rand.New(rand.NewPCG(1, 1))
	samples := make([]float64, 10_000)
	for i := range samples {
		for range diff {
			samples[i] += diff[r.IntN(len(diff))]
		}
		samples[i] /= float64(len(diff))
	}
	slices.Sort(samples)
	m.low, m.high = samples[len(samples)/40], samples[len(samples)-len(samples)/40]
	return m
}
