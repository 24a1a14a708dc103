package local

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/template"
)

const (
	// A transaction keeps its points in memory and writes them when there are
	// this many, or this many of their events.
	maxTouched = 50_000
	maxWaiting = 500_000

	// maxCached bounds what a writer remembers of templates and origins.
	maxCached = 200_000

	// backfill is how many missing vectors one commit makes at most.
	backfill = 2000
)

type origin struct {
	host, source, typ string
	severity          event.Severity
	actor             string
}

// A writer is what a DB that writes remembers between transactions. It is
// dropped when one is rolled back.
type writer struct {
	origins   map[origin]int64
	templates map[index.ID]int64
	used      map[[2]int64]bool
	next      int64 // ordinal of the next template
	point     int64 // id of the next point
	last      int64 // index of the newest event, -1 if there is none
	drain     *template.Drain
	stems     map[string]uint32
	embedOff  bool // the embedder failed in this transaction
}

type pointKey struct{ template, hour, origin, single int64 }

// A point that a transaction has touched.
type point struct {
	id          int64
	there       bool // a row is
	first, last int64
	count       int64
	minutes     int64
	more        bool
	held        []byte // 8 bytes of hash each
	fresh       []uint64
	seen        []occurrence
}

type tx struct {
	d       *DB
	w       *writer
	tx      *sql.Tx
	st      map[string]*sql.Stmt
	points  map[pointKey]*point
	waiting int
	block   []stored
	partial int64 // first of a block that is in the file and to be replaced, -1 if none
	fresh   []int64
	texts   []string // of fresh, for their vectors
	words   [][]byte
	added   int64
	newest  int64
	done    bool

	ch       *changes           // for the mirror, nil without one
	known    map[int64]origin   // by id
	ordinals map[index.ID]int64 // of templates, nil but while events are removed
	packNo   int                // of packData
	packData []byte
}

func (d *DB) wrap(err error) error {
	if err != nil {
		return fmt.Errorf("index %s: %w", d.path, err)
	}
	return nil
}

func (x *tx) wrap(err error) error { return x.d.wrap(err) }

func (x *tx) stmt(query string) *sql.Stmt {
	s := x.st[query]
	if s == nil {
		var err error
		if s, err = x.tx.Prepare(query); err != nil {
			panic("index: " + query + ": " + err.Error()) // the queries are constant
		}
		x.st[query] = s
	}
	return s
}

// settleEmbedder makes the index one of this embedder's vectors: those of
// another are dropped and made anew.
func (d *DB) settleEmbedder() error {
	id, dim := "", 0
	if d.o.Embedder != nil {
		id, dim = d.o.Embedder.ID(), d.o.Embedder.Dim()
	}
	have, err := d.metaText("embedder")
	if err != nil || have == fmt.Sprintf("%s/%d", id, dim) {
		return err
	}
	t, err := d.db.Begin()
	if err != nil {
		return d.wrap(err)
	}
	defer t.Rollback()
	for _, q := range []string{
		fmt.Sprintf("DELETE FROM pack WHERE id >= %d", packID(packVectors, 0)),
		"DELETE FROM pending",
		"UPDATE meta SET value = value + 1 WHERE key = 'epoch'",
	} {
		if _, err := t.Exec(q); err != nil {
			return d.wrap(err)
		}
	}
	if id != "" {
		if _, err := t.Exec("INSERT INTO pending SELECT ordinal FROM template"); err != nil {
			return d.wrap(err)
		}
	}
	if _, err := t.Exec("INSERT OR REPLACE INTO meta VALUES ('embedder', ?)", fmt.Sprintf("%s/%d", id, dim)); err != nil {
		return d.wrap(err)
	}
	return d.wrap(t.Commit())
}

func (d *DB) metaText(key string) (string, error) {
	var v string
	err := d.db.QueryRow("SELECT value FROM meta WHERE key = ?", key).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return v, d.wrap(err)
}

// Begin implements index.Writer.
func (d *DB) Begin() (index.Tx, error) {
	t, err := d.db.Begin()
	if err != nil {
		return nil, d.wrap(err)
	}
	x := &tx{d: d, tx: t, st: make(map[string]*sql.Stmt), points: make(map[pointKey]*point), partial: -1}
	if d.w == nil {
		w := &writer{origins: make(map[origin]int64), templates: make(map[index.ID]int64), used: make(map[[2]int64]bool)}
		err := t.QueryRow(`SELECT (SELECT value FROM meta WHERE key = 'templates'), (SELECT coalesce(max(id), 0) + 1 FROM point),
			(SELECT coalesce(max(last), -1) FROM block)`).Scan(&w.next, &w.point, &w.last)
		if err != nil {
			t.Rollback()
			return nil, d.wrap(err)
		}
		d.w = w
	}
	x.w = d.w
	x.w.embedOff = false
	return x, x.watch()
}

