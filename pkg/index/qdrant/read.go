package qdrant

import (
	"bytes"
	"cmp"
	"compress/flate"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/qdrant/go-client/qdrant"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/template"
	"github.com/ghostbridge/ghostbridge/pkg/words"
)

// Bounds of the work that one question can ask for.
const (
	pageSize   = 1000
	maxChecked = 2000   // templates whose points are looked at, by one of the ways of finding some
	maxListed  = 4000   // templates that a filter is turned into
	maxHeld    = 4000   // templates, or points, that may hold a value
	maxScanned = 20_000 // events that are looked at for values
	maxPacked  = 64 << 20
)

// A Reader searches what tenants have published by the time it was opened, and
// their changes since. It sees a transaction that is under way bit by bit:
// Qdrant has none.
type Reader struct {
	c      *Client
	alias  string
	heads  []*head
	parts  []string
	tenant map[string]string // of a part

	mu     sync.Mutex
	groups map[[2]any]string // by part and number
	last   *passing          // what a question has found out of its filter, for what it asks next
	lastAt time.Time
}

// remembered is how long that counts.
const remembered = time.Second

var _ index.Reader = (*Reader)(nil)

// OpenReader opens the index that alias names, of one tenant, or of all if
// tenant is "". A *NoneError says that there is nothing.
func OpenReader(ctx context.Context, c *Client, tenant string) (*Reader, error) {
	r := &Reader{c: c, alias: c.o.Alias, tenant: make(map[string]string), groups: make(map[[2]any]string)}
	list, err := c.heads(ctx, c.o.Alias)
	if isNotFound(err) {
		return nil, &NoneError{c.o.Address(), "index (alias " + c.o.Alias + ")"}
	}
	if err != nil {
		return nil, err
	}
	for _, h := range list {
		if tenant == "" || h.tenant == tenant {
			r.heads, r.parts = append(r.heads, h), append(r.parts, h.part)
			r.tenant[h.part] = h.tenant
		}
	}
	if len(r.heads) == 0 {
		name := "tenant"
		if tenant != "" {
			name = fmt.Sprintf("tenant %q", tenant)
		}
		return nil, &NoneError{c.o.Address(), name}
	}
	return r, nil
}

// Close implements index.Reader. The client stays open.
func (r *Reader) Close() error { return nil }

// States returns what each tenant says that it has verified.
func (r *Reader) States() map[string][]byte {
	m := make(map[string][]byte, len(r.heads))
	for _, h := range r.heads {
		m[h.tenant] = h.State
	}
	return m
}

// Get implements index.Reader. The state is where the writer is.
func (r *Reader) Get(string) ([]byte, error) { return nil, nil }

// log is the name of a part's tenant where there are several.
func (r *Reader) log(part string) string {
	if len(r.parts) == 1 {
		return ""
	}
	return r.tenant[part]
}

// A SeveralError says that an index alone does not tell an event: exit code 2.
type SeveralError struct{ Tenants []string }

func (e *SeveralError) Error() string {
	return fmt.Sprintf("the index is of %d logs, each with events of the same numbers", len(e.Tenants))
}

// ExitCode is that of wrong usage.
func (e *SeveralError) ExitCode() int { return 2 }

// Hint says what to do.
func (e *SeveralError) Hint() string {
	return "name one with --tenant: " + strings.Join(e.Tenants[:min(len(e.Tenants), 20)], ", ")
}

// Totals implements index.Reader.
func (r *Reader) Totals() (index.Totals, error) {
	ctx, cancel := context.WithTimeout(context.Background(), r.c.o.Patience+callTime)
	defer cancel()
	var t index.Totals
	heads, err := r.c.heads(ctx, r.alias)
	if err != nil {
		return t, err
	}
	for _, h := range heads {
		if _, ours := r.tenant[h.part]; !ours {
			continue
		}
		t.Events += h.Events
		t.Embedder = h.Embedder
		if h.Newest.After(t.Newest) {
			t.Newest = h.Newest
		}
	}
	for _, of := range []struct {
		into *int64
		f    *qdrant.Filter
	}{
		{&t.Points, r.where(index.KindPoint, nil)},
		{&t.Templates, r.where(index.KindTemplate, nil)},
		{&t.Pending, r.where(index.KindTemplate, nil, qdrant.NewMatchBool(keyPending, true))},
	} {
		n, err := r.count(ctx, of.f)
		if err != nil {
			return t, err
		}
		*of.into = n
	}
	return t, nil
}

