package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/search"
)

// A question is a line of questions.txt.
type question struct {
	stratum string
	text    string
	filter  index.Filter       // of the flags
	gain    map[string]float64 // of the labels that answer
	full    int                // how many of them do so in full
	plants  bool               // it is after single events
}

var strata = []string{"identifier", "keyword", "paraphrase", "constrained", "none"}

// What an event that answers is worth, and one that is only related.
const answers, related = 3, 1

// loadQuestions reads the questions of a file. Of what answers, only that counts
// of which the corpus has an event that the question's flags and time words let
// through.
func loadQuestions(name string, c *corpus) ([]question, error) {
	list, err := rows(name, 4)
	if err != nil {
		return nil, err
	}
	var out []question
	for _, r := range list {
		q := question{stratum: r[0], text: r[1], gain: make(map[string]float64)}
		if q.filter, err = flags(r[2]); err != nil {
			return nil, fmt.Errorf("%q: %w", q.text, err)
		}
		passing := make(map[string]bool)
		whole := q.whole()
		for i, e := range c.events {
			if passes(&whole, e) {
				passing[c.label[i]] = true
			}
		}
		for _, label := range strings.Fields(r[3]) {
			label, grade, partly := strings.Cut(label, "^")
			q.plants = q.plants || label[0] == '@'
			_ = grade
			if !passing[label] {
				continue
			}
			if q.gain[label] = answers; partly {
				q.gain[label] = related
			} else {
				q.full++
			}
		}
		if q.full == 0 && q.stratum != "none" {
			return nil, fmt.Errorf("%q: nothing in the corpus answers", q.text)
		}
		out = append(out, q)
	}
	return out, nil
}

// labelFor is what event i is for a question: a plant is an event of its kind,
// unless the question is after plants.
func (c *corpus) labelFor(q *question, i int) string {
	l := c.label[i]
	if kind, ok := c.plants[l]; ok && !q.plants {
		return kind
	}
	return l
}

// whole is the filter with the window of the question's time words.
func (q *question) whole() index.Filter {
	f := q.filter
	if _, w := search.When(q.text, now); w != nil && f.Since.IsZero() && f.Until.IsZero() {
		if w.Since != nil {
			f.Since = *w.Since
		}
		if w.Until != nil {
			f.Until = *w.Until
		}
	}
	return f
}

func flags(text string) (f index.Filter, err error) {
	words := strings.Fields(text)
	for i := 0; i+1 < len(words); i += 2 {
		v := words[i+1]
		switch words[i] {
		case "--host":
			f.Hosts = append(f.Hosts, v)
		case "--source":
			f.Sources = append(f.Sources, v)
		case "--type":
			f.Types = append(f.Types, v)
		case "--severity":
			f.HasSeverity = true
			f.Severity, err = event.ParseSeverity(v)
		case "--since":
			f.Since, err = time.Parse(time.RFC3339, v)
		case "--until":
			f.Until, err = time.Parse(time.RFC3339, v)
		default:
			err = fmt.Errorf("flag %s", words[i])
		}
		if err != nil {
			return f, err
		}
	}
	return f, nil
}

func passes(f *index.Filter, e *event.Event) bool {
	in := func(list []string, v string) bool {
		for _, x := range list {
			if x == v {
				return true
			}
		}
		return len(list) == 0
	}
	return f.Time(e.Time) && in(f.Sources, e.Source) && in(f.Types, e.Type) && in(f.Hosts, e.Host) && (!f.HasSeverity || e.Severity <= f.Severity)
}

// A score is of one question and one way to answer it.
type score struct {
	ndcg, recall, rr, first float64
	empty                   bool
}

// judge scores a list of labels, best first, each once.
func (q *question) judge(labels []string) (s score) {
	const depth = 10
	s.empty = len(labels) == 0
	labels = labels[:min(len(labels), depth)]
	var dcg, ideal float64
	found := 0
	for i, l := range labels {
		g := q.gain[l]
		dcg += g / math.Log2(float64(i)+2)
		if g == answers {
			found++
			if s.rr == 0 {
				s.rr = 1 / float64(i+1)
			}
			if i == 0 {
				s.first = 1
			}
		}
	}
	i := 0
	for _, worth := range []float64{answers, related} {
		for _, g := range q.gain {
			if g == worth && i < depth {
				ideal += g / math.Log2(float64(i)+2)
				i++
			}
		}
	}
	if q.full > 0 {
		s.ndcg, s.recall = dcg/ideal, float64(found)/float64(min(q.full, depth))
	}
	return s
}
