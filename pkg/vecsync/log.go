package vecsync

import (
	"bytes"
	"encoding/json"

	"fmt"
	"io"
	"sort"
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
	dir    *sendstream.File
	follow *follower
	small  map[string]*smallFile // by name, and by identity for temporary ones
	known  map[int64]*segment
	fresh  map[int64]*area // what is new of each segment
	files  map[int64]*sendstream.File
	gone   []*segment // pruned ones
	stored map[string]bool
}

// A smallFile is a file of the log that is kept whole. It is known by its
// identity, since a file is written under a temporary name in one snapshot and
// may have its own in the next.
type smallFile struct {
	ID      sendstream.FileID `json:"file"`
	Content []byte            `json:"content"`
}

const (
	segmentPrefix = "seg/"
	smallPrefix   = "small/"
	prunedKey     = "pruned" // number of the first segment that was not pruned
)

func smallKey(id sendstream.FileID) string { return smallPrefix + strconv.FormatUint(uint64(id), 10) }

// openLog reads the state and works out what the stream did to each file.
func (in *ingester) openLog(path string) (*logState, error) {
	dir, err := in.names.Lookup([]byte(path))
	if err != nil {
		return nil, err
	}
	l := &logState{in: in, dir: dir, small: make(map[string]*smallFile), known: make(map[int64]*segment),
		fresh: make(map[int64]*area), files: make(map[int64]*sendstream.File), stored: make(map[string]bool)}
	data, err := in.ix.Get(followerKey)
	if err != nil {
		return nil, err
	}
	if l.follow, err = loadFollower(data); err != nil {
		return nil, err
	}
	segments, failed := in.ix.Scan(segmentPrefix)
	for k, v := range segments {
		n, err := strconv.ParseInt(k[len(segmentPrefix):], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("state %q: %w", k, err)
		}
		if l.known[n], err = parseSegment(n, append([]byte(nil), v...)); err != nil {
			return nil, err
		}
	}
	if err := failed(); err != nil {
		return nil, err
	}
	for name, f := range dir.Entries() {
		if n, ok := layout.ParseSegmentName(name); ok && f.IsRegular() {
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
	}
	if p := l.in.patches[f.ID]; p != nil {
		var err error
		if s.Content, err = p.small(s.Content, int64(f.Size), &l.in.spool); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	l.small[name] = s
	l.stored[key] = true
	return nil
}

func (l *logState) content(name string) []byte {
	if s := l.small[name]; s != nil {
		return s.Content
	}
	return nil
}

func (l *logState) close() {
	for _, a := range l.fresh {
		a.close()
	}
}

// apply compares what came again with what is known and takes what is new, up
// to the checkpoint.
func (l *logState) apply(each func(*event.Event) error) (merkle.Checkpoint, error) {
	note := l.content(layout.Checkpoint)
	target, err := merkle.ParseNote(note)
	if err != nil {
		return target, found(FindingSignature, l.follow.size(), "%v", err)
	}
	if target.Size < l.follow.size() {
		return target, found(FindingRolledBack, target.Size, "the checkpoint covers %d events, %d are in the index", target.Size, l.follow.size())
	}
	numbers := make([]int64, 0, len(l.files))
	for n := range l.files {
		numbers = append(numbers, n)
	}
	sort.Slice(numbers, func(i, j int) bool { return numbers[i] < numbers[j] })
	if l.follow.size() == 0 && len(numbers) > 0 && numbers[0] > 0 {
		if err := l.follow.skip(numbers[0], l.content(layout.Seals), l.content(layout.Epochs)); err != nil {
			return target, err
		}
	}
	for _, n := range numbers {
		if err := l.patch(n); err != nil {
			return target, err
		}
	}
	for _, n := range numbers {
		if err := l.take(n, target.Size, each); err != nil {
			return target, err
		}
	}
	if l.follow.size() != target.Size {
		return target, found(FindingLine, l.follow.size(), "its segment is missing, a checkpoint covers %d events", target.Size)
	}
	checkpoint, err := l.follow.close(note)
	if err != nil {
		return target, err
	}
	if err := checkSeals(l.content(layout.Seals), l.follow.roots); err != nil {
		return target, err
	}
	return checkpoint, l.missing()
}

// patch applies the stream to segment n.
func (l *logState) patch(n int64) error {
	f := l.files[n]
	seg := l.known[n]
	if seg == nil {
		seg = &segment{number: n, file: f.ID}
		l.known[n] = seg
	}
	p := l.in.patches[f.ID]
	moved := seg.size > 0 && (seg.file != f.ID || l.in.full)
	if int64(f.Size) < seg.size {
		return found(FindingShrunk, n*layout.SegmentEvents, "%s has %d bytes, %d are known", layout.SegmentName(n), f.Size, seg.size)
	}
	if p == nil {
		if moved || int64(f.Size) > seg.size {
			p = new(patch)
		} else {
			return nil
		}
	}
	if err := seg.loadBlocks(l.in.ix); err != nil {
		return err
	}
	a, err := p.segment(seg, int64(f.Size), moved, &l.in.spool)
	if err != nil {
		return err
	}
	l.fresh[n] = a
	seg.file = f.ID
	return nil
}

// take brings the tree forward with what segment n has.
func (l *logState) take(n, size int64, each func(*event.Event) error) error {
	seg, fresh := l.known[n], l.fresh[n]
	if fresh == nil {
		fresh = &area{}
	}
	consumed := seg.consumed
	if l.follow.segment() == n && l.follow.size() < size {
		unread := seg.tail[seg.consumed-seg.tailOff():]
		r := io.MultiReader(bytes.NewReader(unread), io.NewSectionReader(fresh, 0, fresh.size))
		taken, err := l.follow.take(r, size, each)
		if err != nil {
			return err
		}
		consumed += taken
	}
	if fresh.size == 0 && consumed == seg.consumed {
		return nil
	}
	if err := seg.loadBlocks(l.in.ix); err != nil {
		return err
	}
	return seg.grow(fresh, seg.size+fresh.size, consumed)
}

// missing looks for segments that are known and not there any more.
func (l *logState) missing() error {
	pruned, err := l.prunedUpTo()
	if err != nil {
		return err
	}
	for _, p := range l.follow.pruned {
		if p.First == pruned || p.First == 0 && pruned == 0 {
			pruned = max(pruned, p.Last+1)
		}
	}
	for n, seg := range l.known {
		if l.files[n] != nil {
			continue
		}
		if n >= pruned {
			return found(FindingRemoved, n*layout.SegmentEvents, "%s is gone, and no event says that it was pruned", layout.SegmentName(n))
		}
		l.gone = append(l.gone, seg)
	}
	return nil
}

func (l *logState) prunedUpTo() (int64, error) {
	data, err := l.in.ix.Get(prunedKey)
	if err != nil || data == nil {
		return 0, err
	}
	return strconv.ParseInt(string(data), 10, 64)
}

// save stores the state in the stream's transaction, and takes what was pruned
// out of the index.
func (l *logState) save(tx index.Tx) error {
	state, err := l.follow.save()
	if err != nil {
		return err
	}
	if err := tx.Set(followerKey, state); err != nil {
		return err
	}
	pruned, err := l.prunedUpTo()
	if err != nil {
		return err
	}
	for _, seg := range l.gone {
		if err := tx.Remove(seg.number*layout.SegmentEvents, (seg.number+1)*layout.SegmentEvents); err != nil {
			return err
		}
		if err := seg.remove(tx); err != nil {
			return err
		}
		delete(l.known, seg.number)
		pruned = max(pruned, seg.number+1)
	}
	if len(l.gone) > 0 {
		if err := tx.Set(prunedKey, strconv.AppendInt(nil, pruned, 10)); err != nil {
			return err
		}
	}
	for n := range l.files {
		if l.fresh[n] == nil && l.known[n].dirty == 0 && l.known[n].blocks == nil {
			continue // as it was
		}
		if err := l.known[n].save(tx); err != nil {
			return err
		}
	}
	return l.saveSmall(tx)
}

// saveSmall stores the small files that the snapshot holds and forgets others.
func (l *logState) saveSmall(tx index.Tx) error {
	old, failed := l.in.ix.Scan(smallPrefix)
	var drop []string
	for k := range old {
		if !l.stored[k] {
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
	for _, s := range l.small {
		data, err := json.Marshal(s)
		if err != nil {
			return err
		}
		if err := tx.Set(smallKey(s.ID), data); err != nil {
			return err
		}
	}
	return nil
}