func (r *Reader) count(ctx context.Context, f *qdrant.Filter) (n int64, err error) {
	err = r.c.do(ctx, "count", func(ctx context.Context) error {
		a, err := r.c.points.Count(ctx, &qdrant.CountPoints{CollectionName: r.alias, Filter: f, Exact: qdrant.PtrOf(true)})
		n = int64(a.GetResult().GetCount())
		return err
	})
	return n, err
}

// Space implements index.Reader.
func (r *Reader) Space(context.Context) (string, error) { return r.heads[0].Embedder, nil }

// scroll calls f for all points that a filter lets through.
func (c *Client) scroll(ctx context.Context, collection string, filter *qdrant.Filter, keys []string, f func(*qdrant.RetrievedPoint) error) error {
	payload := qdrant.NewWithPayload(true)
	if keys != nil {
		payload = qdrant.NewWithPayloadInclude(keys...)
	}
	var from *qdrant.PointId
	for {
		var page []*qdrant.RetrievedPoint
		var next *qdrant.PointId
		err := c.do(ctx, "read points", func(ctx context.Context) error {
			a, err := c.points.Scroll(ctx, &qdrant.ScrollPoints{CollectionName: collection, Filter: filter, Limit: qdrant.PtrOf(uint32(pageSize)), Offset: from, WithPayload: payload})
			page, next = a.GetResult(), a.GetNextPageOffset()
			return err
		})
		if err != nil {
			return err
		}
		for _, p := range page {
			if err := f(p); err != nil {
				return err
			}
		}
		if next == nil {
			return nil
		}
		from = next
	}
}

var errEnough = errors.New("enough")

// newest calls f for the points that a filter lets through, the one with the
// newest event first, page by page.
func (r *Reader) newest(ctx context.Context, filter *qdrant.Filter, keys []string, size int, f func([]*qdrant.RetrievedPoint) error) error {
	order := &qdrant.OrderBy{Key: keyLast, Direction: qdrant.Direction_Desc.Enum()}
	seen := make(map[string]bool) // of those at the page's end
	for {
		var page []*qdrant.RetrievedPoint
		err := r.c.do(ctx, "read points", func(ctx context.Context) error {
			a, err := r.c.points.Scroll(ctx, &qdrant.ScrollPoints{CollectionName: r.alias, Filter: filter, Limit: qdrant.PtrOf(uint32(size)), OrderBy: order,
				WithPayload: qdrant.NewWithPayloadInclude(append([]string{keyLast}, keys...)...)})
			page = a.GetResult()
			return err
		})
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return nil
		}
		end := number(page[len(page)-1].Payload, keyLast)
		fresh := slices.DeleteFunc(slices.Clone(page), func(p *qdrant.RetrievedPoint) bool { return seen[p.Id.GetUuid()] })
		if err := f(fresh); err != nil {
			if errors.Is(err, errEnough) {
				return nil
			}
			return err
		}
		if len(page) < size {
			return nil
		}
		if len(fresh) == 0 { // all of one moment: a larger page leads beyond
			size *= 2
		}
		if order.StartFrom == nil || order.StartFrom.GetInteger() != end {
			clear(seen)
		}
		for _, p := range page {
			if number(p.Payload, keyLast) == end {
				seen[p.Id.GetUuid()] = true
			}
		}
		order.StartFrom = qdrant.NewStartFromInt(end)
	}
}

