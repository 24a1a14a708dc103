package vecsync

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
)

// Options are the ingester's.
type Options struct {
	// Path is the log's directory within the subvolume; it is looked for if
	// empty.
	Path string
	// Cursor is the file to publish the cursor in; none if empty.
	Cursor string
	// TempDir is where large streams are kept meanwhile.
	TempDir string
	// Now is the clock, time.Now if nil.
	Now func() time.Time
	// Applied is called after each stream that was applied, may be nil.
	Applied func(c Cursor, events int64)
}

// A LostParentError says that a stream starts from another snapshot than the
// one that the index stands at: exit code 5.
type LostParentError struct {
	Parent sendstream.UUID
	Cursor *Cursor // nil if the index is empty
}

func (e *LostParentError) Error() string {
	if e.noSnapshot() {
		return fmt.Sprintf("the stream starts from snapshot %s, the index stands at none", e.Parent)
	}
	return fmt.Sprintf("the stream starts from snapshot %s, the index stands at %s", e.Parent, e.Cursor.SnapshotUUID)
}

// noSnapshot says whether the index is empty or was made from the log's files.
func (e *LostParentError) noSnapshot() bool {
	return e.Cursor == nil || e.Cursor.SnapshotUUID == (sendstream.UUID{})
}

// ExitCode is that of a lost parent.
func (e *LostParentError) ExitCode() int { return 5 }

// Hint says what to do.
func (e *LostParentError) Hint() string {
	if e.noSnapshot() {
		return "send in full: gb-snap send --parent none"
	}
	return fmt.Sprintf("send from where the index stands, gb-snap send --parent %s, or in full, --parent none", e.Cursor.SnapshotUUID)
}

// A StreamError says that a stream can't be read or is not whole: exit code 3.
type StreamError struct{ Err error }

func (e *StreamError) Error() string { return "stream: " + e.Err.Error() }
func (e *StreamError) Unwrap() error { return e.Err }

// ExitCode is that of a failed verification.
func (e *StreamError) ExitCode() int { return 3 }

// Hint says what was kept.
func (e *StreamError) Hint() string { return "nothing of this stream was taken; send it again" }

// Ingest applies the streams that r gives to ix, one after the other, and
// returns how many it has applied. Empty input is none.
//
// Errors: a *StreamError for a stream that is cut off, corrupt or none at all;
// a *LostParentError; a *Finding, which is stored in the index too. In each
// case the streams before it are applied and the cursor stands at the last of
// them.
func Ingest(ix index.Writer, r io.Reader, o Options) (applied int, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	standing, err := Standing(ix)
	if err != nil {
		return 0, err
	}
	if standing != nil {
		return 0, standing
	}
	cursor, err := ReadCursor(ix)
	if err != nil {
		return 0, err
	}
	if o.Cursor != "" {
		// A crash may have come between the commit and the file, or the index
		// was deleted: then the next stream must be a full one.
		if cursor != nil && cursor.SnapshotUUID != (sendstream.UUID{}) {
			err = cursor.Publish(o.Cursor)
		} else if err = os.Remove(o.Cursor); errors.Is(err, fs.ErrNotExist) {
			err = nil
		} else if err != nil {
			err = fmt.Errorf("cursor file: %w", err)
		}
		if err != nil {
			return 0, err
		}
	}
	sr := sendstream.NewReader(r, sendstream.Options{})
	in := &ingester{ix: ix, r: sr, o: o, cursor: cursor, spool: spool{dir: o.TempDir}}
	defer in.spool.reset()
	for {
		more, err := in.stream()
		var f *Finding
		if errors.As(err, &f) {
			f.At = o.Now().UTC()
			f.Snapshot = in.snapshot.String()
			return applied, errors.Join(f, keepFinding(ix, f))
		}
		if err != nil || !more {
			return applied, err
		}
		applied++
	}
}

// An ingester applies streams.
type ingester struct {
	ix     index.Writer
	r      *sendstream.Reader
	o      Options
	cursor *Cursor

	names    *sendstream.Namespace // nil: to be loaded
	snapshot sendstream.UUID
	ctransid uint64
	full     bool // the stream is a whole subvolume
	again    bool // it leads to where the index stands already
	patches  map[sendstream.FileID]*patch
	spool    spool
}

// stream applies one stream; more is false at the end of the input.
func (in *ingester) stream() (more bool, err error) {
	in.patches = make(map[sendstream.FileID]*patch)
	in.full, in.again = false, false
	if err := in.spool.reset(); err != nil {
		return false, err
	}
	begun := false
	for {
		c, err := in.r.Next()
		if err == io.EOF && !begun {
			return false, nil
		}
		if errors.Is(err, sendstream.ErrEmpty) {
			return false, nil
		}
		if err != nil {
			return false, streamError(err)
		}
		if _, header := c.(*sendstream.Header); header {
			continue
		}
		if !begun {
			if err := in.begin(c); err != nil {
				return false, err
			}
			begun = true
		} else if _, second := c.(*sendstream.Subvol); second {
			return false, &StreamError{errors.New("more than one subvolume without an end between them")}
		} else if _, second := c.(*sendstream.Snapshot); second {
			return false, &StreamError{errors.New("more than one snapshot without an end between them")}
		}
		if in.again {
			if _, end := c.(*sendstream.End); end {
				return true, in.publish(0)
			}
			continue
		}
		effect, err := in.names.Apply(c)
		if errors.Is(err, sendstream.ErrParent) {
			return false, &LostParentError{in.snapshot, in.cursor}
		}
		if err != nil {
			return false, &StreamError{fmt.Errorf("command %d: %w", in.r.Number(), err)}
		}
		if err := in.keep(c, effect.File); err != nil {
			return false, err
		}
		if _, end := c.(*sendstream.End); end {
			return true, in.end()
		}
	}
}

