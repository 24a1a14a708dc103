package chain

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

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

// diagnose reads a segment in which a line is not in its place and names what
// is wrong with each. last is true for the segment at the log's end.
func diagnose(fsys fs.FS, n int64, last bool, size int64) ([]Fault, error) {
	f, err := fsys.Open(layout.SegmentName(n))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	first := n * layout.SegmentEvents
	end := first + layout.SegmentEvents
	if last {
		end = min(end, size)
	}
	var d diagnosis
	d.leaves = make(map[int64]merkle.Hash)
	d.next = first
	r := newLineReader(f)
	for {
		line, err := r.next()
		if err == io.EOF {
			break
		}
		if errors.Is(err, errTornLine) {
			if !last {
				d.bad++
			}
			break
		}
		if err != nil && !errors.Is(err, errLongLine) {
			return nil, err
		}
		i, bad := event.Check(line)
		if err != nil || bad != nil || i < first || i >= first+layout.SegmentEvents {
			d.bad++
			continue
		}
		d.line(i, d.hasher.Leaf(line))
	}
	d.finish(end)
	return d.faults, nil
}

// A diagnosis compares the indexes that lines have with those they should
// have.
type diagnosis struct {
	next    int64                 // the index that should come
	bad     int64                 // lines since the last good one that cannot be read
	leaves  map[int64]merkle.Hash // of the lines that were seen
	missing []int64               // indexes that were passed over, in order
	faults  []Fault
	hasher  merkle.Hasher
}

func (d *diagnosis) add(kind FaultKind, index, last int64, detail string) {
	d.faults = append(d.faults, Fault{kind, index, max(last, index), detail})
}

func (d *diagnosis) line(i int64, leaf merkle.Hash) {
	gap := i - d.next
	switch {
	case gap >= 0:
		// What could not be read stands for what was passed over; what is
		// left of either was inserted or is missing.
		changed := min(gap, d.bad)
		if changed > 0 {
			d.add(FaultChanged, d.next, d.next+changed-1, "its checksum does not match")
		}
		if d.bad > gap {
			d.add(FaultInserted, i, i, fmt.Sprintf("%d lines that are no events stand before it", d.bad-gap))
		}
		for k := d.next + changed; k < i; k++ {
			d.missing = append(d.missing, k)
		}
		d.next = i + 1
	default:
		if d.bad > 0 {
			d.add(FaultInserted, d.next, d.next, fmt.Sprintf("%d lines that are no events stand before it", d.bad))
		}
		at, late := slices.BinarySearch(d.missing, i)
		seen, twice := d.leaves[i]
		switch {
		case late:
			d.missing = slices.Delete(d.missing, at, at+1)
			d.add(FaultReordered, i, i, fmt.Sprintf("it stands behind #%d", d.next-1))
		case twice && seen == leaf:
			d.add(FaultDuplicated, i, i, "")
		default:
			d.add(FaultInserted, i, i, "another event has its index")
		}
	}
	d.bad = 0
	if _, twice := d.leaves[i]; !twice {
		d.leaves[i] = leaf
	}
}

// finish ends the segment, whose events should have reached end.
func (d *diagnosis) finish(end int64) {
	if d.bad > 0 {
		changed := min(d.bad, max(end-d.next, 0))
		if changed > 0 {
			d.add(FaultChanged, d.next, d.next+changed-1, "its checksum does not match")
		}
		if d.bad > changed {
			d.add(FaultInserted, d.next+changed, 0, fmt.Sprintf("%d lines that are no events", d.bad-changed))
		}
		d.next += changed
	}
	for len(d.missing) > 0 {
		n := 1
		for n < len(d.missing) && d.missing[n] == d.missing[0]+int64(n) {
			n++
		}
		d.add(FaultDeleted, d.missing[0], d.missing[n-1], "")
		d.missing = d.missing[n:]
	}
	if d.next < end {
		d.add(FaultTruncated, d.next, end-1, "the segment ends before it")
	}
}