// Add implements index.Tx.
func (x *tx) Add(e *event.Event) error {
	if e.Index <= x.w.last {
		return x.wrap(fmt.Errorf("event %d is there already, or one behind it", e.Index))
	}
	if x.d.o.Redact != nil {
		e = redacted(e, x.d.o.Redact)
	}
	o, err := x.origin(origin{e.Host, e.Source, e.Type, e.Severity, e.Actor})
	if err != nil {
		return x.wrap(err)
	}
	at := e.Time.UnixNano()
	s := stored{index: e.Index, time: at, origin: o, template: -1, subject: e.Subject, message: e.Message}
	kept := index.Kept(e)
	s.data = kept.Data
	for _, doc := range index.Documents(e, x.d.o.Enrich) {
		t, err := x.template(e, &doc)
		if err != nil {
			return x.wrap(err)
		}
		if s.template < 0 {
			s.template = t
		}
		if err := x.use(o, t); err != nil {
			return x.wrap(err)
		}
		p, err := x.at(pointKey{t, doc.Hour, o, doc.Single})
		if err != nil {
			return x.wrap(err)
		}
		p.add(e.Index, at, index.Minute(e.Time), doc.Values)
		x.waiting++
	}
	if err := x.keep(s); err != nil {
		return x.wrap(err)
	}
	x.w.last = e.Index
	if x.added == 0 || at > x.newest {
		x.newest = at
	}
	x.added++
	if len(x.points) > maxTouched || x.waiting > maxWaiting {
		return x.wrap(x.flush())
	}
	return nil
}

// redacted returns e without the secrets in it.
func redacted(e *event.Event, redact func(string) string) *event.Event {
	r := *e
	r.Message, r.Subject = redact(e.Message), redact(e.Subject)
	if len(e.Data) > 0 {
		if s := redact(string(e.Data)); len(s) != len(e.Data) || s != string(e.Data) {
			r.Data = []byte(s)
		}
	}
	return &r
}

func (x *tx) origin(o origin) (int64, error) {
	if id, ok := x.w.origins[o]; ok {
		return id, nil
	}
	args := []any{o.host, o.source, o.typ, int(o.severity), o.actor}
	var id int64
	err := x.stmt("SELECT id FROM origin WHERE host = ? AND source = ? AND type = ? AND severity = ? AND actor = ?").QueryRow(args...).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		var r sql.Result
		if r, err = x.stmt("INSERT INTO origin (host, source, type, severity, actor) VALUES (?, ?, ?, ?, ?)").Exec(args...); err == nil {
			id, err = r.LastInsertId()
		}
	}
	if len(x.w.origins) > maxCached {
		clear(x.w.origins)
	}
	x.w.origins[o] = id
	return id, err
}

func (x *tx) use(o, t int64) error {
	k := [2]int64{o, t}
	if x.w.used[k] {
		return nil
	}
	if len(x.w.used) > maxCached {
		clear(x.w.used)
	}
	x.w.used[k] = true
	_, err := x.stmt("INSERT OR IGNORE INTO used VALUES (?, ?)").Exec(o, t)
	return err
}