// streamError tells a bad stream from one that could not be read.
func streamError(err error) error {
	for _, bad := range []error{sendstream.ErrMagic, sendstream.ErrVersion, sendstream.ErrTruncated, sendstream.ErrNoEnd, sendstream.ErrChecksum,
		sendstream.ErrTooLarge, sendstream.ErrUnknownCommand, sendstream.ErrAttribute, sendstream.ErrPath, sendstream.ErrEncoding,
		sendstream.ErrUnsupported, sendstream.ErrOrder} {
		if errors.Is(err, bad) {
			return &StreamError{err}
		}
	}
	return fmt.Errorf("stream: %w", err)
}

// begin takes the command that begins a stream.
func (in *ingester) begin(c sendstream.Command) error {
	switch c := c.(type) {
	case *sendstream.Subvol:
		in.snapshot, in.ctransid, in.full = c.UUID, c.Ctransid, true
		in.names = sendstream.NewNamespace()
	case *sendstream.Snapshot:
		in.snapshot, in.ctransid = c.UUID, c.Ctransid
		if in.cursor != nil && in.cursor.SnapshotUUID == c.UUID {
			in.again = true
			return nil
		}
		if in.cursor == nil || in.cursor.SnapshotUUID == (sendstream.UUID{}) || in.cursor.SnapshotUUID != c.ParentUUID {
			return &LostParentError{c.ParentUUID, in.cursor}
		}
		if in.names == nil {
			return in.loadNames()
		}
	default:
		return &StreamError{fmt.Errorf("command %d stands before a subvolume", in.r.Number())}
	}
	return nil
}

const namesPrefix = "ns/"

func (in *ingester) loadNames() error {
	records, failed := in.ix.Scan(namesPrefix)
	names, err := sendstream.LoadNamespace(func(yield func([]byte, []byte) bool) {
		for k, v := range records {
			if !yield([]byte(k[len(namesPrefix):]), v) {
				return
			}
		}
	})
	if err := errors.Join(failed(), err); err != nil {
		return fmt.Errorf("state of the names: %w", err)
	}
	in.names = names
	return nil
}

// keep stores what a command does to the content of a file that may be one of
// the log's. Which file it is shows only at the end of the stream: btrfs makes
// new files under names of its own and renames them.
func (in *ingester) keep(c sendstream.Command, f *sendstream.File) error {
	if f == nil || !f.IsRegular() {
		return nil
	}
	var p piece
	switch c := c.(type) {
	case *sendstream.Mkfile:
		// A file that was made in this stream has no earlier content.
		in.patches[f.ID] = &patch{made: true}
		return nil
	case *sendstream.Write:
		p = piece{kind: pieceData, off: int64(c.Offset), len: int64(len(c.Data))}
		if p.off < 0 {
			return &StreamError{fmt.Errorf("command %d: offset %d", in.r.Number(), c.Offset)}
		}
		if !interesting(c.Path) {
			return nil
		}
		return in.store(f.ID, p, c.Data)
	case *sendstream.EncodedWrite:
		p = piece{kind: pieceEncoded, off: int64(c.Offset), len: int64(c.UnencodedFileLen), encoded: *c}
		p.encoded.Path, p.encoded.Data = nil, nil
		if p.off < 0 || p.len < 0 {
			return &StreamError{fmt.Errorf("command %d: offset %d", in.r.Number(), c.Offset)}
		}
		if !interesting(c.Path) {
			return nil
		}
		return in.store(f.ID, p, c.Data)
	case *sendstream.Truncate:
		p = piece{kind: pieceTruncate, off: int64(c.Size)}
	case *sendstream.Clone:
		p = piece{kind: pieceClone, off: int64(c.Offset), len: int64(c.Len)}
	case *sendstream.UpdateExtent:
		p = piece{kind: pieceUnknown, off: int64(c.Offset), len: int64(c.Len)}
	case *sendstream.Fallocate:
		if c.Mode&^sendstream.FallocKeepSize == 0 {
			return nil
		}
		p = piece{kind: pieceHole, off: int64(c.Offset), len: int64(c.Len)}
	default:
		return nil
	}
	if p.off < 0 || p.len < 0 {
		return &StreamError{fmt.Errorf("command %d: offset %d", in.r.Number(), p.off)}
	}
	if interesting(c.Target()) {
		in.add(f.ID, p)
	}
	return nil
}

