package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/words"
)

// A turn is what one contender did: for each metric a figure.
type turn func(ctx context.Context) (map[string]float64, error)

// serveTurns does a turn for each line that it reads, which names the contender,
// and answers with its figures, a JSON object a line.
func serveTurns(ctx context.Context, in io.Reader, out io.Writer, contenders map[string]turn) error {
	answers := json.NewEncoder(out)
	for lines := bufio.NewScanner(in); ; {
		if !lines.Scan() {
			return lines.Err()
		}
		do, ok := contenders[lines.Text()]
		if !ok {
			return fmt.Errorf("no contender %q", lines.Text())
		}
		figures, err := do(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
		if err := answers.Encode(figures); err != nil {
			return err
		}
	}
}

// questionTurns are of engines that answer all questions of a file, one after
// the other. How well they do it does not change: it is judged once.
func questionTurns(ctx context.Context, engines []engine, questions []question) (map[string]turn, error) {
	list := make(map[string]turn)
	for _, e := range engines {
		quality, err := judge(ctx, e, questions)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.name(), err)
		}
		list[e.name()] = func(ctx context.Context) (map[string]float64, error) {
			var took []time.Duration
			for i := range questions {
				d, err := e.ten(ctx, &questions[i])
				if err != nil {
					return nil, fmt.Errorf("%q: %w", questions[i].text, err)
				}
				took = append(took, d)
			}
			figures := percentiles(took)
			for name, v := range quality {
				figures[name] = v
			}
			return figures, nil
		}
	}
	return list, nil
}

// judge returns the mean nDCG@10 of the questions that have an answer, and the
// mean Recall@10 of those of them that say it in other words.
func judge(ctx context.Context, e engine, questions []question) (map[string]float64, error) {
	var ndcg, recall []float64
	for i := range questions {
		q := &questions[i]
		if q.stratum == "none" {
			continue
		}
		labels, err := e.ask(ctx, q)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", q.text, err)
		}
		s := q.judge(labels)
		ndcg = append(ndcg, s.ndcg)
		if q.stratum == "paraphrase" {
			recall = append(recall, s.recall)
		}
	}
	return map[string]float64{"nDCG": meanOf(ndcg), "paraphrases": meanOf(recall)}, nil
}

func meanOf(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(max(len(values), 1))
}

// percentiles are in milliseconds.
func percentiles(took []time.Duration) map[string]float64 {
	slices.Sort(took)
	at := func(q int) float64 { return float64(took[len(took)*q/100]) / float64(time.Millisecond) }
	return map[string]float64{"p50": at(50), "p99": at(99)}
}

// answerTurns serves the turns of all engines over n events.
func answerTurns(ctx context.Context, in io.Reader, out io.Writer, dir string, n int, file, bleve string) (err error) {
	c, err := build(n)
	if err != nil {
		return err
	}
	questions, err := loadQuestions(file, c)
	if err != nil {
		return err
	}
	engines, down, err := newEngines(dir, c, bleve)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, down()) }()
	list, err := questionTurns(ctx, engines, questions)
	if err != nil {
		return err
	}
	return serveTurns(ctx, in, out, list)
}

// vectorTurns serves the turns of the index and of brute force: the ten lines
// nearest to each of 200 questions, of n lines.
func vectorTurns(ctx context.Context, in io.Reader, out io.Writer, dir string, n int) error {
	list, err := lines(n)
	if err != nil {
		return err
	}
	db, err := openIndex(filepath.Join(dir, "index.db"), nil)
	if err != nil {
		return err
	}
	defer db.Close()
	var events []*event.Event
	for i, l := range list {
		events = append(events, &event.Event{Index: int64(i), Time: now.Add(-time.Hour), Host: hosts[i%3], Source: "journald", Type: "journal.app", Severity: event.Info, Message: l})
	}
	if err := fill(db, events); err != nil {
		return err
	}
	x, err := loadExact(ctx, db)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(9, 9))
	var asked [][]float32
	var best [][]neighbour
	for len(asked) < 200 {
		f := strings.Fields(list[rng.IntN(len(list))])
		if q := x.l.Vector(words.Terms(strings.Join(f[:3], " ")), nil); q != nil {
			asked, best = append(asked, q), append(best, x.nearest(q, 10))
		}
	}
	return serveTurns(ctx, in, out, map[string]turn{
		"brute force": func(context.Context) (map[string]float64, error) {
			var took []time.Duration
			for _, q := range asked {
				begin := time.Now()
				x.nearest(q, 10)
				took = append(took, time.Since(begin))
			}
			figures := percentiles(took)
			figures["recall"] = 1
			return figures, nil
		},
		"the index": func(ctx context.Context) (map[string]float64, error) {
			var took []time.Duration
			found, wanted := 0, 0
			for i, q := range asked {
				begin := time.Now()
				got, err := db.Dense(ctx, q, index.Filter{}, 10)
				if err != nil {
					return nil, err
				}
				took = append(took, time.Since(begin))
				wanted += len(best[i])
				found += foundOf(best[i], got)
			}
			figures := percentiles(took)
			figures["recall"] = float64(found) / float64(wanted)
			return figures, nil
		},
	})
}
