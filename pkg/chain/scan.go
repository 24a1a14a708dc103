package chain

import (
	"bytes"
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
	at     map[int64]merkle.Range // the tree as it was at sizes that were asked for, by absolute size
	own    []*event.Event
	blobs  []blobRef
	times  layout.Span
	ats    layout.Span
	tail   []tailEvent // events at and above the size given as covered
	torn   int64       // bytes of a last line without an end
	ok     bool        // every line was in its place
	bytes  int64
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

var blobMark = []byte(`"blob":{"sha256":`)

// scanSegment reads segment n. wanted are the sizes, within the segment and
// above its first index, at which its tree is wanted, in order. covered is the
// size up to which a checkpoint covers the log. Reading stops at the first
// line that is not in its place; ok is false then.
func scanSegment(fsys fs.FS, n int64, wanted []int64, covered int64) (*segmentScan, error) {
	s := &segmentScan{number: n, at: make(map[int64]merkle.Range)}
	f, err := fsys.Open(layout.SegmentName(n))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := newLineReader(f)
	var h merkle.Hasher
	for {
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
		index := s.first() + s.tree.Size()
		if i, err := event.Check(line); err != nil || i != index || s.tree.Size() == layout.SegmentEvents {
			return s, nil
		}
		claimed, at, err := event.Times(line)
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
		}
		if bytes.Contains(line, blobMark) {
			if e, err := event.Decode(line); err == nil && e.Blob != nil {
				s.blobs = append(s.blobs, blobRef{index, *e.Blob})
			}
		}
		s.tree.Append(h.Leaf(line))
		s.bytes = r.off
		if len(wanted) > 0 && wanted[0] == index+1 {
			s.at[index+1] = *s.tree.Clone()
			wanted = wanted[1:]
		}
	}
}