func (in *ingester) store(id sendstream.FileID, p piece, data []byte) error {
	at, err := in.spool.add(data)
	if err != nil {
		return err
	}
	p.at, p.n = at, len(data)
	in.add(id, p)
	return nil
}

func (in *ingester) add(id sendstream.FileID, p piece) {
	if in.patches[id] == nil {
		in.patches[id] = new(patch)
	}
	in.patches[id].pieces = append(in.patches[id].pieces, p)
}

// interesting says whether the file at path may be one of the log's: by its
// name, or because it has one of those that btrfs gives for the time being
// (oINODE-GENERATION-NUMBER).
func interesting(p []byte) bool {
	base := path.Base(string(p))
	if _, ok := layout.ParseSegmentName(base); ok || isSmall(base) {
		return true
	}
	if base[0] != 'o' || strings.Count(base, "-") != 2 {
		return false
	}
	return strings.Trim(base[1:], "0123456789-") == ""
}

// isSmall says whether a file of the log is kept whole.
func isSmall(base string) bool {
	switch strings.TrimSuffix(base, ".tmp") {
	case layout.Checkpoint, layout.Seals, layout.Epochs:
		return true
	}
	return false
}

// end applies the stream that has ended, in one transaction.
func (in *ingester) end() error {
	dir, ok, err := in.findLog()
	if err != nil {
		return err
	}
	if !ok {
		return in.commitWithoutLog()
	}
	l, err := in.openLog(dir)
	if err != nil {
		return err
	}
	defer l.close()
	tx, err := in.ix.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	before := l.follow.size()
	checkpoint, err := l.apply(func(e *event.Event) error { return tx.Add(e) })
	if err != nil {
		return err
	}
	if err := l.save(tx); err != nil {
		return err
	}
	cursor := Cursor{SnapshotUUID: in.snapshot, Ctransid: in.ctransid, TreeSize: checkpoint.Size, Root: checkpoint.Root}
	return in.commit(tx, cursor, checkpoint.Size-before)
}

// commitWithoutLog moves on past a snapshot that was taken before there was a
// log.
func (in *ingester) commitWithoutLog() error {
	if in.cursor != nil && in.cursor.TreeSize > 0 {
		return found(FindingRemoved, 0, "the snapshot holds no log any more")
	}
	tx, err := in.ix.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	return in.commit(tx, Cursor{SnapshotUUID: in.snapshot, Ctransid: in.ctransid}, 0)
}

// commit commits the stream with its names and cursor and publishes that.
func (in *ingester) commit(tx index.Tx, cursor Cursor, events int64) error {
	cursor.SourceUUID = in.snapshot
	if !in.full && in.cursor != nil {
		cursor.SourceUUID = in.cursor.SourceUUID
	}
	if in.full {
		// The names are new from the beginning: the old ones go.
		records, failed := in.ix.Scan(namesPrefix)
		var old []string
		for k := range records {
			old = append(old, k)
		}
		if err := failed(); err != nil {
			return err
		}
		for _, k := range old {
			if err := tx.Set(k, nil); err != nil {
				return err
			}
		}
	}
	for k, v := range in.names.Changes() {
		if err := tx.Set(namesPrefix+string(k), v); err != nil {
			return err
		}
	}
	if err := saveCursor(tx, &cursor); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	in.names.Kept()
	in.cursor = &cursor
	return in.publish(events)
}

func (in *ingester) publish(events int64) error {
	if in.o.Cursor != "" {
		if err := in.cursor.Publish(in.o.Cursor); err != nil {
			return err
		}
	}
	if in.o.Applied != nil {
		in.o.Applied(*in.cursor, events)
	}
	return nil
}

// findLog returns the directory of the log in the snapshot: the one with a
// checkpoint and a segment in it.
func (in *ingester) findLog() (dir string, ok bool, err error) {
	isLog := func(f *sendstream.File) bool {
		checkpoint, segment := false, false
		for name, e := range f.Entries() {
			_, is := layout.ParseSegmentName(name)
			segment = segment || is && e.IsRegular()
			checkpoint = checkpoint || name == layout.Checkpoint
		}
		return checkpoint && segment
	}
	if in.o.Path != "" {
		f, err := in.names.Lookup([]byte(in.o.Path))
		if err != nil || !f.IsDir() || !isLog(f) {
			return "", false, nil
		}
		return in.o.Path, true, nil
	}
	for f := range in.names.Files() {
		if !f.IsDir() || !isLog(f) {
			continue
		}
		if ok {
			return "", false, &pathError{dir, f.Paths()[0]}
		}
		dir, ok = f.Paths()[0], true
	}
	return dir, ok, nil
}

// A pathError says that there are several logs: exit code 2.
type pathError struct{ a, b string }

func (e *pathError) Error() string {
	return fmt.Sprintf("the subvolume holds two logs, %q and %q", e.a, e.b)
}
func (e *pathError) ExitCode() int { return 2 }
func (e *pathError) Hint() string  { return "choose one with --path" }
