package search

import (
	"context"
	"math"
	"slices"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/embed"
	"github.com/ghostbridge/ghostbridge/pkg/index"
)

// How words and meaning are weighed. The values were chosen on the questions.txt
// of integration/bench/search; those in its other files test them.
const (
	poolLexical = 150 // templates that each way of finding brings
	poolDense   = 100
	// MaxHolding is how many events that hold the values asked for are looked at,
	// the newest; each may be in another block.
	MaxHolding = 300

	denseFloor = 0.25 // cosines below say nothing
	denseGain  = 0.35 // of the question's weight, at a cosine of 1

	// An answer must cover this share of what the question's words weigh, by
	// its own words or others that stand for them. A word weighs by how rare it
	// is in manuals, not in this index: who describes a thing in other words
	// uses some that no log has. Those that no manual has either are names of
	// something else, and weigh most.
	leastCovered = 0.30
	// How much less it may cover for each unit of its cosine beyond.
	nearFrom, nearGain = 0.45, 0.5
	// What a synonym or a near word covers of the word that it stands for.
	coverSynonym = 0.75
	coverNear    = 0.5

	// relativeFloor cuts off what is far worse than the best.
	relativeFloor = 0.25
)

// A Why says why a hit is one.
type Why struct {
	Route    string    `json:"route"` // words, values or like
	Matched  []Matched `json:"matched"`
	Lexical  float64   `json:"lexical"`
	Dense    float64   `json:"dense"`    // cosine
	Coverage float64   `json:"coverage"` // of the question, 0 to 1
	Values   []string  `json:"values,omitempty"`
	Question *Question `json:"question,omitempty"`
}

// A Matched is a word of the question and what of the hit stands for it.
type Matched struct {
	Word   string  `json:"word"` // stem
	As     string  `json:"as"`
	Weight float64 `json:"weight"`
}

// A ranker ranks templates for the stems of one question.
type ranker struct {
	stems   []string
	idf     []float64 // in this index
	general []float64 // in the language of manuals, for coverage
	around  []embed.Neighbour
	nearIDF map[string]float64
	vector  []float32
	dense   map[index.ID]float64
}

type ranked struct {
	index.Candidate
	why Why
}

