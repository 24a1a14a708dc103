package local

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
)

// refusedPrefix is that of the state's keys for what a mirror could not take.
const refusedPrefix = "refused/"

// maxRefused bounds how many of them are kept.
const maxRefused = 1000

// A changes is what a transaction has changed that a mirror is to be told, by
// the keys of rows: what they hold is read when the transaction commits.
type changes struct {
	whole     bool // all of the file
	templates int64
	again     []int64 // templates that were there already
	groups    map[int]bool
	blocks    []int64
	seen      [][2]int64 // point and first index
	points    []int64

	goneTemplates []index.ID
	gonePoints    map[int64]index.ID
	goneSeen      map[[2]int64]index.ID // the point's
	goneBlocks    []int64
}

func (c *changes) empty() bool {
	return !c.whole && len(c.again)+len(c.groups)+len(c.blocks)+len(c.seen)+len(c.points)+len(c.goneTemplates)+len(c.gonePoints)+len(c.goneSeen)+len(c.goneBlocks) == 0
}

// watch prepares a transaction for the mirror.
func (x *tx) watch() error {
	if x.d.o.Mirror == nil {
		return nil
	}
	x.ch = &changes{templates: x.w.next, groups: make(map[int]bool), gonePoints: make(map[int64]index.ID), goneSeen: make(map[[2]int64]index.ID)}
	return nil
}

// mirror tells the mirror what the transaction has changed. A mirror that can't
// be reached fails the transaction, unless it has changed nothing but state: a
// finding is kept whatever happens elsewhere.
func (x *tx) mirror() error {
	if x.ch == nil {
		return nil
	}
	ctx := context.Background()
	err := x.reflect(ctx)
	if err != nil && x.ch.empty() {
		if x.d.o.Unmirrored != nil {
			return x.d.o.Unmirrored(err)
		}
		return nil
	}
	return err
}

// Published returns the name by which the mirror shows this index, "" if it does
// not.
func (d *DB) Published() (string, error) { return d.metaText("published") }

// Publish tells the mirror what it was not told yet.
func (d *DB) Publish() error {
	t, err := d.Begin()
	if err != nil {
		return err
	}
	defer t.Rollback()
	x := t.(*tx)
	if x.ch == nil {
		return nil
	}
	if err := x.settle(); err != nil {
		return x.wrap(err)
	}
	if err := x.reflect(context.Background()); err != nil {
		return x.wrap(err)
	}
	x.ch = nil
	return x.Commit()
}

func (x *tx) reflect(ctx context.Context) error {
	m := x.d.o.Mirror
	var file, as string
	if err := x.tx.QueryRow("SELECT (SELECT value FROM meta WHERE key = 'file'), coalesce((SELECT value FROM meta WHERE key = 'published'), '')").Scan(&file, &as); err != nil {
		return err
	}
	head, err := x.head()
	if err != nil {
		return err
	}
	whole, err := m.Open(ctx, file, head.Log, as)
	if err != nil {
		return err
	}
	if whole {
		if err := x.everything(); err != nil {
			return err
		}
	}
	if err := x.put(ctx, m); err != nil {
		return err
	}
	if err := x.drop(ctx, m); err != nil {
		return err
	}
	refused, now, err := m.Publish(ctx, head)
	if err != nil {
		return err
	}
	if err := x.refuse(refused, whole); err != nil {
		return err
	}
	if now != "" && now != as {
		_, err = x.tx.Exec("INSERT OR REPLACE INTO meta VALUES ('published', ?)", now)
	}
	return err
}

// everything takes all of the file for changed.
func (x *tx) everything() error {
	c := x.ch
	c.whole, c.templates, c.again = true, 0, nil
	for _, of := range []struct {
		query string
		into  *[]int64
	}{{"SELECT id FROM point ORDER BY id", &c.points}, {"SELECT first FROM block ORDER BY first", &c.blocks}} {
		list, err := x.ids(of.query)
		if err != nil {
			return err
		}
		*of.into = list
	}
	groups, err := x.ids("SELECT id FROM drain")
	if err != nil {
		return err
	}
	for _, g := range groups {
		c.groups[int(g)] = true
	}
	rows, err := x.tx.Query("SELECT point, i FROM occurrence ORDER BY point, i")
	if err != nil {
		return err
	}
	defer rows.Close()
	c.seen = nil
	for rows.Next() {
		var k [2]int64
		if err := rows.Scan(&k[0], &k[1]); err != nil {
			return err
		}
		c.seen = append(c.seen, k)
	}
	return rows.Err()
}

