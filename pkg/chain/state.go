package chain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// A State is how far a log was found to be good, with what is needed to go on
// from there. Whoever keeps one where the log's host can't reach it has a pin.
type State struct {
	Key     string        `json:"key"` // the log's
	Size    int64         `json:"tree_size"`
	Root    merkle.Hash   `json:"root"`
	Roots   []merkle.Hash `json:"roots"`   // of the perfect subtrees of Size, largest first
	Offset  int64         `json:"offset"`  // where event Size begins in its segment
	Time    layout.Span   `json:"time"`    // of the events of that segment below Size
	At      layout.Span   `json:"at"`      // likewise
	Archive int64         `json:"archive"` // bytes of the archive of checkpoints
	Epochs  merkle.Hash   `json:"epochs"`  // SHA-256 of the lines of the file of epochs that are of events below Size
	Pruned  int64         `json:"pruned"`  // events that were deleted
}

// ReadState reads a State from the JSON that it is kept as.
func ReadState(data []byte) (*State, error) {
	s := new(State)
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(s); err != nil {
		return nil, fmt.Errorf("verified state: %w", err)
	}
	if s.point() == nil {
		return nil, errors.New("verified state: its parts do not fit together")
	}
	return s, nil
}

// point is where reading goes on in the segment that event Size is in; nil if
// the state makes no sense.
func (s *State) point() *segmentPoint {
	whole, err := merkle.NewRange(s.Size, s.Roots)
	if err != nil || whole.Root() != s.Root || s.Size <= 0 || s.Offset < 0 || s.Archive < 0 {
		return nil
	}
	within := s.Size % layout.SegmentEvents
	before, _ := splitRange(whole)
	part, err := merkle.NewRange(within, s.Roots[before:])
	if err != nil || (within == 0) != (s.Offset == 0) {
		return nil
	}
	return &segmentPoint{*part, s.Offset, s.Time, s.At}
}

// splitRange returns how many of a range's roots are of full segments.
func splitRange(r *merkle.Range) (full int, size int64) {
	size = r.Size() &^ (layout.SegmentEvents - 1)
	for n := size; n > 0; n &= n - 1 {
		full++
	}
	return full, size
}

// state returns what was found good, for the next verification.
func (v *verifier) state() *State {
	size := v.report.Size
	if size == 0 || v.ring == nil {
		return nil
	}
	st := &State{Key: v.report.Key, Size: size, Root: v.report.Root, Archive: v.archive, Pruned: v.report.Pruned}
	var err error
	if st.Epochs, err = epochsHash(v.epochs, size); err != nil {
		return nil
	}
	var tree merkle.Range
	for n := range size / layout.SegmentEvents {
		root := merkle.Hash{}
		switch s := v.scanOf(n * layout.SegmentEvents); {
		case s != nil && s.ok && s.tree.Size() == layout.SegmentEvents:
			root = s.tree.Root()
		case n < int64(len(v.seals)):
			root = v.seals[n].Root
		default:
			return nil
		}
		if tree.AppendSubtree(root, layout.SegmentLevel) != nil {
			return nil
		}
	}
	whole := &tree
	if size%layout.SegmentEvents != 0 {
		p := (*segmentPoint)(nil)
		for _, s := range v.scans {
			if at, ok := s.at[size]; ok {
				p = &at
			}
		}
		if p == nil {
			return nil
		}
		if whole, err = tree.Join(&p.tree); err != nil {
			return nil
		}
		st.Offset, st.Time, st.At = p.off, p.times, p.ats
	}
	st.Roots = whole.Roots()
	if st.point() == nil {
		return nil
	}
	return st
}

// readFrom returns the index of the first event that was read.
func (v *verifier) readFrom() int64 {
	if v.o.Since != nil {
		return v.o.Since.Size
	}
	if len(v.scans) > 0 && v.pruned != nil {
		return v.scans[0].first()
	}
	return 0
}

// readArchive reads the archive of checkpoints, from where it was read before.
func (v *verifier) readArchive() ([]byte, error) {
	if v.o.Since == nil {
		return readOptional(v.fsys, layout.Checkpoints)
	}
	v.archive = v.o.Since.Archive
	f, err := v.fsys.Open(layout.Checkpoints)
	if errors.Is(err, fs.ErrNotExist) {
		v.fault(FaultCheckpoint, v.o.Since.Size, 0, "the archive of checkpoints is gone")
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() < v.archive {
		v.fault(FaultCheckpoint, v.o.Since.Size, 0, "the archive of checkpoints has %d bytes, it had %d", info.Size(), v.archive)
		return nil, nil
	}
	seeker, ok := f.(io.Seeker)
	if !ok {
		return nil, fmt.Errorf("%s: the file system cannot read from the middle", layout.Checkpoints)
	}
	if _, err := seeker.Seek(v.archive, io.SeekStart); err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}

// checkEpochsFile compares the lines of the file of epochs that are of events
// which were not read, with the hash of them that was kept.
func (v *verifier) checkEpochsFile(read int64) {
	want, by := merkle.Hash{}, ""
	if since := v.o.Since; since != nil {
		want, by = since.Epochs, "what was verified earlier"
	} else if v.pruned.end() == read {
		want, by = v.pruned.Epochs, fmt.Sprintf("event %d", v.pruned.index)
	} else {
		return
	}
	if have, err := epochsHash(v.epochs, read); err != nil || have != want {
		v.fault(FaultEpoch, 0, read-1, "file %s has other keys than %s says", layout.Epochs, by)
	}
}
