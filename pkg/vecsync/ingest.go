package vecsync

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

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
	// MaxNames bounds the memory that the names of the subvolume's files may
	// take; 0 means 128 MiB, which is some 200,000 files.
	MaxNames int64
	// Record makes an event of a finding. If it fails, the next Ingest tries
	// again. May be nil.
	Record func(f *Finding) error
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

// A StaleCursorError says that a stream starts from the snapshot that the cursor
// file named until now, and that the index is further: it had committed, and was
// stopped, or had no room, before it could say so in the file. The file is right
// again, and so is the next stream: exit code 75.
type StaleCursorError struct {
	Parent sendstream.UUID
	Cursor *Cursor
}

func (e *StaleCursorError) Error() string {
	return fmt.Sprintf("the stream starts from snapshot %s, as the cursor file said until now; the index stands at %s, and the file says so again", e.Parent, e.Cursor.SnapshotUUID)
}

// ExitCode is EX_TEMPFAIL.
func (e *StaleCursorError) ExitCode() int { return 75 }

// Hint says what to do.
func (e *StaleCursorError) Hint() string { return "send again" }

// A BeforeRebuildError says that a full stream has fewer events than an index
// that was rebuilt from the log a moment ago: its snapshot was taken before.
// The next one was not: exit code 75. If that has as few, for longer than a
// snapshot can be on its way, the log was rolled back, which is a Finding.
type BeforeRebuildError struct{ Covered, Indexed int64 }

func (e *BeforeRebuildError) Error() string {
	return fmt.Sprintf("the checkpoint covers %d events, and the index was rebuilt from the log with %d just now: the snapshot is older", e.Covered, e.Indexed)
}

// ExitCode is EX_TEMPFAIL.
func (e *BeforeRebuildError) ExitCode() int { return 75 }

// Hint says what to do.
func (e *BeforeRebuildError) Hint() string { return "send again, from a snapshot that is newer" }

// onItsWay is how old a snapshot can be that arrives first after a rebuild.
const onItsWay = time.Minute

// rebuiltKey is the state that says when an index was rebuilt, until a stream
// has been applied to it.
const rebuiltKey = "rebuilt"

// beforeRebuild says whether a stream may be of a snapshot from before the
// index was rebuilt: a full one, where none was applied since.
func (in *ingester) beforeRebuild() (bool, error) {
	c := in.cursor
	if !in.full || c == nil || c.SnapshotUUID != (sendstream.UUID{}) {
		return false, nil
	}
	data, err := in.ix.Get(rebuiltKey)
	if err != nil || data == nil {
		return false, err
	}
	at, err := time.Parse(time.RFC3339Nano, string(data))
	if err != nil {
		return false, fmt.Errorf("state %q: %w", rebuiltKey, err)
	}
	return time.Since(at).Abs() < onItsWay, nil
}

// A StreamError says that a stream can't be read or is not whole: exit code 3.
type StreamError struct{ Err error }

func (e *StreamError) Error() string { return "stream: " + e.Err.Error() }
func (e *StreamError) Unwrap() error { return e.Err }

// ExitCode is that of a failed verification.
func (e *StreamError) ExitCode() int { return 3 }

// Hint says what was kept.
func (e *StreamError) Hint() string { return "nothing of this stream was taken; send it again" }

// A namesError says that the names of the subvolume's files take more memory
// than Options.MaxNames.
type namesError struct{ err error }

func (e *namesError) Error() string { return e.err.Error() }
func (e *namesError) Unwrap() error { return e.err }

// Hint says what to do.
func (e *namesError) Hint() string {
	return "nothing of this stream was taken; if the subvolume has that many files, raise --max-names"
}

