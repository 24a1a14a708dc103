package chain

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// A segmentScan is what one reading of a segment found.
type segmentScan struct {
	number int64
	tree   merkle.Range           // of its events, while they were in order
	at     map[int64]segmentPoint // what was read up to sizes that were asked for, by absolute size
	own    []*event.Event
	pruned *prunedMark // the last one that a checkpoint covers
	blobs  []blobRef
	times  layout.Span
	ats    layout.Span
	tail   []tailEvent // events at and above the size given as covered
	torn   int64       // bytes of a last line without an end
	ok     bool        // every line was in its place
	bytes  int64
}

// A segmentPoint is what a reading of a segment has found up to some event.
type segmentPoint struct {
	tree  merkle.Range // of the segment's events
	off   int64        // in the file
	times layout.Span
	ats   layout.Span
}

type blobRef struct {
	index int64
	blob  event.Blob
}

// tailEvent is the first and the last event that no checkpoint covers.
type tailEvent struct {
	index int64
	ats   layout.Span
}

func (s *segmentScan) first() int64 { return s.number * layout.SegmentEvents }

// blobMark is in every line whose data is in a blob; see ownMark.
var blobMark = []byte(`blob":{"sha256":`)

// scanSegment reads segment n. wanted are the sizes, within the segment and
// above its first index, at which its tree is wanted, in order. covered is the
// size up to which a checkpoint covers the log. Reading stops at the first
// line that is not in its place; ok is false then.
//
// Reading goes on from the point given, nil for the segment's beginning. If
// hashed, the lines' checksums are passed over: the caller compares the tree's
// root with one that was signed or sealed.
func scanSegment(fsys fs.FS, n int64, wanted []int64, covered int64, from *segmentPoint, hashed bool) (*segmentScan, error) {
	check := event.Check
	if hashed {
		check = event.Index
	}
	s := &segmentScan{number: n, at: make(map[int64]segmentPoint)}
	f, err := fsys.Open(layout.SegmentName(n))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if from != nil && from.tree.Size() > 0 {
		seeker, ok := f.(io.Seeker)
		if !ok {
			return nil, fmt.Errorf("%s: the file system cannot read from the middle", layout.SegmentName(n))
		}
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if info.Size() < from.off {
			return s, nil
		}
		if _, err := seeker.Seek(from.off, io.SeekStart); err != nil {
			return nil, err
		}
		s.tree, s.times, s.ats, s.bytes = *from.tree.Clone(), from.times, from.ats, from.off
		if len(wanted) > 0 && wanted[0] == s.first()+s.tree.Size() {
			s.at[wanted[0]] = *from
			wanted = wanted[1:]
		}
	}
	start := s.bytes
	r := newLineReader(f)
	r.tree = &s.tree
	defer r.flush()
	var times event.TimeReader
	for read := s.tree.Size(); ; read++ {
		line, err := r.next()
		switch {
		case err == io.EOF:
			s.ok = true
			return s, nil
		case errors.Is(err, errTornLine):
			s.torn = int64(len(line))
			s.ok = true
			return s, nil
		case errors.Is(err, errLongLine):
			return s, nil
		case err != nil:
			return nil, fmt.Errorf("%s: %w", layout.SegmentName(n), err)
		}
		index := s.first() + read
		if i, err := check(line); err != nil || i != index || read == layout.SegmentEvents {
			return s, nil
		}
		claimed, at, err := times.Times(line)
		if err != nil {
			return s, nil
		}
		s.times.Add(claimed)
		s.ats.Add(at)
		if index >= covered {
			if len(s.tail) == 0 {
				s.tail = []tailEvent{{index: index}}
			}
			s.tail[0].ats.Add(at)
		}
		if e := ownEvent(line); e != nil {
			s.own = append(s.own, e)
			if m, err := prunedEvent(e, line); err == nil && index < covered {
				s.pruned = m
			}
		}
		if b := blobIn(line); b != nil {
			s.blobs = append(s.blobs, blobRef{index, *b})
		}
		r.addLeaf()
		s.bytes = start + r.off
		if len(wanted) > 0 && wanted[0] == index+1 {
			r.flush()
			s.at[index+1] = segmentPoint{*s.tree.Clone(), s.bytes, s.times, s.ats}
			wanted = wanted[1:]
		}
	}
}
