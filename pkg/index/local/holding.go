package local

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/template"
	"github.com/ghostbridge/ghostbridge/pkg/words"
)

// Holding implements index.Reader. Points that hold one of the values are
// found by it; of these, and of the points that had more values than are kept,
// the events are looked at themselves.
func (d *DB) Holding(ctx context.Context, values []string, f index.Filter, limit int) (out []index.Event, more bool, err error) {
	err = d.view(ctx, func(v *view) error {
		p, err := v.passing(index.Filter{})
		if err != nil {
			return err
		}
		p.f = f
		p.ids, p.all = v.m.matches(&f)
		// The rarest value leads to the points.
		var lead []int64
		for i, value := range values {
			list, cut, err := v.holding(value)
			if err != nil {
				return err
			}
			if i == 0 || len(list) < len(lead) {
				lead = list
			}
			more = more || cut
		}
		over, err := v.idsOf("SELECT id FROM point WHERE more AND hour BETWEEN ? AND ? ORDER BY hour DESC LIMIT ?", append(hourArgs(&f), maxHeld)...)
		if err != nil {
			return err
		}
		done := make(map[int64]bool)
		scanned := 0
		var u unpacked
		for _, list := range [][]int64{lead, over} {
			for _, id := range list {
				if done[id] {
					continue
				}
				done[id] = true
				if len(out) >= limit || scanned >= maxScanned {
					more = true
					return nil
				}
				found, n, err := v.eventsHolding(id, p, values, limit-len(out), maxScanned-scanned, &u)
				if err != nil {
					return err
				}
				scanned += n
				if out = append(out, found...); len(out) >= limit { // this point may have more
					more = true
					return nil
				}
			}
		}
		return nil
	})
	seen := make(map[int64]bool, len(out))
	out = slices.DeleteFunc(out, func(e index.Event) bool { // the chunks of a long event are points of their own
		twice := seen[e.Index]
		seen[e.Index] = true
		return twice
	})
	slices.SortFunc(out, func(a, b index.Event) int {
		if c := b.Time.Compare(a.Time); c != 0 {
			return c
		}
		return int(b.Index - a.Index)
	})
	return out, more, err
}

func hourArgs(f *index.Filter) []any {
	from, to, _ := hours(f)
	return []any{from, to}
}

func (v *view) idsOf(query string, args ...any) ([]int64, error) {
	rows, err := v.rows(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		list = append(list, id)
	}
	return list, rows.Err()
}

// holding returns the points that hold a value, or whose template has it as a
// phrase, the newest first.
func (v *view) holding(value string) (list []int64, cut bool, err error) {
	list, err = v.idsOf("SELECT DISTINCT rowid >> 7 FROM value WHERE value MATCH ? ORDER BY rowid DESC LIMIT ?", `"`+hashToken(valueHash(value))+`"`, maxHeld)
	if err != nil {
		return nil, false, err
	}
	cut = len(list) >= maxHeld
	b, _ := template.Mask(nil, nil, value)
	phrase := strings.ToLower(string(b))
	stems := words.Terms(phrase)
	if len(stems) == 0 {
		return list, cut, nil
	}
	// The templates that have all its stems are looked at.
	count := make(map[uint32]int)
	for i, s := range slices.Compact(slices.Sorted(slices.Values(stems))) {
		n, ok := v.m.stems[s]
		if !ok {
			return list, cut, nil
		}
		for _, p := range v.m.posts[n] {
			if count[p.template] == i {
				count[p.template]++
			}
		}
		for t, c := range count {
			if c != i+1 {
				delete(count, t)
			}
		}
	}
	templates := make([]uint32, 0, len(count))
	for t := range count {
		templates = append(templates, t)
	}
	slices.Sort(templates)
	for _, t := range templates {
		if len(list) >= 2*maxHeld {
			return list, true, nil
		}
		var masked string
		err := v.row("SELECT masked FROM template WHERE ordinal = ?", t).Scan(&masked)
		if errors.Is(err, sql.ErrNoRows) || err == nil && !strings.Contains(strings.ToLower(masked), phrase) && !strings.Contains(strings.ToLower(masked), value) {
			continue
		}
		if err != nil {
			return nil, false, err
		}
		more, err := v.idsOf("SELECT id FROM point WHERE template = ? ORDER BY hour DESC LIMIT ?", t, maxHeld)
		if err != nil {
			return nil, false, err
		}
		list = append(list, more...)
	}
	return list, cut, nil
}

// eventsHolding returns the newest events of a point that hold all values, and
// how many it has looked at.
func (v *view) eventsHolding(id int64, p *passing, values []string, limit, most int, u *unpacked) (out []index.Event, scanned int, err error) {
	var hour, o int64
	r := row{id: id}
	err = v.row("SELECT hour, origin, first, last, count, minutes FROM point WHERE id = ?", id).Scan(&hour, &o, &r.first, &r.last, &r.count, &r.minutes)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, 0, nil
	}
	if err != nil || !p.all && !p.ids[o] || !overlaps(&p.f, hour, &r) {
		return nil, 0, err
	}
	seen, err := v.within(&p.f, &r, most)
	if err != nil {
		return nil, 0, err
	}
	for _, s := range seen {
		scanned++
		raw, err := v.stored(s.index, u)
		if err != nil {
			return nil, scanned, err
		}
		e := raw.event(v.m.origin(raw.origin))
		if !slices.ContainsFunc(values, func(value string) bool { return !e.Holds(value) }) {
			if e.Template, err = v.templateID(raw.template); err != nil {
				return nil, scanned, err
			}
			if out = append(out, e); len(out) >= limit {
				break
			}
		}
	}
	return out, scanned, nil
}
