package local

import (
	"database/sql"
	"errors"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
)

// Remove implements index.Tx. Points that lose all their events go, the others
// are folded anew from the events that remain, so that the index is as if the
// removed ones had never been in it.
func (x *tx) Remove(first, end int64) error {
	return x.wrap(x.remove(first, end))
}

func (x *tx) remove(first, end int64) error {
	if err := x.flush(); err != nil {
		return err
	}
	if err := x.describe(); err != nil {
		return err
	}
	if err := x.closeBlock(); err != nil {
		return err
	}
	x.block, x.partial = nil, -1
	x.ordinals = make(map[index.ID]int64)
	defer func() { x.ordinals = nil }() // bury ends with the templates that nothing is left of
	removed, err := x.removeFromBlocks(first, end)
	if err != nil {
		return err
	}
	// Counted at once: what settle counts is only what comes in.
	if _, err := x.tx.Exec("UPDATE meta SET value = value - ? WHERE key = 'events'", removed-x.added); err != nil {
		return err
	}
	x.added = 0
	ids, err := x.ids("SELECT DISTINCT point FROM occurrence WHERE point IN (SELECT id FROM point WHERE template IN (SELECT template FROM touched)) AND i < ?", end)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := x.refold(id, first, end); err != nil {
			return err
		}
	}
	if _, err := x.tx.Exec("DROP TABLE touched"); err != nil {
		return err
	}
	if _, err := x.tx.Exec("UPDATE meta SET value = (SELECT max(last) FROM point) WHERE key = 'newest'"); err != nil {
		return err
	}
	return x.bury()
}

// removeFromBlocks takes the events out of the blocks and notes their
// templates in a table touched.
func (x *tx) removeFromBlocks(first, end int64) (removed int64, err error) {
	if _, err := x.tx.Exec("CREATE TEMP TABLE IF NOT EXISTS touched (template INTEGER PRIMARY KEY)"); err != nil {
		return 0, err
	}
	firsts, err := x.ids("SELECT first FROM block WHERE last >= ? AND first < ?", first, end)
	if err != nil {
		return 0, err
	}
	for _, b := range firsts {
		var data []byte
		if err := x.stmt("SELECT data FROM block WHERE first = ?").QueryRow(b).Scan(&data); err != nil {
			return removed, err
		}
		events, err := decodeBlock(data)
		if err != nil {
			return removed, err
		}
		kept := events[:0]
		for _, s := range events {
			if s.index < first || s.index >= end {
				kept = append(kept, s)
				continue
			}
			removed++
			// A long event has several templates.
			for _, doc := range x.documents(&s) {
				t, ok, err := x.ordinal(doc.Template)
				if err != nil {
					return removed, err
				}
				if ok {
					if _, err := x.stmt("INSERT OR IGNORE INTO touched VALUES (?)").Exec(t); err != nil {
						return removed, err
					}
				}
			}
		}
		if x.ch != nil {
			x.ch.goneBlocks = append(x.ch.goneBlocks, b)
			if len(kept) > 0 {
				x.ch.blocks = append(x.ch.blocks, kept[0].index)
			}
		}
		if _, err := x.stmt("DELETE FROM block WHERE first = ?").Exec(b); err != nil {
			return removed, err
		}
		if len(kept) > 0 {
			data, err := encodeBlock(kept)
			if err != nil {
				return removed, err
			}
			if _, err := x.stmt("INSERT INTO block VALUES (?, ?, ?, ?)").Exec(kept[0].index, kept[len(kept)-1].index, len(kept), data); err != nil {
				return removed, err
			}
		}
	}
	return removed, nil
}

