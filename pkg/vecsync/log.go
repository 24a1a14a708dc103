package vecsync

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
)

// A logState is what the index knows of the log, on its way to the next
// snapshot.
type logState struct {
	in     *ingester
	follow *follower
	before int64                      // first segment not pruned before this stream
	small  map[string]*smallFile      // by name
	known  map[int64]*segment         // headers of all, the rest of those that this stream touches
	files  map[int64]*sendstream.File // the segments that the snapshot holds

	pending   int64 // bytes that stand behind the checkpoint
	smallSize int64 // of those small files that this stream changes
}

// A smallFile is a file of the log that is kept whole. It is known by its
// identity, since a file is written under a temporary name in one snapshot and
// may have its own in the next.
type smallFile struct {
	ID      sendstream.FileID `json:"file"`
	Content []byte            `json:"content"`
	changed bool
}

const smallPrefix = "small/"

func smallKey(id sendstream.FileID) string { return smallPrefix + strconv.FormatUint(uint64(id), 10) }

// openLog reads the state of the log in directory dir.
func (in *ingester) openLog(dir *sendstream.File) (*logState, error) {
	l := &logState{in: in, small: make(map[string]*smallFile), known: make(map[int64]*segment), files: make(map[int64]*sendstream.File)}
	var err error
	if l.follow, err = readFollower(in.ix); err != nil {
		return nil, err
	}
	l.before = l.follow.pruned
	if err := l.readSegments(); err != nil {
		return nil, err
	}
	for name, f := range dir.Entries() {
		if n, ok := layout.ParseSegmentName(name); ok && f.IsRegular() && n >= l.before {
			l.files[n] = f
		}
		if isSmall(name) && f.IsRegular() {
			if err := l.openSmall(name, f); err != nil {
				return nil, err
			}
		}
	}
	return l, nil
}

func (l *logState) readSegments() error {
	segments, failed := l.in.ix.Scan(segmentPrefix)
	for k, v := range segments {
		n, err := strconv.ParseInt(k[len(segmentPrefix):], 10, 64)
		if err != nil {
			return fmt.Errorf("state %q: %w", k, err)
		}
		if l.known[n], err = parseSegment(n, v, l.in.ix); err != nil {
			return err
		}
	}
	return failed()
}

// openSmall brings a small file up to date.
func (l *logState) openSmall(name string, f *sendstream.File) error {
	s := &smallFile{ID: f.ID}
	key := smallKey(f.ID)
	if data, err := l.in.ix.Get(key); err != nil {
		return err
	} else if data != nil && !l.in.full {
		if err := json.Unmarshal(data, s); err != nil {
			return fmt.Errorf("state %q: %w", key, err)
		}
	} else {
		s.changed = true
	}
	if p := l.in.patches[f.ID]; p != nil {
		var err error
		if l.smallSize += int64(f.Size); f.Size > maxSmall || l.smallSize > maxSmall {
			return &StreamError{fmt.Errorf("%s: %d bytes where a small file should be", name, f.Size)}
		}
		if s.Content, err = p.small(s.Content, int64(f.Size), &l.in.spool); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		s.changed = true
	}
	l.small[name] = s
	return nil
}

func (l *logState) content(name string) []byte {
	if s := l.small[name]; s != nil {
		return s.Content
	}
	return nil
}

// apply compares what came again with what is known, and puts what is new, up
// to the checkpoint, with the state into tx.
func (l *logState) apply(tx index.Tx) (merkle.Checkpoint, error) {
	note := l.content(layout.Checkpoint)
	target, err := merkle.ParseNote(note)
	if err != nil {
		return target, found(FindingSignature, l.follow.size(), "%v", err)
	}
	if ring := l.follow.ring; l.in.full && ring != nil && ring.Created.Origin != target.Origin {
		return target, &StreamError{fmt.Errorf("it is of the log %q, the index of %q", target.Origin, ring.Created.Origin)}
	}
	if target.Size < l.follow.size() {
		if l.in.full && l.in.cursor != nil && l.in.ctransid < l.in.cursor.Ctransid {
			// Sent again, or late: it says nothing of the log as it is now.
			return target, &StreamError{fmt.Errorf("its snapshot is older than %s, at which the index stands", l.in.cursor.SnapshotUUID)}
		}
		if late, err := l.in.beforeRebuild(); late || err != nil {
			if err == nil {
				err = &BeforeRebuildError{target.Size, l.follow.size()}
			}
			return target, err
		}
		return target, found(FindingRolledBack, target.Size, "the checkpoint covers %d events, %d are in the index", target.Size, l.follow.size())
	}
	first, end := contiguous(target.Size, func(n int64) bool { return l.files[n] != nil })
	if first > l.follow.segment() {
		if err := l.follow.skip(first, l.content(layout.Seals), l.content(layout.Epochs)); err != nil {
			return target, err
		}
	}
	for _, n := range slices.Sorted(maps.Keys(l.files)) {
		if n >= end {
			break // no event can stand there yet
		}
		if err := l.segment(tx, n, target.Size); err != nil {
			return target, err
		}
	}
	if l.follow.size() != target.Size {
		return target, segmentGone(l.follow, target.Size)
	}
	checkpoint, err := l.follow.close(note)
	if err != nil {
		return target, err
	}
	if s := l.small[layout.Seals]; s == nil || s.changed || len(l.follow.roots) > 0 {
		if err := l.follow.checkSeals(l.content(layout.Seals)); err != nil {
			return target, err
		}
	}
	if err := l.prune(tx); err != nil {
		return target, err
	}
	if err := l.saveSmall(tx); err != nil {
		return target, err
	}
	state, err := l.follow.save()
	if err != nil {
		return target, err
	}
	return checkpoint, tx.Set(followerKey, state)
}