// template returns the ordinal of a document's template, which is made if it
// is new.
func (x *tx) template(e *event.Event, doc *index.Document) (int64, error) {
	if t, ok := x.w.templates[doc.Template]; ok {
		return t, nil
	}
	if len(x.w.templates) > maxCached {
		clear(x.w.templates)
	}
	var t int64
	err := x.stmt("SELECT ordinal FROM template WHERE id = ?").QueryRow(doc.Template[:]).Scan(&t)
	if err == nil || !errors.Is(err, sql.ErrNoRows) {
		x.w.templates[doc.Template] = t
		return t, err
	}
	if x.w.drain == nil {
		if err := x.loadGroups(); err != nil {
			return 0, err
		}
	}
	g, changed := x.w.drain.Add(e.Source+" "+e.Type, doc.Masked)
	if changed {
		if x.ch != nil {
			x.ch.groups[g.ID] = true
		}
		if _, err := x.stmt("INSERT OR REPLACE INTO drain VALUES (?, ?, ?)").Exec(g.ID, g.Key, g.Template()); err != nil {
			return 0, err
		}
	}
	t = x.w.next
	if _, err := x.stmt("INSERT INTO template VALUES (?, ?, ?, ?, ?, ?, ?)").Exec(t, doc.Template[:], e.Source, e.Type, doc.Masked, doc.Extra, g.ID); err != nil {
		return 0, err
	}
	list, length := index.Stems(e.Source, e.Type, doc.Masked, doc.Extra)
	numbered := make([]stemWeight, len(list))
	for i, s := range list {
		n, err := x.stem(s.Stem)
		if err != nil {
			return 0, err
		}
		numbered[i] = stemWeight{n, quarters(s.Weight)}
	}
	x.words = append(x.words, appendWords(nil, length, numbered))
	x.fresh = append(x.fresh, t)
	x.texts = append(x.texts, index.DenseText(e.Source, e.Type, doc.Masked, doc.Extra))
	x.w.next++
	x.w.templates[doc.Template] = t
	if len(x.fresh) >= 4096 {
		return t, x.describe()
	}
	return t, nil
}

func (x *tx) loadGroups() error {
	rows, err := x.tx.Query("SELECT id, key, template FROM drain ORDER BY id")
	if err != nil {
		return err
	}
	defer rows.Close()
	var groups []*template.Group
	for rows.Next() {
		g := new(template.Group)
		var line string
		if err := rows.Scan(&g.ID, &g.Key, &line); err != nil {
			return err
		}
		g.Words = strings.Fields(line)
		groups = append(groups, g)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	d := new(template.Drain)
	x.w.drain = d
	return d.Restore(groups)
}

// stem returns the number of a stem, which is made if it is new.
func (x *tx) stem(s string) (uint32, error) {
	if x.w.stems == nil {
		x.w.stems = make(map[string]uint32)
		for no := 0; ; no++ {
			b, err := getPack(x.tx, packStems, no)
			if err != nil {
				return 0, err
			}
			for len(b) > 0 && int(b[0]) < len(b) {
				x.w.stems[string(b[1:1+b[0]])] = uint32(len(x.w.stems))
				b = b[1+int(b[0]):]
			}
			if len(x.w.stems) < (no+1)*packStemsN {
				break
			}
		}
	}
	n, ok := x.w.stems[s]
	if ok {
		return n, nil
	}
	n = uint32(len(x.w.stems))
	b, err := getPack(x.tx, packStems, int(n)/packStemsN)
	if err != nil {
		return 0, err
	}
	b = append(append(b, byte(len(s))), s...)
	if err := x.putPack(packStems, int(n)/packStemsN, b); err != nil {
		return 0, err
	}
	x.w.stems[s] = n
	return n, nil
}

func (x *tx) putPack(kind, no int, data []byte) error {
	_, err := x.stmt("INSERT OR REPLACE INTO pack VALUES (?, ?)").Exec(packID(kind, no), data)
	return err
}

// describe writes the words and vectors of the templates that are new.
func (x *tx) describe() error {
	if len(x.fresh) == 0 {
		return nil
	}
	dim := 0
	var vectors [][]float32
	if em := x.d.o.Embedder; em != nil {
		dim = em.Dim()
		vectors = x.embed(x.texts)
	}
	for i := 0; i < len(x.fresh); {
		no := int(x.fresh[i]) / packN
		words, err := getPack(x.tx, packWords, no)
		if err != nil {
			return err
		}
		rows, err := getPack(x.tx, packVectors, no)
		if err != nil {
			return err
		}
		for ; i < len(x.fresh) && int(x.fresh[i])/packN == no; i++ {
			words = append(words, x.words[i]...)
			if dim == 0 {
				continue
			}
			var v []float32
			if vectors == nil {
				if _, err := x.stmt("INSERT OR IGNORE INTO pending VALUES (?)").Exec(x.fresh[i]); err != nil {
					return err
				}
			} else {
				v = vectors[i]
			}
			rows = quantize(rows, v, dim)
		}
		if err := x.putPack(packWords, no, words); err != nil {
			return err
		}
		if dim > 0 {
			if err := x.putPack(packVectors, no, rows); err != nil {
				return err
			}
		}
	}
	x.fresh, x.texts, x.words = x.fresh[:0], x.texts[:0], x.words[:0]
	return nil
}

// embed returns the vectors of texts, nil if the embedder can't now; then it
// is not asked again in this transaction.
func (x *tx) embed(texts []string) [][]float32 {
	if x.w.embedOff {
		return nil
	}
	vectors, err := x.d.o.Embedder.EmbedDocuments(context.Background(), texts)
	if err == nil && len(vectors) != len(texts) {
		err = fmt.Errorf("%d vectors for %d texts", len(vectors), len(texts))
	}
	if err != nil {
		x.w.embedOff = true
		if x.d.o.Unembedded != nil {
			x.d.o.Unembedded(err)
		}
		return nil
	}
	return vectors
}

// backfill makes vectors that were left for later.
func (x *tx) backfill() error {
	em := x.d.o.Embedder
	if em == nil || x.w.embedOff {
		return nil
	}
	rows, err := x.tx.Query(`SELECT ordinal, source, type, masked, extra FROM pending JOIN template USING (ordinal) ORDER BY ordinal LIMIT ?`, backfill)
	if err != nil {
		return err
	}
	defer rows.Close()
	var ordinals []int64
	var texts []string
	for rows.Next() {
		var t int64
		var source, typ, masked, extra string
		if err := rows.Scan(&t, &source, &typ, &masked, &extra); err != nil {
			return err
		}
		ordinals, texts = append(ordinals, t), append(texts, index.DenseText(source, typ, masked, extra))
	}
	if err := rows.Err(); err != nil || len(texts) == 0 {
		return err
	}
	vectors := x.embed(texts)
	if vectors == nil {
		return nil
	}
	dim := em.Dim()
	for i := 0; i < len(ordinals); {
		no := int(ordinals[i]) / packN
		b, err := getPack(x.tx, packVectors, no)
		if err != nil {
			return err
		}
		for ; i < len(ordinals) && int(ordinals[i])/packN == no; i++ {
			at := int(ordinals[i]) % packN * (1 + dim)
			if len(b) < at+1+dim {
				b = append(b, make([]byte, at+1+dim-len(b))...)
			}
			quantize(b[:at], vectors[i], dim)
			if _, err := x.stmt("DELETE FROM pending WHERE ordinal = ?").Exec(ordinals[i]); err != nil {
				return err
			}
			if x.ch != nil && ordinals[i] < x.ch.templates {
				x.ch.again = append(x.ch.again, ordinals[i])
			}
		}
		if err := x.putPack(packVectors, no, b); err != nil {
			return err
		}
	}
	_, err = x.tx.Exec("UPDATE meta SET value = value + 1 WHERE key = 'epoch'")
	return err
}

// at returns the point with a key, read from the file if it is there.
func (x *tx) at(k pointKey) (*point, error) {
	if p := x.points[k]; p != nil {
		return p, nil
	}
	p := new(point)
	err := x.stmt("SELECT id, first, last, count, minutes, more, held FROM point WHERE template = ? AND hour = ? AND origin = ? AND single = ?").
		QueryRow(k.template, k.hour, k.origin, k.single).Scan(&p.id, &p.first, &p.last, &p.count, &p.minutes, &p.more, &p.held)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		p.id = x.w.point
		x.w.point++
	case err != nil:
		return nil, err
	default:
		p.there = true
	}
	x.points[k] = p
	return p, nil
}