// where is a filter for one kind of points: of the tenants, of what f asks for
// except for the time within the hour, and of more.
func (r *Reader) where(kind string, f *index.Filter, more ...*qdrant.Condition) *qdrant.Filter {
	must := []*qdrant.Condition{qdrant.NewMatchKeywords(keyTenant, r.parts...), qdrant.NewMatch(keyKind, kind)}
	if f != nil {
		for _, of := range []struct {
			key  string
			list []string
		}{{keySource, f.Sources}, {keyType, f.Types}, {keyHost, f.Hosts}, {keyActor, f.Actors}} {
			if len(of.list) > 0 {
				must = append(must, qdrant.NewMatchKeywords(of.key, of.list...))
			}
		}
		if f.HasSeverity {
			must = append(must, qdrant.NewRange(keySeverity, &qdrant.Range{Lte: qdrant.PtrOf(float64(f.Severity))}))
		}
		var hours qdrant.Range
		if !f.Since.IsZero() {
			hours.Gte = qdrant.PtrOf(float64(hourOf(f.Since)))
		}
		if !f.Until.IsZero() {
			hours.Lte = qdrant.PtrOf(float64(hourOf(f.Until.Add(-1))))
		}
		if hours.Gte != nil || hours.Lte != nil {
			must = append(must, qdrant.NewRange(keyHour, &hours))
		}
	}
	return &qdrant.Filter{Must: append(must, more...)}
}

func hourOf(t time.Time) int64 { return int64(math.Floor(float64(t.Unix()) / 3600)) }

func ids(list []index.ID) []string {
	out := make([]string, len(list))
	for i, id := range list {
		out[i] = id.String()
	}
	return out
}

// Frequencies implements index.Reader.
func (r *Reader) Frequencies(ctx context.Context, stems []string) (in []int64, of int64, err error) {
	in = make([]int64, len(stems))
	filters := []*qdrant.Filter{r.where(index.KindTemplate, nil)}
	into := []*int64{&of}
	for i, s := range stems {
		filters = append(filters, r.where(index.KindTemplate, nil, qdrant.NewMatchInt(keyStems, hash64(s))))
		into = append(into, &in[i])
	}
	return in, of, each(ctx, len(filters), func(ctx context.Context, i int) error {
		n, err := r.count(ctx, filters[i])
		*into[i] = n
		return err
	})
}

// each calls f for 0 to n-1, some at the same time, until one fails.
func each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(n, 16) {
		wg.Go(func() {
			for i := range next {
				if err := f(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

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

// Templates implements index.Reader.
func (r *Reader) Templates(ctx context.Context, list []index.ID) (out []index.Candidate, err error) {
	by := make(map[index.ID]int)
	var parts []string
	var groups []int64
	for chunk := range slices.Chunk(list, maxBatch) {
		if err := r.c.scroll(ctx, r.alias, r.where(index.KindTemplate, nil, qdrant.NewMatchKeywords(keyTemplate, ids(chunk)...)), candidateKeys, func(p *qdrant.RetrievedPoint) error {
			c := candidate(p.Payload)
			if _, ok := by[c.ID]; !ok {
				by[c.ID] = len(out)
				out = append(out, c)
				parts, groups = append(parts, text(p.Payload, keyTenant)), append(groups, number(p.Payload, keyGroup))
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	if err := r.name(ctx, out, parts, groups); err != nil {
		return nil, err
	}
	ordered := make([]index.Candidate, 0, len(out))
	for _, id := range list { // in the order that was asked for
		if i, ok := by[id]; ok {
			ordered = append(ordered, out[i])
			delete(by, id)
		}
	}
	return ordered, nil
}

// Newest implements index.Reader.
func (r *Reader) Newest(ctx context.Context, f index.Filter, limit int) ([]index.Candidate, error) {
	p, err := r.passing(ctx, f)
	if err != nil {
		return nil, err
	}
	var order []index.ID
	had := make(map[index.ID]bool)
	size := pageSize
	if limit < 100 {
		size = 200
	}
	err = r.newest(ctx, r.where(index.KindPoint, &f), pointKeys, size, func(page []*qdrant.RetrievedPoint) error {
		var fresh []index.ID
		for _, q := range page {
			pt := parsePoint(q)
			if !had[pt.template] && pt.overlaps(&f) {
				had[pt.template] = true
				fresh = append(fresh, pt.template)
			}
		}
		if err := p.learn(ctx, fresh); err != nil {
			return err
		}
		for _, id := range fresh {
			if p.passes(id) && len(order) < limit {
				order = append(order, id)
			}
		}
		if len(order) >= limit {
			return errEnough
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r.Templates(ctx, order)
}

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
