package qdrant

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/qdrant/go-client/qdrant"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
)

// A point is what a reader reads of one.
type point struct {
	qid               string
	part              string
	id                string
	template          index.ID
	host, source, typ string
	severity          event.Severity
	hour, first, last int64
	count, minutes    int64
}

func (p *point) key() [2]string { return [2]string{p.part, p.id} }

var pointKeys = []string{keyTenant, keyPoint, keyTemplate, keyHost, keySource, keyType, keySeverity, keyHour, keyFirst, keyLast, keyCount, keyMinutes}

func parsePoint(p *qdrant.RetrievedPoint) *point {
	v := p.Payload
	pt := &point{qid: p.Id.GetUuid(), part: text(v, keyTenant), id: text(v, keyPoint), host: text(v, keyHost), source: text(v, keySource), typ: text(v, keyType),
		severity: event.Severity(number(v, keySeverity)), hour: number(v, keyHour), first: number(v, keyFirst), last: number(v, keyLast),
		count: number(v, keyCount), minutes: number(v, keyMinutes)}
	pt.template, _ = index.ParseID(text(v, keyTemplate))
	return pt
}

func (r *Reader) points(ctx context.Context, f *qdrant.Filter, each func(*point) error) error {
	return r.c.scroll(ctx, r.alias, f, pointKeys, func(p *qdrant.RetrievedPoint) error { return each(parsePoint(p)) })
}

// overlaps says whether a point may have an event in the window: by its first
// and last one and the minutes in which it has some.
func (p *point) overlaps(f *index.Filter) bool {
	if !f.Since.IsZero() && p.last < f.Since.UnixNano() || !f.Until.IsZero() && p.first >= f.Until.UnixNano() {
		return false
	}
	mask := int64(1)<<60 - 1
	if !f.Since.IsZero() {
		if m := f.Since.Unix()/60 - p.hour*60; m > 0 {
			mask &^= int64(1)<<min(m, 60) - 1
		}
	}
	if !f.Until.IsZero() {
		if m := f.Until.Add(-1).Unix()/60 - p.hour*60; m < 59 {
			mask &= int64(1)<<max(m+1, 0) - 1
		}
	}
	return p.minutes&mask != 0
}

// whole says whether all of a point's events are in the window.
func (p *point) whole(f *index.Filter) bool {
	return (f.Since.IsZero() || p.first >= f.Since.UnixNano()) && (f.Until.IsZero() || p.last < f.Until.UnixNano())
}

// seen returns when the events of points were, in the order of their indexes.
func (r *Reader) seen(ctx context.Context, points []*point) (map[[2]string][]index.Occurrence, error) {
	out := make(map[[2]string][]index.Occurrence)
	var few []*qdrant.PointId
	keys := make(map[string][2]string)
	points = slices.DeleteFunc(slices.Clone(points), func(p *point) bool {
		if p.count > index.MaxSamples {
			return false
		}
		few = append(few, qdrant.NewID(p.qid))
		keys[p.qid] = p.key()
		return true
	})
	if err := r.named(ctx, few, func(id string, list []index.Occurrence) { out[keys[id]] = list }); err != nil {
		return nil, err
	}
	for part := range slices.Chunk(points, 256) {
		list := make([]string, len(part))
		for i, p := range part {
			list[i] = p.id
		}
		if err := r.c.scroll(ctx, r.alias, r.where(index.KindSeen, nil, qdrant.NewMatchKeywords(keyOf, list...)), []string{keyTenant, keyOf, keyData}, func(p *qdrant.RetrievedPoint) error {
			k := [2]string{text(p.Payload, keyTenant), text(p.Payload, keyOf)}
			list, err := unpackSeen(text(p.Payload, keyData))
			out[k] = append(out[k], list...)
			return err
		}); err != nil {
			return nil, err
		}
	}
	for k := range out {
		slices.SortFunc(out[k], func(a, b index.Occurrence) int { return int(a.Index - b.Index) })
	}
	return out, nil
}

var errPacked = errors.New("qdrant: a payload is damaged")

