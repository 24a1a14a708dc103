package chain

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// PruneOptions say what PlanPrune chooses: all full segments that Before or
// KeepBytes lets go, oldest first.
type PruneOptions struct {
	Before    time.Time // the log's clock (at) of all of a segment's events is before it
	KeepBytes int64     // the segments that stay have more bytes than this together with one more; if > 0
	Stand     []Stand   // nothing is pruned that one of these has not seen
}

// A Stand is the size of the log that somebody else knows, and that they must
// be able to get from to later sizes.
type Stand struct {
	Name string // for people: "cursor /var/lib/…"
	Size int64
}

// A PrunePlan says which segments go.
type PrunePlan struct {
	First, Last int64       // segments
	Root        merkle.Hash // of the tree of all events before the end of Last
	Bytes       int64       // of the segments
}

// Events returns how many events go.
func (p *PrunePlan) Events() int64 { return (p.Last - p.First + 1) * layout.SegmentEvents }

// A standError is the refusal to prune what somebody still needs.
type standError struct {
	stand Stand
	most  int64 // segments that may go
}

func (e *standError) Error() string {
	return fmt.Sprintf("not pruned: %s stands at %d events and could not go on from there", e.stand.Name, e.stand.Size)
}
func (e *standError) Hint() string {
	return fmt.Sprintf("let it catch up; until then %d segments can go", e.most)
}

// PlanPrune chooses the segments to prune and makes sure that each is what was
// sealed, so that no trace of a change is deleted as outdated. It returns nil
// if none can go.
func PlanPrune(ctx context.Context, fsys fs.FS, o PruneOptions) (*PrunePlan, error) {
	note, err := readOptional(fsys, layout.Checkpoint)
	if err != nil {
		return nil, err
	}
	ring, err := readKeyring(fsys)
	if err != nil {
		return nil, err
	}
	c, err := ring.Open(note)
	if err != nil {
		return nil, &unverifiedError{err}
	}
	data, err := readOptional(fsys, layout.Seals)
	if err != nil {
		return nil, err
	}
	seals, _, err := layout.ParseSeals(data)
	if err != nil {
		return nil, &unverifiedError{err}
	}
	present, err := segments(fsys)
	if err != nil {
		return nil, err
	}
	sizes := make(map[int64]int64)
	var total int64
	for _, n := range present {
		info, err := fs.Stat(fsys, layout.SegmentName(n))
		if err != nil {
			return nil, err
		}
		sizes[n] = info.Size()
		total += info.Size()
	}
	p := &PrunePlan{First: present[0], Last: present[0] - 1}
	for _, n := range present {
		old := !o.Before.IsZero() && n < int64(len(seals)) && seals[n].At.Max.Before(o.Before)
		much := o.KeepBytes > 0 && total-p.Bytes > o.KeepBytes
		if n != p.Last+1 || n >= int64(len(seals)) || (n+1)*layout.SegmentEvents > c.Size || !old && !much {
			break
		}
		p.Last, p.Bytes = n, p.Bytes+sizes[n]
	}
	if p.Last < p.First {
		return nil, nil
	}
	for _, s := range o.Stand {
		if end := (p.Last + 1) * layout.SegmentEvents; s.Size < end {
			return nil, &standError{s, max(0, s.Size/layout.SegmentEvents-p.First)}
		}
	}
	var tree merkle.Range
	for _, s := range seals[:p.Last+1] {
		if err := tree.AppendSubtree(s.Root, layout.SegmentLevel); err != nil {
			return nil, err
		}
	}
	p.Root = tree.Root()
	for n := p.First; n <= p.Last; n++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s, err := scanSegment(fsys, n, nil, c.Size, nil, true)
		if err != nil {
			return nil, err
		}
		if !s.ok || s.tree.Size() != layout.SegmentEvents || s.tree.Root() != seals[n].Root {
			return nil, &unverifiedError{fmt.Errorf("not pruned: %s is not what was sealed; gb-chain verify names what is wrong", layout.SegmentName(n))}
		}
	}
	return p, nil
}

