package chain

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// Options are the writer's. The zero value is right for everything but tests.
type Options struct {
	Now  func() time.Time // the log's clock, time.Now if nil
	Wait time.Duration    // for another writer to end
	Host string           // for events without one, os.Hostname if empty
	Peer event.Peer       // of the log's own events

	newKey func(name string) (*merkle.Signer, error) // merkle.NewKey if nil; the vectors need known keys
}

// key makes a new key.
func (o Options) key(name string) (*merkle.Signer, error) {
	if o.newKey != nil {
		return o.newKey(name)
	}
	return merkle.NewKey(name)
}

// A Log is the one writer of a log directory. It is not for use by several
// goroutines at once; Server shares one among many producers.
type Log struct {
	dir  string
	st   store
	lock *durable.Lock // nil in tests without a directory
	keys *Keys
	opts Options

	ring   *layout.Keyring
	sealed merkle.Range // full segments
	active merkle.Range // leaves of the segment that is being written
	f      appender     // the segment that is being written, of len(active) lines
	off    int64        // its size, all of it durable
	times  layout.Span  // of the events in it
	ats    layout.Span

	last       merkle.Checkpoint // the latest that was signed
	archivedAt time.Time         // when the last one was added to the archive

	// failed is set for good when the state of the files is not known any
	// more: after a failed fsync, or a write that could not be taken back.
	failed error

	durable atomic.Int64 // Size, for other goroutines

	hasher  merkle.Hasher
	leaves  [][]byte      // scratch space of syncAndHash
	hashes  []merkle.Hash // likewise
	shared  [128]byte     // likewise, of Append
	buf     []byte
	pending []pendingEvent
}

// pendingEvent is an event that is in buf and not durable yet.
type pendingEvent struct {
	batch   *Batch
	claimed time.Time // by the producer, zero if it made no claim
	at      time.Time
	end     int         // of its line in buf, with the newline
	leaf    merkle.Hash // set by flush
}

const (
	// maxWrite is the size of a write above which Append syncs and goes on
	// with another one, so that memory is bounded.
	maxWrite = 4 << 20

	archiveEvery = time.Minute
)

func newLog(dir string, st store, keys *Keys, o Options) *Log {
	if o.Host == "" {
		o.Host, _ = os.Hostname()
	}
	if o.Host == "" {
		o.Host = "localhost"
	}
	return &Log{dir: dir, st: st, keys: keys, opts: o}
}

// Size returns the number of events that are durable.
func (l *Log) Size() int64 { return l.sealed.Size() + l.active.Size() }

// Checkpointed returns the latest checkpoint that was signed.
func (l *Log) Checkpointed() merkle.Checkpoint { return l.last }

// Keyring returns the chain of the log's keys. The caller must not change it.
func (l *Log) Keyring() *layout.Keyring { return l.ring }

// Root returns the root of the tree of the durable events.
func (l *Log) Root() merkle.Hash {
	r, err := l.sealed.Join(&l.active)
	if err != nil { // active is never larger than a subtree of sealed
		panic(err)
	}
	return r.Root()
}

// A Batch is what one producer appends at once.
type Batch struct {
	Drafts     []event.Draft
	Peer       event.Peer
	WantLeaves bool

	// Results. The first Stored of Drafts are durable and have the indexes
	// from First on, without a gap, or Indexes if that is set. Err says why
	// Drafts[Stored] was refused; those behind it were not looked at.
	First   int64
	Stored  int
	Indexes []int64       // set where there may be gaps: by RemoteSink
	Leaves  []merkle.Hash // leaf hashes of what is stored, if WantLeaves
	Err     error
}

// Index returns the index of the k'th stored draft.
func (b *Batch) Index(k int) int64 {
	if b.Indexes != nil {
		return b.Indexes[k]
	}
	return b.First + int64(k)
}

// Append appends batches in order and makes them durable together: one write
// and one fdatasync, more only for very large ones and at the end of a
// segment. An error means that the log could not be written: what is in
// Stored is durable all the same, the rest is not in the log. The errors of
// single drafts are in Batch.Err.
func (l *Log) Append(batches ...*Batch) error {
	if l.failed != nil {
		return l.failed
	}
	at := l.opts.now()
	for _, b := range batches {
		b.First, b.Stored, b.Leaves, b.Err = l.Size()+int64(len(l.pending)), 0, nil, nil
		stamp := l.stamp(b, at)
		for _, d := range b.Drafts {
			err := l.stage(b, d, stamp)
			if err == nil {
				continue
			}
			if event.TooLong(err) {
				b.Err = err
				break
			}
			l.drop()
			return err
		}
	}
	return l.flush()
}

// stamp is what all drafts of b get. It is good until the next one is made.
func (l *Log) stamp(b *Batch, at time.Time) event.Stamp {
	return event.Stamp{At: at, Peer: b.Peer, Host: l.opts.Host}.Share(l.shared[:])
}