func unpackSeen(s string) ([]index.Occurrence, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, errPacked
	}
	var list []index.Occurrence
	var i, t int64
	for len(b) > 0 {
		d, n := binary.Varint(b)
		if n <= 0 {
			return nil, errPacked
		}
		e, m := binary.Varint(b[n:])
		if m <= 0 {
			return nil, errPacked
		}
		b = b[n+m:]
		i, t = i+d, t+e
		list = append(list, index.Occurrence{Index: i, Time: time.Unix(0, t).UTC()})
	}
	return list, nil
}

func (r *Reader) unpackEvents(part, s string) ([]index.Event, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, errPacked
	}
	var list []index.Event
	dec := json.NewDecoder(io.LimitReader(flate.NewReader(bytes.NewReader(b)), maxPacked))
	for {
		var p packed
		err := dec.Decode(&p)
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errPacked, err)
		}
		e := index.Event{Index: p.Index, Time: time.Unix(0, p.Time).UTC(), Log: r.log(part), Host: p.Host, Source: p.Source, Type: p.Type, Subject: p.Subject,
			Severity: event.Severity(p.Severity), Actor: p.Actor, Message: p.Message}
		if len(p.Data) > 0 {
			e.Data = p.Data
		}
		e.Template, _ = index.ParseID(p.Template)
		list = append(list, e)
	}
}

// events returns events by their indexes in a part; those that are not there
// are left out.
func (r *Reader) events(ctx context.Context, part string, want []int64) (map[int64]index.Event, error) {
	out := make(map[int64]index.Event, len(want))
	rest := slices.Compact(slices.Sorted(slices.Values(want)))
	for len(rest) > 0 {
		// One of each run that may be in one block is enough to find it.
		var asked []int64
		var should []*qdrant.Condition
		for _, i := range rest {
			if len(asked) > 0 && i-asked[len(asked)-1] < 64 {
				continue
			}
			if len(asked) == 64 {
				break
			}
			asked = append(asked, i)
			at := float64(i)
			should = append(should, qdrant.NewFilterAsCondition(&qdrant.Filter{Must: []*qdrant.Condition{
				qdrant.NewRange(keyFrom, &qdrant.Range{Lte: &at}), qdrant.NewRange(keyTo, &qdrant.Range{Gte: &at})}}))
		}
		f := &qdrant.Filter{Must: []*qdrant.Condition{qdrant.NewMatch(keyTenant, part), qdrant.NewMatch(keyKind, index.KindBlock)}, Should: should}
		if err := r.c.scroll(ctx, r.alias, f, []string{keyData}, func(p *qdrant.RetrievedPoint) error {
			list, err := r.unpackEvents(part, text(p.Payload, keyData))
			for _, e := range list {
				if _, ok := slices.BinarySearch(rest, e.Index); ok {
					out[e.Index] = e
				}
			}
			return err
		}); err != nil {
			return nil, err
		}
		rest = slices.DeleteFunc(rest, func(i int64) bool {
			_, ok := out[i]
			return ok || slices.Contains(asked, i)
		})
	}
	return out, nil
}

// Events implements index.Reader.
func (r *Reader) Events(ctx context.Context, first, end int64) (out []index.Event, err error) {
	if len(r.parts) > 1 {
		e := new(SeveralError)
		for _, h := range r.heads {
			e.Tenants = append(e.Tenants, h.tenant)
		}
		return nil, e
	}
	a, b := float64(first), float64(end)
	f := r.where(index.KindBlock, nil, qdrant.NewRange(keyTo, &qdrant.Range{Gte: &a}), qdrant.NewRange(keyFrom, &qdrant.Range{Lt: &b}))
	err = r.c.scroll(ctx, r.alias, f, []string{keyData}, func(p *qdrant.RetrievedPoint) error {
		list, err := r.unpackEvents(r.parts[0], text(p.Payload, keyData))
		for _, e := range list {
			if e.Index >= first && e.Index < end {
				out = append(out, e)
			}
		}
		return err
	})
	slices.SortFunc(out, func(a, b index.Event) int { return int(a.Index - b.Index) })
	return out, err
}