func (p *point) add(i, at int64, minute int, values []string) {
	if p.count == 0 {
		p.first, p.last = at, at
	}
	p.first, p.last = min(p.first, at), max(p.last, at)
	p.count++
	p.minutes |= 1 << minute
	p.seen = append(p.seen, occurrence{i, at})
	for _, v := range values {
		h := valueHash(v)
		if p.holds(h) {
			continue
		}
		if len(p.held) >= 8*index.MaxValues {
			p.more = true
			break
		}
		p.held = binary.LittleEndian.AppendUint64(p.held, h)
		p.fresh = append(p.fresh, h)
	}
}

func (p *point) holds(h uint64) bool {
	for i := 0; i < len(p.held); i += 8 {
		if binary.LittleEndian.Uint64(p.held[i:]) == h {
			return true
		}
	}
	return false
}

func valueHash(v string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(v))
	return h.Sum64()
}

func hashToken(h uint64) string { return fmt.Sprintf("%016x", h) }

// flush writes the points that were touched.
func (x *tx) flush() error {
	keys := make([]pointKey, 0, len(x.points))
	for k := range x.points {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b pointKey) int { return int(x.points[a].id - x.points[b].id) })
	for _, k := range keys {
		if err := x.write(k, x.points[k]); err != nil {
			return err
		}
	}
	clear(x.points)
	x.waiting = 0
	return nil
}

