package chain

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// A Pin is a size and root of the log that somebody else kept.
type Pin struct {
	Name string // where it is from
	Note []byte // a signed checkpoint, or nil
	Size int64  // without Note
	Root merkle.Hash
	own  bool // of a State: no outside pin
}

// VerifyOptions say against what a log is verified.
type VerifyOptions struct {
	// Key is the log key that is expected. Without it the key in the log's
	// own first event is taken, which shows that the log fits together but
	// not whose it is.
	Key merkle.Verifier

	// FirstEpochKey and RecoveryKey are the other keys in the log's first
	// event, if they are known from elsewhere. Whoever holds the log key can
	// start another log under it, with epoch keys of its own; these, or a
	// pin, tell that apart.
	FirstEpochKey, RecoveryKey merkle.Verifier

	// Pins must each be a state that the log has been in.
	Pins []Pin

	// Live says that a writer holds the log right now; Frozen that the
	// directory is a read-only snapshot. Either excuses events that are
	// younger than TailAge and not covered by a checkpoint yet.
	Live, Frozen bool

	// Since is what an earlier Verify of this log said. What it covers is not
	// read again, only what has come since, and the log must agree with it.
	Since *State

	Now      time.Time              // time.Now() if zero
	Workers  int                    // GOMAXPROCS if 0
	Progress func(done, size int64) // called with events now and then, may be nil
}

// TailAge is how long the newest events of a log may be without a checkpoint.
const TailAge = 10 * time.Second

// A Report is the outcome of Verify.
type Report struct {
	OK         bool              `json:"ok"`
	Origin     string            `json:"origin,omitempty"`
	Key        string            `json:"key,omitempty"`
	KeyPinned  bool              `json:"key_expected"` // Key was given, not taken from the log
	Size       int64             `json:"size"`         // events up to the checkpoint
	Root       merkle.Hash       `json:"root"`
	Time       time.Time         `json:"time,omitzero"` // at of the last event that the checkpoint covers
	Tail       int64             `json:"tail"`          // events behind the checkpoint
	Since      int64             `json:"since"`         // events that were verified earlier and not read again
	Pruned     int64             `json:"pruned"`        // events that were deleted, as the log says
	Segments   int               `json:"segments"`
	Epochs     int64             `json:"epochs"`
	Archived   int               `json:"checkpoints"` // in the archive
	Pins       []string          `json:"pins"`        // those that the log agrees with
	Faults     []Fault           `json:"faults"`
	Checkpoint merkle.Checkpoint `json:"-"`
	State      *State            `json:"-"` // for the next one's Since; nil if there are faults
}

// Verify recomputes the whole log: every line's hash and place, every segment's
// root against its seal, the roots and both signatures of every
// checkpoint, the chain of epoch keys, every blob, and the pins. What is wrong
// is in the report; an error means that the log could not be read.
func Verify(ctx context.Context, fsys fs.FS, o VerifyOptions) (*Report, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	v := newVerifier(fsys, o, true)
	if err := v.run(ctx); err != nil {
		return nil, err
	}
	if len(v.report.Faults) > 0 {
		// Again, with the checksum of each line: it tells which one changed.
		v = newVerifier(fsys, o, false)
		if err := v.run(ctx); err != nil {
			return nil, err
		}
	}
	sort.SliceStable(v.report.Faults, func(i, j int) bool { return v.report.Faults[i].Index < v.report.Faults[j].Index })
	v.report.OK = len(v.report.Faults) == 0
	if v.report.OK {
		v.report.State = v.state()
	}
	return v.report, nil
}

func newVerifier(fsys fs.FS, o VerifyOptions, quick bool) *verifier {
	return &verifier{fsys: fsys, o: o, quick: quick, report: &Report{Pins: []string{}, Faults: []Fault{}}}
}