// Prune deletes what p says. The order makes sure that a crash at any point
// leaves a log that verifies:
//
//	an event with the range, the root and the reason is appended, synced
//	the event's line replaces the file pruned
//	a checkpoint over the event is published
//	each segment's blobs that no later event has are deleted, then the segment
//
// Open brings an interrupted deletion to its end.
func (l *Log) Prune(p *PrunePlan, reason string) error {
	if l.failed != nil {
		return l.failed
	}
	if reason == "" {
		return &configError{errors.New("prune: no reason was given"), "--reason says for good in the log why"}
	}
	data, err := readOptional(l.st, layout.Seals)
	if err != nil {
		return err
	}
	seals, _, err := layout.ParseSeals(data)
	if err != nil {
		return &DamagedError{l.dir, err}
	}
	var tree merkle.Range
	root := merkle.EmptyRoot
	for n, s := range seals {
		if err := tree.AppendSubtree(s.Root, layout.SegmentLevel); err != nil {
			return err
		}
		if int64(n) == p.Last {
			root = tree.Root()
		}
	}
	if tree.Size() != l.sealed.Size() || tree.Root() != l.sealed.Root() || root != p.Root {
		return &DamagedError{l.dir, errors.New("its seals are not those that it was written with")}
	}
	present, err := segments(l.st)
	if err != nil {
		return err
	}
	if p.First != present[0] || p.Last < p.First || p.Last >= l.sealed.Size()/layout.SegmentEvents {
		return &configError{fmt.Errorf("prune: the segments %d to %d are not the oldest full ones", p.First, p.Last), ""}
	}
	lines, err := readOptional(l.st, layout.Epochs)
	if err != nil {
		return err
	}
	epochs, err := epochsHash(lines, (p.Last+1)*layout.SegmentEvents)
	if err != nil {
		return &DamagedError{l.dir, err}
	}
	draft, err := event.Own(layout.TypePruned, event.Warning, fmt.Sprintf("events before %d are deleted: %s", (p.Last+1)*layout.SegmentEvents, reason),
		layout.Pruned{First: p.First, Last: p.Last, Events: p.Events(), Root: p.Root, Epochs: epochs, Reason: reason})
	if err != nil {
		return err
	}
	if err := l.appendOwn(draft); err != nil {
		return err
	}
	return l.finishPruning()
}

// finishPruning deletes what the file pruned says and still is there.
func (l *Log) finishPruning() error {
	line, err := readOptional(l.st, layout.PrunedFile)
	if err != nil || len(line) == 0 {
		return err
	}
	mark, err := parsePruned(line)
	if err != nil {
		return &DamagedError{l.dir, fmt.Errorf("%s: %w", layout.PrunedFile, err)}
	}
	present, err := segments(l.st)
	if err != nil {
		return err
	}
	var going, staying []int64
	for _, n := range present {
		if n <= mark.Last {
			going = append(going, n)
		} else {
			staying = append(staying, n)
		}
	}
	if len(going) == 0 {
		return nil
	}
	if len(staying) == 0 || mark.index >= l.Size() {
		return &DamagedError{l.dir, fmt.Errorf("%s names an event that is not in the log", layout.PrunedFile)}
	}
	// The log itself must say so, not a file that anybody could have put
	// there.
	if err := hasLine(l.st, mark); err != nil {
		return &DamagedError{l.dir, err}
	}
	if l.last.Size <= mark.index {
		if err := l.checkpoint(true); err != nil {
			return err
		}
	}
	kept := map[string]bool{}
	counted := false
	for _, n := range going {
		blobs, err := blobsOf(l.st, n)
		if err != nil {
			return err
		}
		if len(blobs) > 0 && !counted {
			for _, m := range staying {
				later, err := blobsOf(l.st, m)
				if err != nil {
					return err
				}
				for _, b := range later {
					kept[b] = true
				}
			}
			counted = true
		}
		for _, b := range blobs {
			if kept[b] {
				continue
			}
			if err := l.st.Remove(layout.BlobName(b)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("prune: %w", err)
			}
		}
		if err := l.st.Remove(layout.SegmentName(n)); err != nil {
			return fmt.Errorf("prune: %w", err)
		}
	}
	return l.note(l.st.SyncDir("."))
}

