package chain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// Follow goes on where a query, of which v is the verdict, has ended: it calls
// each with the events that match as they are appended, until ctx ends. It
// looks for new lines every interval. What it reads it compares with the
// checkpoints as they come, so that the verdict that it returns is about all
// that was printed; it ends at once where one does not fit. If v is not
// verified, neither is what follows.
func Follow(ctx context.Context, fsys fs.FS, v Verdict, f Filter, interval time.Duration, each func(e *event.Event, line []byte) error) (Verdict, error) {
	w := &following{fsys: fsys, verdict: v, filter: f, each: each, from: v.Size + v.Newer, next: v.Size, open: -1}
	if v.tree == nil {
		w.next = w.from
	}
	defer w.close()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for done := false; ; {
		more, err := w.read()
		if err != nil {
			return w.verdict, err
		}
		if !more || done {
			if err := w.check(); err != nil {
				return w.verdict, err
			}
			if v.Verified && !w.verdict.Verified {
				return w.verdict, nil
			}
		}
		if done {
			return w.verdict, nil
		}
		if done = ctx.Err() != nil; done || more {
			continue
		}
		select {
		case <-ctx.Done():
			done = true // once more: a checkpoint may have come
		case <-tick.C:
		}
	}
}

type following struct {
	fsys    fs.FS
	verdict Verdict
	filter  Filter
	each    func(*event.Event, []byte) error
	from    int64 // the first event to print
	next    int64 // to read

	file fs.File
	open int64  // the segment that file is
	rest []byte // of what was read, without an end yet
	buf  [64 << 10]byte

	hasher merkle.Hasher
	unseen []unseenEvent // read, and not covered by a checkpoint that was seen
	note   []byte        // the latest that was seen
	epochs []byte
	ring   *layout.Keyring
}

type unseenEvent struct {
	leaf merkle.Hash
	at   time.Time
}

func (w *following) close() {
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
}

// read reads on, and says whether there may be more.
func (w *following) read() (more bool, err error) {
	n := w.next / layout.SegmentEvents
	if n != w.open {
		f, err := w.fsys.Open(layout.SegmentName(n))
		if err == nil {
			w.close()
			w.file, w.open, w.rest = f, n, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	if w.file == nil {
		return false, nil
	}
	got, err := w.file.Read(w.buf[:])
	if err != nil && err != io.EOF {
		return false, err
	}
	w.rest = append(w.rest, w.buf[:got]...)
	for {
		nl := bytes.IndexByte(w.rest, '\n')
		if nl < 0 {
			if len(w.rest) > event.MaxLine {
				return false, fmt.Errorf("%s: %w", layout.SegmentName(w.open), errLongLine)
			}
			break
		}
		if err := w.line(w.rest[:nl]); err != nil {
			return false, err
		}
		w.rest = w.rest[nl+1:]
	}
	return got > 0 || w.next/layout.SegmentEvents != n, nil
}

func (w *following) line(line []byte) error {
	i, err := event.Check(line)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", layout.SegmentName(w.open), err)
	case i < w.next:
		return nil
	case i > w.next:
		return fmt.Errorf("event %d is missing", w.next)
	}
	w.next++
	if w.verdict.tree != nil {
		_, at, err := event.Times(line)
		if err != nil {
			return err
		}
		w.unseen = append(w.unseen, unseenEvent{w.hasher.Leaf(line), at})
		w.verdict.Newer = int64(len(w.unseen))
	}
	if i < w.from {
		return nil
	}
	e, err := w.filter.match(line)
	if err != nil || e == nil {
		return err
	}
	return w.each(e, line)
}

// check compares what was read with the latest checkpoint, if that is a new one
// which covers no more than that.
func (w *following) check() error {
	v := &w.verdict
	if v.tree == nil {
		return nil
	}
	note, err := fs.ReadFile(w.fsys, layout.Checkpoint)
	if err != nil {
		return err
	}
	if bytes.Equal(note, w.note) {
		return nil
	}
	c, err := merkle.ParseNote(note)
	if err == nil && (c.Size <= v.Size || c.Size > w.next) {
		return nil
	}
	if err == nil {
		c, err = w.openNote(note)
	}
	if err == nil {
		tree := v.tree.Clone()
		for _, e := range w.unseen[:c.Size-v.Size] {
			tree.Append(e.leaf)
		}
		if tree.Root() == c.Root {
			v.Time = w.unseen[c.Size-v.Size-1].at
			w.unseen = append(w.unseen[:0], w.unseen[c.Size-v.Size:]...)
			v.tree, v.Size, v.Root, v.Newer = tree, c.Size, c.Root, int64(len(w.unseen))
			w.note = note
			return nil
		}
		err = fmt.Errorf("the events before %d do not have the root that was signed", c.Size)
	}
	v.Verified, v.Reason, v.tree = false, err.Error(), nil
	return nil
}

// openNote opens a checkpoint; the chain of keys is built anew only where it
// has grown.
func (w *following) openNote(note []byte) (merkle.Checkpoint, error) {
	epochs, err := readOptional(w.fsys, layout.Epochs)
	if err != nil {
		return merkle.Checkpoint{}, err
	}
	if w.ring == nil || !bytes.Equal(epochs, w.epochs) {
		if w.ring, err = readKeyring(w.fsys); err != nil {
			return merkle.Checkpoint{}, err
		}
		w.epochs = epochs
	}
	return w.ring.Open(note)
}
