//go:build linux

package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// searchPeersModule is the module, below the source, whose program is bleve's.
const searchPeersModule = "integration/bench/peers"

// searches compare the search with brute force, SQLite's FTS5 and bleve, by
// questions in plain words over a log; and the nearest vectors that the index
// finds with those that one finds by looking at all. integration/bench/search
// does the turns: there are the corpus and the questions.
var searches = []comparison{
	{
		name:   "search/answers",
		title:  "questions in plain words, the ten best hits each, in a log of 40,000 events",
		note:   "nDCG is that @10 of the questions that have an answer, paraphrases the Recall@10 of those among them that say it in other words;\nboth judge kinds of lines, of which each counts once, and are the same in each round. bleve answers in a process of its own; its\ntime is without the way there.",
		rounds: 3,
		metrics: []metric{{"p50", "ms", less}, {"p99", "ms", less},
			{"nDCG", "", more}, {"paraphrases", "", more}},
		wants: []want{
			{"GhostBridge", "nDCG", atLeast, 1, "SQLite FTS5 (BM25)"},
			{"GhostBridge", "paraphrases", atLeast, 1.5, "SQLite FTS5 (BM25)"},
		},
		setup: func(ctx context.Context, e *env) ([]contender, error) {
			program, missing := e.peerProgram(ctx, searchPeersModule, "./bleveask")
			args := []string{"-turns", "answers"}
			if missing == nil {
				args = append(args, "-bleve", program)
			}
			list, err := e.searchTurns(ctx, args, []contender{
				{name: "brute force (grep)"}, {name: "bleve"}, {name: "SQLite FTS5 (BM25)"}, {name: "GhostBridge", ours: true},
			}, []string{"grep", "bleve", "BM25", "GhostBridge"})
			if err == nil && missing != nil {
				list[1].run, list[1].missing = nil, missing.Error()
			}
			return list, err
		},
	},
	{
		name:    "search/vectors",
		title:   "the ten nearest of 40,000 lines",
		note:    "Brute force looks at every vector, in memory and not quantised.",
		rounds:  5,
		metrics: []metric{{"p50", "ms", less}, {"p99", "ms", less}, {"recall", "@10", more}},
		wants:   []want{{"the index", "recall", atLeast, 0.97, ""}},
		setup: func(ctx context.Context, e *env) ([]contender, error) {
			return e.searchTurns(ctx, []string{"-turns", "vectors"}, []contender{{name: "brute force"}, {name: "the index", ours: true}}, []string{"brute force", "the index"})
		},
	},
}

// searchTurns has the turns of contenders done by integration/bench/search,
// which knows them by the names of as.
func (e *env) searchTurns(ctx context.Context, args []string, list []contender, as []string) ([]contender, error) {
	dir, err := e.dir("")
	if err != nil {
		return nil, err
	}
	program := filepath.Join(dir, "search")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./integration/bench/search")
	build.Stderr = &e.words
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("build integration/bench/search: %w", err)
	}
	t, err := e.turner(ctx, program, args...)
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i].run = func(context.Context) (sample, error) {
			var s sample
			return s, t.do(as[i], &s)
		}
	}
	return list, nil
}