func (x *tx) ids(query string, args ...any) ([]int64, error) {
	rows, err := x.tx.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []int64
	for rows.Next() {
		var v int64
		if err := rows.Scan(&v); err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}

func (x *tx) originOf(id int64) (o origin, err error) {
	err = x.stmt("SELECT host, source, type, severity, actor FROM origin WHERE id = ?").QueryRow(id).Scan(&o.host, &o.source, &o.typ, &o.severity, &o.actor)
	return o, err
}

// documents returns what was made of an event. What a block keeps of long data
// is cut off, so that values beyond are not found again.
func (x *tx) documents(s *stored) []index.Document {
	o, err := x.knownOrigin(s.origin)
	if err != nil {
		return nil
	}
	k := s.event(o)
	e := event.Event{Index: k.Index, Time: k.Time, Host: k.Host, Source: k.Source, Type: k.Type, Subject: k.Subject, Severity: k.Severity, Actor: k.Actor, Message: k.Message, Data: k.Data}
	return index.Documents(&e, x.d.o.Enrich)
}

// ordinal finds a template of this file. While events are removed, which are many
// of few templates, it remembers those that it has found.
func (x *tx) ordinal(id index.ID) (t int64, ok bool, err error) {
	if t, ok := x.ordinals[id]; ok {
		return t, true, nil
	}
	err = x.stmt("SELECT ordinal FROM template WHERE id = ?").QueryRow(id[:]).Scan(&t)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	if err == nil && x.ordinals != nil && len(x.ordinals) < maxCached {
		x.ordinals[id] = t
	}
	return t, err == nil, err
}

// refold makes a point anew from its occurrences outside of [first, end).
func (x *tx) refold(id, first, end int64) error {
	var k pointKey
	if err := x.stmt("SELECT template, hour, origin, single FROM point WHERE id = ?").QueryRow(id).Scan(&k.template, &k.hour, &k.origin, &k.single); err != nil {
		return err
	}
	var all, kept []occurrence
	var chunks []int64
	rows, err := x.tx.Query("SELECT data, i FROM occurrence WHERE point = ? ORDER BY i", id)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var b []byte
		var i int64
		if err := rows.Scan(&b, &i); err != nil {
			return err
		}
		list, err := decodeOccurrences(b)
		if err != nil {
			return err
		}
		all, chunks = append(all, list...), append(chunks, i)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	rows.Close()
	for _, o := range all {
		if o.index < first || o.index >= end {
			kept = append(kept, o)
		}
	}
	if len(kept) == len(all) {
		return nil
	}
	if x.ch != nil {
		uuid, err := x.uuid(id)
		if err != nil {
			return err
		}
		x.ch.gonePoints[id] = uuid
		for _, i := range chunks {
			x.ch.goneSeen[[2]int64{id, i}] = uuid
		}
	}
	for _, q := range []string{"DELETE FROM occurrence WHERE point = ?", "DELETE FROM point WHERE id = ?", "DELETE FROM value WHERE rowid >= ?1 << 7 AND rowid < (?1 + 1) << 7"} {
		if _, err := x.stmt(q).Exec(id); err != nil {
			return err
		}
	}
	if len(kept) == 0 {
		return nil
	}
	p := &point{id: id}
	blocks := make(map[int64][]stored)
	for _, o := range kept {
		s, err := x.stored(o.index, blocks)
		if err != nil {
			return err
		}
		for _, doc := range x.documents(s) {
			if t, ok, err := x.ordinal(doc.Template); err != nil {
				return err
			} else if ok && t == k.template {
				p.add(o.index, o.time, index.Minute(s.event(origin{}).Time), doc.Values)
			}
		}
	}
	return x.write(k, p)
}

// stored returns the event with an index.
func (x *tx) stored(i int64, blocks map[int64][]stored) (*stored, error) {
	var b int64
	if err := x.stmt("SELECT first FROM block WHERE first <= ? ORDER BY first DESC LIMIT 1").QueryRow(i).Scan(&b); err != nil {
		return nil, err
	}
	events, ok := blocks[b]
	if !ok {
		var data []byte
		err := x.stmt("SELECT data FROM block WHERE first = ?").QueryRow(b).Scan(&data)
		if err == nil {
			events, err = decodeBlock(data)
		}
		if err != nil {
			return nil, err
		}
		if len(blocks) > 64 {
			clear(blocks)
		}
		blocks[b] = events
	}
	for j := range events {
		if events[j].index == i {
			return &events[j], nil
		}
	}
	return nil, errBlock
}

// bury takes out the templates that have no point any more.
func (x *tx) bury() error {
	dead, err := x.ids("SELECT ordinal FROM template WHERE NOT EXISTS (SELECT 1 FROM point WHERE point.template = template.ordinal)")
	if err != nil || len(dead) == 0 {
		return err
	}
	dim := 0
	if x.d.o.Embedder != nil {
		dim = x.d.o.Embedder.Dim()
	}
	for _, t := range dead {
		if x.ch != nil {
			var id index.ID
			var b []byte
			if err := x.stmt("SELECT id FROM template WHERE ordinal = ?").QueryRow(t).Scan(&b); err != nil {
				return err
			}
			copy(id[:], b)
			x.ch.goneTemplates = append(x.ch.goneTemplates, id)
		}
		for _, q := range []string{"DELETE FROM template WHERE ordinal = ?", "DELETE FROM pending WHERE ordinal = ?", "DELETE FROM used WHERE template = ?"} {
			if _, err := x.stmt(q).Exec(t); err != nil {
				return err
			}
		}
		no := int(t) / packN
		old, err := getPack(x.tx, packWords, no)
		if err != nil {
			return err
		}
		var words []byte
		if err := eachWords(old, func(n int, length float64, list []stemWeight) {
			if n == int(t)%packN {
				length, list = 0, nil
			}
			words = appendWords(words, length, list)
		}); err != nil {
			return err
		}
		if err := x.putPack(packWords, no, words); err != nil {
			return err
		}
		if dim == 0 {
			continue
		}
		v, err := getPack(x.tx, packVectors, no)
		if err != nil {
			return err
		}
		if at := int(t) % packN * (1 + dim); len(v) > at {
			v[at] = 0
			if err := x.putPack(packVectors, no, v); err != nil {
				return err
			}
		}
	}
	clear(x.w.templates)
	clear(x.w.used)
	_, err = x.tx.Exec("UPDATE meta SET value = value + 1 WHERE key = 'epoch'")
	return err
}