type verifier struct {
	fsys   fs.FS
	quick  bool // sealed segments by their hashes alone
	o      VerifyOptions
	report *Report

	seals   []layout.Seal
	notes   []storedNote
	covered int64 // size of the largest checkpoint, unverified as yet
	ring    *layout.Keyring
	scans   []*segmentScan
	pruned  *prunedMark           // the newest that a checkpoint covers
	epochs  []byte                // the file of epochs
	archive int64                 // bytes of the archive up to its last whole note
	roots   map[int64]merkle.Hash // of the log's first so many events
	size    int64                 // events in place, from the log's beginning
	damaged bool                  // lines are out of place: roots say nothing new
}

// storedNote is a signed note of the log, as read.
type storedNote struct {
	note   []byte
	size   int64
	root   merkle.Hash
	latest bool // from the file checkpoint
	read   bool // size and root could be read
	opened bool // both signatures are good
}

func (v *verifier) fault(kind FaultKind, index, last int64, format string, args ...any) {
	v.report.Faults = append(v.report.Faults, Fault{kind, index, max(index, last), fmt.Sprintf(format, args...)})
}

func (v *verifier) run(ctx context.Context) error {
	// Checkpoints and seals first: while a writer goes on, the segments can
	// only be ahead of them.
	if err := v.readNotes(); err != nil {
		return err
	}
	data, err := readOptional(v.fsys, layout.Seals)
	if err != nil {
		return err
	}
	seals, rest, err := layout.ParseSeals(data)
	v.seals = seals
	if err != nil {
		v.fault(FaultSeal, int64(len(seals))*layout.SegmentEvents, 0, "%v", err)
	} else if len(rest) > 0 && !v.o.Live {
		v.fault(FaultSeal, int64(len(seals))*layout.SegmentEvents, 0, "the last line is cut")
	}
	present, err := segments(v.fsys)
	if err != nil {
		return err
	}
	v.report.Segments = len(present)
	if len(present) == 0 {
		if v.covered == 0 {
			return errNoLog()
		}
		v.fault(FaultTruncated, 0, v.covered-1, "there are no segments")
		return nil
	}
	if v.epochs, err = readOptional(v.fsys, layout.Epochs); err != nil {
		return err
	}
	if since := v.o.Since; since != nil && v.covered < since.Size {
		v.report.Since = since.Size
		v.fault(FaultRolledBack, v.covered, since.Size-1, "it was verified earlier with %d events, its checkpoints cover %d", since.Size, v.covered)
		return nil
	}
	if err := v.scanAll(ctx, present); err != nil {
		return err
	}
	v.checkPresent()
	v.chainOfKeys()
	v.openNotes()
	v.compareRoots()
	v.checkTail()
	v.checkPins()
	return v.checkBlobs(ctx)
}

func (v *verifier) readNotes() error {
	archive, err := v.readArchive()
	if err != nil {
		return err
	}
	notes, rest := merkle.SplitNotes(archive)
	v.archive += int64(len(archive) - len(rest))
	v.report.Archived = len(notes)
	add := func(note []byte, latest bool) {
		n := storedNote{note: note, latest: latest}
		if c, err := merkle.ParseNote(note); err == nil {
			n.size, n.root, n.read = c.Size, c.Root, true
			v.covered = max(v.covered, c.Size)
		} else {
			v.fault(FaultCheckpoint, v.covered, 0, "%v", err)
		}
		v.notes = append(v.notes, n)
	}
	for _, n := range notes {
		add(n, false)
	}
	if len(rest) > 0 && (!v.o.Live && !v.o.Frozen || len(rest) > 4096) {
		v.fault(FaultCheckpoint, v.covered, 0, "the archive of checkpoints ends in %d bytes that are none", len(rest))
	}
	latest, err := fs.ReadFile(v.fsys, layout.Checkpoint)
	if errors.Is(err, fs.ErrNotExist) {
		v.fault(FaultCheckpoint, v.covered, 0, "there is no latest checkpoint")
		return nil
	}
	if err != nil {
		return err
	}
	add(latest, true)
	return nil
}

