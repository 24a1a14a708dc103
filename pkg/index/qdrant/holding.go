package qdrant

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/qdrant/go-client/qdrant"

	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/template"
	"github.com/ghostbridge/ghostbridge/pkg/words"
)

// Holding implements index.Reader. The points that may hold the values are found
// by them; of these, and of the points that had more values than are kept, the
// events are looked at themselves.
func (r *Reader) Holding(ctx context.Context, values []string, f index.Filter, limit int) (out []index.Event, more bool, err error) {
	var all []*qdrant.Condition
	for _, v := range values {
		either := []*qdrant.Condition{qdrant.NewMatchInt(keyValues, hash64(v))}
		templates, cut, err := r.phrase(ctx, v)
		if err != nil {
			return nil, false, err
		}
		more = more || cut
		if len(templates) > 0 {
			either = append(either, qdrant.NewMatchKeywords(keyTemplate, templates...))
		}
		all = append(all, qdrant.NewFilterAsCondition(&qdrant.Filter{Should: either}))
	}
	filter := r.where(index.KindPoint, &f)
	filter.Should = []*qdrant.Condition{qdrant.NewFilterAsCondition(&qdrant.Filter{Must: all}), qdrant.NewMatchBool(keyMore, true)}
	type id struct {
		part string
		i    int64
	}
	done := make(map[id]bool)
	scanned, held := 0, 0
	err = r.newest(ctx, filter, pointKeys, 100, func(page []*qdrant.RetrievedPoint) error {
		var points []*point
		for _, p := range page {
			if pt := parsePoint(p); pt.overlaps(&f) {
				points = append(points, pt)
			}
		}
		if held += len(points); held > 2*maxHeld {
			more = true
			return errEnough
		}
		seen, err := r.seen(ctx, points)
		if err != nil {
			return err
		}
		want := make(map[string][]int64)
		for k, list := range seen {
			for _, o := range list {
				if f.Time(o.Time) && !done[id{k[0], o.Index}] {
					done[id{k[0], o.Index}] = true
					want[k[0]] = append(want[k[0]], o.Index)
				}
			}
		}
		for part, list := range want {
			slices.Sort(list)
			if room := maxScanned - scanned; len(list) > room {
				list, more = list[len(list)-room:], true
			}
			scanned += len(list)
			events, err := r.events(ctx, part, list)
			if err != nil {
				return err
			}
			for _, e := range events {
				if !slices.ContainsFunc(values, func(v string) bool { return !e.Holds(v) }) {
					out = append(out, e)
				}
			}
		}
		if len(out) >= limit || scanned >= maxScanned {
			more = true
			return errEnough
		}
		return nil
	})
	slices.SortFunc(out, func(a, b index.Event) int {
		if c := b.Time.Compare(a.Time); c != 0 {
			return c
		}
		return int(b.Index - a.Index)
	})
	return out[:min(len(out), limit)], more, err
}

// phrase returns the templates that have a value as a phrase.
func (r *Reader) phrase(ctx context.Context, value string) (list []string, cut bool, err error) {
	b, _ := template.Mask(nil, nil, value)
	phrase := strings.ToLower(string(b))
	stems := words.Terms(phrase)
	if len(stems) == 0 {
		return nil, false, nil
	}
	var all []*qdrant.Condition
	for _, s := range slices.Compact(slices.Sorted(slices.Values(stems))) {
		all = append(all, qdrant.NewMatchInt(keyStems, hash64(s)))
	}
	err = r.c.scroll(ctx, r.alias, r.where(index.KindTemplate, nil, all...), []string{keyTemplate, keyMasked}, func(p *qdrant.RetrievedPoint) error {
		masked := strings.ToLower(text(p.Payload, keyMasked))
		if !strings.Contains(masked, phrase) && !strings.Contains(masked, value) {
			return nil
		}
		if len(list) >= maxHeld {
			cut = true
			return errEnough
		}
		list = append(list, text(p.Payload, keyTemplate))
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return list, cut, err
}
