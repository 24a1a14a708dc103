package main

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/embed"
	"github.com/ghostbridge/ghostbridge/pkg/enrich"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/redact"
	"github.com/ghostbridge/ghostbridge/pkg/search"
	"github.com/ghostbridge/ghostbridge/pkg/words"
)

// depth is how many labels an engine gives.
const depth = 10

// An engine answers a question with labels of the corpus, each once, best
// first.
type engine interface {
	name() string
	ask(ctx context.Context, q *question) ([]string, error)
	// ten returns how long it takes to the ten best hits, whatever their labels.
	ten(ctx context.Context, q *question) (time.Duration, error)
}

// hybrid is GhostBridge's search.
type hybrid struct {
	c  *corpus
	db *local.DB
	s  search.Searcher
	// wrong counts hits that the filter does not let through.
	wrong int
}

type documents struct{ *embed.Local }

func (d documents) EmbedDocuments(ctx context.Context, texts []string) ([][]float32, error) {
	return d.Embed(ctx, embed.Document, texts)
}

// openIndex makes an index of events, as gb-vecsync does.
func openIndex(path string, events []*event.Event) (*local.DB, error) {
	db, err := local.Open(path, local.Options{Embedder: documents{embed.LoadLocal()}, Enrich: enrich.Load("").Event, Redact: redact.Text})
	if err != nil {
		return nil, err
	}
	return db, fill(db, events)
}

func fill(db *local.DB, events []*event.Event) error {
	for part := range slices.Chunk(events, 20_000) {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		for _, e := range part {
			if err := tx.Add(e); err != nil {
				return err
			}
		}
		if err := tx.Commit(); err != nil {
			return err
		}
	}
	return nil
}

func newHybrid(dir string, c *corpus) (*hybrid, error) {
	db, err := openIndex(filepath.Join(dir, "index.db"), c.events)
	if err != nil {
		return nil, err
	}
	return &hybrid{c: c, db: db, s: search.Searcher{Now: clock}}, nil
}

func (h *hybrid) name() string { return "GhostBridge" }

func (h *hybrid) ask(ctx context.Context, q *question) ([]string, error) {
	// Hits are a host each; labels are not.
	r, err := h.s.Search(ctx, h.db, search.Ask{Question: q.text, Filter: q.filter, Limit: depth * len(hosts)}, search.State{})
	if err != nil {
		return nil, err
	}
	whole := q.whole()
	var labels []string
	for _, hit := range r.Hits {
		for _, o := range hit.Occurrences {
			if !passes(&whole, h.c.events[o.Index]) {
				h.wrong++
			}
		}
		if l := h.c.labelFor(q, int(hit.Occurrences[0].Index)); !slices.Contains(labels, l) {
			labels = append(labels, l)
		}
	}
	return labels, nil
}

func (h *hybrid) ten(ctx context.Context, q *question) (time.Duration, error) {
	begin := time.Now()
	_, err := h.s.Search(ctx, h.db, search.Ask{Question: q.text, Filter: q.filter, Limit: 10}, search.State{})
	return time.Since(begin), err
}

// bm25 is SQLite's FTS5 over all that the events say, stemmed, without stop
// words: any of the question's words, those with punctuation in them as
// phrases.
type bm25 struct {
	c  *corpus
	db *sql.DB
}

func text(e *event.Event) string {
	return strings.Join([]string{e.Source, e.Type, e.Subject, e.Message, string(e.Data)}, " ")
}

func newBM25(c *corpus) (*bm25, error) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	b := &bm25{c, db}
	tx, err := db.Begin()
	if err != nil {
		return nil, err
	}
	if _, err := tx.Exec(`CREATE VIRTUAL TABLE t USING fts5 (body, content='', tokenize="porter unicode61")`); err != nil {
		return nil, err
	}
	insert, err := tx.Prepare("INSERT INTO t (rowid, body) VALUES (?, ?)")
	if err != nil {
		return nil, err
	}
	for i, e := range c.events {
		if _, err := insert.Exec(i, text(e)); err != nil {
			return nil, err
		}
	}
	return b, tx.Commit()
}

