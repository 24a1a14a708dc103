package main

import (
	"os"
	"testing"
)

// What the search promises, on a corpus and questions of its own. Word lists and
// weights were chosen on questions.txt. heldout.txt, which somebody else wrote
// after them, and fresh.txt, which was written before they were changed last,
// are not to be worse.
func TestQuality(t *testing.T) {
	c, err := build(27_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"questions.txt", "heldout.txt", "fresh.txt"} {
		table, wrong, err := evaluate(t.Context(), os.Stderr, t.TempDir(), c, file, -1, "", false)
		if err != nil {
			t.Fatal(err)
		}
		if wrong > 0 {
			t.Errorf("%s: %d occurrences that the filter does not let through", file, wrong)
		}
		var answerable, empty float64
		for _, stratum := range strata {
			ours, base := table[stratum]["GhostBridge"], table[stratum]["BM25"]
			t.Logf("%s: %s: nDCG %.3f, BM25 %.3f; recall %.3f, BM25 %.3f; first %.3f, empty %.3f", file, stratum, ours.ndcg, base.ndcg, ours.recall, base.recall, ours.first, ours.empty)
			if stratum == "none" {
				if ours.n > 0 && ours.empty < 0.75 {
					t.Errorf("%s: only %.2f of the questions without an answer come back empty", file, ours.empty)
				}
				continue
			}
			answerable += float64(ours.n)
			empty += ours.empty * float64(ours.n)
			if ours.n > 0 && ours.ndcg < base.ndcg-0.01 {
				t.Errorf("%s: %s: nDCG %.3f, that of BM25 %.3f", file, stratum, ours.ndcg, base.ndcg)
			}
		}
		if r, b := table["paraphrase"]["GhostBridge"].recall, table["paraphrase"]["BM25"].recall; r < 1.5*b {
			t.Errorf("%s: paraphrases: recall %.3f, that of BM25 %.3f", file, r, b)
		}
		if f := table["identifier"]["GhostBridge"]; f.n > 0 && f.first < 0.98 {
			t.Errorf("%s: identifiers: first %.3f", file, f.first)
		}
		if empty > 0.05*answerable {
			t.Errorf("%s: %.0f of %.0f questions that have an answer come back empty", file, empty, answerable)
		}
	}
}
