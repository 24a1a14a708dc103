package vecsync

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// RebuildOptions are those of Rebuild.
type RebuildOptions struct {
	// Old is the index that is replaced, for what it knows of a log that was
	// tampered with; nil if there is none. One of another version is not asked.
	Old interface{ Get(string) ([]byte, error) }
	// Accept leaves what can't be verified any more out of the index, as long
	// as the rest still leads to the log's checkpoint. Without it only what Old
	// has left out already is.
	Accept bool
	// Progress is called now and then with the number of events read and the
	// number that there are; may be nil.
	Progress func(done, size int64)
}

// Rebuild fills an empty index from the files of the log in dir: the same
// events and the same state of the tree as the streams would have brought. The
// cursor names no snapshot, so that the next stream must be a full one, which
// is then compared with what was read here.
//
// left says which events are not in the index although the log holds or held
// them: none unless findings were accepted.
func Rebuild(ix index.Writer, dir string, o RebuildOptions) (c Cursor, left []Span, err error) {
	// The checkpoint first: while a writer goes on, the segments can only be
	// ahead of it.
	b := &rebuild{ix: ix, dir: dir, o: o}
	if b.note, err = os.ReadFile(filepath.Join(dir, layout.Checkpoint)); err != nil {
		return Cursor{}, nil, fmt.Errorf("log: %w", err)
	}
	if b.target, err = merkle.ParseNote(b.note); err != nil {
		return Cursor{}, nil, found(FindingSignature, 0, "%v", err)
	}
	if b.seals, err = readOptional(filepath.Join(dir, layout.Seals)); err != nil {
		return Cursor{}, nil, fmt.Errorf("log: %w", err)
	}
	if b.epochs, err = readOptional(filepath.Join(dir, layout.Epochs)); err != nil {
		return Cursor{}, nil, fmt.Errorf("log: %w", err)
	}
	if o.Old != nil {
		var other *VersionError
		if b.old, err = readFollower(o.Old); err != nil && !errors.As(err, &other) {
			return Cursor{}, nil, err
		}
	}
	c, err = b.run(b.plain)
	var f *Finding
	if !errors.As(err, &f) || !o.Accept && (b.old == nil || len(b.old.left) == 0) {
		return c, nil, err
	}
	c, serr := b.run(b.salvage)
	if serr != nil {
		return Cursor{}, nil, errors.Join(err, fmt.Errorf("without what is spoilt: %w", serr))
	}
	return c, b.l.follow.left, nil
}