// Ingest applies the streams that r gives to ix, one after the other, and
// returns how many it has applied. Empty input is none.
//
// Errors: a *StreamError for a stream that is cut off, corrupt or none at all;
// a *LostParentError; a *StaleCursorError; a *VersionError; one whose exit code
// is 75, for a log that was being made; a *Finding, which is stored in the index
// too. In each case the streams before it are applied and the cursor stands at
// the last of them.
func Ingest(ix index.Writer, r io.Reader, o Options) (applied int, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxNames == 0 {
		o.MaxNames = 128 << 20
	}
	standing, err := Standing(ix)
	if err != nil {
		return 0, err
	}
	if standing != nil {
		return 0, errors.Join(standing, RecordFinding(ix, standing, o.Record))
	}
	cursor, err := ReadCursor(ix)
	if err != nil {
		return 0, err
	}
	var stale sendstream.UUID // what the cursor file names, if the index is further
	if o.Cursor != "" {
		if published, rerr := readCursorFile(o.Cursor); rerr == nil && cursor != nil && published.SnapshotUUID != cursor.SnapshotUUID {
			stale = published.SnapshotUUID
		}
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
	in := &ingester{ix: ix, r: sr, o: o, cursor: cursor, stale: stale, spool: spool{dir: o.TempDir}}
	defer in.spool.reset()
	for {
		more, err := in.stream()
		applied += in.applied
		var f *Finding
		if errors.As(err, &f) {
			f.At = o.Now().UTC()
			f.Snapshot = in.snapshot.String()
			if err := KeepFinding(ix, f); err != nil {
				return applied, errors.Join(f, err)
			}
			return applied, errors.Join(f, RecordFinding(ix, f, o.Record))
		}
		if err != nil || !more {
			return applied, err
		}
	}
}

// An ingester applies streams.
type ingester struct {
	ix     index.Writer
	r      *sendstream.Reader
	o      Options
	cursor *Cursor
	stale  sendstream.UUID // the snapshot that the cursor file named, if that was not the index's

	names    *sendstream.Namespace          // nil: to be loaded
	ours     map[sendstream.FileID]struct{} // files that have, or had since names was loaded, a name that a file of the log can have
	snapshot sendstream.UUID
	ctransid uint64
	full     bool // the stream is a whole subvolume
	again    bool // it leads to where the index stands already
	patches  map[sendstream.FileID]*patch
	spool    spool
	applied  int // by the last call of stream
}

// stream applies what stands up to the next END: one subvolume, or several
// whose ends were left out. more is false at the end of the input.
func (in *ingester) stream() (more bool, err error) {
	in.applied = 0
	for begun := false; ; {
		c, err := in.r.Next()
		if err == io.EOF && !begun || errors.Is(err, sendstream.ErrEmpty) {
			return false, nil
		}
		if err != nil {
			return false, streamError(err)
		}
		switch c := c.(type) {
		case *sendstream.Header:
			continue
		case *sendstream.Subvol, *sendstream.Snapshot:
			if begun { // the next subvolume stands for the end of this one
				if err := in.end(); err != nil {
					return false, err
				}
			}
			begun = true
			if err := in.begin(c); err != nil {
				return false, err
			}
		case *sendstream.End:
			if !begun {
				return false, &StreamError{fmt.Errorf("command %d ends no subvolume", in.r.Number())}
			}
			if !in.again {
				if _, err := in.names.Apply(c); err != nil {
					return false, &StreamError{err}
				}
			}
			return true, in.end()
		default:
			if !begun {
				return false, &StreamError{fmt.Errorf("command %d stands before a subvolume", in.r.Number())}
			}
			if in.again {
				continue
			}
			effect, err := in.names.Apply(c)
			if errors.Is(err, sendstream.ErrTooLarge) {
				return false, &namesError{err}
			}
			if err != nil {
				return false, &StreamError{fmt.Errorf("command %d: %w", in.r.Number(), err)}
			}
			in.named(c, effect)
			if err := in.keep(c, effect.File); err != nil {
				return false, err
			}
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

// begin takes the command that begins a subvolume.
func (in *ingester) begin(c sendstream.Command) error {
	in.patches = make(map[sendstream.FileID]*patch)
	in.full, in.again = false, false
	if err := in.spool.reset(); err != nil {
		return err
	}
	switch c := c.(type) {
	case *sendstream.Subvol:
		in.snapshot, in.ctransid, in.full = c.UUID, c.Ctransid, true
		in.names, in.ours = sendstream.NewNamespace(), make(map[sendstream.FileID]struct{})
	case *sendstream.Snapshot:
		in.snapshot, in.ctransid = c.UUID, c.Ctransid
		if in.cursor != nil && in.cursor.SnapshotUUID == c.UUID {
			in.again = true
			return nil
		}
		if in.cursor == nil || in.cursor.SnapshotUUID == (sendstream.UUID{}) || in.cursor.SnapshotUUID != c.ParentUUID || in.cursor.Ctransid != c.ParentCtransid {
			lost := &LostParentError{c.ParentUUID, in.cursor}
			if in.stale != (sendstream.UUID{}) && c.ParentUUID == in.stale && !lost.noSnapshot() {
				return &StaleCursorError{c.ParentUUID, in.cursor}
			}
			return lost
		}
		if in.names == nil {
			if err := in.loadNames(); err != nil {
				return err
			}
		}
	}
	in.names.MaxBytes = in.o.MaxNames
	if _, err := in.names.Apply(c); err != nil {
		return fmt.Errorf("state of the names: %w", err)
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
	in.names, in.ours = names, make(map[sendstream.FileID]struct{})
	for dir := range names.Files() {
		for name, f := range dir.Entries() {
			if f.IsRegular() && interesting(name) {
				in.ours[f.ID] = struct{}{}
			}
		}
	}
	return nil
}

// named takes note of the names that a command gives and takes. That a file
// once had a name of the log's is enough: to look at all its names with each
// write would cost a hostile stream's square.
func (in *ingester) named(c sendstream.Command, e sendstream.Effect) {
	for _, f := range []*sendstream.File{e.File, e.Replaced} {
		if f != nil && f.Nlink == 0 {
			delete(in.ours, f.ID)
			delete(in.patches, f.ID)
		}
	}
	var name []byte
	switch c := c.(type) {
	case *sendstream.Mkfile:
		name = c.Path
	case *sendstream.Mknod:
		name = c.Path
	case *sendstream.Link:
		name = c.Path
	case *sendstream.Rename:
		name = c.To
	default:
		return
	}
	if e.File.IsRegular() && interesting(string(name[bytes.LastIndexByte(name, '/')+1:])) {
		in.ours[e.File.ID] = struct{}{}
	}
}

// keep stores what a command does to the content of a file that may be one of
// the log's. Which file it is shows only at the end of the stream: btrfs makes
// new files under names of its own and renames them.
func (in *ingester) keep(c sendstream.Command, f *sendstream.File) error {
	if f == nil || !f.IsRegular() {
		return nil
	}
	e := new(piece)
	var data []byte
	switch c := c.(type) {
	case *sendstream.Mkfile:
		// A file that was made in this stream has no earlier content.
		in.patches[f.ID] = &patch{made: true}
		return nil
	case *sendstream.Write:
		e.kind, e.off, e.len, data = pieceData, int64(c.Offset), int64(len(c.Data)), c.Data
	case *sendstream.EncodedWrite:
		if c.Encryption != 0 || c.Compression > sendstream.CompressionLZO64K || c.UnencodedLen > sendstream.DefaultMaxUnencoded ||
			c.UnencodedFileLen > c.UnencodedLen || c.UnencodedOffset > c.UnencodedLen {
			return &StreamError{fmt.Errorf("command %d: an encoded write that no kernel sends", in.r.Number())}
		}
		e.kind, e.off, e.len, data = pieceEncoded, int64(c.Offset), int64(c.UnencodedFileLen), c.Data
		e.compression, e.unencoded, e.skip = c.Compression, int64(c.UnencodedLen), int64(c.UnencodedOffset)
	case *sendstream.Truncate:
		e.kind, e.off = pieceTruncate, int64(c.Size)
	case *sendstream.Clone:
		e.kind, e.off, e.len = pieceClone, int64(c.Offset), int64(c.Len)
	case *sendstream.UpdateExtent:
		e.kind, e.off, e.len = pieceUnknown, int64(c.Offset), int64(c.Len)
	case *sendstream.Fallocate:
		if c.Mode&^sendstream.FallocKeepSize == 0 {
			return nil // it changes no content
		}
		e.kind, e.off, e.len = pieceHole, int64(c.Offset), int64(c.Len)
	default:
		return nil
	}
	p := in.patches[f.ID]
	if p == nil {
		p = new(patch)
		in.patches[f.ID] = p
	}
	if _, ours := in.ours[f.ID]; !ours {
		p.skipped = true
		return nil
	}
	return p.add(&in.spool, e, data)
}

// interesting says whether a file of this name may be one of the log's: it is
// the name of one, or one of those that btrfs gives for the time being
// (oINODE-GENERATION-NUMBER).
func interesting(base string) bool {
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

// end applies the subvolume that has ended, in one transaction.
func (in *ingester) end() error {
	if in.again {
		in.applied++
		return in.publish(0)
	}
	dir, err := in.findLog()
	if err != nil {
		return err
	}
	tx, err := in.ix.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	cursor := Cursor{SnapshotUUID: in.snapshot, Ctransid: in.ctransid}
	var before int64
	if in.cursor != nil {
		before = in.cursor.TreeSize
	}
	switch {
	case dir != nil:
		l, err := in.openLog(dir)
		if err != nil {
			return err
		}
		checkpoint, err := l.apply(tx)
		if err != nil {
			return err
		}
		if err := tx.Set(logKey, []byte(dir.Paths()[0])); err != nil {
			return err
		}
		cursor.TreeSize, cursor.Root = checkpoint.Size, checkpoint.Root
	case before > 0 && in.full:
		return &StreamError{errors.New("it is of a subvolume without the log that the index is of")}
	case before > 0:
		return found(FindingRemoved, 0, "the snapshot holds no log any more")
	default:
		if f := in.unfinishedLog(); f != nil {
			return &unfinishedError{f.Paths()[0]}
		}
	}
	return in.commit(tx, cursor, cursor.TreeSize-before)
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
	in.applied++
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

const logKey = "log" // path of the log's directory

// findLog returns the directory of the log in the snapshot, nil if there is
// none: the one that was it before, else the only one with a checkpoint and
// segments or keys in it.
func (in *ingester) findLog() (*sendstream.File, error) {
	where := []byte(in.o.Path)
	if in.o.Path == "" {
		var err error
		if where, err = in.ix.Get(logKey); err != nil {
			return nil, err
		}
	}
	if f, err := in.names.Lookup(where); err == nil && (isLog(f) || len(where) > 0 && hasCheckpoint(f)) {
		return f, nil
	}
	if in.o.Path != "" {
		return nil, nil
	}
	var dir *sendstream.File
	for f := range in.names.Files() {
		if !isLog(f) {
			continue
		}
		if dir != nil {
			return nil, &pathError{dir.Paths()[0], f.Paths()[0]}
		}
		dir = f
	}
	return dir, nil
}

func isLog(f *sendstream.File) bool {
	if !hasCheckpoint(f) {
		return false
	}
	for name, e := range f.Entries() {
		if _, ok := layout.ParseSegmentName(name); (ok || name == layout.Epochs) && e.IsRegular() {
			return true
		}
	}
	return false
}

// unfinishedLog returns a directory in which a log is being made: it has the
// first segment, and a checkpoint not yet. What such a snapshot holds is not
// kept, and the stream that leads from it to the next has it no more: a
// checkpoint that is there under a temporary name gets its own, and that is all
// that a stream says of it.
func (in *ingester) unfinishedLog() *sendstream.File {
	for f := range in.names.Files() {
		if e := f.Entry(layout.SegmentName(0)); e != nil && e.IsRegular() && !hasCheckpoint(f) {
			return f
		}
	}
	return nil
}

// An unfinishedError says that the log was being made when the snapshot was
// taken: exit code 75.
type unfinishedError struct{ dir string }

func (e *unfinishedError) Error() string {
	return fmt.Sprintf("the log %q has no checkpoint yet", e.dir)
}
func (e *unfinishedError) ExitCode() int { return 75 }
func (e *unfinishedError) Hint() string {
	return "nothing of this stream was taken; a later snapshot has it"
}

func hasCheckpoint(f *sendstream.File) bool {
	e := f.Entry(layout.Checkpoint)
	return e != nil && e.IsRegular()
}

// A pathError says that there are several logs: exit code 2.
type pathError struct{ a, b string }

func (e *pathError) Error() string {
	return fmt.Sprintf("the subvolume holds two logs, %q and %q", e.a, e.b)
}
func (e *pathError) ExitCode() int { return 2 }
func (e *pathError) Hint() string  { return "choose one with --path" }
