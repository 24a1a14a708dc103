package qdrant

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/qdrant/go-client/qdrant"

	"github.com/ghostbridge/ghostbridge/pkg/index"
)

// Lexical implements index.Reader.
func (r *Reader) Lexical(ctx context.Context, terms []index.Term, f index.Filter, limit int) ([]index.Candidate, error) {
	indices, values := sparse(terms, func(t index.Term) float64 { return t.Weight })
	if len(indices) == 0 {
		return nil, nil
	}
	return r.nearest(ctx, &qdrant.QueryPoints{Query: qdrant.NewQuerySparse(indices, values), Using: qdrant.PtrOf(vectorSparse)}, f, limit)
}

// Dense implements index.Reader.
func (r *Reader) Dense(ctx context.Context, v []float32, f index.Filter, limit int) ([]index.Candidate, error) {
	if !slices.ContainsFunc(v, func(x float32) bool { return x != 0 }) {
		return nil, nil
	}
	return r.nearest(ctx, &qdrant.QueryPoints{Query: qdrant.NewQueryDense(v), Using: qdrant.PtrOf(vectorDense),
		Params: &qdrant.SearchParams{Quantization: &qdrant.QuantizationSearchParams{Rescore: qdrant.PtrOf(true), Oversampling: qdrant.PtrOf(2.0)}}}, f, limit)
}

var candidateKeys = []string{keyTenant, keyTemplate, keySource, keyType, keyMasked, keyExtra, keyGroup}

// nearest returns the templates that a query finds and of which the filter lets
// something through.
func (r *Reader) nearest(ctx context.Context, q *qdrant.QueryPoints, f index.Filter, limit int) ([]index.Candidate, error) {
	p, err := r.passing(ctx, f)
	if err != nil {
		return nil, err
	}
	if p.listed && len(p.some) == 0 {
		return nil, nil
	}
	q.CollectionName = r.alias
	q.WithPayload = qdrant.NewWithPayloadInclude(candidateKeys...)
	if p.listed {
		q.Filter = r.where(index.KindTemplate, nil, qdrant.NewMatchKeywords(keyTemplate, p.list()...))
	} else {
		q.Filter = r.where(index.KindTemplate, nil)
	}
	page := limit
	if len(r.parts) > 1 { // a template may come once for each
		page *= min(len(r.parts), 8)
	}
	if !p.free && !(p.listed && p.exact) {
		page = 4*page + 64
	}
	page = min(page, pageSize)
	q.Limit = qdrant.PtrOf(uint64(page))
	var out []index.Candidate
	had := make(map[index.ID]bool)
	var parts []string
	var groups []int64
	for from := 0; from < max(maxChecked, limit) && len(out) < limit; from += page {
		q.Offset = qdrant.PtrOf(uint64(from))
		var found []*qdrant.ScoredPoint
		if err := r.c.do(ctx, "search", func(ctx context.Context) error {
			a, err := r.c.points.Query(ctx, q)
			found = a.GetResult()
			return err
		}); err != nil {
			return nil, err
		}
		var asked []index.ID
		for _, s := range found {
			if id, err := index.ParseID(text(s.Payload, keyTemplate)); err == nil && !had[id] {
				asked = append(asked, id)
			}
		}
		if err := p.learn(ctx, asked); err != nil {
			return nil, err
		}
		for _, s := range found {
			c := candidate(s.Payload)
			if had[c.ID] || s.Score <= 0 && q.GetUsing() == vectorSparse || len(out) >= limit {
				continue
			}
			had[c.ID] = true
			if !p.passes(c.ID) {
				continue
			}
			c.Score = float64(s.Score)
			out = append(out, c)
			parts, groups = append(parts, text(s.Payload, keyTenant)), append(groups, number(s.Payload, keyGroup))
		}
		if len(found) < page {
			break
		}
	}
	p.keep()
	return out, r.name(ctx, out, parts, groups)
}

func candidate(p map[string]*qdrant.Value) index.Candidate {
	c := index.Candidate{Source: text(p, keySource), Type: text(p, keyType), Masked: text(p, keyMasked), Extra: text(p, keyExtra)}
	c.ID, _ = index.ParseID(text(p, keyTemplate))
	return c
}

// name gives candidates their group's text. It changes as the group grows, so
// only what this reader has asked for is remembered.
func (r *Reader) name(ctx context.Context, list []index.Candidate, parts []string, groups []int64) error {
	want := make(map[string]map[int64]bool)
	r.mu.Lock()
	for i := range list {
		if _, ok := r.groups[[2]any{parts[i], groups[i]}]; !ok {
			if want[parts[i]] == nil {
				want[parts[i]] = make(map[int64]bool)
			}
			want[parts[i]][groups[i]] = true
		}
	}
	r.mu.Unlock()
	for part, set := range want {
		var numbers []int64
		for n := range set {
			numbers = append(numbers, n)
		}
		f := &qdrant.Filter{Must: []*qdrant.Condition{qdrant.NewMatch(keyTenant, part), qdrant.NewMatch(keyKind, index.KindGroup), qdrant.NewMatchInts(keyGroup, numbers...)}}
		if err := r.c.scroll(ctx, r.alias, f, nil, func(p *qdrant.RetrievedPoint) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.groups[[2]any{part, number(p.Payload, keyGroup)}] = text(p.Payload, keyText)
			return nil
		}); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range list {
		if list[i].Group = r.groups[[2]any{parts[i], groups[i]}]; list[i].Group == "" {
			list[i].Group = list[i].Masked
		}
	}
	return nil
}