// segmentGone says that the segment in which the next event stands is not there.
func segmentGone(f *follower, size int64) *Finding {
	n := f.segment()
	return found(FindingRemoved, n*layout.SegmentEvents, "%s is gone, and a checkpoint covers %d events", layout.SegmentName(n), size)
}

// contiguous returns the segments [first, end) that are there without a gap
// around the one in which the last of size events stands.
func contiguous(size int64, there func(int64) bool) (first, end int64) {
	last := (size - 1) / layout.SegmentEvents
	first, end = last, last+1
	for there(first - 1) {
		first--
	}
	for there(end) {
		end++
	}
	return first, end
}

// segment applies the stream to segment n, and brings the tree forward with
// what it has.
func (l *logState) segment(tx index.Tx, n, size int64) error {
	f, seg := l.files[n], l.known[n]
	if seg == nil {
		seg = newSegment(n, l.in.ix)
		l.known[n] = seg
	}
	p := l.in.patches[f.ID]
	another := seg.file != f.ID || l.in.full || p != nil && p.made
	goesOn := l.follow.segment() == n && l.follow.size() < size && seg.size > seg.consumed
	if p == nil && !another && int64(f.Size) == seg.size && !goesOn {
		return nil // as it was
	}
	if int64(f.Size) < seg.consumed {
		return found(FindingShrunk, n*layout.SegmentEvents, "%s has %d bytes, %d are in the index", layout.SegmentName(n), f.Size, seg.consumed)
	}
	if f.Size > maxSegment {
		return &pendingError{int64(f.Size) - seg.consumed}
	}
	if p == nil {
		p = new(patch)
	}
	if err := seg.load(l.in.ix); err != nil {
		return err
	}
	a, err := seg.apply(p, int64(f.Size), another, &l.in.spool)
	if err != nil {
		return err
	}
	defer a.close()
	seg.file = f.ID
	if err := l.take(seg, a, size, tx.Add); err != nil {
		return err
	}
	return seg.save(tx)
}

// take brings the tree forward with the bytes of a segment, of which a has
// those from the tail on.
func (l *logState) take(seg *segment, a *area, size int64, each func(*event.Event) error) error {
	consumed := seg.consumed
	if l.follow.segment() == seg.number && l.follow.size() < size {
		taken, err := l.follow.take(seg.section(a, consumed), size, each)
		if err != nil {
			return err
		}
		consumed += taken
	}
	if l.pending += seg.tailOff() + a.size - consumed; l.pending > maxPending {
		return &pendingError{l.pending}
	}
	return seg.grow(a, consumed)
}

// prune takes out of the index what the log says that it deletes, be it gone
// yet or not, and makes sure that nothing else is gone.
func (l *logState) prune(tx index.Tx) error {
	pruned := l.follow.pruned
	for n := pruned; n*layout.SegmentEvents < l.follow.size(); n++ {
		if l.files[n] == nil && !l.follow.leftOut(n) {
			return found(FindingRemoved, n*layout.SegmentEvents, "%s is gone, and no event says that it was pruned", layout.SegmentName(n))
		}
	}
	if pruned == l.before {
		return nil
	}
	if err := tx.Remove(l.before*layout.SegmentEvents, pruned*layout.SegmentEvents); err != nil {
		return err
	}
	for n, seg := range l.known {
		if n >= pruned {
			continue
		}
		if err := seg.remove(tx); err != nil {
			return err
		}
		delete(l.known, n)
	}
	maps.DeleteFunc(l.follow.roots, func(n int64, _ merkle.Hash) bool { return n < pruned })
	l.follow.pruneLeft()
	return nil
}

// saveSmall stores the small files that the snapshot holds and forgets others.
func (l *logState) saveSmall(tx index.Tx) error {
	stored := make(map[string]bool)
	for _, s := range l.small {
		key := smallKey(s.ID)
		stored[key] = true
		if !s.changed {
			continue
		}
		data, err := json.Marshal(s)
		if err != nil {
			return err
		}
		if err := tx.Set(key, data); err != nil {
			return err
		}
	}
	old, failed := l.in.ix.Scan(smallPrefix)
	var drop []string
	for k := range old {
		if !stored[k] {
			drop = append(drop, k)
		}
	}
	if err := failed(); err != nil {
		return err
	}
	for _, k := range drop {
		if err := tx.Set(k, nil); err != nil {
			return err
		}
	}
	return nil
}