func (x *tx) write(k pointKey, p *point) error {
	var err error
	if p.there {
		_, err = x.stmt("UPDATE point SET first = ?, last = ?, count = ?, minutes = ?, more = ?, held = ? WHERE template = ? AND hour = ? AND origin = ? AND single = ?").
			Exec(p.first, p.last, p.count, p.minutes, p.more, held(p.held), k.template, k.hour, k.origin, k.single)
	} else {
		_, err = x.stmt("INSERT INTO point (template, hour, origin, single, id, first, last, count, minutes, more, held) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)").
			Exec(k.template, k.hour, k.origin, k.single, p.id, p.first, p.last, p.count, p.minutes, p.more, held(p.held))
	}
	if x.ch != nil {
		x.ch.points = append(x.ch.points, p.id)
		if len(p.seen) > 0 {
			x.ch.seen = append(x.ch.seen, [2]int64{p.id, int64(p.seen[0].index)})
		}
	}
	if err == nil && len(p.seen) > 0 {
		_, err = x.stmt("INSERT INTO occurrence VALUES (?, ?, ?)").Exec(p.id, p.seen[0].index, encodeOccurrences(p.seen))
	}
	if err == nil && len(p.fresh) > 0 {
		tokens := make([]string, len(p.fresh))
		for i, h := range p.fresh {
			tokens[i] = hashToken(h)
		}
		n := len(p.held)/8 - len(p.fresh)
		_, err = x.stmt("INSERT INTO value (rowid, hash) VALUES (?, ?)").Exec(p.id<<7|int64(n), strings.Join(tokens, " "))
	}
	return err
}

func held(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// keep puts an event into a block.
func (x *tx) keep(s stored) error {
	if x.block == nil && x.partial < 0 {
		var first int64
		var n int
		var data []byte
		err := x.tx.QueryRow("SELECT first, n, data FROM block ORDER BY first DESC LIMIT 1").Scan(&first, &n, &data)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if err == nil && n < blockEvents {
			if x.block, err = decodeBlock(data); err != nil {
				return err
			}
			x.partial = first
		}
	}
	x.block = append(x.block, s)
	if len(x.block) >= blockEvents {
		return x.closeBlock()
	}
	return nil
}

func (x *tx) closeBlock() error {
	if len(x.block) == 0 {
		return nil
	}
	data, err := encodeBlock(x.block)
	if err != nil {
		return err
	}
	if x.ch != nil {
		x.ch.blocks = append(x.ch.blocks, x.block[0].index)
	}
	_, err = x.stmt("INSERT OR REPLACE INTO block VALUES (?, ?, ?, ?)").Exec(x.block[0].index, x.block[len(x.block)-1].index, len(x.block), data)
	x.block = x.block[:0]
	return err
}

func (x *tx) Set(key string, value []byte) error {
	var err error
	if value == nil {
		_, err = x.stmt("DELETE FROM state WHERE key = ?").Exec([]byte(key))
	} else {
		_, err = x.stmt("INSERT OR REPLACE INTO state VALUES (?, ?)").Exec([]byte(key), value)
	}
	return x.wrap(err)
}

// settle writes what is still in memory.
func (x *tx) settle() error {
	if err := errors.Join(x.flush(), x.describe(), x.closeBlock()); err != nil {
		return err
	}
	if err := x.backfill(); err != nil {
		return err
	}
	_, err := x.tx.Exec("UPDATE meta SET value = ? WHERE key = 'templates' AND value <> ?", x.w.next, x.w.next)
	if err == nil && x.added != 0 {
		_, err = x.tx.Exec("UPDATE meta SET value = value + ? WHERE key = 'events'", x.added)
	}
	if err == nil && x.added > 0 {
		_, err = x.tx.Exec("UPDATE meta SET value = ? WHERE key = 'newest' AND coalesce(value < ?, 1)", x.newest, x.newest)
	}
	x.added = 0
	return err
}

func (x *tx) Commit() error {
	err := x.settle()
	if err == nil {
		err = x.mirror()
	}
	if err == nil {
		err = x.tx.Commit()
	}
	if err != nil {
		x.d.w = nil
		x.tx.Rollback()
	}
	x.done = true
	return x.wrap(err)
}

func (x *tx) Rollback() error {
	if x.done {
		return nil
	}
	x.done = true
	x.d.w = nil
	if err := x.tx.Rollback(); !errors.Is(err, sql.ErrTxDone) {
		return x.wrap(err)
	}
	return nil
}
