// Bleveask answers questions with bleve, for the comparison in
// integration/bench.
//
//	bleveask DIR
//
// It makes an index in DIR of the documents that it reads from standard input,
// a JSON object a line, until an empty line, and prints {"documents":N}. Then it
// answers each further line, a query, with a line {"ids":[...],"took":ms}: the
// documents that match any of the terms, best first, and how long the search
// took, from the terms to the ids.
//
// Bleve is used as its documentation has it: its own on-disk index, its English
// analyser, BM25. A term with anything but letters and digits in it is a phrase.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"

	"github.com/blevesearch/bleve/v2"
	"github.com/blevesearch/bleve/v2/analysis/analyzer/keyword"
	_ "github.com/blevesearch/bleve/v2/analysis/lang/en"
	"github.com/blevesearch/bleve/v2/mapping"
	"github.com/blevesearch/bleve/v2/search/query"
	index "github.com/blevesearch/bleve_index_api"
)

// A document is what is indexed. Time is in seconds since 1970.
type document struct {
	ID       string  `json:"id"`
	Body     string  `json:"body"`
	Host     string  `json:"host"`
	Source   string  `json:"source"`
	Kind     string  `json:"kind"`
	Severity float64 `json:"severity"`
	Time     float64 `json:"time"`
}

// A request is a question and what the documents must be besides. Of lists any
// will do; null stands for no bound, Until is outside.
type request struct {
	Terms    []string `json:"terms"`
	Size     int      `json:"size"`
	Hosts    []string `json:"hosts"`
	Sources  []string `json:"sources"`
	Kinds    []string `json:"kinds"`
	Severity *float64 `json:"severity"`
	Since    *float64 `json:"since"`
	Until    *float64 `json:"until"`
}

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bleveask:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: bleveask DIR")
	}
	idx, err := bleve.New(filepath.Join(args[0], "bleve"), newMapping())
	if err != nil {
		return err
	}
	defer idx.Close()
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	n, batch := 0, idx.NewBatch()
	for lines.Scan() && len(lines.Bytes()) > 0 {
		var d document
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			return err
		}
		if err := batch.Index(d.ID, d); err != nil {
			return err
		}
		if n++; n%1000 == 0 {
			if err := idx.Batch(batch); err != nil {
				return err
			}
			batch.Reset()
		}
	}
	if err := idx.Batch(batch); err != nil {
		return err
	}
	answers := json.NewEncoder(out)
	if err := answers.Encode(map[string]int{"documents": n}); err != nil {
		return err
	}
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return err
		}
		answer := struct {
			IDs  []string `json:"ids"`
			Took float64  `json:"took"`
		}{IDs: []string{}}
		begin := time.Now()
		if len(r.Terms) > 0 {
			found, err := idx.Search(bleve.NewSearchRequestOptions(r.query(), r.Size, 0, false))
			if err != nil {
				return err
			}
			for _, hit := range found.Hits {
				answer.IDs = append(answer.IDs, hit.ID)
			}
		}
		answer.Took = float64(time.Since(begin)) / float64(time.Millisecond)
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

func newMapping() mapping.IndexMapping {
	text := bleve.NewTextFieldMapping()
	text.Analyzer, text.Store = "en", false
	word := bleve.NewTextFieldMapping()
	word.Analyzer, word.Store, word.IncludeInAll = keyword.Name, false, false
	number := bleve.NewNumericFieldMapping()
	number.Store, number.IncludeInAll = false, false
	doc := bleve.NewDocumentStaticMapping()
	doc.AddFieldMappingsAt("body", text)
	for _, name := range []string{"host", "source", "kind"} {
		doc.AddFieldMappingsAt(name, word)
	}
	for _, name := range []string{"severity", "time"} {
		doc.AddFieldMappingsAt(name, number)
	}
	m := bleve.NewIndexMapping()
	m.DefaultMapping, m.DefaultAnalyzer, m.ScoringModel = doc, "en", index.BM25Scoring
	return m
}

func (r *request) query() query.Query {
	var terms []query.Query
	for _, t := range r.Terms {
		if strings.IndexFunc(t, func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsDigit(c) }) < 0 {
			q := bleve.NewMatchQuery(t)
			q.SetField("body")
			terms = append(terms, q)
			continue
		}
		q := bleve.NewMatchPhraseQuery(t)
		q.SetField("body")
		terms = append(terms, q)
	}
	must := []query.Query{bleve.NewDisjunctionQuery(terms...)}
	for field, list := range map[string][]string{"host": r.Hosts, "source": r.Sources, "kind": r.Kinds} {
		if len(list) == 0 {
			continue
		}
		var any []query.Query
		for _, v := range list {
			q := bleve.NewTermQuery(v)
			q.SetField(field)
			q.SetBoost(0) // what it must be says nothing of how well it answers
			any = append(any, q)
		}
		must = append(must, bleve.NewDisjunctionQuery(any...))
	}
	between := func(field string, from, to *float64, toInside bool) {
		if from == nil && to == nil {
			return
		}
		fromInside := true
		q := bleve.NewNumericRangeInclusiveQuery(from, to, &fromInside, &toInside)
		q.SetField(field)
		q.SetBoost(0)
		must = append(must, q)
	}
	between("severity", nil, r.Severity, true)
	between("time", r.Since, r.Until, false)
	if len(must) == 1 {
		return must[0]
	}
	return bleve.NewConjunctionQuery(must...)
}
