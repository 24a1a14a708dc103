package vecsync

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// Rebuild fills an empty index from the files of the log in dir: the same
// events and the same state of the tree as the streams would have brought. The
// cursor names no snapshot, so that the next stream must be a full one, which
// is then compared with what was read here. progress is called now and then
// with the number of events read and the number that there are; it may be nil.
func Rebuild(ix index.Writer, dir string, progress func(done, size int64)) (Cursor, error) {
	// The checkpoint first: while a writer goes on, the segments can only be
	// ahead of it.
	note, err := os.ReadFile(filepath.Join(dir, layout.Checkpoint))
	if err != nil {
		return Cursor{}, fmt.Errorf("log: %w", err)
	}
	target, err := merkle.ParseNote(note)
	if err != nil {
		return Cursor{}, found(FindingSignature, 0, "%v", err)
	}
	l := &logState{in: &ingester{ix: ix}, small: make(map[string]*smallFile), known: make(map[int64]*segment), fresh: make(map[int64]*area), stored: make(map[string]bool)}
	defer l.close()
	if l.follow, err = loadFollower(nil); err != nil {
		return Cursor{}, err
	}
	contents := make(map[string][]byte)
	for _, name := range []string{layout.Seals, layout.Epochs} {
		if contents[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Cursor{}, fmt.Errorf("log: %w", err)
		}
	}
	numbers, err := segmentNumbers(dir)
	if err != nil {
		return Cursor{}, fmt.Errorf("log: %w", err)
	}
	tx, err := ix.Begin()
	if err != nil {
		return Cursor{}, err
	}
	defer tx.Rollback()
	if len(numbers) > 0 && numbers[0] > 0 {
		if err := l.follow.skip(numbers[0], contents[layout.Seals], contents[layout.Epochs]); err != nil {
			return Cursor{}, err
		}
		if err := tx.Set(prunedKey, fmt.Appendf(nil, "%d", numbers[0])); err != nil {
			return Cursor{}, err
		}
	}
	each := func(e *event.Event) error {
		if progress != nil && e.Index&0xfff == 0 {
			progress(e.Index, target.Size)
		}
		return tx.Add(e)
	}
	for _, n := range numbers {
		if err := l.readSegment(dir, n, target.Size, each); err != nil {
			return Cursor{}, err
		}
		if err := l.known[n].save(tx); err != nil {
			return Cursor{}, err
		}
		l.known[n].blocks = nil // they are stored; memory is bounded
		l.fresh[n].close()
		delete(l.fresh, n)
	}
	if l.follow.size() != target.Size {
		return Cursor{}, found(FindingLine, l.follow.size(), "its segment is missing, a checkpoint covers %d events", target.Size)
	}
	checkpoint, err := l.follow.close(note)
	if err != nil {
		return Cursor{}, err
	}
	if err := checkSeals(contents[layout.Seals], l.follow.roots); err != nil {
		return Cursor{}, err
	}
	state, err := l.follow.save()
	if err != nil {
		return Cursor{}, err
	}
	if err := tx.Set(followerKey, state); err != nil {
		return Cursor{}, err
	}
	cursor := Cursor{TreeSize: checkpoint.Size, Root: checkpoint.Root}
	if err := saveCursor(tx, &cursor); err != nil {
		return Cursor{}, err
	}
	return cursor, tx.Commit()
}

func (l *logState) readSegment(dir string, n, size int64, each func(*event.Event) error) error {
	f, err := os.Open(filepath.Join(dir, layout.SegmentName(n)))
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("log: %w", err)
	}
	l.known[n], l.fresh[n] = &segment{number: n}, &area{f: f, size: info.Size()}
	return l.take(n, size, each)
}

func segmentNumbers(dir string) ([]int64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []int64
	for _, e := range entries {
		if n, ok := layout.ParseSegmentName(e.Name()); ok {
			numbers = append(numbers, n)
		}
	}
	sort.Slice(numbers, func(i, j int) bool { return numbers[i] < numbers[j] })
	return numbers, nil
}
