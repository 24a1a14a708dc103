package vecsync

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// A follower is the ingester's own view of a log: its tree and chain of keys
// as of the events that are in the index. It is fed the segments' bytes in
// order.
type follower struct {
	ring   *layout.Keyring // nil before event 0
	sealed merkle.Range
	active merkle.Range
	hasher merkle.Hasher

	// roots are those of full segments of which no seal was seen yet.
	roots map[int64]merkle.Hash
	// seals is how many seals were seen and compared, sealsHash that of their
	// lines: they never change any more.
	seals     int64
	sealsHash [sha256.Size]byte
	// pruned is the first segment that no log.pruned names.
	pruned int64
	// left are the events, not pruned, that are not in the index: somebody has
	// accepted that they are gone or spoilt.
	left []Span
}

const followerKey = "follower"

// A Span is the events from First to Last.
type Span struct {
	First int64 `json:"first"`
	Last  int64 `json:"last"`
}

// leftOut says whether nothing of segment n is in the index.
func (f *follower) leftOut(n int64) bool {
	return slices.ContainsFunc(f.left, func(s Span) bool {
		return s.First == n*layout.SegmentEvents && s.Last == (n+1)*layout.SegmentEvents-1
	})
}

// pruneLeft forgets what was left out of segments that are pruned now.
func (f *follower) pruneLeft() {
	f.left = slices.DeleteFunc(f.left, func(s Span) bool { return s.Last < f.pruned*layout.SegmentEvents })
}

type followerJSON struct {
	Ring      *layout.Keyring       `json:"keys"`
	Size      int64                 `json:"size"`
	Sealed    []merkle.Hash         `json:"sealed"`
	Active    []merkle.Hash         `json:"active"`
	Roots     map[int64]merkle.Hash `json:"roots,omitempty"`
	Seals     int64                 `json:"seals"`
	SealsHash []byte                `json:"seals_sha256"`
	Pruned    int64                 `json:"pruned"`
	Left      []Span                `json:"left_out,omitempty"`
}

func (f *follower) save() ([]byte, error) {
	return json.Marshal(followerJSON{f.ring, f.size(), f.sealed.Roots(), f.active.Roots(), f.roots, f.seals, f.sealsHash[:], f.pruned, f.left})
}

// readFollower returns the follower as it stands in the state of an index.
func readFollower(ix getter) (*follower, error) {
	data, err := ix.Get(followerKey)
	if err == nil && data != nil {
		err = checkVersion(ix)
	}
	if err != nil {
		return nil, err
	}
	return loadFollower(data)
}

func loadFollower(data []byte) (*follower, error) {
	f := &follower{roots: make(map[int64]merkle.Hash), sealsHash: sha256.Sum256(nil)}
	if data == nil {
		return f, nil
	}
	var j followerJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return nil, fmt.Errorf("state of the tree: %w", err)
	}
	part := j.Size % layout.SegmentEvents
	sealed, err := merkle.NewRange(j.Size-part, j.Sealed)
	if err != nil {
		return nil, fmt.Errorf("state of the tree: %w", err)
	}
	active, err := merkle.NewRange(part, j.Active)
	if err != nil {
		return nil, fmt.Errorf("state of the tree: %w", err)
	}
	if len(j.SealsHash) != len(f.sealsHash) {
		return nil, fmt.Errorf("state of the tree: hash of %d bytes", len(j.SealsHash))
	}
	f.ring, f.sealed, f.active, f.pruned, f.left = j.Ring, *sealed, *active, j.Pruned, j.Left
	f.seals, f.sealsHash = j.Seals, [sha256.Size]byte(j.SealsHash)
	if j.Roots != nil {
		f.roots = j.Roots
	}
	return f, nil
}

// size is the number of events in the tree.
func (f *follower) size() int64 { return f.sealed.Size() + f.active.Size() }

func (f *follower) root() (merkle.Hash, error) {
	r, err := f.sealed.Join(&f.active)
	if err != nil {
		return merkle.Hash{}, err
	}
	return r.Root(), nil
}

// segment is the number of the segment that the next event stands in.
func (f *follower) segment() int64 { return f.size() / layout.SegmentEvents }

// take takes lines from r, which stands at the beginning of the next event's
// line, until the tree has size events or the segment is full. It calls each
// with every event and returns how many bytes it has taken.
func (f *follower) take(r io.Reader, size int64, each func(*event.Event) error) (taken int64, err error) {
	br := bufio.NewReaderSize(r, 128<<10)
	n := f.segment()
	for f.size() < size && f.segment() == n {
		index := f.size()
		line, err := br.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return taken, found(FindingLine, index, "the segment ends before the event, which a checkpoint covers")
		case errors.Is(err, bufio.ErrBufferFull):
			return taken, found(FindingLine, index, "its line is too long")
		case err != nil:
			return taken, err
		}
		i, err := event.Check(line[:len(line)-1])
		if err != nil {
			return taken, found(FindingLine, index, "%v", err)
		}
		if i != index {
			return taken, found(FindingLine, index, "event %d stands in its place", i)
		}
		e, err := event.Decode(line[:len(line)-1])
		if err != nil {
			return taken, found(FindingLine, index, "%v", err)
		}
		if f.ring == nil {
			if f.ring, err = layout.NewKeyring(e); err != nil {
				return taken, found(FindingKeys, index, "%v", err)
			}
		} else if err := f.ring.Observe(e); err != nil {
			return taken, found(FindingKeys, index, "%v", err)
		}
		if e.Type == layout.TypePruned {
			if err := f.prune(e); err != nil {
				return taken, err
			}
		}
		f.active.Append(f.hasher.Leaf(line[:len(line)-1]))
		taken += int64(len(line))
		if err := each(e); err != nil {
			return taken, err
		}
		if f.active.Size() == layout.SegmentEvents {
			f.roots[n] = f.active.Root()
			if err := f.sealed.AppendSubtree(f.roots[n], layout.SegmentLevel); err != nil {
				return taken, err
			}
			f.active = merkle.Range{}
		}
	}
	return taken, nil
}