// A prunedMark is the newest event that says what was deleted.
type prunedMark struct {
	layout.Pruned
	index int64
	line  []byte
}

// end returns the index of the first event that stays.
func (m *prunedMark) end() int64 {
	if m == nil {
		return 0
	}
	return (m.Last + 1) * layout.SegmentEvents
}

func parsePruned(line []byte) (*prunedMark, error) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	if _, err := event.Check(line); err != nil {
		return nil, err
	}
	e := ownEvent(line)
	if e == nil {
		return nil, errors.New("not an event of the log's own")
	}
	return prunedEvent(e, line)
}

// prunedEvent returns the mark that an event is, nil if it is another one.
func prunedEvent(e *event.Event, line []byte) (*prunedMark, error) {
	if e.Type != layout.TypePruned {
		return nil, fmt.Errorf("event %d is a %s", e.Index, e.Type)
	}
	m := &prunedMark{index: e.Index, line: bytes.Clone(line)}
	if err := json.Unmarshal(e.Data, &m.Pruned); err != nil {
		return nil, fmt.Errorf("event %d: %w", e.Index, err)
	}
	if m.First < 0 || m.Last < m.First || m.Last >= e.Index/layout.SegmentEvents {
		return nil, fmt.Errorf("event %d says that the segments %d to %d are pruned", e.Index, m.First, m.Last)
	}
	return m, nil
}

// readPruned returns the mark in the file pruned, nil if there is none.
func readPruned(fsys fs.FS) (*prunedMark, error) {
	line, err := readOptional(fsys, layout.PrunedFile)
	if err != nil || len(line) == 0 {
		return nil, err
	}
	m, err := parsePruned(line)
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", layout.PrunedFile, err)
	}
	return m, nil
}

// hasLine makes sure that the mark's line stands in the log.
func hasLine(fsys fs.FS, m *prunedMark) error {
	n := m.index / layout.SegmentEvents
	f, err := fsys.Open(layout.SegmentName(n))
	if err != nil {
		return err
	}
	defer f.Close()
	r := newLineReader(f)
	for at := n * layout.SegmentEvents; ; at++ {
		line, err := r.next()
		switch {
		case err == nil && at < m.index:
		case err == nil && bytes.Equal(line, m.line):
			return nil
		case err == nil || err == io.EOF || errors.Is(err, errTornLine):
			return fmt.Errorf("%s is not event %d of the log", layout.PrunedFile, m.index)
		default:
			return fmt.Errorf("%s: %w", layout.SegmentName(n), err)
		}
	}
}

// blobsOf returns the names of the blobs that a segment's events have.
func blobsOf(fsys fs.FS, n int64) (names []string, err error) {
	f, err := fsys.Open(layout.SegmentName(n))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := newLineReader(f)
	for {
		line, err := r.next()
		if err == io.EOF || errors.Is(err, errTornLine) {
			return names, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", layout.SegmentName(n), err)
		}
		if b := blobIn(line); b != nil && checkBlobName(*b) == nil {
			names = append(names, b.SHA256)
		}
	}
}

// blobIn returns the blob that a line names, nil if none.
func blobIn(line []byte) *event.Blob {
	if !bytes.Contains(line, blobMark) {
		return nil
	}
	e, err := event.Decode(line)
	if err != nil {
		return nil
	}
	return e.Blob
}

// epochsHash is the hash of the lines of a file of epochs that are of events
// below end.
func epochsHash(data []byte, end int64) (merkle.Hash, error) {
	h := sha256.New()
	for line := range bytes.Lines(data) {
		e, err := event.Decode(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			return merkle.Hash{}, fmt.Errorf("%s: %w", layout.Epochs, err)
		}
		if e.Index >= end {
			break
		}
		h.Write(line)
	}
	return merkle.Hash(h.Sum(nil)), nil
}
