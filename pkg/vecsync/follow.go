package vecsync

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

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

	roots  map[int64]merkle.Hash // of the segments that became full in this run
	pruned []layout.Pruned       // what the log said in this run that it deletes
}

const followerKey = "follower"

type followerJSON struct {
	Ring   *layout.Keyring `json:"keys"`
	Size   int64           `json:"size"`
	Sealed []merkle.Hash   `json:"sealed"`
	Active []merkle.Hash   `json:"active"`
}

func (f *follower) save() ([]byte, error) {
	return json.Marshal(followerJSON{f.ring, f.size(), f.sealed.Roots(), f.active.Roots()})
}

func loadFollower(data []byte) (*follower, error) {
	f := &follower{roots: make(map[int64]merkle.Hash)}
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
	f.ring, f.sealed, f.active = j.Ring, *sealed, *active
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
			var p layout.Pruned
			if err := json.Unmarshal(e.Data, &p); err != nil {
				return taken, found(FindingLine, index, "%v", err)
			}
			f.pruned = append(f.pruned, p)
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

// skip begins a follower behind the segments that were pruned before anybody
// looked: their roots are those of the seals, their keys those of the file of
// epochs. The checkpoint shows later whether both are right.
func (f *follower) skip(first int64, seals, epochs []byte) error {
	list, _, err := layout.ParseSeals(seals)
	if err != nil {
		return found(FindingSeal, 0, "%v", err)
	}
	if int64(len(list)) < first {
		return found(FindingRemoved, 0, "the log begins with %s and has no seals of what was before", layout.SegmentName(first))
	}
	for _, s := range list[:first] {
		if err := f.sealed.AppendSubtree(s.Root, layout.SegmentLevel); err != nil {
			return err
		}
	}
	if f.ring, err = layout.ReadKeyringBelow(epochs, f.sealed.Size()); err != nil {
		return found(FindingKeys, 0, "%v", err)
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

// checkSeals compares the seals in a file of seals with the segments that lie
// below size, as far as f has hashed them itself in this run.
func checkSeals(data []byte, roots map[int64]merkle.Hash) error {
	seals, _, err := layout.ParseSeals(bytes.Clone(data))
	if err != nil {
		return found(FindingSeal, int64(len(seals))*layout.SegmentEvents, "%v", err)
	}
	for _, s := range seals {
		if root, known := roots[s.Segment]; known && root != s.Root {
			return found(FindingSeal, s.Segment*layout.SegmentEvents, "the seal of %s has another root than its events", layout.SegmentName(s.Segment))
		}
	}
	return nil
}
