// Search measures how well questions in plain words are answered, side by side
// with BM25 alone (SQLite's FTS5), with bleve and with grep, over a corpus that
// it builds.
//
//	search [-n EVENTS] [-questions FILE] [-half 0|1] [-bleve PROGRAM] [-v]
//	search -points N [-lines N] [-keep FILE]
//	search -turns answers|vectors [-n EVENTS] [-questions FILE] [-bleve PROGRAM]
//
// -turns does for integration/bench what its standard input says: a line names a
// contender, which then does a turn, whose figures are printed.
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
	bleve := flag.String("bleve", "", "ask bleve too, by `PROGRAM`, which is peers/bleveask")
	turns := flag.String("turns", "", "answers or vectors: do the turns that standard input names")
	verbose := flag.Bool("v", false, "print the questions that are answered badly")
	flag.Parse()
	if *points > 0 {
		if err := errors.Join(logText(os.Stdout, 200_000), speed(context.Background(), os.Stdout, *points, *distinct, *keep)); err != nil {
			fmt.Fprintln(os.Stderr, "search:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(context.Background(), *n, *file, *half, *bleve, *turns, *verbose); err != nil {
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

func run(ctx context.Context, n int, file string, half int, bleve, turns string, verbose bool) error {
	dir, err := os.MkdirTemp("", "gb-search-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	switch turns {
	case "":
	case "answers":
		return answerTurns(ctx, os.Stdin, os.Stdout, dir, n, file, bleve)
	case "vectors":
		return vectorTurns(ctx, os.Stdin, os.Stdout, dir, n)
	default:
		return fmt.Errorf("-turns %s: answers or vectors", turns)
	}
	return compare(ctx, os.Stdout, dir, n, file, half, bleve, verbose)
}

// compare prints the scores of all engines.
func compare(ctx context.Context, w io.Writer, dir string, n int, file string, half int, bleve string, verbose bool) error {
	c, err := build(n)
	if err != nil {
		return err
	}
	t, wrong, err := evaluate(ctx, w, dir, c, file, half, bleve, verbose)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%d events\n%-12s %-12s %4s %7s %7s %7s %7s %7s   %s\n", len(c.events), "stratum", "engine", "n", "nDCG", "Recall", "MRR", "first", "empty", "nDCG less BM25's (95 %)")
	for _, s := range strata {
		for _, e := range []string{"grep", "BM25", "bleve", "GhostBridge"} {
			m, ok := t[s][e]
			if !ok {
				continue
			}
			fmt.Fprintf(w, "%-12s %-12s %4d %7.3f %7.3f %7.3f %7.3f %7.3f   %+.3f (%+.3f to %+.3f)\n", s, e, m.n, m.ndcg, m.recall, m.mrr, m.first, m.empty, m.versus, m.low, m.high)
		}
	}
	fmt.Fprintf(w, "hits outside of their filter: %d\n", wrong)
	return nil
}

// newEngines makes the engines over a corpus, ours last, and says how to take
// them down. Without a program for bleve there is none.
func newEngines(dir string, c *corpus, bleve string) (list []engine, down func() error, err error) {
	var closes []func() error
	down = func() error {
		var errs []error
		for _, f := range closes {
			errs = append(errs, f())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, down())
		}
	}()
	b, err := newBM25(c)
	if err != nil {
		return nil, nil, err
	}
	closes = append(closes, b.db.Close)
	list = []engine{newGrep(c), b}
	if bleve != "" {
		peer, err := newBleve(bleve, dir, c)
		if err != nil {
			return nil, nil, err
		}
		closes = append(closes, peer.close)
		list = append(list, peer)
	}
	h, err := newHybrid(dir, c)
	if err != nil {
		return nil, nil, err
	}
	closes = append(closes, h.db.Close)
	return append(list, h), down, nil
}

func evaluate(ctx context.Context, w io.Writer, dir string, c *corpus, file string, half int, bleve string, verbose bool) (t table, wrong int, err error) {
	questions, err := loadQuestions(file, c)
	if err != nil {
		return nil, 0, err
	}
	engines, down, err := newEngines(dir, c, bleve)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, down()) }()
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
	t = make(table)
	for stratum, by := range scores {
		t[stratum] = make(map[string]mean)
		for e, list := range by {
			t[stratum][e] = average(list, by["BM25"])
		}
	}
	return t, engines[len(engines)-1].(*hybrid).wrong, nil
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