// checkPresent finds gaps between segments, other than what was pruned.
func (v *verifier) checkPresent() {
	for _, s := range v.scans {
		if s.pruned != nil {
			v.pruned = s.pruned
		}
	}
	v.report.Pruned = v.pruned.end()
	want := v.pruned.end() / layout.SegmentEvents
	if v.o.Since != nil {
		v.report.Since = v.o.Since.Size
		v.report.Pruned = max(v.report.Pruned, v.o.Since.Pruned)
		want = max(want, v.o.Since.Size/layout.SegmentEvents)
	}
	for _, s := range v.scans {
		n := s.number
		if n < want {
			continue // pruned and not deleted yet
		}
		if n > want {
			v.fault(FaultSegmentGone, want*layout.SegmentEvents, n*layout.SegmentEvents-1, "%s to %s", layout.SegmentName(want), layout.SegmentName(n-1))
			v.damaged = true
		}
		want = n + 1
	}
	if end := want * layout.SegmentEvents; end < int64(len(v.seals))*layout.SegmentEvents {
		v.fault(FaultSegmentGone, end, int64(len(v.seals))*layout.SegmentEvents-1, "%s to %s", layout.SegmentName(want), layout.SegmentName(int64(len(v.seals))-1))
		v.damaged = true
	}
}

// scanAll reads the segments, several at once.
func (v *verifier) scanAll(ctx context.Context, present []int64) error {
	wanted := make(map[int64][]int64)
	want := func(size int64) {
		if size > 0 {
			n := (size - 1) / layout.SegmentEvents
			wanted[n] = append(wanted[n], size)
		}
	}
	for _, n := range v.notes {
		want(n.size)
	}
	for i := range v.o.Pins {
		p := &v.o.Pins[i]
		if p.Note != nil {
			c, err := merkle.ParseNote(p.Note)
			if err != nil {
				return &configError{fmt.Errorf("pin %s: %w", p.Name, err), ""}
			}
			p.Size, p.Root = c.Size, c.Root
		}
		want(p.Size)
	}
	first := int64(0) // segment
	var from *segmentPoint
	if since := v.o.Since; since != nil {
		first, from = since.Size/layout.SegmentEvents, since.point()
		if from == nil {
			return &configError{errors.New("what was verified earlier cannot be read"), "leave it out once, or remove the file"}
		}
		v.o.Pins = append(slices.Clone(v.o.Pins), Pin{Name: "the state verified earlier", Size: since.Size, Root: since.Root, own: true})
		want(since.Size)
		present = slices.DeleteFunc(present, func(n int64) bool { return n < first })
	}
	for _, sizes := range wanted {
		slices.Sort(sizes)
	}
	v.scans = make([]*segmentScan, len(present))
	errs := make([]error, len(present))
	var wg sync.WaitGroup
	var mu sync.Mutex
	var done int64
	next := make(chan int)
	for range min(v.o.Workers, len(present)) {
		wg.Go(func() {
			for k := range next {
				n := present[k]
				resume := from
				if n != first {
					resume = nil
				}
				v.scans[k], errs[k] = scanSegment(v.fsys, n, slices.Compact(wanted[n]), v.covered, resume, v.quick && n < int64(len(v.seals)))
				if errors.Is(errs[k], fs.ErrNotExist) {
					errs[k] = nil // pruned since it was listed, or missing
				} else if errs[k] == nil && v.o.Progress != nil {
					mu.Lock()
					done += v.scans[k].tree.Size()
					v.o.Progress(done, max(v.covered, done))
					mu.Unlock()
				}
			}
		})
	}
	for k := range present {
		if ctx.Err() != nil {
			break
		}
		next <- k
	}
	close(next)
	wg.Wait()
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return err
	}
	v.scans = slices.DeleteFunc(v.scans, func(s *segmentScan) bool { return s == nil })
	var misplaced []Fault
	for k, s := range v.scans {
		last := k == len(v.scans)-1
		full := s.tree.Size() == layout.SegmentEvents
		if !s.ok || !last && (!full || s.torn > 0) {
			found, err := diagnose(v.fsys, s.number, last && int64(len(v.seals)) <= s.number, v.covered)
			if err != nil {
				return err
			}
			misplaced = append(misplaced, found...)
			v.damaged = true
		} else if s.torn > 0 && s.first()+s.tree.Size() >= v.covered && !v.o.Live && !v.o.Frozen {
			v.fault(FaultTorn, s.first()+s.tree.Size(), 0, "%d bytes without an end, never acknowledged; the next writer cuts them off", s.torn)
		}
	}
	v.report.Faults = append(v.report.Faults, settle(misplaced)...)
	return nil
}

