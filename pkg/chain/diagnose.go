package chain

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sort"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// maxDiagnosed bounds the lines of a segment that diagnose looks at, so that
// one blown up by an intruder costs no more memory than this.
const maxDiagnosed = 4 * layout.SegmentEvents

// diagnose reads a segment in which a line is not in its place and names what
// is wrong with each. last is true for the segment at the log's end, size is
// what the largest checkpoint covers.
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
	d := diagnosis{segment: n}
	r := newLineReader(f)
	var h merkle.Hasher
	bad := int64(0)
	for lines := 0; ; lines++ {
		line, err := r.next()
		if err == io.EOF {
			break
		}
		if errors.Is(err, errTornLine) {
			if !last {
				bad++
			}
			break
		}
		if err != nil && !errors.Is(err, errLongLine) {
			return nil, err
		}
		if lines == maxDiagnosed {
			d.add(FaultInserted, end, end, fmt.Sprintf("%s has more than %d lines; the others were not looked at", layout.SegmentName(n), maxDiagnosed))
			break
		}
		i, unread := event.Check(line)
		switch {
		case err != nil || unread != nil:
			bad++
		case i < first || i >= first+layout.SegmentEvents:
			d.foreign = append(d.foreign, i)
		default:
			d.seen = append(d.seen, seenLine{i, h.Leaf(line), bad})
			bad = 0
		}
	}
	d.judge(first, end, bad)
	return d.faults, nil
}

// A diagnosis compares the indexes that lines have with those they should
// have.
type diagnosis struct {
	segment int64
	seen    []seenLine
	foreign []int64 // indexes of good lines that belong into other segments
	faults  []Fault
}

// seenLine is a line whose checksum is right.
type seenLine struct {
	index int64
	leaf  merkle.Hash
	bad   int64 // lines that cannot be read between this one and the one before
}

func (d *diagnosis) add(kind FaultKind, index, last int64, detail string) {
	d.faults = append(d.faults, Fault{kind, index, max(last, index), detail})
}

// judge takes the longest sequence of lines with rising indexes as those that
// are in their place. A line outside of it was moved there if no line in it
// has its index; otherwise it stands twice, or was inserted. What could not be
// read between two lines stands for the events that are missing there; what is
// left of either was inserted or deleted.
func (d *diagnosis) judge(first, end, trailing int64) {
	inPlace := longestRising(d.seen)
	leaves := make(map[int64]merkle.Hash, len(d.seen))
	for k, s := range d.seen {
		if inPlace[k] {
			leaves[s.index] = s.leaf
		}
	}
	moved := make(map[int64]bool)
	for k, s := range d.seen {
		if inPlace[k] {
			continue
		}
		leaf, known := leaves[s.index]
		switch {
		case !known && !moved[s.index]:
			moved[s.index] = true
			leaves[s.index] = s.leaf
			d.add(FaultReordered, s.index, s.index, "it does not stand in its place")
		case leaf == s.leaf:
			d.add(FaultDuplicated, s.index, s.index, "")
		default:
			d.add(FaultInserted, s.index, s.index, "another event has its index")
		}
	}
	next, bad := first, int64(0)
	gap := func(to int64) {
		var missing []int64
		for i := next; i < to; i++ {
			if !moved[i] {
				missing = append(missing, i)
			}
		}
		changed := min(int64(len(missing)), bad)
		d.ranges(FaultChanged, missing[:changed], "its checksum does not match")
		if bad > changed {
			d.add(FaultInserted, to, to, fmt.Sprintf("%d lines that are no events stand before it", bad-changed))
		}
		d.ranges(FaultDeleted, missing[changed:], "")
		bad = 0
	}
	for k, s := range d.seen {
		bad += s.bad
		if inPlace[k] {
			gap(s.index)
			next = s.index + 1
		}
	}
	bad += trailing
	if end <= next {
		gap(next)
	} else {
		// At the end nothing tells a deleted line from a cut.
		at := len(d.faults)
		gap(end)
		for i := at; i < len(d.faults); i++ {
			if f := &d.faults[i]; f.Kind == FaultDeleted {
				f.Kind, f.Detail = FaultTruncated, "the segment ends before it"
			}
		}
	}
	slices.Sort(d.foreign)
	d.ranges(FaultReordered, slices.Compact(d.foreign), "it stands in "+layout.SegmentName(d.segment))
}

// ranges adds a fault for each run of consecutive indexes.
func (d *diagnosis) ranges(kind FaultKind, indexes []int64, detail string) {
	for len(indexes) > 0 {
		n := 1
		for n < len(indexes) && indexes[n] == indexes[0]+int64(n) {
			n++
		}
		d.add(kind, indexes[0], indexes[n-1], detail)
		indexes = indexes[n:]
	}
}

// longestRising marks the lines of one longest strictly rising subsequence of
// indexes, in O(n log n).
func longestRising(lines []seenLine) []bool {
	var ends []int // ends[l] is the line with the least index that ends such a sequence of length l+1
	before := make([]int, len(lines))
	for k, s := range lines {
		l := sort.Search(len(ends), func(i int) bool { return lines[ends[i]].index >= s.index })
		before[k] = -1
		if l > 0 {
			before[k] = ends[l-1]
		}
		if l == len(ends) {
			ends = append(ends, k)
		} else {
			ends[l] = k
		}
	}
	in := make([]bool, len(lines))
	if len(ends) > 0 {
		for k := ends[len(ends)-1]; k >= 0; k = before[k] {
			in[k] = true
		}
	}
	return in
}

// settle drops what one segment misses and another one holds: it was moved,
// not deleted.
func settle(faults []Fault) []Fault {
	return slices.DeleteFunc(slices.Clone(faults), func(f Fault) bool {
		if f.Kind != FaultDeleted && f.Kind != FaultTruncated {
			return false
		}
		return slices.ContainsFunc(faults, func(r Fault) bool {
			return r.Kind == FaultReordered && r.Index <= f.Index && f.Last <= r.Last
		})
	})
}