// stage puts the line of d into buf.
func (l *Log) stage(b *Batch, d event.Draft, stamp event.Stamp) error {
	if len(l.buf) >= maxWrite || l.active.Size()+int64(len(l.pending)) == layout.SegmentEvents {
		if err := l.flush(); err != nil {
			return err
		}
	}
	stamp.Index = l.Size() + int64(len(l.pending))
	buf, err := d.Append(l.buf, stamp)
	if event.TooLong(err) {
		moved, data, ok := d.Externalize()
		if !ok {
			return err
		}
		if buf, err = moved.Append(l.buf, stamp); err != nil {
			return err
		}
		if err := l.storeBlob(data); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	l.buf = append(buf, '\n')
	l.pending = append(l.pending, pendingEvent{batch: b, claimed: d.Time, at: stamp.At, end: len(l.buf)})
	return nil
}

// storeBlob makes data durable before the line that names it is written.
func (l *Log) storeBlob(data []byte) error {
	sum := sha256.Sum256(data)
	name := layout.BlobName(hex.EncodeToString(sum[:]))
	if info, err := fs.Stat(l.st, name); err == nil && info.Size() == int64(len(data)) {
		return nil // made by Replace, so it is durable
	}
	if err := l.st.Replace(name, data); err != nil {
		return l.note(fmt.Errorf("blob %s: %w", name, err))
	}
	return nil
}

// flush writes buf, syncs it and only then counts its events.
func (l *Log) flush() error {
	if len(l.pending) == 0 {
		return nil
	}
	if l.f == nil {
		f, err := l.st.Create(layout.SegmentName(l.sealed.Size() / layout.SegmentEvents))
		if err != nil {
			l.drop()
			return l.note(fmt.Errorf("new segment: %w", err))
		}
		l.f = f
	}
	if _, err := l.f.Write(l.buf); err != nil {
		err = fmt.Errorf("append to %s: %w", l.dir, err)
		l.drop()
		// A part of it may be in the file; no event may follow that.
		if terr := l.f.Truncate(l.off); terr != nil {
			l.failed = fmt.Errorf("%w, and the part that was written could not be taken back: %w", err, terr)
			return l.failed
		}
		return err
	}
	grown, err := l.syncAndHash()
	if err != nil {
		l.drop()
		l.failed = fmt.Errorf("append to %s: %w; whether the events are stored is not known", l.dir, err)
		return l.failed
	}
	l.active = *grown
	at := l.pending[0].at // and of all
	l.ats.Add(at)
	for i := range l.pending {
		p := &l.pending[i]
		if !p.claimed.IsZero() {
			l.times.Add(p.claimed)
		} else if !at.IsZero() {
			l.times.Add(at)
			at = time.Time{} // once is enough
		}
		p.batch.Stored++
		if p.batch.WantLeaves {
			p.batch.Leaves = append(p.batch.Leaves, p.leaf)
		}
	}
	l.off += int64(len(l.buf))
	l.drop()
	l.durable.Store(l.Size())
	if l.active.Size() == layout.SegmentEvents {
		return l.seal()
	}
	return nil
}

// syncAndHash makes what was written durable and, while the disk is at it,
// hashes it: it returns the active segment's tree with the pending events.
func (l *Log) syncAndHash() (*merkle.Range, error) {
	grown := l.active.Clone()
	hashed := make(chan struct{})
	go func() {
		defer close(hashed)
		l.leaves, l.hashes = l.leaves[:0], l.hashes[:0]
		first := l.pending[0].end
		l.hashes = append(l.hashes, l.hasher.Leaf(l.buf[:first-1]))
		for i := 1; i < len(l.pending); i++ {
			// What is written is not needed any more: the newline before a
			// line becomes the byte that a leaf begins with.
			start, end := l.pending[i-1].end-1, l.pending[i].end-1
			l.buf[start] = 0
			l.leaves = append(l.leaves, l.buf[start:end])
			l.hashes = append(l.hashes, merkle.Hash{})
		}
		merkle.PrefixedLeaves(l.hashes[1:], l.leaves)
		for i := range l.pending {
			l.pending[i].leaf = l.hashes[i]
		}
		grown.AppendLeaves(l.hashes)
		clear(l.leaves) // keeps no old buf
	}()
	err := l.f.Datasync()
	<-hashed
	return grown, err
}

// drop forgets what is staged.
func (l *Log) drop() {
	l.buf, l.pending = l.buf[:0], l.pending[:0]
	if cap(l.buf) > 2*maxWrite {
		l.buf = nil
	}
}

// note makes err final if it is a failed sync.
func (l *Log) note(err error) error {
	var s *durable.SyncError
	if errors.As(err, &s) {
		l.failed = err
	}
	return err
}

// seal closes the full segment: its line in seals is durable before the next
// segment exists.
func (l *Log) seal() error {
	n := l.sealed.Size() / layout.SegmentEvents
	seal := layout.Seal{Segment: n, Root: l.active.Root(), Time: l.times, At: l.ats}
	if err := appendWhole(l.st, layout.Seals, seal.Line()); err != nil {
		// The events are safe, but nothing may go into the next segment.
		l.failed = fmt.Errorf("seal segment %d of %s: %w", n, l.dir, err)
		return l.failed
	}
	if err := l.f.Close(); err != nil {
		l.failed = err
		return err
	}
	l.f, l.off = nil, 0
	return l.nextSegment()
}

// nextSegment counts the active segment as sealed.
func (l *Log) nextSegment() error {
	if err := l.sealed.AppendSubtree(l.active.Root(), layout.SegmentLevel); err != nil {
		return err
	}
	l.active, l.times, l.ats = merkle.Range{}, layout.Span{}, layout.Span{}
	return nil
}

// appendOwn appends one of the log's own events. One that introduces a key is
// in the file of epochs when appendOwn returns.
func (l *Log) appendOwn(d event.Draft) error {
	if l.failed != nil {
		return l.failed
	}
	b := &Batch{Peer: l.opts.Peer}
	if err := l.stage(b, d, l.stamp(b, l.opts.now())); err != nil {
		l.drop()
		return err
	}
	line := bytes.Clone(l.buf)
	if err := l.flush(); err != nil {
		return err
	}
	e, err := event.Decode(bytes.TrimSuffix(line, []byte("\n")))
	if err != nil {
		return err
	}
	switch e.Type {
	case layout.TypeCreated:
		if l.ring, err = layout.NewKeyring(e); err != nil {
			return err
		}
		return l.note(l.st.Replace(layout.Epochs, line))
	case layout.TypeEpoch:
		if err := l.ring.Observe(e); err != nil {
			return err
		}
		return l.note(appendWhole(l.st, layout.Epochs, line))
	case layout.TypePruned:
		return l.note(l.st.Replace(layout.PrunedFile, line))
	}
	return nil
}

// Checkpoint signs the tree as it is and publishes that, unless the latest
// checkpoint covers it already.
func (l *Log) Checkpoint() error { return l.checkpoint(false) }

// checkpoint signs the tree; archive adds it to the archive in any case.
func (l *Log) checkpoint(archive bool) error {
	p, err := l.sign(archive)
	if err != nil || p == nil {
		return err
	}
	return l.published(p, p.publish(l.st, l.keys.last))
}

// An unpublished checkpoint is signed but not in the log's files yet.
type unpublished struct {
	merkle.Checkpoint
	note    []byte
	archive bool
	now     time.Time
	saved   error // of remembering it, set by publish
}

// sign signs the tree as it is, nil if the latest checkpoint covers it. All of
// it is durable: flush counts an event only after its fdatasync.
func (l *Log) sign(archive bool) (*unpublished, error) {
	if l.failed != nil {
		return nil, l.failed
	}
	c := merkle.Checkpoint{Origin: l.ring.Created.Origin, Size: l.Size(), Root: l.Root()}
	if c.Size == l.last.Size && !archive {
		return nil, nil
	}
	epoch := l.ring.EpochOf(c.Size)
	slot := l.keys.epoch.find(l.ring.EpochKey(epoch))
	if slot < 0 {
		return nil, &configError{fmt.Errorf("the secret key of epoch %d is not in %s", epoch, l.keys.dir),
			"gb-chain rotate-key --recovery-key FILE starts a new epoch with the key that init printed"}
	}
	note, err := merkle.Sign(c, l.keys.log, l.keys.epoch.slots[slot].key)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	now := l.opts.now()
	// A clock that was put back must not stop the archive.
	archive = archive || now.Sub(l.archivedAt).Abs() >= archiveEvery
	return &unpublished{Checkpoint: c, note: note, archive: archive, now: now}, nil
}

// publish puts the checkpoint into the log's files. The order is archive, then
// checkpoint, so that the last one of an epoch is in the archive before
// anybody sees it. It touches nothing of the Log, so that events may be
// appended at the same time. It also saves the checkpoint in last, whose rename
// may have to wait for the file system's journal: no append waits for that.
func (p *unpublished) publish(st store, last lastCheckpoint) error {
	if p.archive {
		if err := appendWhole(st, layout.Checkpoints, append(p.note[:len(p.note):len(p.note)], '\n')); err != nil {
			return fmt.Errorf("archive checkpoint: %w", err)
		}
	}
	if err := st.Replace(layout.Checkpoint, p.note); err != nil {
		return fmt.Errorf("publish checkpoint: %w", err)
	}
	p.saved = last.save(p.Checkpoint)
	return nil
}

// published takes the outcome of publish.
func (l *Log) published(p *unpublished, err error) error {
	if err != nil {
		return l.note(err)
	}
	if p.archive {
		l.archivedAt = p.now
	}
	l.last = p.Checkpoint
	return p.saved
}

// Close publishes a checkpoint over all events and releases the log.
func (l *Log) Close() error {
	err := l.Checkpoint()
	return errors.Join(err, l.release())
}

// release closes files and lock without signing anything.
func (l *Log) release() error {
	var errs []error
	if l.f != nil {
		errs = append(errs, l.f.Close())
		l.f = nil
	}
	if l.keys != nil {
		errs = append(errs, l.keys.close())
	}
	if l.lock != nil {
		errs = append(errs, l.lock.Unlock())
		l.lock = nil
	}
	if l.failed == nil {
		l.failed = errors.New("log is closed")
	}
	return errors.Join(errs...)
}