// chainOfKeys follows the log's own events. Where events are damaged, the file
// of epochs goes further: it vouches for itself.
func (v *verifier) chainOfKeys() {
	var broken *Fault
	if read := v.readFrom(); read > 0 {
		v.ring, _ = layout.ReadKeyringBelow(v.epochs, read)
		v.checkEpochsFile(read)
	}
	for _, s := range v.scans {
		for _, e := range s.own {
			if v.ring == nil {
				ring, err := layout.NewKeyring(e)
				if err != nil {
					v.fault(FaultCreated, 0, 0, "%v", err)
					return
				}
				v.ring = ring
				continue
			}
			if err := v.ring.Observe(e); err != nil && broken == nil {
				broken = &Fault{FaultEpoch, e.Index, e.Index, err.Error()}
			}
		}
	}
	kept, err := layout.ReadKeyring(v.epochs)
	switch {
	case (v.damaged || v.scanned() < v.covered) && kept != nil && (v.ring == nil || kept.Extends(v.ring)):
		v.ring, broken = kept, nil
	case err != nil:
		v.fault(FaultEpoch, 0, 0, "file %s: %v", layout.Epochs, err)
	case v.ring == nil:
	case int64(bytes.Count(v.epochs, []byte("\n"))) != kept.Epochs() && !v.o.Live && !v.o.Frozen:
		v.fault(FaultEpoch, 0, 0, "the last line of file %s cannot be read", layout.Epochs)
	case kept.Epochs() > v.ring.Epochs() || kept.Epochs() < v.ring.Epochs() && !v.o.Live && !v.o.Frozen:
		v.fault(FaultEpoch, 0, 0, "file %s has %d epochs, the events %d", layout.Epochs, kept.Epochs(), v.ring.Epochs())
	case !kept.Extends(v.ring) && !v.ring.Extends(kept):
		v.fault(FaultEpoch, 0, 0, "file %s has other keys than the events", layout.Epochs)
	}
	if broken != nil {
		v.report.Faults = append(v.report.Faults, *broken)
	}
	if v.ring == nil {
		v.fault(FaultCreated, 0, 0, "the log's first event cannot be read, so its keys are not known")
		return
	}
	created := v.ring.Created
	v.report.Origin, v.report.Key, v.report.Epochs = created.Origin, created.LogKey.String(), v.ring.Epochs()
	v.report.KeyPinned = !v.o.Key.IsZero()
	if s := v.o.Since; s != nil && s.Key != v.report.Key {
		v.fault(FaultKey, 0, 0, "its key is %s, it was %s when it was verified earlier", v.report.Key, s.Key)
	}
	for _, k := range []struct {
		what       string
		want, have merkle.Verifier
	}{{"key", v.o.Key, created.LogKey}, {"first epoch key", v.o.FirstEpochKey, created.EpochKey}, {"recovery key", v.o.RecoveryKey, created.RecoveryKey}} {
		if !k.want.IsZero() && k.want.String() != k.have.String() {
			v.fault(FaultKey, 0, 0, "its %s is %s, not %s", k.what, k.have, k.want)
		}
	}
}

// scanned returns where the events in place end.
func (v *verifier) scanned() int64 {
	if len(v.scans) == 0 {
		return v.readFrom()
	}
	s := v.scans[len(v.scans)-1]
	return s.first() + s.tree.Size()
}

