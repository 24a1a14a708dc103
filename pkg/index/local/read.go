package local

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/index"
)

// Bounds of the work that one question can ask for.
const (
	maxChecked = 2000   // templates whose points are looked at, by one of the ways of finding some
	maxListed  = 4000   // rows that are read to know all templates that pass
	maxHeld    = 4000   // points that hold a value
	maxScanned = 50_000 // events that are looked at for values
)

// A view is one consistent look at the index.
type view struct {
	ctx context.Context
	d   *DB
	tx  *sql.Tx
	m   *memory
	// events are how many there are: every commit that changes what a filter
	// lets through changes it, or the memory.
	events int64
	st     map[string]*sql.Stmt
}

// row asks for one row by a query that is asked again and again.
func (v *view) row(query string, args ...any) *sql.Row {
	if s := v.prepared(query); s != nil {
		return s.QueryRowContext(v.ctx, args...)
	}
	return v.tx.QueryRowContext(v.ctx, query, args...) // whose error says why
}

func (v *view) rows(query string, args ...any) (*sql.Rows, error) {
	if s := v.prepared(query); s != nil {
		return s.QueryContext(v.ctx, args...)
	}
	return v.tx.QueryContext(v.ctx, query, args...)
}

// prepared statements end with the transaction.
func (v *view) prepared(query string) *sql.Stmt {
	s := v.st[query]
	if s == nil {
		var err error
		if s, err = v.tx.PrepareContext(v.ctx, query); err != nil {
			return nil
		}
		v.st[query] = s
	}
	return s
}

func (d *DB) view(ctx context.Context, f func(v *view) error) error {
	t, err := d.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return d.wrap(err)
	}
	defer t.Rollback()
	m, events, err := d.refresh(ctx, t)
	if err != nil {
		return d.wrap(err)
	}
	return d.wrap(f(&view{ctx, d, t, m, events, make(map[string]*sql.Stmt)}))
}

// Totals implements index.Reader.
func (d *DB) Totals() (index.Totals, error) {
	var t index.Totals
	var newest sql.NullInt64
	var embedder string
	err := d.db.QueryRow(`SELECT (SELECT value FROM meta WHERE key = 'events'), (SELECT count(*) FROM point), (SELECT count(*) FROM template),
		(SELECT count(*) FROM pending), (SELECT value FROM meta WHERE key = 'newest'), (SELECT value FROM meta WHERE key = 'embedder')`).
		Scan(&t.Events, &t.Points, &t.Templates, &t.Pending, &newest, &embedder)
	if newest.Valid {
		t.Newest = time.Unix(0, newest.Int64).UTC()
	}
	t.Embedder = space(embedder)
	return t, d.wrap(err)
}

// Space implements index.Reader.
func (d *DB) Space(ctx context.Context) (string, error) {
	var embedder string
	err := d.db.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = 'embedder'").Scan(&embedder)
	return space(embedder), d.wrap(err)
}

// space is the ID of what is kept as ID/dimensions.
func space(embedder string) string {
	return embedder[:max(strings.LastIndexByte(embedder, '/'), 0)]
}

// Frequencies implements index.Reader.
func (d *DB) Frequencies(ctx context.Context, stems []string) (in []int64, of int64, err error) {
	err = d.view(ctx, func(v *view) error {
		of = int64(v.m.live)
		for _, s := range stems {
			n := 0
			if i, ok := v.m.stems[s]; ok {
				n = len(v.m.posts[i])
			}
			in = append(in, int64(n))
		}
		return nil
	})
	return in, of, err
}

// Lexical implements index.Reader.
func (d *DB) Lexical(ctx context.Context, terms []index.Term, f index.Filter, limit int) (list []index.Candidate, err error) {
	err = d.view(ctx, func(v *view) error {
		found := v.m.lexical(terms)
		p, err := v.passing(f)
		if err != nil {
			return err
		}
		list, err = v.candidates(found, p, limit)
		return err
	})
	return list, err
}

// Dense implements index.Reader.
func (d *DB) Dense(ctx context.Context, q []float32, f index.Filter, limit int) (list []index.Candidate, err error) {
	err = d.view(ctx, func(v *view) error {
		pass, err := v.passing(f)
		if err != nil {
			return err
		}
		list, err = v.candidates(v.m.dense(q, limit, pass.maybe), pass, limit)
		return err
	})
	return list, err
}

