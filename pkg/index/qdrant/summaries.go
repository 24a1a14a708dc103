package qdrant

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/qdrant/go-client/qdrant"

	"github.com/ghostbridge/ghostbridge/pkg/index"
)

type summing struct {
	s       index.Summary
	part    string
	first   int64
	last    int64
	whole   []*point
	samples []index.Occurrence
}

// Summaries implements index.Reader.
func (r *Reader) Summaries(ctx context.Context, templates []index.ID, f index.Filter) (out []index.Summary, err error) {
	if len(templates) == 0 {
		return nil, nil
	}
	type key struct {
		part     string
		template index.ID
		host     string
	}
	sums := make(map[key]*summing)
	var partly []*point
	var keys []key
	at := func(p *point) *summing {
		k := key{p.part, p.template, p.host}
		s := sums[k]
		if s == nil {
			s = &summing{s: index.Summary{Log: r.log(p.part), Template: p.template, Host: p.host, Source: p.source, Type: p.typ, Severity: p.severity}, part: p.part, first: math.MaxInt64, last: math.MinInt64}
			sums[k] = s
			keys = append(keys, k)
		}
		return s
	}
	for chunk := range slices.Chunk(templates, maxBatch) {
		if err := r.points(ctx, r.where(index.KindPoint, &f, qdrant.NewMatchKeywords(keyTemplate, ids(chunk)...)), func(p *point) error {
			switch {
			case !p.overlaps(&f):
			case !p.whole(&f):
				partly = append(partly, p)
			default:
				s := at(p)
				s.s.Severity = min(s.s.Severity, p.severity)
				s.s.Count += p.count
				s.first, s.last = min(s.first, p.first), max(s.last, p.last)
				s.whole = append(s.whole, p)
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	seen, err := r.seen(ctx, partly)
	if err != nil {
		return nil, err
	}
	for _, p := range partly {
		for _, o := range seen[p.key()] {
			if f.Time(o.Time) {
				s := at(p)
				s.s.Severity = min(s.s.Severity, p.severity)
				s.s.Count++
				s.first, s.last = min(s.first, o.Time.UnixNano()), max(s.last, o.Time.UnixNano())
				s.samples = append(s.samples, o)
			}
		}
	}
	if err := r.samples(ctx, slices.Collect(maps.Values(sums))); err != nil {
		return nil, err
	}
	want := make(map[string][]int64)
	for _, s := range sums {
		slices.SortFunc(s.samples, newestFirst)
		s.samples = s.samples[:min(len(s.samples), index.MaxSamples)]
		if len(s.samples) > 0 {
			want[s.part] = append(want[s.part], s.samples[0].Index)
		}
	}
	events := make(map[string]map[int64]index.Event)
	for part, list := range want {
		if events[part], err = r.events(ctx, part, list); err != nil {
			return nil, err
		}
	}
	for _, k := range keys {
		s := sums[k]
		if len(s.samples) == 0 {
			continue
		}
		e, ok := events[s.part][s.samples[0].Index]
		if !ok {
			continue // taken out meanwhile
		}
		s.s.First, s.s.Last = time.Unix(0, s.first).UTC(), time.Unix(0, s.last).UTC()
		s.s.Occurrences, s.s.Newest, s.s.Actor = s.samples, e, e.Actor
		out = append(out, s.s)
	}
	return out, nil
}

func newestFirst(a, b index.Occurrence) int {
	if c := b.Time.Compare(a.Time); c != 0 {
		return c
	}
	return int(b.Index - a.Index)
}

// samples asks for the newest events of those points that can have the newest
// of their sum.
func (r *Reader) samples(ctx context.Context, sums []*summing) error {
	of := make(map[string]*summing)
	var want []*qdrant.PointId
	for _, s := range sums {
		slices.SortFunc(s.whole, func(a, b *point) int { return cmp.Compare(b.last, a.last) })
		have := 0
		for _, p := range s.whole {
			// Points of other hours may overlap where clocks went back: one more.
			if have >= 2*index.MaxSamples {
				break
			}
			have += int(min(p.count, index.MaxSamples))
			of[p.qid] = s
			want = append(want, qdrant.NewID(p.qid))
		}
	}
	return r.named(ctx, want, func(id string, list []index.Occurrence) {
		of[id].samples = append(of[id].samples, list...)
	})
}

// named calls f with the events that points name themselves.
func (r *Reader) named(ctx context.Context, points []*qdrant.PointId, f func(id string, list []index.Occurrence)) error {
	for chunk := range slices.Chunk(points, maxBatch) {
		var found []*qdrant.RetrievedPoint
		if err := r.c.do(ctx, "read points", func(ctx context.Context) error {
			a, err := r.c.points.Get(ctx, &qdrant.GetPoints{CollectionName: r.alias, Ids: chunk, WithPayload: qdrant.NewWithPayloadInclude(keyNewest)})
			found = a.GetResult()
			return err
		}); err != nil {
			return err
		}
		for _, p := range found {
			values := p.Payload[keyNewest].GetListValue().GetValues()
			list := make([]index.Occurrence, 0, len(values)/2)
			for i := 0; i+1 < len(values); i += 2 {
				list = append(list, index.Occurrence{Index: values[i].GetIntegerValue(), Time: time.Unix(0, values[i+1].GetIntegerValue()).UTC()})
			}
			f(p.Id.GetUuid(), list)
		}
	}
	return nil
}