func newRanker(ctx context.Context, ix index.Reader, text string, stems []string, s *Searcher, dense bool) (*ranker, error) {
	local := embed.LoadLocal()
	r := &ranker{stems: stems, around: local.Expand(stems), nearIDF: make(map[string]float64), dense: make(map[index.ID]float64)}
	all := slices.Clone(stems)
	for _, n := range r.around {
		all = append(all, n.Stem)
	}
	in, of, err := ix.Frequencies(ctx, all)
	if err != nil {
		return nil, err
	}
	idf := func(n int64) float64 { return math.Log(1 + (float64(of)-float64(n)+0.5)/(float64(n)+0.5)) }
	for i, stem := range stems {
		r.idf = append(r.idf, idf(in[i]))
		r.general = append(r.general, math.Max(local.IDF(stem), 0.5))
	}
	kept := r.around[:0]
	for i, n := range r.around {
		if c := in[len(stems)+i]; c > 0 {
			r.nearIDF[n.Stem] = idf(c)
			kept = append(kept, n)
		}
	}
	r.around = kept
	if dense {
		if r.vector, err = s.queryVector(ctx, ix, text, stems); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// terms are what the index is asked for.
func (r *ranker) terms() []index.Term {
	var list []index.Term
	for _, s := range r.stems {
		list = append(list, index.Term{Stem: s, Weight: 1})
	}
	for _, n := range r.around {
		list = append(list, index.Term{Stem: n.Stem, Weight: n.Weight})
	}
	return list
}

// own are the question's words alone.
func (r *ranker) own() []index.Term {
	var list []index.Term
	for _, s := range r.stems {
		list = append(list, index.Term{Stem: s, Weight: 1})
	}
	return list
}

// candidates asks the index by words, by words and what stands for them, and
// by meaning.
func (r *ranker) candidates(ctx context.Context, ix index.Reader, f index.Filter) ([]index.Candidate, error) {
	var out []index.Candidate
	seen := make(map[index.ID]bool)
	add := func(list []index.Candidate) {
		for _, c := range list {
			if !seen[c.ID] {
				seen[c.ID] = true
				out = append(out, c)
			}
		}
	}
	list, err := ix.Lexical(ctx, r.own(), f, poolLexical)
	if err != nil {
		return nil, err
	}
	add(list)
	if len(r.around) > 0 {
		if list, err = ix.Lexical(ctx, r.terms(), f, poolLexical); err != nil {
			return nil, err
		}
		add(list)
	}
	if r.vector != nil {
		if list, err = ix.Dense(ctx, r.vector, f, poolDense); err != nil {
			return nil, err
		}
		for _, c := range list {
			r.dense[c.ID] = c.Score
		}
		add(list)
	}
	return out, nil
}

// score weighs one candidate. For each word of the question the best of what
// stands for it counts, so that many words for one thing do not weigh more than
// words for several.
func (r *ranker) score(c index.Candidate) ranked {
	list, length := index.Stems(c.Source, c.Type, c.Masked, c.Extra)
	weight := make(map[string]float64, len(list))
	for _, t := range list {
		weight[t.Stem] = t.Weight
	}
	best := make([]Matched, len(r.stems))
	cover := make([]float64, len(r.stems))
	for i, s := range r.stems {
		if w, ok := weight[s]; ok {
			best[i] = Matched{s, s, r.idf[i] * index.Saturate(w, length)}
			cover[i] = 1
			if w < 0.5 { // only in what is known beyond the line
				cover[i] = 0.8
			}
		}
	}
	second := make([]float64, len(r.stems))
	for _, n := range r.around {
		w, ok := weight[n.Stem]
		if !ok {
			continue
		}
		i := n.Of
		v := n.Weight * r.nearIDF[n.Stem] * index.Saturate(w, length)
		if v > best[i].Weight {
			if best[i].As != r.stems[i] {
				second[i] = max(second[i], best[i].Weight)
			} else if best[i].Weight > 0 {
				continue
			}
			best[i] = Matched{r.stems[i], n.Stem, v}
		} else {
			second[i] = max(second[i], v)
		}
		by := coverNear
		if n.Weight > 0.3 {
			by = coverSynonym
		}
		if w < 0.5 {
			by *= 0.8
		}
		cover[i] = max(cover[i], by)
	}
	var lexical, total, covered, all float64
	var matched []Matched
	for i := range r.stems {
		lexical += best[i].Weight + 0.3*second[i]
		total += r.idf[i]
		covered += cover[i] * r.general[i]
		all += r.general[i]
		if best[i].Weight > 0 {
			matched = append(matched, best[i])
		}
	}
	out := ranked{Candidate: c, why: Why{Route: "words", Matched: matched, Lexical: lexical, Dense: r.dense[c.ID]}}
	if all > 0 {
		out.why.Coverage = covered / all
	}
	out.Score = lexical + denseGain*total*max(0, r.dense[c.ID]-denseFloor)
	return out
}

// rank returns the candidates that answer, best first.
func (r *ranker) rank(list []index.Candidate) []ranked {
	var out []ranked
	for _, c := range list {
		if s := r.score(c); r.answers(&s) {
			out = append(out, s)
		}
	}
	slices.SortStableFunc(out, func(a, b ranked) int {
		switch {
		case a.Score > b.Score:
			return -1
		case a.Score < b.Score:
			return 1
		}
		return strings.Compare(a.ID.String(), b.ID.String())
	})
	for i := range out {
		if out[i].Score < relativeFloor*out[0].Score {
			return out[:i]
		}
	}
	return out
}

// answers says whether a candidate covers enough of the question.
func (r *ranker) answers(c *ranked) bool {
	// The nearer in meaning, the fewer words are asked for.
	need := leastCovered - nearGain*max(0, c.why.Dense-nearFrom)
	return c.why.Coverage >= need && len(c.why.Matched) > 0
}