// prune takes the event that says what the log deletes: always all segments
// up to one, of which the event itself is in none.
func (f *follower) prune(e *event.Event) error {
	var p layout.Pruned
	if err := json.Unmarshal(e.Data, &p); err != nil {
		return found(FindingLine, e.Index, "%v", err)
	}
	if p.Last < p.First || p.First < 0 || p.Last >= e.Index/layout.SegmentEvents {
		return found(FindingLine, e.Index, "it says that the segments %d to %d are pruned", p.First, p.Last)
	}
	f.pruned = max(f.pruned, p.Last+1)
	return nil
}

// skip brings the tree up to the beginning of segment first without the events
// before: their roots are those of the seals, their keys those of the file of
// epochs. The checkpoint shows later whether both are right.
func (f *follower) skip(first int64, seals, epochs []byte) error {
	from, n := f.size(), f.segment()
	list, _, err := layout.ParseSeals(seals)
	if err != nil {
		return found(FindingSeal, from, "%v", err)
	}
	if int64(len(list)) < first {
		return found(FindingRemoved, from, "%s is not there, nor are the seals of what stood before %s", layout.SegmentName(n), layout.SegmentName(first))
	}
	for _, s := range list[n:first] {
		if err := f.sealed.AppendSubtree(s.Root, layout.SegmentLevel); err != nil {
			return err
		}
	}
	f.active = merkle.Range{}
	if f.ring == nil {
		if f.ring, err = layout.ReadKeyringBelow(epochs, f.sealed.Size()); err != nil {
			return found(FindingKeys, from, "%v", err)
		}
		return nil
	}
	for line := range bytes.Lines(epochs) {
		e, err := event.Decode(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			return found(FindingKeys, from, "epochs: %v", err)
		}
		if e.Index < from || e.Index >= f.sealed.Size() {
			continue
		}
		if err := f.ring.Observe(e); err != nil {
			return found(FindingKeys, e.Index, "%v", err)
		}
	}
	return nil
}

// close compares the tree with the checkpoint that it has been brought to.
func (f *follower) close(note []byte) (merkle.Checkpoint, error) {
	if f.ring == nil {
		return merkle.Checkpoint{}, found(FindingKeys, 0, "the log has no first event")
	}
	c, err := f.ring.Open(note)
	if err != nil {
		return c, found(FindingSignature, f.size(), "%v", err)
	}
	root, err := f.root()
	if err != nil {
		return c, err
	}
	if c.Size != f.size() || c.Root != root {
		return c, found(FindingRoot, f.size(), "the first %d events have the root %s, the checkpoint over %d says %s", f.size(), root, c.Size, c.Root)
	}
	return c, nil
}

// checkSeals compares the file of seals with what was in it before, and its
// new lines with the segments that were hashed here.
func (f *follower) checkSeals(data []byte) error {
	whole := data[:bytes.LastIndexByte(data, '\n')+1]
	lines := whole
	for range f.seals {
		at := bytes.IndexByte(lines, '\n')
		if at < 0 {
			return found(FindingSeal, 0, "%d seals are gone", f.seals-int64(bytes.Count(whole, []byte("\n"))))
		}
		lines = lines[at+1:]
	}
	if sha256.Sum256(whole[:len(whole)-len(lines)]) != f.sealsHash {
		return found(FindingSeal, 0, "the first %d seals were changed", f.seals)
	}
	seals, _, err := layout.ParseSeals(whole)
	if err != nil {
		return found(FindingSeal, int64(len(seals))*layout.SegmentEvents, "%v", err)
	}
	// A seal that came before a checkpoint covers its segment waits.
	seals = seals[:min(int64(len(seals)), f.sealed.Size()>>layout.SegmentLevel)]
	end := whole[:len(whole)-len(lines)]
	for _, s := range seals[min(f.seals, int64(len(seals))):] {
		if root, known := f.roots[s.Segment]; known && root != s.Root {
			return found(FindingSeal, s.Segment*layout.SegmentEvents, "the seal of %s has another root than its events", layout.SegmentName(s.Segment))
		}
		delete(f.roots, s.Segment)
		end = whole[:len(end)+bytes.IndexByte(whole[len(end):], '\n')+1]
	}
	f.seals, f.sealsHash = max(f.seals, int64(len(seals))), sha256.Sum256(end)
	return nil
}