// A passing says which templates a filter lets something through of.
type passing struct {
	r      *Reader
	f      index.Filter
	since  time.Time // when it was asked for
	free   bool      // all of them
	listed bool      // no other than some
	exact  bool      // all of some
	some   map[index.ID]bool
	known  map[index.ID]bool
}

// passing prepares for a filter. Where it is narrow all that may pass are found
// at once.
func (r *Reader) passing(ctx context.Context, f index.Filter) (*passing, error) {
	timed := !f.Since.IsZero() || !f.Until.IsZero()
	p := &passing{r: r, f: f, known: make(map[index.ID]bool)}
	if !timed && !f.HasSeverity && len(f.Sources)+len(f.Types)+len(f.Hosts)+len(f.Actors) == 0 {
		p.free = true
		return p, nil
	}
	r.mu.Lock()
	last, age := r.last, time.Since(r.lastAt)
	r.mu.Unlock()
	if last != nil && age < remembered && reflect.DeepEqual(last.f, f) {
		*p = *last
		p.known = maps.Clone(last.known)
		return p, nil
	}
	p.since = time.Now()
	var all, within map[index.ID]bool
	err := each(ctx, 2, func(ctx context.Context, i int) (err error) {
		switch {
		case i == 0:
			all, err = r.templates(ctx, r.where(index.KindPoint, &f))
		case timed:
			within, err = r.templates(ctx, r.where(index.KindPoint, &f, inside(&f)...))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for id := range within {
		p.known[id] = true
	}
	if all != nil {
		p.listed, p.exact, p.some = true, !timed, all
	}
	return p, nil
}

// inside are conditions that hold only for points all of whose events are in
// the window. Qdrant compares with float64, which is off by some hundred
// nanoseconds: a margin makes up for it.
func inside(f *index.Filter) (list []*qdrant.Condition) {
	const margin = 4096
	if !f.Since.IsZero() {
		list = append(list, qdrant.NewRange(keyFirst, &qdrant.Range{Gte: qdrant.PtrOf(float64(f.Since.UnixNano() + margin))}))
	}
	if !f.Until.IsZero() {
		list = append(list, qdrant.NewRange(keyLast, &qdrant.Range{Lte: qdrant.PtrOf(float64(f.Until.UnixNano() - margin))}))
	}
	return list
}

// templates returns which templates have points that a filter lets through, nil
// if they are many.
func (r *Reader) templates(ctx context.Context, f *qdrant.Filter) (map[index.ID]bool, error) {
	var hits []*qdrant.FacetHit
	err := r.c.do(ctx, "list the kinds of lines", func(ctx context.Context) error {
		a, err := r.c.points.Facet(ctx, &qdrant.FacetCounts{CollectionName: r.alias, Key: keyTemplate, Filter: f, Limit: qdrant.PtrOf(uint64(maxListed + 1)), Exact: qdrant.PtrOf(true)})
		hits = a.GetHits()
		return err
	})
	if err != nil || len(hits) > maxListed {
		return nil, err
	}
	some := make(map[index.ID]bool, len(hits))
	for _, h := range hits {
		if id, err := index.ParseID(h.Value.GetStringValue()); err == nil && h.Count > 0 {
			some[id] = true
		}
	}
	return some, nil
}

// keep remembers what was found out. It is not changed any more.
func (p *passing) keep() {
	if p.free {
		return
	}
	p.r.mu.Lock()
	p.r.last, p.r.lastAt = p, p.since
	p.r.mu.Unlock()
}

func (p *passing) list() []string {
	out := make([]string, 0, len(p.some))
	for id := range p.some {
		out = append(out, id.String())
	}
	return out
}

func (p *passing) passes(id index.ID) bool { return p.free || p.exact && p.some[id] || p.known[id] }

// learn finds out which of some templates pass.
func (p *passing) learn(ctx context.Context, list []index.ID) error {
	if p.free || p.exact {
		return nil
	}
	list = slices.DeleteFunc(slices.Clone(list), func(id index.ID) bool {
		_, ok := p.known[id]
		return ok || p.listed && !p.some[id]
	})
	if len(list) == 0 {
		return nil
	}
	var partly []*point
	conditions := []*qdrant.Condition{qdrant.NewMatchKeywords(keyTemplate, ids(list)...)}
	if p.listed {
		// What lies within the window is known; what does not is at its ends.
		var ends []*qdrant.Condition
		for _, t := range []time.Time{p.f.Since, p.f.Until} {
			if !t.IsZero() {
				hour := float64(hourOf(t))
				ends = append(ends, qdrant.NewRange(keyHour, &qdrant.Range{Gte: qdrant.PtrOf(hour - 1), Lte: &hour}))
			}
		}
		conditions = append(conditions, qdrant.NewFilterAsCondition(&qdrant.Filter{Should: ends}))
	}
	err := p.r.points(ctx, p.r.where(index.KindPoint, &p.f, conditions...), func(pt *point) error {
		switch {
		case p.known[pt.template] || !pt.overlaps(&p.f):
		case p.f.Time(time.Unix(0, pt.first)) || p.f.Time(time.Unix(0, pt.last)):
			p.known[pt.template] = true
		default:
			partly = append(partly, pt)
		}
		return nil
	})
	if err != nil {
		return err
	}
	partly = slices.DeleteFunc(partly, func(pt *point) bool { return p.known[pt.template] })
	seen, err := p.r.seen(ctx, partly)
	if err != nil {
		return err
	}
	for _, pt := range partly {
		if slices.ContainsFunc(seen[pt.key()], func(o index.Occurrence) bool { return p.f.Time(o.Time) }) {
			p.known[pt.template] = true
		}
	}
	for _, id := range list {
		if !p.known[id] {
			p.known[id] = false // known as well
		}
	}
	return nil
}