func (b *bm25) name() string { return "BM25" }

// terms are the words of a question as others take it apart: quoted text is one.
func terms(question string) (list []string) {
	rest, _ := search.When(question, now)
	for i, part := range strings.Split(rest, `"`) {
		if i%2 == 1 {
			list = append(list, part)
			continue
		}
		for _, w := range strings.Fields(part) {
			w = strings.Trim(w, ".,;:?!()'")
			if w != "" && !words.Stop(strings.ToLower(w)) {
				list = append(list, w)
			}
		}
	}
	return list
}

func (b *bm25) ask(ctx context.Context, q *question) ([]string, error) {
	var labels []string
	err := b.hits(ctx, q, func(i int) bool {
		if l := b.c.labelFor(q, i); !slices.Contains(labels, l) {
			labels = append(labels, l)
		}
		return len(labels) < depth
	})
	return labels, err
}

func (b *bm25) ten(ctx context.Context, q *question) (time.Duration, error) {
	begin := time.Now()
	n := 0
	err := b.hits(ctx, q, func(int) bool { n++; return n < 10 })
	return time.Since(begin), err
}

// hits gives take the events that answer, best first, until it has enough.
func (b *bm25) hits(ctx context.Context, q *question, take func(i int) bool) error {
	var match []string
	for _, t := range terms(q.text) {
		match = append(match, `"`+t+`"`)
	}
	if len(match) == 0 {
		return nil
	}
	rows, err := b.db.QueryContext(ctx, "SELECT rowid FROM t WHERE t MATCH ? ORDER BY rank", strings.Join(match, " OR "))
	if err != nil {
		return fmt.Errorf("%q: %w", q.text, err)
	}
	defer rows.Close()
	whole := q.whole()
	for rows.Next() {
		var i int
		if err := rows.Scan(&i); err != nil {
			return err
		}
		if passes(&whole, b.c.events[i]) && !take(i) {
			break
		}
	}
	return rows.Err()
}

// grep ranks events by how many of the question's words are in them as they
// stand, the newest first.
type grep struct {
	c     *corpus
	texts []string
}

func newGrep(c *corpus) *grep {
	g := &grep{c: c}
	for _, e := range c.events {
		g.texts = append(g.texts, strings.ToLower(text(e)))
	}
	return g
}

func (g *grep) name() string { return "grep" }

func (g *grep) ask(_ context.Context, q *question) ([]string, error) {
	best := make(map[string][2]int) // of a label: how many words, which event
	g.hits(q, func(n, i int) {
		if l := g.c.labelFor(q, i); n >= best[l][0] {
			best[l] = [2]int{n, i}
		}
	})
	var labels []string
	for l := range best {
		labels = append(labels, l)
	}
	slices.SortFunc(labels, func(a, b string) int {
		x, y := best[a], best[b]
		if x[0] != y[0] {
			return y[0] - x[0]
		}
		return y[1] - x[1]
	})
	return labels[:min(len(labels), depth)], nil
}

func (g *grep) ten(_ context.Context, q *question) (time.Duration, error) {
	begin := time.Now()
	var best [][2]int // at most ten, best first
	g.hits(q, func(n, i int) {
		at := 0
		for at < len(best) && best[at][0] > n {
			at++
		}
		if at < 10 {
			best = slices.Insert(best, at, [2]int{n, i})
			best = best[:min(len(best), 10)]
		}
	})
	return time.Since(begin), nil
}

// hits gives take each event that has words of the question, the oldest first,
// with their number.
func (g *grep) hits(q *question, take func(words, i int)) {
	var list []string
	for _, t := range terms(q.text) {
		list = append(list, strings.ToLower(t))
	}
	whole := q.whole()
	for i, t := range g.texts {
		n := 0
		for _, w := range list {
			if strings.Contains(t, w) {
				n++
			}
		}
		if n > 0 && passes(&whole, g.c.events[i]) {
			take(n, i)
		}
	}
}

var _ index.Reader = (*local.DB)(nil)
