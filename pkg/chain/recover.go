package chain

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// Open opens the log in dir for writing. It finishes what a crash interrupted:
// a torn tail is cut, kept aside and reported as an event, a missing seal is
// written, a rotation of keys is brought to its end. It refuses, with a
// DamagedError, a log that contradicts its own checkpoint or is shorter than
// the last checkpoint signed here. If another process has the log, the error
// wraps durable.ErrLocked.
func Open(dir, keysDir string, o Options) (*Log, error) {
	l, err := open(dir, keysDir, o)
	if err != nil {
		return nil, err
	}
	err = l.finishRotation()
	if err == nil {
		err = l.finishPruning()
	}
	if err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

// open is Open without the end of a rotation, for which the epoch key must not
// be lost.
func open(dir, keysDir string, o Options) (*Log, error) {
	if _, err := os.Stat(filepath.Join(dir, layout.Checkpoint)); err != nil {
		if _, dirErr := os.Stat(dir); errors.Is(dirErr, fs.ErrPermission) || errors.Is(err, fs.ErrPermission) {
			return nil, fmt.Errorf("log: %w", err)
		}
		if segs, serr := segments(os.DirFS(dir)); serr != nil || len(segs) == 0 {
			return nil, &configError{fmt.Errorf("no log in %s", dir), "gb-chain init --log " + dir + " --origin NAME makes one"}
		}
		// Go on: the archive may have a checkpoint, or this is damage.
	}
	if _, err := CheckKeysDir(keysDir, dir); err != nil {
		return nil, err
	}
	lock, err := waitLock(dir, o.Wait)
	if errors.Is(err, durable.ErrLocked) {
		return nil, &busyError{err, "another gb-chain writes this log"}
	}
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	st := newDirStore(dir)
	ring, err := readKeyring(st)
	if err != nil {
		lock.Unlock()
		return nil, &DamagedError{dir, err}
	}
	keys, err := openKeys(keysDir, ring.Created.LogKey)
	if err != nil {
		lock.Unlock()
		return nil, err
	}
	l := newLog(dir, st, keys, o)
	l.lock = lock
	if err := l.begin(ring); err != nil {
		return nil, err
	}
	return l, nil
}

// begin recovers l, or releases it.
func (l *Log) begin(ring *layout.Keyring) error {
	err := l.recover(ring)
	if err == nil {
		return nil
	}
	l.release()
	var damaged *DamagedError
	if errors.As(err, &damaged) {
		return err
	}
	return fmt.Errorf("log %s: %w", l.dir, err)
}

// recover reads what is needed to go on writing: the seals, and the segments
// from the one on that the latest checkpoint ends in.
func (l *Log) recover(ring *layout.Keyring) error {
	damaged := func(format string, args ...any) error {
		return &DamagedError{l.dir, fmt.Errorf(format, args...)}
	}
	l.ring = ring
	slots := l.keys.epoch
	epochs, err := readOptional(l.st, layout.Epochs)
	if err != nil {
		return err
	}
	if slots.slots[0] != nil && slots.slots[1] != nil || slots.find(ring.EpochKey(ring.Epochs()-1)) < 0 ||
		int64(bytes.Count(epochs, []byte("\n"))) != ring.Epochs() || !bytes.HasSuffix(epochs, []byte("\n")) {
		// A rotation was interrupted, or the file of epochs is behind or torn.
		full, lines, err := scanKeyring(l.st)
		if err != nil {
			return damaged("%w", err)
		}
		if err := l.st.Replace(layout.Epochs, lines); err != nil {
			return err
		}
		l.ring = full
	}
	signed, err := latestCheckpoint(l.st, l.ring)
	if err != nil {
		return damaged("%w", err)
	}
	l.last = signed.Checkpoint
	if err := l.trimArchive(); err != nil {
		return err
	}
	sealData, err := readOptional(l.st, layout.Seals)
	if err != nil {
		return err
	}
	seals, rest, err := layout.ParseSeals(sealData)
	if err != nil {
		return damaged("%w", err)
	}
	if len(rest) > 0 {
		if err := l.truncate(layout.Seals, int64(len(sealData)-len(rest))); err != nil {
			return err
		}
	}

	known := make(map[int64]merkle.Hash) // roots that the tree must have on its way
	known[signed.Size] = signed.Root
	lastSize, lastRoot, haveLast := l.keys.last.load()
	first := min(int64(len(seals)), signed.Size/layout.SegmentEvents)
	if haveLast && lastSize >= first*layout.SegmentEvents {
		if root, twice := known[lastSize]; twice && root != lastRoot {
			return damaged("two checkpoints of size %d with different roots", lastSize)
		}
		known[lastSize] = lastRoot
	}
	for _, s := range seals[:first] {
		if err := l.sealed.AppendSubtree(s.Root, layout.SegmentLevel); err != nil {
			return err
		}
	}
	if err := l.checkRoot(known); err != nil {
		return damaged("%w", err)
	}
	for {
		more, err := l.recoverSegment(seals, known)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	l.durable.Store(l.Size())
	if l.Size() < signed.Size {
		return damaged("it has %d events, its checkpoint covers %d", l.Size(), signed.Size)
	}
	if haveLast && l.Size() < lastSize {
		return damaged("it has %d events, a checkpoint over %d was signed here: it was put back to an earlier state", l.Size(), lastSize)
	}
	return nil
}

// checkRoot compares the tree, at a size of which the root is known, with it.
func (l *Log) checkRoot(known map[int64]merkle.Hash) error {
	want, ok := known[l.Size()]
	if ok && l.Root() != want {
		return fmt.Errorf("the first %d events do not have the root that was signed", l.Size())
	}
	return nil
}

// recoverSegment reads the next segment. more is true if it was full.
func (l *Log) recoverSegment(seals []layout.Seal, known map[int64]merkle.Hash) (more bool, err error) {
	n := l.sealed.Size() / layout.SegmentEvents
	name := layout.SegmentName(n)
	f, err := l.st.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	r := newLineReader(f)
	var good int64 // bytes
	for {
		line, err := r.next()
		if err == io.EOF {
			break
		}
		torn := errors.Is(err, errTornLine) || errors.Is(err, errLongLine)
		if err != nil && !torn {
			return false, fmt.Errorf("%s: %w", name, err)
		}
		if !torn {
			i, err := event.Check(line)
			torn = err != nil || i != l.Size() || l.active.Size() == layout.SegmentEvents
		}
		var claimed, at time.Time
		if !torn {
			claimed, at, err = event.Times(line)
			torn = err != nil
		}
		if torn {
			if _, err := fs.Stat(l.st, layout.SegmentName(n+1)); err == nil {
				return false, &DamagedError{l.dir, fmt.Errorf("event %d cannot be read, and %s follows", l.Size(), layout.SegmentName(n+1))}
			}
			if l.Size() < l.last.Size {
				return false, &DamagedError{l.dir, fmt.Errorf("event %d, which checkpoint %d covers, cannot be read", l.Size(), l.last.Size)}
			}
			return false, l.cutTail(name, good)
		}
		if e := ownEvent(line); e != nil && e.Type == layout.TypePruned && l.Size() >= l.last.Size {
			// The crash may have come before the file says so too.
			if err := l.st.Replace(layout.PrunedFile, append(bytes.Clone(line), '\n')); err != nil {
				return false, err
			}
		}
		l.active.Append(l.hasher.Leaf(line))
		l.times.Add(claimed)
		l.ats.Add(at)
		good = r.off
		if err := l.checkRoot(known); err != nil {
			return false, &DamagedError{l.dir, err}
		}
	}
	l.off = good
	if l.active.Size() < layout.SegmentEvents {
		if int64(len(seals)) > n {
			return false, &DamagedError{l.dir, fmt.Errorf("segment %s is sealed but has only %d events", name, l.active.Size())}
		}
		if _, err := fs.Stat(l.st, layout.SegmentName(n+1)); err == nil {
			return false, &DamagedError{l.dir, fmt.Errorf("segment %s has only %d events, and another one follows", name, l.active.Size())}
		}
		return false, l.resume(name)
	}
	if int64(len(seals)) > n {
		if seals[n].Root != l.active.Root() {
			return false, &DamagedError{l.dir, fmt.Errorf("segment %s does not have the root of its seal", name)}
		}
	} else {
		// The crash came between the last event and the seal. The events are
		// synced first, as flush does.
		if err := l.resume(name); err != nil {
			return false, err
		}
		if err := l.f.Datasync(); err != nil {
			return false, err
		}
		if err := l.seal(); err != nil {
			return false, err
		}
		return true, nil
	}
	l.off = 0
	return true, l.nextSegment()
}

// resume opens a segment to write on.
func (l *Log) resume(name string) error {
	f, _, err := l.st.Append(name)
	if err != nil {
		return err
	}
	l.f = f
	return nil
}

// cutTail cuts the segment called name to its first good bytes. What stood
// behind them was never acknowledged: it is kept in a file of its own, durable
// before the cut, and an event reports it.
func (l *Log) cutTail(name string, good int64) error {
	f, err := l.st.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(io.Discard, f, good); err != nil {
		return err
	}
	torn, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(torn)
	kept := fmt.Sprintf("%s/%d-%s", layout.Torn, l.Size(), hex.EncodeToString(sum[:8]))
	if err := l.st.Replace(kept, torn); err != nil {
		return fmt.Errorf("keep the torn tail of %s: %w", name, err)
	}
	if err := l.resume(name); err != nil {
		return err
	}
	if err := l.f.Truncate(good); err != nil {
		return fmt.Errorf("cut the torn tail of %s: %w", name, err)
	}
	if err := l.f.Datasync(); err != nil {
		return err
	}
	l.off = good
	draft, err := event.Own(layout.TypeRecovered, event.Warning,
		fmt.Sprintf("cut %d bytes that were never acknowledged off %s", len(torn), name),
		layout.Recovered{Segment: l.sealed.Size() / layout.SegmentEvents, Offset: good, Bytes: int64(len(torn)), SHA256: hex.EncodeToString(sum[:]), Kept: kept})
	if err != nil {
		return err
	}
	// A rotation that the crash interrupted comes first: its checkpoint must
	// be over just its own event.
	if err := l.finishRotation(); err != nil {
		return err
	}
	return l.appendOwn(draft)
}

// trimArchive cuts a torn note off the end of the archive of checkpoints.
func (l *Log) trimArchive() error {
	data, err := readOptional(l.st, layout.Checkpoints)
	if err != nil {
		return err
	}
	if notes, rest := merkle.SplitNotes(data); len(rest) > 0 {
		// Only the end can be torn; anything else is for verify to name.
		if len(rest) > 4096 {
			return &DamagedError{l.dir, fmt.Errorf("%s: note %d cannot be read", layout.Checkpoints, len(notes))}
		}
		return l.truncate(layout.Checkpoints, int64(len(data)-len(rest)))
	}
	if info, err := fs.Stat(l.st, layout.Checkpoints); err == nil {
		l.archivedAt = info.ModTime()
	}
	return nil
}

func (l *Log) truncate(name string, size int64) error {
	f, _, err := l.st.Append(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Datasync()
}

// waitLock takes the lock, waiting for at most wait, and always for the short
// time that Writing has it.
func waitLock(dir string, wait time.Duration) (*durable.Lock, error) {
	deadline := time.Now().Add(max(wait, 50*time.Millisecond))
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		lock, err := durable.TryLock(dir)
		if !errors.Is(err, durable.ErrLocked) || time.Now().After(deadline) {
			return lock, err
		}
		time.Sleep(pause)
	}
}