func readOptional(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

type rebuild struct {
	ix            index.Writer
	dir           string
	o             RebuildOptions
	note          []byte
	target        merkle.Checkpoint
	seals, epochs []byte

	old *follower // of the index that is replaced, nil if there is none

	l  *logState
	tx index.Tx
}

// run makes the index in one transaction, with what read reads.
func (b *rebuild) run(read func() error) (Cursor, error) {
	b.l = &logState{in: &ingester{ix: b.ix}, small: make(map[string]*smallFile), known: make(map[int64]*segment)}
	var err error
	if b.l.follow, err = loadFollower(nil); err != nil {
		return Cursor{}, err
	}
	if b.tx, err = b.ix.Begin(); err != nil {
		return Cursor{}, err
	}
	defer b.tx.Rollback()
	if err := read(); err != nil {
		return Cursor{}, err
	}
	follow := b.l.follow
	checkpoint, err := follow.close(b.note)
	if err != nil {
		return Cursor{}, err
	}
	if err := follow.checkSeals(b.seals); err != nil {
		return Cursor{}, err
	}
	// What is pruned and not deleted yet was read for the tree alone.
	if follow.pruned > 0 {
		if err := b.tx.Remove(0, follow.pruned*layout.SegmentEvents); err != nil {
			return Cursor{}, err
		}
	}
	for n, seg := range b.l.known {
		if n < follow.pruned {
			if err := seg.remove(b.tx); err != nil {
				return Cursor{}, err
			}
		}
	}
	state, err := follow.save()
	if err != nil {
		return Cursor{}, err
	}
	if err := b.tx.Set(followerKey, state); err != nil {
		return Cursor{}, err
	}
	if err := b.tx.Set(rebuiltKey, time.Now().UTC().AppendFormat(nil, time.RFC3339Nano)); err != nil {
		return Cursor{}, err
	}
	cursor := Cursor{TreeSize: checkpoint.Size, Root: checkpoint.Root}
	if err := saveCursor(b.tx, &cursor); err != nil {
		return Cursor{}, err
	}
	return cursor, b.tx.Commit()
}

func (b *rebuild) path(n int64) string { return filepath.Join(b.dir, layout.SegmentName(n)) }

func (b *rebuild) there(n int64) bool {
	if n < 0 {
		return false
	}
	info, err := os.Stat(b.path(n))
	return err == nil && info.Mode().IsRegular()
}

func (b *rebuild) add(e *event.Event) error {
	if b.o.Progress != nil && e.Index&0xfff == 0 {
		b.o.Progress(e.Index, b.target.Size)
	}
	return b.tx.Add(e)
}

// plain reads a log as it should be.
func (b *rebuild) plain() error {
	follow := b.l.follow
	first, end := contiguous(b.target.Size, b.there)
	if first > 0 {
		if err := follow.skip(first, b.seals, b.epochs); err != nil {
			return err
		}
	}
	for n := first; n < end; n++ {
		if err := b.segment(n, func(seg *segment, a *area) error { return b.l.take(seg, a, b.target.Size, b.add) }); err != nil {
			return err
		}
	}
	if follow.size() != b.target.Size {
		return segmentGone(follow, b.target.Size)
	}
	if first > follow.pruned {
		return found(FindingRemoved, follow.pruned*layout.SegmentEvents, "%s is gone, and no event says that it was pruned", layout.SegmentName(follow.pruned))
	}
	return nil
}

// segment opens segment n for read and stores what is known of it then.
func (b *rebuild) segment(n int64, read func(*segment, *area) error) error {
	f, err := os.Open(b.path(n))
	if errors.Is(err, fs.ErrNotExist) {
		return segmentGone(b.l.follow, b.target.Size)
	}
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	seg := newSegment(n, b.ix)
	b.l.known[n] = seg
	if err := read(seg, fileArea(f, info.Size())); err != nil {
		return err
	}
	return seg.save(b.tx)
}

// salvage reads a log of which segments are gone or spoilt: the root of such a
// segment is that of its seal, and none of its events is taken. In the segment
// that is not full, the old index knows the tree up to where it stood.
func (b *rebuild) salvage() error {
	follow := b.l.follow
	seals, _, err := layout.ParseSeals(b.seals)
	if err != nil {
		return found(FindingSeal, 0, "%v", err)
	}
	last := (b.target.Size - 1) / layout.SegmentEvents
	for n := int64(0); n <= last; n++ {
		full := (n+1)*layout.SegmentEvents <= b.target.Size
		switch {
		case !b.there(n):
			if err := follow.skip(n+1, b.seals, b.epochs); err != nil {
				return err
			}
			b.leave(n, b.target.Size)
		case full && n < int64(len(seals)):
			if err := b.sealed(n, seals[n].Root); err != nil {
				return err
			}
		default:
			if err := b.active(n); err != nil {
				return err
			}
		}
	}
	follow.pruneLeft()
	if b.o.Accept {
		return nil
	}
	for _, s := range follow.left {
		if !slices.Contains(b.old.left, s) {
			return found(FindingLine, s.First, "the events %d to %d do not verify", s.First, s.Last)
		}
	}
	return nil
}

func (b *rebuild) leave(n, end int64) {
	b.l.follow.left = append(b.l.follow.left, Span{n * layout.SegmentEvents, min(end, (n+1)*layout.SegmentEvents) - 1})
}

// sealed takes a sealed segment if it has the root of its seal.
func (b *rebuild) sealed(n int64, root merkle.Hash) error {
	whole := func(seg *segment, a *area) error { return b.l.take(seg, a, b.target.Size, b.add) }
	// Nothing of it may go into the index before all of it is known to be good.
	trial := *b.l.follow
	trial.active, trial.roots, trial.ring = merkle.Range{}, make(map[int64]merkle.Hash), nil
	if b.l.follow.ring != nil {
		trial.ring = b.l.follow.ring.Clone()
	}
	trial.sealed = *b.l.follow.sealed.Clone()
	f, err := os.Open(b.path(n))
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	_, err = trial.take(f, b.target.Size, func(*event.Event) error { return nil })
	f.Close()
	var spoilt *Finding
	switch {
	case err == nil && trial.roots[n] == root:
		return b.segment(n, whole)
	case err != nil && !errors.As(err, &spoilt):
		return err
	}
	if err := b.l.follow.skip(n+1, b.seals, b.epochs); err != nil {
		return err
	}
	b.leave(n, b.target.Size)
	return b.segment(n, func(seg *segment, a *area) error { return seg.grow(a, a.size) })
}

// active takes the last segment: all of it, or, if that does not lead to the
// checkpoint, what stands behind the events that the old index has verified.
func (b *rebuild) active(n int64) error {
	old := b.old
	fits := old != nil && old.segment() == n && old.size() > n*layout.SegmentEvents && old.size() <= b.target.Size && old.sealed.Root() == b.l.follow.sealed.Root()
	if !fits {
		return b.segment(n, func(seg *segment, a *area) error { return b.l.take(seg, a, b.target.Size, b.add) })
	}
	// Is it whole? Then nothing is left out.
	trial := *b.l.follow
	trial.roots = make(map[int64]merkle.Hash)
	if trial.ring != nil {
		trial.ring = trial.ring.Clone()
	}
	trial.sealed = *b.l.follow.sealed.Clone()
	f, err := os.Open(b.path(n))
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	defer f.Close()
	_, err = trial.take(f, old.size(), func(*event.Event) error { return nil })
	if err == nil && trial.active.Root() == old.active.Root() {
		return b.segment(n, func(seg *segment, a *area) error { return b.l.take(seg, a, b.target.Size, b.add) })
	}
	var spoilt *Finding
	if err != nil && !errors.As(err, &spoilt) {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	at, err := offsetOf(f, old.size())
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	b.l.follow.active, b.l.follow.ring = old.active, old.ring
	b.l.follow.pruned = max(b.l.follow.pruned, old.pruned)
	b.leave(n, old.size())
	return b.segment(n, func(seg *segment, a *area) error {
		taken, err := b.l.follow.take(io.NewSectionReader(a, at, a.size-at), b.target.Size, b.add)
		if err != nil {
			return err
		}
		return seg.grow(a, at+taken)
	})
}

// offsetOf returns where the line of event i begins, the end of the file if it
// is not there.
func offsetOf(r io.Reader, i int64) (int64, error) {
	br := bufio.NewReaderSize(r, 128<<10)
	for off := int64(0); ; {
		line, err := br.ReadSlice('\n')
		if err == nil {
			if at, cerr := event.Check(line[:len(line)-1]); cerr == nil && at == i {
				return off, nil
			}
		}
		off += int64(len(line))
		if err == io.EOF {
			return off, nil
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return 0, err
		}
	}
}