func (x *tx) put(ctx context.Context, m index.Mirror) error {
	c := x.ch
	done, all := 0, len(c.groups)+len(c.blocks)+len(c.seen)+len(c.points)
	put := func(r index.Record) error {
		if done++; x.d.o.Progress != nil && done%4096 == 0 {
			x.d.o.Progress(done, all)
		}
		return m.Put(ctx, r)
	}
	for g := range c.groups {
		r := index.GroupRecord{N: int64(g)}
		if err := x.stmt("SELECT template FROM drain WHERE id = ?").QueryRow(g).Scan(&r.Text); err != nil {
			return err
		}
		if err := put(&r); err != nil {
			return err
		}
	}
	fresh, err := x.ids("SELECT ordinal FROM template WHERE ordinal >= ? ORDER BY ordinal", c.templates)
	if err != nil {
		return err
	}
	for _, t := range append(fresh, c.again...) {
		r, err := x.templateRecord(t)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err == nil {
			err = put(r)
		}
		if err != nil {
			return err
		}
	}
	for _, first := range uniq(c.blocks) {
		r, err := x.blockRecord(first)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err == nil {
			err = put(r)
		}
		if err != nil {
			return err
		}
	}
	rows, err := x.seenRows()
	if err != nil {
		return err
	}
	for _, k := range rows {
		r, err := x.seenRecord(k)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err == nil {
			err = put(r)
		}
		if err != nil {
			return err
		}
	}
	for _, id := range uniq(c.points) {
		r, err := x.pointRecord(id)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err == nil {
			err = put(r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// seenRows returns the lists of events that the mirror is to have: those of
// points with more than the newest few, which are in the points themselves. If a
// point had no more before this transaction, all its lists.
func (x *tx) seenRows() (out [][2]int64, err error) {
	list := x.ch.seen
	slices.SortFunc(list, func(a, b [2]int64) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	list = slices.Compact(list)
	for len(list) > 0 {
		id, n := list[0][0], 1
		for n < len(list) && list[n][0] == id {
			n++
		}
		mine := list[:n]
		list = list[n:]
		var count, fresh int64
		err := x.stmt("SELECT count FROM point WHERE id = ?").QueryRow(id).Scan(&count)
		if errors.Is(err, sql.ErrNoRows) || err == nil && count <= index.MaxSamples {
			continue
		}
		if err != nil {
			return nil, err
		}
		if x.ch.whole {
			out = append(out, mine...)
			continue
		}
		for _, k := range mine {
			var data []byte
			if err := x.stmt("SELECT data FROM occurrence WHERE point = ? AND i = ?").QueryRow(k[0], k[1]).Scan(&data); err != nil && !errors.Is(err, sql.ErrNoRows) {
				return nil, err
			}
			seen, err := decodeOccurrences(data)
			if err != nil {
				return nil, err
			}
			fresh += int64(len(seen))
		}
		if count-fresh > index.MaxSamples {
			out = append(out, mine...)
			continue
		}
		all, err := x.ids("SELECT i FROM occurrence WHERE point = ? ORDER BY i", id)
		if err != nil {
			return nil, err
		}
		for _, i := range all {
			out = append(out, [2]int64{id, i})
		}
	}
	return out, nil
}

func uniq(list []int64) []int64 {
	slices.Sort(list)
	return slices.Compact(list)
}

// drop tells what is gone and did not come again.
func (x *tx) drop(ctx context.Context, m index.Mirror) error {
	there := func(query string, args ...any) (yes bool, err error) {
		return yes, x.stmt("SELECT EXISTS (" + query + ")").QueryRow(args...).Scan(&yes)
	}
	drop := func(r index.Ref, query string, args ...any) error {
		yes, err := there(query, args...)
		if err != nil || yes {
			return err
		}
		return m.Drop(ctx, r)
	}
	c := x.ch
	for id, point := range c.gonePoints {
		if err := drop(index.Ref{Kind: index.KindPoint, ID: point}, "SELECT 1 FROM point WHERE id = ?", id); err != nil {
			return err
		}
	}
	for k, point := range c.goneSeen {
		if err := drop(index.Ref{Kind: index.KindSeen, ID: point, N: k[1]}, "SELECT 1 FROM occurrence WHERE point = ? AND i = ?", k[0], k[1]); err != nil {
			return err
		}
	}
	for _, b := range c.goneBlocks {
		if err := drop(index.Ref{Kind: index.KindBlock, N: b}, "SELECT 1 FROM block WHERE first = ?", b); err != nil {
			return err
		}
	}
	for _, t := range c.goneTemplates {
		if err := drop(index.Ref{Kind: index.KindTemplate, ID: t}, "SELECT 1 FROM template WHERE id = ?", t[:]); err != nil {
			return err
		}
	}
	return nil
}

func (x *tx) templateRecord(t int64) (*index.TemplateRecord, error) {
	r := new(index.TemplateRecord)
	var id []byte
	if err := x.stmt("SELECT id, source, type, masked, extra, grp, EXISTS (SELECT 1 FROM pending WHERE pending.ordinal = template.ordinal) FROM template WHERE ordinal = ?").
		QueryRow(t).Scan(&id, &r.Source, &r.Type, &r.Masked, &r.Extra, &r.Group, &r.Pending); err != nil {
		return nil, err
	}
	copy(r.ID[:], id)
	if x.d.o.Embedder == nil || r.Pending {
		return r, nil
	}
	dim := x.d.o.Embedder.Dim()
	no := int(t) / packN
	if x.packNo != no || x.packData == nil {
		b, err := getPack(x.tx, packVectors, no)
		if err != nil {
			return nil, err
		}
		x.packNo, x.packData = no, b
	}
	at := int(t) % packN * (1 + dim)
	if len(x.packData) < at+1+dim || x.packData[at] != 1 {
		return r, nil
	}
	var sum float64
	row := x.packData[at+1 : at+1+dim]
	for _, b := range row {
		sum += float64(int8(b)) * float64(int8(b))
	}
	if sum == 0 {
		return r, nil
	}
	r.Vector = make([]float32, dim)
	for i, b := range row {
		r.Vector[i] = float32(float64(int8(b)) / math.Sqrt(sum))
	}
	return r, nil
}

func (x *tx) blockRecord(first int64) (*index.BlockRecord, error) {
	var data []byte
	if err := x.stmt("SELECT data FROM block WHERE first = ?").QueryRow(first).Scan(&data); err != nil {
		return nil, err
	}
	list, err := decodeBlock(data)
	if err != nil {
		return nil, err
	}
	r := &index.BlockRecord{Events: make([]index.Event, len(list))}
	for i := range list {
		o, err := x.knownOrigin(list[i].origin)
		if err != nil {
			return nil, err
		}
		r.Events[i] = list[i].event(o)
		var id []byte
		if err := x.stmt("SELECT id FROM template WHERE ordinal = ?").QueryRow(list[i].template).Scan(&id); err != nil {
			return nil, err
		}
		copy(r.Events[i].Template[:], id)
	}
	return r, nil
}

// knownOrigin is originOf with a memory.
func (x *tx) knownOrigin(id int64) (origin, error) {
	if o, ok := x.known[id]; ok {
		return o, nil
	}
	o, err := x.originOf(id)
	if err == nil {
		if x.known == nil || len(x.known) > maxCached {
			x.known = make(map[int64]origin)
		}
		x.known[id] = o
	}
	return o, err
}

func (x *tx) seenRecord(k [2]int64) (*index.SeenRecord, error) {
	var data []byte
	if err := x.stmt("SELECT data FROM occurrence WHERE point = ? AND i = ?").QueryRow(k[0], k[1]).Scan(&data); err != nil {
		return nil, err
	}
	point, err := x.uuid(k[0])
	if err != nil {
		return nil, err
	}
	list, err := decodeOccurrences(data)
	if err != nil {
		return nil, err
	}
	return &index.SeenRecord{Point: point, Seen: occurrences(list)}, nil
}

func occurrences(list []occurrence) []index.Occurrence {
	out := make([]index.Occurrence, len(list))
	for i, o := range list {
		out[i] = index.Occurrence{Index: o.index, Time: time.Unix(0, o.time).UTC()}
	}
	return out
}

const pointColumns = `SELECT t.id, o.host, o.source, o.type, o.severity, o.actor, p.hour, p.single, p.first, p.last, p.count, p.minutes, p.more, p.held
	FROM point p JOIN template t ON t.ordinal = p.template JOIN origin o ON o.id = p.origin WHERE p.id = ?`

func (x *tx) pointRecord(id int64) (*index.PointRecord, error) {
	r := new(index.PointRecord)
	var template, held []byte
	var severity int
	var first, last int64
	if err := x.stmt(pointColumns).QueryRow(id).Scan(&template, &r.Host, &r.Source, &r.Type, &severity, &r.Actor, &r.Hour, &r.Single, &first, &last,
		&r.Count, &r.Minutes, &r.More, &held); err != nil {
		return nil, err
	}
	copy(r.Template[:], template)
	r.Severity = event.Severity(severity)
	r.First, r.Last = time.Unix(0, first).UTC(), time.Unix(0, last).UTC()
	r.ID = index.PointID(r.Template, r.Host, r.Severity, r.Actor, r.Hour, r.Single)
	for i := 0; i+8 <= len(held); i += 8 {
		r.Values = append(r.Values, binary.LittleEndian.Uint64(held[i:]))
	}
	rows, err := x.stmt("SELECT data FROM occurrence WHERE point = ? ORDER BY i DESC").Query(id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for len(r.Newest) < index.MaxSamples && rows.Next() {
		var b []byte
		if err := rows.Scan(&b); err != nil {
			return nil, err
		}
		list, err := decodeOccurrences(b)
		if err != nil {
			return nil, err
		}
		slices.Reverse(list)
		r.Newest = append(r.Newest, occurrences(list[:min(len(list), index.MaxSamples-len(r.Newest))])...)
	}
	return r, rows.Err()
}

// uuid returns the id by which a point is known outside of this file.
func (x *tx) uuid(id int64) (index.ID, error) {
	var template []byte
	var host, actor string
	var severity int
	var hour, single int64
	err := x.stmt("SELECT t.id, o.host, o.severity, o.actor, p.hour, p.single FROM point p JOIN template t ON t.ordinal = p.template JOIN origin o ON o.id = p.origin WHERE p.id = ?").
		QueryRow(id).Scan(&template, &host, &severity, &actor, &hour, &single)
	if err != nil {
		return index.ID{}, err
	}
	var t index.ID
	copy(t[:], template)
	return index.PointID(t, host, event.Severity(severity), actor, hour, single), nil
}

func (x *tx) head() (index.Head, error) {
	var h index.Head
	var newest sql.NullInt64
	var embedder string
	err := x.tx.QueryRow(`SELECT (SELECT value FROM meta WHERE key = 'events'), (SELECT value FROM meta WHERE key = 'newest'), (SELECT value FROM meta WHERE key = 'embedder'),
		(SELECT count(*) FROM pending)`).Scan(&h.Events, &newest, &embedder, &h.Pending)
	if err != nil {
		return h, err
	}
	if newest.Valid {
		h.Newest = time.Unix(0, newest.Int64).UTC()
	}
	h.Embedder = space(embedder)
	if x.d.o.State != nil {
		h.State, h.Log, err = x.d.o.State(txState{x})
	}
	return h, err
}

// A txState reads the state as the transaction leaves it.
type txState struct{ x *tx }

// Get implements what package vecsync asks for.
func (s txState) Get(key string) ([]byte, error) {
	var v []byte
	err := s.x.tx.QueryRow("SELECT value FROM state WHERE key = ?", []byte(key)).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return v, err
}

// A Refusal is a record that the mirror did not take.
type Refusal struct {
	Kind   string `json:"kind"`
	ID     string `json:"id,omitempty"`
	N      int64  `json:"n,omitempty"`
	Reason string `json:"reason"`
}

// refuse keeps what the mirror did not take; whole forgets what it did not take
// before.
func (x *tx) refuse(list []index.Refused, whole bool) error {
	if whole {
		if _, err := x.tx.Exec("DELETE FROM state WHERE key >= ? AND key < ?", []byte(refusedPrefix), []byte(refusedPrefix+"\xff")); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		return nil
	}
	var n int
	if err := x.tx.QueryRow("SELECT count(*) FROM state WHERE key >= ? AND key < ?", []byte(refusedPrefix), []byte(refusedPrefix+"\xff")).Scan(&n); err != nil {
		return err
	}
	for _, r := range list {
		if n++; n > maxRefused {
			break
		}
		f := Refusal{Kind: r.Ref.Kind, N: r.Ref.N, Reason: r.Reason}
		if r.Ref.ID != (index.ID{}) {
			f.ID = r.Ref.ID.String()
		}
		data, err := json.Marshal(f)
		if err != nil {
			return err
		}
		if err := x.Set(fmt.Sprintf("%s%s/%s/%d", refusedPrefix, f.Kind, f.ID, f.N), data); err != nil {
			return err
		}
	}
	return nil
}

// Refusals returns what the mirror did not take, at most maxRefused.
func (d *DB) Refusals() ([]Refusal, error) {
	records, failed := d.Scan(refusedPrefix)
	var list []Refusal
	for _, v := range records {
		var f Refusal
		if err := json.Unmarshal(v, &f); err != nil {
			return nil, d.wrap(err)
		}
		list = append(list, f)
	}
	return list, failed()
}
