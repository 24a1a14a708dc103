package chain

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// A Filter chooses events. The zero value chooses all. Lists choose an event
// that matches one of their elements.
type Filter struct {
	Since, Until time.Time // of the events' time; Until is not included
	Sources      []string
	Types        []string // exact, or a prefix and ".*"
	Hosts        []string
	Actors       []string
	Subjects     []string
	Severity     event.Severity // this grave or graver, if HasSeverity
	HasSeverity  bool
	Matches      []FieldMatch
	Grep         *regexp.Regexp // on the stored line
}

// A FieldMatch is a value at a path in data, such as port.name=vnet0 or
// addresses.0=10.0.0.1.
type FieldMatch struct {
	Path  []string
	Value string
}

// ParseFieldMatch parses key.path=value.
func ParseFieldMatch(s string) (FieldMatch, error) {
	path, value, ok := strings.Cut(s, "=")
	if !ok || path == "" {
		return FieldMatch{}, &configError{fmt.Errorf("match %q: want key.path=value", s), ""}
	}
	return FieldMatch{strings.Split(path, "."), value}, nil
}

// window says whether events with times in span can be in the filter's time.
func (f *Filter) window(span layout.Span) bool {
	return (f.Since.IsZero() || !span.Max.Before(f.Since)) && (f.Until.IsZero() || span.Min.Before(f.Until))
}

// Match decodes a stored line if it is chosen, and returns nil if it is not.
func (f *Filter) Match(line []byte) (*event.Event, error) { return f.match(line) }

// Chooses says whether an event that was decoded already is chosen. Grep, which
// looks at the stored line, is not asked.
func (f *Filter) Chooses(e *event.Event) bool {
	if !f.Since.IsZero() && e.Time.Before(f.Since) || !f.Until.IsZero() && !e.Time.Before(f.Until) {
		return false
	}
	return f.chooses(e)
}

// match decodes line if it is chosen, and returns nil if it is not.
func (f *Filter) match(line []byte) (*event.Event, error) {
	if !f.Since.IsZero() || !f.Until.IsZero() {
		t, _, err := event.Times(line)
		if err != nil {
			return nil, err
		}
		if !f.Since.IsZero() && t.Before(f.Since) || !f.Until.IsZero() && !t.Before(f.Until) {
			return nil, nil
		}
	}
	if f.Grep != nil && !f.Grep.Match(line) {
		return nil, nil
	}
	e, err := event.Decode(line)
	if err != nil || !f.chooses(e) {
		return nil, err
	}
	return e, nil
}

// chooses is Chooses without the times.
func (f *Filter) chooses(e *event.Event) bool {
	for _, c := range [...]struct {
		want []string
		have string
	}{{f.Sources, e.Source}, {f.Hosts, e.Host}, {f.Actors, e.Actor}, {f.Subjects, e.Subject}} {
		if len(c.want) > 0 && !oneOf(c.want, c.have) {
			return false
		}
	}
	if len(f.Types) > 0 && !oneOfTypes(f.Types, e.Type) || f.HasSeverity && e.Severity > f.Severity {
		return false
	}
	for _, m := range f.Matches {
		if !m.in(e.Data) {
			return false
		}
	}
	return true
}