// openNotes checks the signatures of all checkpoints.
func (v *verifier) openNotes() {
	if v.ring == nil {
		return
	}
	var wg sync.WaitGroup
	faults := make([]*Fault, len(v.notes))
	next := make(chan int)
	for range v.o.Workers {
		wg.Go(func() {
			for i := range next {
				faults[i] = v.openNote(&v.notes[i])
			}
		})
	}
	for i := range v.notes {
		next <- i
	}
	close(next)
	wg.Wait()
	archived := make(map[int64]bool)
	var before int64
	for i, f := range faults {
		if f != nil {
			v.report.Faults = append(v.report.Faults, *f)
		}
		n := &v.notes[i]
		if n.opened && !n.latest {
			archived[n.size] = true
			if n.size < before {
				v.fault(FaultCheckpoint, n.size, 0, "it stands in the archive behind one of size %d", before)
			}
			before = max(before, n.size)
		}
	}
	for e := int64(1); e < v.ring.Epochs(); e++ {
		// A rotation that goes on right now has no checkpoint yet.
		if size, signed := v.ring.Start(e); signed && !archived[size] && size < v.covered && size > v.report.Since {
			v.fault(FaultEpoch, size, 0, "the last checkpoint of epoch %d is missing", e-1)
		}
	}
}

func (v *verifier) openNote(n *storedNote) *Fault {
	if !n.read {
		return nil // named already
	}
	_, err := v.ring.Open(n.note)
	if err == nil {
		n.opened = true
		return nil
	}
	if _, err := merkle.Open(n.note, v.ring.Created.LogKey); err != nil {
		return &Fault{FaultSignature, n.size, n.size, fmt.Sprintf("log key: %v", err)}
	}
	return &Fault{FaultEpoch, n.size, n.size, err.Error()}
}

// compareRoots compares what the events hash to with what was signed.
func (v *verifier) compareRoots() {
	// The tree, of each segment's own root where its lines are in order, of
	// its seal where they are not.
	var tree merkle.Range
	roots := make(map[int64]merkle.Hash)
	v.roots = roots
	var unlike []int64 // segments whose root is not their seal's
	k := 0
	whole := true
	for n := int64(0); whole && (k < len(v.scans) || n < int64(len(v.seals))); n++ {
		var s *segmentScan
		if k < len(v.scans) && v.scans[k].number == n {
			s = v.scans[k]
			k++
		}
		sealed := n < int64(len(v.seals))
		roots[tree.Size()] = tree.Root()
		if s != nil && s.ok {
			for size, p := range s.at {
				if joined, err := tree.Join(&p.tree); err == nil {
					roots[size] = joined.Root()
				}
			}
		}
		switch {
		case s != nil && s.ok && s.tree.Size() == layout.SegmentEvents:
			if sealed && v.seals[n].Root != s.tree.Root() {
				unlike = append(unlike, n)
			} else if sealed && (!sameSpan(v.seals[n].Time, s.times) || !sameSpan(v.seals[n].At, s.ats)) {
				v.fault(FaultSeal, s.first(), s.first()+layout.SegmentEvents-1, "the times in the seal of %s are not those of its events", layout.SegmentName(n))
			} else if !sealed && !v.o.Live && k < len(v.scans) {
				v.fault(FaultSeal, s.first(), s.first()+layout.SegmentEvents-1, "%s has no seal", layout.SegmentName(n))
			}
			whole = tree.AppendSubtree(s.tree.Root(), layout.SegmentLevel) == nil
		case s != nil && s.ok && k == len(v.scans) && !sealed:
			joined, err := tree.Join(&s.tree)
			if err != nil {
				return
			}
			tree = *joined
			whole = false
		case sealed:
			whole = tree.AppendSubtree(v.seals[n].Root, layout.SegmentLevel) == nil
			if s != nil && s.ok && k == len(v.scans) { // the last one, short but sealed
				v.fault(FaultTruncated, s.first()+s.tree.Size(), s.first()+layout.SegmentEvents-1, "%s ends before it", layout.SegmentName(n))
				v.damaged = true
			}
		default:
			whole = false
		}
	}
	v.size = tree.Size()
	roots[v.size] = tree.Root()
	if m := v.pruned; m != nil && roots[m.end()] != m.Root {
		v.fault(FaultSeal, 0, m.end()-1, "the seals of what was pruned do not have the root that event %d says", m.index)
	}
	if v.size < v.covered && !v.damaged {
		v.fault(FaultTruncated, v.size, v.covered-1, "the log ends before it, a checkpoint covers it")
		defer func() { v.damaged = true }() // what is left can still be compared
	}

	// Checkpoints in order of size: the first that does not fit shows where
	// the events changed, as nearly as the checkpoints tell.
	opened := make([]*storedNote, 0, len(v.notes))
	for i := range v.notes {
		if v.notes[i].opened {
			opened = append(opened, &v.notes[i])
		}
	}
	sort.SliceStable(opened, func(i, j int) bool { return opened[i].size < opened[j].size })
	var good int64
	bad := false
	for _, n := range opened {
		root, known := roots[n.size]
		if n.size == 0 {
			root, known = merkle.EmptyRoot, true
		}
		if !known {
			continue // damaged or truncated there, and named so
		}
		if root != n.root {
			if !v.damaged && !bad {
				v.named(good, n.size, unlike)
			}
			bad = true
			continue
		}
		if bad && !v.damaged {
			v.fault(FaultForked, n.size, 0, "checkpoint %d fits the events, an earlier one does not", n.size)
		}
		good = n.size
		if n.size >= v.report.Size {
			v.report.Size, v.report.Root = n.size, n.root
			v.report.Checkpoint = merkle.Checkpoint{Origin: v.report.Origin, Size: n.size, Root: n.root}
		}
	}
	if !bad && !v.damaged {
		for _, n := range unlike {
			v.fault(FaultSeal, n*layout.SegmentEvents, (n+1)*layout.SegmentEvents-1, "the root in the seal of %s is not that of its events, which are what was signed", layout.SegmentName(n))
		}
	}
	v.report.Tail = max(v.size-v.covered, 0)
	if s := v.scanOf(v.report.Size - 1); s != nil && len(s.tail) == 0 {
		v.report.Time = s.ats.Max
	} else if s != nil {
		v.report.Time = v.timeOf(v.report.Size - 1)
	} else if n := v.report.Size / layout.SegmentEvents; n > 0 && n <= int64(len(v.seals)) {
		v.report.Time = v.seals[n-1].At.Max
	}
}