// A passing says which templates a filter lets something through of.
type passing struct {
	v     *view
	f     index.Filter
	ids   map[int64]bool
	all   bool            // any origin
	some  map[uint32]bool // if not nil, no other passes
	known map[uint32]bool
}

// A passed is what a question has found out of its filter, for what it asks
// next.
type passed struct {
	m      *memory
	events int64
	filter string
	some   map[uint32]bool
	known  map[uint32]bool
}

// passing prepares for a filter. Where the filter is narrow it finds all that
// may pass at once.
func (v *view) passing(f index.Filter) (*passing, error) {
	p := &passing{v: v, f: f}
	p.ids, p.all = v.m.matches(&f)
	filter := filterKey(&f)
	v.d.mu.Lock()
	last := v.d.passed
	v.d.mu.Unlock()
	if last != nil && last.m == v.m && last.events == v.events && last.filter == filter {
		p.some, p.known = last.some, maps.Clone(last.known)
		return p, nil
	}
	p.known = make(map[uint32]bool)
	collect := func(query string, args ...any) error {
		rows, err := v.tx.QueryContext(v.ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		some := make(map[uint32]bool)
		for n := 0; rows.Next(); n++ {
			var t uint32
			if err := rows.Scan(&t); err != nil {
				return err
			}
			if n == maxListed { // too many: each is asked for when it is wanted
				return nil
			}
			if p.some == nil || p.some[t] {
				some[t] = true
			}
		}
		p.some = some
		return rows.Err()
	}
	if !p.all {
		if err := collect(fmt.Sprintf("SELECT template FROM used WHERE origin IN (%s) LIMIT %d", p.list(), maxListed+1)); err != nil {
			return nil, err
		}
	}
	if from, to, ok := hours(&f); ok && to-from <= 72 {
		if err := collect(fmt.Sprintf("SELECT template FROM point WHERE hour BETWEEN ? AND ? LIMIT %d", maxListed+1), from, to); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// keep remembers what was found out, for the next way of finding.
func (p *passing) keep() {
	p.v.d.mu.Lock()
	p.v.d.passed = &passed{p.v.m, p.v.events, filterKey(&p.f), p.some, p.known}
	p.v.d.mu.Unlock()
}

func filterKey(f *index.Filter) string {
	return fmt.Sprintf("%q %q %q %q %v %v %d %t %d %t", f.Sources, f.Types, f.Hosts, f.Actors, f.HasSeverity, f.Severity,
		f.Since.UnixNano(), f.Since.IsZero(), f.Until.UnixNano(), f.Until.IsZero())
}

func (p *passing) list() string {
	ids := make([]int64, 0, len(p.ids))
	for id := range p.ids {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(ids), " ", ","), "[]")
}

// maybe is quick and lets some through that do not pass.
func (p *passing) maybe(t uint32) bool { return p.some == nil || p.some[t] }

// hours returns the hours of a window; ok says that it is closed on both
// sides.
func hours(f *index.Filter) (from, to int64, ok bool) {
	from, to = -1<<40, 1<<40
	if !f.Since.IsZero() {
		from = floorHour(f.Since)
	}
	if !f.Until.IsZero() {
		to = floorHour(f.Until.Add(-1))
	}
	return from, to, !f.Since.IsZero() && !f.Until.IsZero() || !f.Since.IsZero() && time.Since(f.Since) < 72*time.Hour
}

func floorHour(t time.Time) int64 {
	s := t.Unix()
	if s < 0 {
		return (s - 3599) / 3600
	}
	return s / 3600
}

// candidates returns the best of a list that pass.
func (v *view) candidates(found []scored, p *passing, limit int) ([]index.Candidate, error) {
	f := p.f
	if p.some != nil {
		found = slices.DeleteFunc(found, func(s scored) bool { return !p.some[s.template] })
	}
	free := p.all && f.Since.IsZero() && f.Until.IsZero()
	n := limit
	if !free {
		n = 4*limit + 64
	}
	top := best(found, n)
	if !free && len(top) == n {
		// More may be wanted than were sorted: then all of them in order.
		byScore(found)
		top = found
	}
	var out []index.Candidate
	for i, s := range top {
		if len(out) >= limit || i >= maxChecked {
			break
		}
		if !free {
			ok, err := v.passes(p, s.template)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
		}
		c, err := v.candidate(s)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	p.keep()
	return out, nil
}

func (v *view) candidate(s scored) (index.Candidate, error) {
	c := index.Candidate{Score: float64(s.score)}
	var id []byte
	err := v.row("SELECT t.id, t.source, t.type, t.masked, t.extra, d.template FROM template t JOIN drain d ON d.id = t.grp WHERE t.ordinal = ?", s.template).
		Scan(&id, &c.Source, &c.Type, &c.Masked, &c.Extra, &c.Group)
	copy(c.ID[:], id)
	return c, err
}

// passes says whether the filter lets an event of a template through.
func (v *view) passes(p *passing, t uint32) (bool, error) {
	if ok, known := p.known[t]; known {
		return ok, nil
	}
	ok := false
	err := v.points(int64(t), p, func(k pointKey, pt *row) (more bool, err error) {
		if !v.whole(&p.f, pt) {
			seen, err := v.within(&p.f, pt, 1)
			if err != nil || len(seen) == 0 {
				return true, err
			}
		}
		ok = true
		return false, nil
	})
	p.known[t] = ok
	return ok, err
}

// A row is one of point.
type row struct {
	id, first, last, count, minutes int64
}

// points calls f for the points of a template of the filter's origins and
// hours, the newest hour first, until it says that it wants no more. Of points
// that do not overlap with the window it is not called.
func (v *view) points(t int64, p *passing, f func(k pointKey, r *row) (more bool, err error)) error {
	from, to, _ := hours(&p.f)
	rows, err := v.rows("SELECT hour, origin, single, id, first, last, count, minutes FROM point WHERE template = ? AND hour BETWEEN ? AND ? ORDER BY hour DESC", t, from, to)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		k := pointKey{template: t}
		var r row
		if err := rows.Scan(&k.hour, &k.origin, &k.single, &r.id, &r.first, &r.last, &r.count, &r.minutes); err != nil {
			return err
		}
		if !p.all && !p.ids[k.origin] || !overlaps(&p.f, k.hour, &r) {
			continue
		}
		if more, err := f(k, &r); err != nil || !more {
			return err
		}
	}
	return rows.Err()
}

// overlaps says whether a point may have an event in the window: by its first
// and last one and the minutes in which it has some.
func overlaps(f *index.Filter, hour int64, r *row) bool {
	if !f.Since.IsZero() && r.last < f.Since.UnixNano() || !f.Until.IsZero() && r.first >= f.Until.UnixNano() {
		return false
	}
	mask := int64(1)<<60 - 1
	if !f.Since.IsZero() {
		if m := f.Since.Unix()/60 - hour*60; m > 0 {
			mask &^= int64(1)<<min(m, 60) - 1
		}
	}
	if !f.Until.IsZero() {
		if m := f.Until.Add(-1).Unix()/60 - hour*60; m < 59 {
			mask &= int64(1)<<max(m+1, 0) - 1
		}
	}
	return r.minutes&mask != 0
}

// whole says whether all of a point's events are in the window.
func (v *view) whole(f *index.Filter, r *row) bool {
	return (f.Since.IsZero() || r.first >= f.Since.UnixNano()) && (f.Until.IsZero() || r.last < f.Until.UnixNano())
}

// within returns the occurrences of a point in the window, the newest
// transaction's first, at most limit; all if limit is 0.
func (v *view) within(f *index.Filter, r *row, limit int) ([]occurrence, error) {
	rows, err := v.rows("SELECT data FROM occurrence WHERE point = ? ORDER BY i DESC", r.id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []occurrence
	for rows.Next() {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			return nil, err
		}
		seen, err := decodeOccurrences(b)
		if err != nil {
			return nil, err
		}
		for i := len(seen) - 1; i >= 0; i-- {
			if f.Time(time.Unix(0, seen[i].time)) {
				list = append(list, seen[i])
				if limit > 0 && len(list) >= limit {
					return list, nil
				}
			}
		}
	}
	return list, rows.Err()
}

// Summaries implements index.Reader.
func (d *DB) Summaries(ctx context.Context, templates []index.ID, f index.Filter) (out []index.Summary, err error) {
	err = d.view(ctx, func(v *view) error {
		p, err := v.passing(index.Filter{}) // nothing to prepare: the templates are given
		if err != nil {
			return err
		}
		p.f = f
		p.ids, p.all = v.m.matches(&f)
		var u unpacked
		for _, id := range templates {
			list, err := v.summarise(id, p, &u)
			if err != nil {
				return err
			}
			out = append(out, list...)
		}
		return nil
	})
	return out, err
}

type summing struct {
	s       index.Summary
	first   int64
	last    int64
	samples []occurrence
}

func (v *view) summarise(id index.ID, p *passing, u *unpacked) ([]index.Summary, error) {
	var t int64
	err := v.row("SELECT ordinal FROM template WHERE id = ?", id[:]).Scan(&t)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	hosts := make(map[string]*summing)
	err = v.points(t, p, func(k pointKey, r *row) (bool, error) {
		o := v.m.origin(k.origin)
		h := hosts[o.host]
		if h == nil {
			h = &summing{s: index.Summary{Template: id, Host: o.host, Source: o.source, Type: o.typ, Severity: o.severity}, first: math.MaxInt64, last: math.MinInt64}
			hosts[o.host] = h
		}
		h.s.Severity = min(h.s.Severity, o.severity)
		if v.whole(&p.f, r) {
			if len(h.samples) < index.MaxSamples || r.last > h.samples[len(h.samples)-1].time {
				seen, err := v.within(&p.f, r, index.MaxSamples)
				if err != nil {
					return false, err
				}
				h.sample(seen)
			}
			h.s.Count += r.count
			h.first, h.last = min(h.first, r.first), max(h.last, r.last)
			return true, nil
		}
		seen, err := v.within(&p.f, r, 0)
		if err != nil {
			return false, err
		}
		for _, s := range seen {
			h.first, h.last = min(h.first, s.time), max(h.last, s.time)
		}
		h.s.Count += int64(len(seen))
		h.sample(seen)
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	var out []index.Summary
	for _, h := range hosts {
		if h.s.Count == 0 || len(h.samples) == 0 {
			continue
		}
		h.s.First, h.s.Last = time.Unix(0, h.first).UTC(), time.Unix(0, h.last).UTC()
		for _, o := range h.samples {
			h.s.Occurrences = append(h.s.Occurrences, index.Occurrence{Index: o.index, Time: time.Unix(0, o.time).UTC()})
		}
		e, err := v.event(h.samples[0].index, u)
		if err != nil {
			return nil, err
		}
		h.s.Newest, h.s.Actor = e, e.Actor
		out = append(out, h.s)
	}
	return out, nil
}

// sample keeps the newest.
func (h *summing) sample(seen []occurrence) {
	h.samples = append(h.samples, seen...)
	slices.SortFunc(h.samples, func(a, b occurrence) int {
		if a.time != b.time {
			if a.time > b.time {
				return -1
			}
			return 1
		}
		return int(b.index - a.index)
	})
	h.samples = h.samples[:min(len(h.samples), index.MaxSamples)]
}

// unpacked are blocks that were read before: what is asked for is mostly near
// what was asked for last.
type unpacked struct {
	blocks map[int64][]stored // by their first event
	last   []stored
}

// keptBlocks is how many blocks stay unpacked.
const keptBlocks = 256

// event returns the event with an index.
func (v *view) event(i int64, u *unpacked) (index.Event, error) {
	s, err := v.stored(i, u)
	if err != nil {
		return index.Event{}, err
	}
	return v.full(s)
}

func (v *view) stored(i int64, u *unpacked) (*stored, error) {
	if n := len(u.last); n == 0 || i < u.last[0].index || i > u.last[n-1].index {
		var first int64
		if err := v.row("SELECT first FROM block WHERE first <= ? ORDER BY first DESC LIMIT 1", i).Scan(&first); err != nil {
			return nil, err
		}
		events, ok := u.blocks[first]
		if !ok {
			var data []byte
			err := v.row("SELECT data FROM block WHERE first = ?", first).Scan(&data)
			if err == nil {
				events, err = decodeBlock(data)
			}
			if err != nil {
				return nil, err
			}
			if u.blocks == nil || len(u.blocks) >= keptBlocks {
				u.blocks = make(map[int64][]stored)
			}
			u.blocks[first] = events
		}
		u.last = events
	}
	k, ok := slices.BinarySearchFunc(u.last, i, func(s stored, i int64) int { return cmp.Compare(s.index, i) })
	if !ok {
		return nil, fmt.Errorf("%w: event %d is not in its block", errBlock, i)
	}
	return &u.last[k], nil
}

func (v *view) full(s *stored) (index.Event, error) {
	e := s.event(v.m.origin(s.origin))
	var err error
	e.Template, err = v.templateID(s.template)
	return e, err
}

func (v *view) templateID(ordinal int64) (id index.ID, err error) {
	var b []byte
	err = v.row("SELECT id FROM template WHERE ordinal = ?", ordinal).Scan(&b)
	copy(id[:], b)
	return id, err
}

// Events implements index.Reader.
func (d *DB) Events(ctx context.Context, first, end int64) (out []index.Event, err error) {
	err = d.view(ctx, func(v *view) error {
		rows, err := v.tx.QueryContext(ctx, "SELECT data FROM block WHERE last >= ? AND first < ? ORDER BY first", first, end)
		if err != nil {
			return err
		}
		defer rows.Close()
		var kept []stored
		for rows.Next() {
			var b []byte
			if err := rows.Scan(&b); err != nil {
				return err
			}
			events, err := decodeBlock(b)
			if err != nil {
				return err
			}
			for _, s := range events {
				if s.index >= first && s.index < end {
					kept = append(kept, s)
				}
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		ids := make(map[int64]index.ID) // of templates, which are few
		for i := range kept {
			s := &kept[i]
			id, known := ids[s.template]
			if !known {
				if id, err = v.templateID(s.template); err != nil {
					return err
				}
				ids[s.template] = id
			}
			e := s.event(v.m.origin(s.origin))
			e.Template = id
			out = append(out, e)
		}
		return nil
	})
	return out, err
}

// Templates implements index.Reader.
func (d *DB) Templates(ctx context.Context, ids []index.ID) (out []index.Candidate, err error) {
	err = d.view(ctx, func(v *view) error {
		for _, id := range ids {
			var t uint32
			err := v.tx.QueryRowContext(ctx, "SELECT ordinal FROM template WHERE id = ?", id[:]).Scan(&t)
			if errors.Is(err, sql.ErrNoRows) {
				continue
			}
			if err != nil {
				return err
			}
			c, err := v.candidate(scored{template: t})
			if err != nil {
				return err
			}
			out = append(out, c)
		}
		return nil
	})
	return out, err
}

// Newest implements index.Reader.
func (d *DB) Newest(ctx context.Context, f index.Filter, limit int) (out []index.Candidate, err error) {
	err = d.view(ctx, func(v *view) error {
		p, err := v.passing(f)
		if err != nil {
			return err
		}
		from, to, _ := hours(&f)
		rows, err := v.tx.QueryContext(ctx, "SELECT hour, template, origin FROM point WHERE hour BETWEEN ? AND ? ORDER BY hour DESC", from, to)
		if err != nil {
			return err
		}
		defer rows.Close()
		var order []uint32
		seen := make(map[uint32]bool)
		for rows.Next() && len(order) < 4*limit {
			var hour, o int64
			var t uint32
			if err := rows.Scan(&hour, &t, &o); err != nil {
				return err
			}
			if !seen[t] && (p.all || p.ids[o]) {
				seen[t] = true
				order = append(order, t)
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		rows.Close()
		for _, t := range order {
			ok, err := v.passes(p, t)
			if err != nil {
				return err
			}
			if !ok || len(out) >= limit {
				continue
			}
			c, err := v.candidate(scored{template: t})
			if err != nil {
				return err
			}
			out = append(out, c)
		}
		return nil
	})
	return out, err
}