func oneOf(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func oneOfTypes(list []string, s string) bool {
	for _, l := range list {
		prefix, all := strings.CutSuffix(l, ".*")
		if l == s || all && (s == prefix || strings.HasPrefix(s, prefix+".")) {
			return true
		}
	}
	return false
}

// in says whether data has the value. Numbers, true, false and null are
// compared as they are written. The path may begin with data, as it does in the
// stored line, and has the places of arrays, from 0.
func (m FieldMatch) in(data json.RawMessage) bool {
	return m.at(m.Path, data) || len(m.Path) > 1 && m.Path[0] == "data" && m.at(m.Path[1:], data)
}

func (m FieldMatch) at(path []string, data json.RawMessage) bool {
	for _, key := range path {
		var list []json.RawMessage
		if i, err := strconv.Atoi(key); err == nil && json.Unmarshal(data, &list) == nil {
			if i < 0 || i >= len(list) {
				return false
			}
			data = list[i]
			continue
		}
		var object map[string]json.RawMessage
		if json.Unmarshal(data, &object) != nil {
			return false
		}
		var ok bool
		if data, ok = object[key]; !ok {
			return false
		}
	}
	var s string
	if json.Unmarshal(data, &s) == nil && len(data) > 0 && data[0] == '"' {
		return s == m.Value
	}
	return string(data) == m.Value
}

// A Verdict says how far the bytes that a query read are what was signed.
type Verdict struct {
	Verified bool        `json:"verified"`
	Size     int64       `json:"tree_size"` // events that the checkpoint covers
	Root     merkle.Hash `json:"root"`
	Reason   string      `json:"reason,omitempty"` // why it is not verified
	Time     time.Time   `json:"time,omitzero"`    // at of the last event that the checkpoint covers
	Newer    int64       `json:"newer,omitempty"`  // events behind the checkpoint
	Pruned   int64       `json:"pruned,omitempty"` // events before this one that might have matched were deleted

	tree *merkle.Range // of Size events, if verified
}

// QueryOptions say which events a query prints, and how many.
type QueryOptions struct {
	Filter
	Last    int64 // only the newest Last events that match, if > 0
	Reverse bool  // newest first
	Key     merkle.Verifier
}

// Query calls each with the events that match, oldest first unless Reverse,
// and with the line of each as it is stored; neither may be kept. What it
// reads it hashes: segments that can't match are skipped by their seals and
// stand in the tree with the seal's root, so the verdict is about every byte
// that was printed. That no segment was passed over that should not have been
// rests on the times in the seals, which Verify checks and Query does not. An
// error that each returns ends the query.
func Query(ctx context.Context, fsys fs.FS, o QueryOptions, each func(e *event.Event, line []byte) error) (Verdict, error) {
	q := &query{ctx: ctx, fsys: fsys, o: o, needles: o.needles(), each: each, trees: make(map[int64]*segmentScan)}
	if err := q.prepare(); err != nil {
		return Verdict{}, err
	}
	if err := q.run(); err != nil {
		return Verdict{}, err
	}
	return q.judge()
}

type query struct {
	ctx  context.Context
	fsys fs.FS
	o    QueryOptions
	needles
	each  func(*event.Event, []byte) error
	seals []layout.Seal
	segs  []int64

	latest  []byte // the file checkpoint, nil if there is none
	pruned  *prunedMark
	marked  bool      // pruned was seen in its place
	gone    bool      // events that were pruned could have matched
	time    time.Time // at of event size-1
	note    []byte    // the largest checkpoint, nil if there is none
	size    int64     // of that checkpoint
	trees   map[int64]*segmentScan
	trouble string
}

func (q *query) prepare() error {
	// The checkpoints first: everything else can only be ahead of them. A
	// crash may leave the archive ahead of the latest one, and so does who
	// puts back the latest one.
	archived, err := lastArchived(q.fsys)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	latest, err := readOptional(q.fsys, layout.Checkpoint)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	q.latest = latest
	if latest != nil { // without it there is no verdict
		for _, note := range [][]byte{latest, archived} {
			if c, err := merkle.ParseNote(note); err == nil && (q.note == nil || c.Size > q.size) {
				q.note, q.size = note, c.Size
			}
		}
	}
	if q.segs, err = segments(q.fsys); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	if len(q.segs) == 0 && latest == nil {
		return errNoLog()
	}
	data, err := readOptional(q.fsys, layout.Seals)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	q.seals, _, err = layout.ParseSeals(data)
	if err != nil {
		q.trouble = err.Error()
	}
	if q.pruned, err = readPruned(q.fsys); err != nil {
		q.notVerified("%v", err)
	} else if q.pruned != nil && q.pruned.index >= q.size {
		q.pruned = nil // nothing is deleted before a checkpoint covers the event
	}
	for n := range min(q.pruned.end()/layout.SegmentEvents, int64(len(q.seals))) {
		q.gone = q.gone || q.o.window(q.seals[n].Time)
	}
	return nil
}

// needed says whether segment n must be read: because events in it can match,
// or because the verdict needs it.
func (q *query) needed(n int64) bool {
	if n < q.pruned.end()/layout.SegmentEvents {
		return false
	}
	return q.required(n) || q.o.window(q.seals[n].Time)
}

// required says whether the verdict needs segment n: it is not sealed, the
// checkpoint ends in it, or the event is in it that says what was pruned.
func (q *query) required(n int64) bool {
	return n >= int64(len(q.seals)) || (n+1)*layout.SegmentEvents > q.size ||
		q.pruned != nil && n == q.pruned.index/layout.SegmentEvents
}

// checkPresent says so if a segment that must be read is not there.
func (q *query) checkPresent() {
	end := max(int64(len(q.seals)), (q.size+layout.SegmentEvents-1)/layout.SegmentEvents)
	have := make(map[int64]bool)
	for _, n := range q.segs {
		have[n] = true
		end = max(end, n)
	}
	for n := int64(0); n < end; n++ {
		if !have[n] && q.needed(n) {
			q.notVerified("%s is missing", layout.SegmentName(n))
			return
		}
	}
}

func (q *query) run() error {
	q.checkPresent()
	if !q.o.Reverse && q.o.Last <= 0 {
		for _, n := range q.segs {
			if !q.needed(n) {
				continue
			}
			err := q.read(n, func(e *event.Event, line []byte, _ int64, _ func() merkle.Hash) error { return q.each(e, line) })
			if err != nil {
				return err
			}
		}
		return nil
	}
	// Backwards: the places of what matches, segment by segment from the
	// newest, then the lines again, each of which must still be what was
	// hashed.
	type segmentPlaces struct {
		n      int64
		places []place
	}
	var kept []segmentPlaces
	left := q.o.Last
	for k := len(q.segs) - 1; k >= 0; k-- {
		n := q.segs[k]
		if !q.needed(n) {
			continue
		}
		if q.o.Last > 0 && left == 0 && !q.required(n) {
			continue
		}
		var places []place
		err := q.read(n, func(_ *event.Event, line []byte, off int64, leaf func() merkle.Hash) error {
			places = append(places, place{off, len(line), leaf()})
			return nil
		})
		if err != nil {
			return err
		}
		if q.o.Last > 0 && int64(len(places)) > left {
			places = places[int64(len(places))-left:]
		}
		left -= int64(len(places))
		if !q.o.Reverse {
			kept = append(kept, segmentPlaces{n, places})
			continue
		}
		if err := q.reread(n, places, true); err != nil {
			return err
		}
	}
	for k := len(kept) - 1; k >= 0; k-- {
		if err := q.reread(kept[k].n, kept[k].places, false); err != nil {
			return err
		}
	}
	return nil
}

type place struct {
	off  int64
	len  int
	leaf merkle.Hash
}

// read reads segment n, hashes its lines and calls match with those chosen.
func (q *query) read(n int64, match func(e *event.Event, line []byte, off int64, leaf func() merkle.Hash) error) error {
	f, err := q.fsys.Open(layout.SegmentName(n))
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	defer f.Close()
	s := &segmentScan{number: n, at: make(map[int64]segmentPoint)}
	q.trees[n] = s
	r := newLineReader(f)
	r.tree = &s.tree
	defer r.flush()
	for read := int64(0); ; read++ {
		off := r.off
		line, err := r.next()
		if err == io.EOF || errors.Is(err, errTornLine) {
			return nil
		}
		index := s.first() + read
		if err != nil && !errors.Is(err, errLongLine) {
			return fmt.Errorf("%s: %w", layout.SegmentName(n), err)
		}
		if i, bad := event.Check(line); err != nil || bad != nil || i != index {
			q.notVerified("event %d is damaged", index)
			r.flush()
			s.tree.Append(merkle.Hash{}) // keep count; the root is wrong anyway
			continue
		}
		r.addLeaf()
		if m := q.pruned; m != nil && index == m.index {
			q.marked = bytes.Equal(line, m.line)
		}
		if index+1 == q.size {
			_, q.time, _ = event.Times(line)
			r.flush()
			s.at[q.size] = segmentPoint{tree: *s.tree.Clone()}
		}
		if read&0xfff == 0 && q.ctx.Err() != nil {
			return q.ctx.Err()
		}
		if !q.mayMatch(line) {
			continue
		}
		e, err := q.o.match(line)
		if err != nil {
			q.notVerified("event %d is damaged", index)
			continue
		}
		if e != nil {
			if err := match(e, line, off, r.leaf); err != nil {
				return err
			}
		}
	}
}

func (q *query) reread(n int64, places []place, reverse bool) error {
	if len(places) == 0 {
		return nil
	}
	f, err := q.fsys.Open(layout.SegmentName(n))
	if err != nil {
		return err
	}
	defer f.Close()
	at, ok := f.(io.ReaderAt)
	if !ok {
		return fmt.Errorf("%s: the file system cannot read from the middle", layout.SegmentName(n))
	}
	var h merkle.Hasher
	var buf []byte
	for k := range places {
		p := places[k]
		if reverse {
			p = places[len(places)-1-k]
		}
		if cap(buf) < p.len {
			buf = make([]byte, p.len)
		}
		buf = buf[:p.len]
		if _, err := at.ReadAt(buf, p.off); err != nil {
			return fmt.Errorf("%s: %w", layout.SegmentName(n), err)
		}
		if h.Leaf(buf) != p.leaf {
			q.notVerified("%s changed while it was read", layout.SegmentName(n))
			continue
		}
		e, err := event.Decode(buf)
		if err != nil {
			return err
		}
		if err := q.each(e, buf); err != nil {
			return err
		}
	}
	return nil
}

func (q *query) notVerified(format string, args ...any) {
	if q.trouble == "" {
		q.trouble = fmt.Sprintf(format, args...)
	}
}

// judge compares what was read with what was signed.
func (q *query) judge() (Verdict, error) {
	v := Verdict{}
	no := func(format string, args ...any) (Verdict, error) {
		q.notVerified(format, args...)
		v.Verified, v.Reason = false, q.trouble
		return v, nil
	}
	if q.note == nil {
		return no("there is no checkpoint")
	}
	ring, err := readKeyring(q.fsys)
	if err != nil {
		return no("%v", err)
	}
	if !q.o.Key.IsZero() && q.o.Key.String() != ring.Created.LogKey.String() {
		return no("the log's key is %s, not %s", ring.Created.LogKey, q.o.Key)
	}
	c, err := ring.Open(q.note)
	if err == nil && !bytes.Equal(q.note, q.latest) {
		_, err = ring.Open(q.latest)
	}
	if err != nil {
		return no("%v", err)
	}
	v.Size, v.Root, v.Time = c.Size, c.Root, q.time
	if q.pruned != nil && !q.marked {
		return no("file %s is not an event of the log", layout.PrunedFile)
	}
	if q.gone {
		v.Pruned = q.pruned.end()
	}
	var tree merkle.Range
	for n := int64(0); tree.Size() < c.Size; n++ {
		s := q.trees[n]
		switch {
		case s == nil && n < int64(len(q.seals)):
			if err := tree.AppendSubtree(q.seals[n].Root, layout.SegmentLevel); err != nil {
				return no("%v", err)
			}
			continue
		case s == nil:
			return no("%s is missing", layout.SegmentName(n))
		}
		part := s.tree
		if r, ends := s.at[c.Size]; ends {
			part = r.tree
		} else if s.tree.Size() != layout.SegmentEvents {
			return no("the log ends at event %d, its checkpoint covers %d", s.first()+s.tree.Size(), c.Size)
		}
		joined, err := tree.Join(&part)
		if err != nil {
			return no("%v", err)
		}
		tree = *joined
	}
	if tree.Root() != c.Root {
		return no("the events do not have the root that was signed")
	}
	for n, s := range q.trees {
		if n < int64(len(q.seals)) && s.tree.Root() != q.seals[n].Root {
			return no("%s does not have the root of its seal", layout.SegmentName(n))
		}
		v.Newer = max(v.Newer, s.first()+s.tree.Size()-c.Size)
	}
	if q.trouble != "" {
		return no("%s", q.trouble)
	}
	v.Verified, v.tree = true, &tree
	return v, nil
}

// Sizes returns the number of events that the latest checkpoint covers,
// without checking anything.
func Sizes(fsys fs.FS) (covered int64, err error) {
	note, err := fs.ReadFile(fsys, layout.Checkpoint)
	if err != nil {
		return 0, err
	}
	c, err := merkle.ParseNote(note)
	return c.Size, err
}