// named reports that events in [good, size) are not what was signed, within
// the segments whose seal they do not fit.
func (v *verifier) named(good, size int64, unlike []int64) {
	named := false
	for _, n := range unlike {
		from, to := max(good, n*layout.SegmentEvents), min(size, (n+1)*layout.SegmentEvents)
		if from < to {
			v.fault(FaultChanged, from, to-1, "between these, in %s; the checksums were made to fit", layout.SegmentName(n))
			named = true
		}
	}
	if !named {
		v.fault(FaultChanged, good, size-1, "between checkpoints %d and %d; the checksums were made to fit", good, size)
	}
}

func sameSpan(a, b layout.Span) bool { return a.Min.Equal(b.Min) && a.Max.Equal(b.Max) }

func (v *verifier) scanOf(index int64) *segmentScan {
	for _, s := range v.scans {
		if index >= s.first() && index < s.first()+s.tree.Size() {
			return s
		}
	}
	return nil
}

// timeOf returns the log's time of one event.
func (v *verifier) timeOf(index int64) (at time.Time) {
	f, err := v.fsys.Open(layout.SegmentName(index / layout.SegmentEvents))
	if err != nil {
		return at
	}
	defer f.Close()
	r := newLineReader(f)
	for range index % layout.SegmentEvents {
		if _, err := r.next(); err != nil {
			return at
		}
	}
	if line, err := r.next(); err == nil {
		_, at, _ = event.Times(line)
	}
	return at
}

