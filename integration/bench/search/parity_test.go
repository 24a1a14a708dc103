package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	client "github.com/qdrant/go-client/qdrant"

	"github.com/ghostbridge/ghostbridge/pkg/embed"
	"github.com/ghostbridge/ghostbridge/pkg/enrich"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/index/indextest"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/index/qdrant"
	"github.com/ghostbridge/ghostbridge/pkg/index/qdrant/qdranttest"
	"github.com/ghostbridge/ghostbridge/pkg/redact"
	"github.com/ghostbridge/ghostbridge/pkg/search"
	"github.com/ghostbridge/ghostbridge/pkg/words"
)

// What a search finds in Qdrant is what it finds in the file: all events with
// the same ids and counts, and the same answers.
func TestParity(t *testing.T) {
	t.Run("stubs", func(t *testing.T) { parity(t, qdranttest.New(t).Address(), 1, 24) })
	if address := os.Getenv("GB_QDRANT"); address != "" {
		// Its IDF counts what is deleted and not cleaned up yet, too.
		t.Run("server", func(t *testing.T) { parity(t, address, 0.9, 1) })
	}
}

// parity compares the file with the server at address; least is how much of ten
// must be the same; each step-th question is asked.
func parity(t *testing.T, address string, least float64, step int) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	o := qdrant.Options{Host: host, Alias: fmt.Sprintf("gb-parity-%d", time.Now().UnixNano()), Patience: 20 * time.Second}
	if o.Port, err = strconv.Atoi(port); err != nil {
		t.Fatal(err)
	}
	c, err := qdrant.Dial(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	version, err := c.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e := documents{embed.LoadLocal()}
	w, err := qdrant.NewWriter(c, qdrant.WriterOptions{Tenant: "host", Embedder: e.ID(), Dim: e.Dim()})
	if err != nil {
		t.Fatal(err)
	}
	corpus, err := build(10_000)
	if err != nil {
		t.Fatal(err)
	}
	db, err := local.Open(filepath.Join(t.TempDir(), "state.db"), local.Options{Embedder: e, Enrich: enrich.Load("").Event, Redact: redact.Text, Mirror: w})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close(); forget(t, o, qdrant.Collection(o.Alias, e.ID(), e.Dim())) })
	start := time.Now()
	for part := range slices.Chunk(corpus.events, 4000) {
		if err := fill(db, part); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(start)
	r, err := qdrant.OpenReader(t.Context(), c, "")
	if err != nil {
		t.Fatal(err)
	}
	if a, b := indextest.Points(t, db), indextest.Points(t, r); !slices.Equal(a, b) {
		t.Errorf("the file holds %d lines, Qdrant %d others", len(a), len(b))
	}
	var overlap, n float64
	different, asked := 0, 0
	var slow []time.Duration
	s := search.Searcher{Now: clock}
	for _, file := range []string{"questions.txt", "heldout.txt", "fresh.txt"} {
		questions, err := loadQuestions(file, corpus)
		if err != nil {
			t.Fatal(err)
		}
		for i, q := range questions {
			if i%step != 0 {
				continue
			}
			var terms []index.Term
			for _, stem := range words.Terms(q.text) {
				terms = append(terms, index.Term{Stem: stem, Weight: 1})
			}
			a, err := db.Lexical(t.Context(), terms, q.filter, 10)
			if err != nil {
				t.Fatal(err)
			}
			b, err := r.Lexical(t.Context(), terms, q.filter, 10)
			if err != nil {
				t.Fatal(err)
			}
			if len(a)+len(b) > 0 {
				overlap += common(a, b)
				n++
			}
			begun := time.Now()
			y, err := s.Search(t.Context(), r, search.Ask{Question: q.text, Filter: q.filter, Limit: 10}, search.State{})
			if err != nil {
				t.Fatal(err)
			}
			slow = append(slow, time.Since(begun))
			x, err := s.Search(t.Context(), db, search.Ask{Question: q.text, Filter: q.filter, Limit: 10}, search.State{})
			if err != nil {
				t.Fatal(err)
			}
			if asked++; !slices.Equal(described(x.Hits), described(y.Hits)) {
				if different++; different < 4 {
					t.Logf("%q: %v and %v", q.text, described(x.Hits), described(y.Hits))
				}
			}
		}
	}
	slices.Sort(slow)
	t.Logf("Qdrant %s: lexical top 10 of %.0f questions: %.4f in common; %d of %d whole answers differ; %d events stored in %s; a search p50 %s, p99 %s",
		version, n, overlap/n, different, asked, len(corpus.events), took.Round(time.Millisecond), slow[len(slow)/2].Round(time.Millisecond), slow[len(slow)*99/100].Round(time.Millisecond))
	if overlap/n < least {
		t.Errorf("lexical top 10: %.4f in common, want %.2f", overlap/n, least)
	}
	if float64(different) > (1-least+0.01)*float64(asked) {
		t.Errorf("%d of %d answers differ", different, asked)
	}
}

// common returns the share of two lists that is in both. Where the last of a
// list has the score of others, which of them is in it is chance: those count
// as the same.
func common(a, b []index.Candidate) float64 {
	at := make(map[index.ID]float64)
	for _, c := range a {
		at[c.ID] = c.Score
	}
	same := 0
	for _, c := range b {
		_, ok := at[c.ID]
		if ok || len(a) > 0 && near(c.Score, a[len(a)-1].Score) {
			same++
		}
	}
	return float64(same) / float64(max(len(a), len(b)))
}

func near(a, b float64) bool { return a-b < 1e-3 && b-a < 1e-3 }

func described(hits []search.Hit) (list []string) {
	for _, h := range hits {
		list = append(list, fmt.Sprintf("%s|%s|%s|%d|%v", h.Template, h.Host, h.Type, h.Count, h.Occurrences))
	}
	slices.Sort(list) // of equals either may come first
	return list
}

// forget deletes a collection that the test has made.
func forget(t *testing.T, o qdrant.Options, name string) {
	c, err := client.NewClient(&client.Config{Host: o.Host, Port: o.Port, SkipCompatibilityCheck: true})
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	c.DeleteCollection(context.Background(), name)
}