// checkTail looks at the events that no checkpoint covers.
func (v *verifier) checkTail() {
	if v.damaged {
		return
	}
	var span layout.Span
	first := int64(-1)
	for _, s := range v.scans {
		for _, t := range s.tail {
			if first < 0 {
				first = t.index
			}
			span.Add(t.ats.Min)
			span.Add(t.ats.Max)
		}
	}
	if first < 0 {
		return
	}
	age := v.o.Now.Sub(span.Min)
	if v.o.Frozen {
		age = span.Max.Sub(span.Min)
	}
	switch {
	case !v.o.Live && !v.o.Frozen:
		v.fault(FaultTail, first, v.size-1, "no checkpoint covers it, and nobody is writing this log")
	case age > TailAge:
		v.fault(FaultTail, first, v.size-1, "no checkpoint has covered it for %s", age.Round(time.Second))
	}
}

func (v *verifier) checkPins() {
	for _, p := range v.o.Pins {
		if p.Note != nil && v.ring != nil {
			if _, err := merkle.Open(p.Note, v.ring.Created.LogKey); err != nil {
				v.fault(FaultSignature, p.Size, 0, "pin %s: %v", p.Name, err)
				continue
			}
		}
		root, known := v.roots[p.Size]
		switch {
		case p.Size == 0:
		case p.Size > v.size && !v.damaged:
			v.fault(FaultRolledBack, v.size, p.Size-1, "pin %s saw %d events, the log has %d", p.Name, p.Size, v.size)
			continue
		case !known && p.own:
			continue // what is damaged there is named
		case !known && p.Size < v.report.Pruned:
			v.fault(FaultForked, p.Size, 0, "pin %s cannot be compared: the events below it were pruned", p.Name)
			continue
		case !known && p.Size < v.report.Since:
			v.fault(FaultForked, p.Size, 0, "pin %s cannot be compared: the events below it were verified earlier and not read again", p.Name)
			continue
		case !known:
			v.fault(FaultForked, p.Size, 0, "pin %s cannot be compared: the events below it are damaged", p.Name)
			continue
		case root != p.Root:
			v.fault(FaultForked, 0, p.Size-1, "pin %s has another root for the first %d events", p.Name, p.Size)
			continue
		}
		if !p.own {
			v.report.Pins = append(v.report.Pins, p.Name)
		}
	}
}

// checkBlobs reads the data that is kept outside of the lines.
func (v *verifier) checkBlobs(ctx context.Context) error {
	good := make(map[string]bool)
	for _, s := range v.scans {
		if s.first() < v.report.Pruned {
			continue
		}
		for _, b := range s.blobs {
			if good[b.blob.SHA256] {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := checkBlob(v.fsys, b.blob); err != nil {
				v.fault(FaultBlob, b.index, 0, "%v", err)
				continue
			}
			good[b.blob.SHA256] = true
		}
	}
	return nil
}

func checkBlobName(b event.Blob) error {
	if _, err := hex.DecodeString(b.SHA256); err != nil || len(b.SHA256) != 2*sha256.Size {
		return fmt.Errorf("%.80q is no SHA-256", b.SHA256)
	}
	return nil
}

func checkBlob(fsys fs.FS, b event.Blob) error {
	if err := checkBlobName(b); err != nil {
		return err
	}
	f, err := fsys.Open(layout.BlobName(b.SHA256))
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, event.MaxInput+1))
	if err != nil {
		return err
	}
	if n != b.Size || hex.EncodeToString(h.Sum(nil)) != b.SHA256 {
		return fmt.Errorf("blob %s has other bytes", b.SHA256)
	}
	return nil
}

// ReadPin reads a pin from the bytes of a signed checkpoint, or of a cursor
// file (JSON with tree_size and root).
func ReadPin(name string, data []byte) (Pin, error) {
	var cursor struct {
		Size *int64       `json:"tree_size"`
		Root *merkle.Hash `json:"root"`
	}
	if json.Unmarshal(data, &cursor) == nil && cursor.Size != nil && cursor.Root != nil {
		return Pin{Name: name, Size: *cursor.Size, Root: *cursor.Root}, nil
	}
	if _, err := merkle.ParseNote(data); err != nil {
		return Pin{}, &configError{fmt.Errorf("pin %s: neither a cursor file nor a signed checkpoint: %w", name, err), ""}
	}
	return Pin{Name: name, Note: data}, nil
}
