package chain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// A disk is a log directory and a keys directory in memory that forgets, when
// the machine stops, a random part of what was not synced: blocks of file
// data, the growth of files, directory entries. It stops the machine, or
// fails with an error, at a chosen call.
type disk struct {
	rnd   *rand.Rand
	files map[string]*diskFile
	keys  *diskFile // epoch.key
	last  merkle.Checkpoint
	calls int
	at    int   // the call at which it happens, 0 for never
	fail  error // what happens: nil stops the machine
	trace []string
	notes [][]byte // everything that was written as a checkpoint
}

type diskFile struct {
	synced  []byte // what the disk has for sure
	data    []byte
	existed bool // the directory entry is durable
}

// stopped is the panic by which the machine stops.
type stopped struct{}

const diskBlock = 4096

// call counts a call, and returns how much of it happens and how it ends.
func (d *disk) call(what, name string) error {
	d.calls++
	d.trace = append(d.trace, what+" "+name)
	if d.calls != d.at {
		return nil
	}
	if d.fail != nil {
		return d.fail
	}
	return errStop
}

var errStop = errors.New("the machine stops")

func (d *disk) stop() { panic(stopped{}) }

// crash returns the disk as the next boot finds it.
func (d *disk) crash() *disk {
	n := &disk{rnd: d.rnd, files: make(map[string]*diskFile), last: d.last, notes: d.notes}
	if d.rnd.IntN(2) == 0 {
		n.last = merkle.Checkpoint{} // saved without fsync: lost
	}
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		f := d.files[name]
		if !f.existed && d.rnd.IntN(2) == 0 {
			continue
		}
		data := d.survive(f)
		n.files[name] = &diskFile{synced: data, data: data, existed: true}
	}
	if d.keys != nil {
		data := d.survive(d.keys)
		n.keys = &diskFile{synced: data, data: data, existed: true}
	}
	return n
}

// survive returns a state that f may be in after a crash: any size between the
// old and the new one, and each block that was not synced old, new or, where
// there was none, zero.
func (d *disk) survive(f *diskFile) []byte {
	if bytes.Equal(f.synced, f.data) {
		return f.synced
	}
	lo, hi := min(len(f.synced), len(f.data)), max(len(f.synced), len(f.data))
	size := lo
	switch d.rnd.IntN(3) {
	case 0:
		size = hi
	case 1:
		size = lo + d.rnd.IntN(hi-lo+1)
	}
	out := make([]byte, size)
	copy(out, f.synced)
	for b := 0; b < size; b += diskBlock {
		if d.rnd.IntN(3) > 0 {
			end := min(b+diskBlock, size)
			if b < len(f.data) {
				copy(out[b:end], f.data[b:min(end, len(f.data))])
			}
		}
	}
	return out
}

func (d *disk) mapFS() fstest.MapFS {
	m := make(fstest.MapFS)
	for name, f := range d.files {
		m[name] = &fstest.MapFile{Data: f.data, Mode: 0o644}
	}
	return m
}

func (d *disk) Open(name string) (fs.File, error) { return d.mapFS().Open(name) }

func (d *disk) Create(name string) (appender, error) {
	if _, ok := d.files[name]; ok {
		return nil, fs.ErrExist
	}
	err := d.call("create", name)
	if err != nil && !errors.Is(err, errStop) {
		return nil, err
	}
	f := &diskFile{}
	d.files[name] = f
	if err != nil {
		d.stop()
	}
	f.existed = true
	return &diskHandle{d, name, f}, nil
}

func (d *disk) Append(name string) (appender, int64, error) {
	f, ok := d.files[name]
	if !ok {
		a, err := d.Create(name)
		return a, 0, err
	}
	return &diskHandle{d, name, f}, int64(len(f.data)), nil
}

func (d *disk) Replace(name string, data []byte) error {
	if name == layout.Checkpoint {
		d.notes = append(d.notes, bytes.Clone(data))
	}
	err := d.call("replace", name)
	data = bytes.Clone(data)
	switch {
	case err == nil:
		d.files[name] = &diskFile{synced: data, data: data, existed: true}
		return nil
	case !errors.Is(err, errStop):
		return err
	}
	// The new name, the old one, or only the temporary file.
	switch d.rnd.IntN(3) {
	case 0:
		d.files[name] = &diskFile{synced: data, data: data, existed: true}
	case 1:
		d.files[name+".tmp"] = &diskFile{data: data, existed: true}
	}
	d.stop()
	return nil
}

func (d *disk) Remove(name string) error {
	if err := d.call("remove", name); err != nil && !errors.Is(err, errStop) {
		return err
	} else if err != nil {
		if d.rnd.IntN(2) == 0 {
			delete(d.files, name)
		}
		d.stop()
	}
	// Not durable before SyncDir, but nothing here depends on a name's being
	// gone: that it comes back is what the next removal is for.
	delete(d.files, name)
	return nil
}

func (d *disk) SyncDir(name string) error {
	if err := d.call("syncdir", name); err != nil && !errors.Is(err, errStop) {
		return &durable.SyncError{Err: err}
	} else if err != nil {
		d.stop()
	}
	for n, f := range d.files {
		if path.Dir(n) == name {
			f.existed = true
		}
	}
	return nil
}

type diskHandle struct {
	d    *disk
	name string
	f    *diskFile
}

func (h *diskHandle) Write(b []byte) (int, error) {
	if h.name == layout.Checkpoints {
		h.d.notes = append(h.d.notes, bytes.TrimSuffix(bytes.Clone(b), []byte("\n")))
	}
	err := h.d.call("write", h.name)
	part := len(b)
	if err != nil {
		part = h.d.rnd.IntN(len(b) + 1)
	}
	h.f.data = append(h.f.data[:len(h.f.data):len(h.f.data)], b[:part]...)
	if errors.Is(err, errStop) {
		h.d.stop()
	}
	return part, err
}

func (h *diskHandle) Datasync() error {
	err := h.d.call("datasync", h.name)
	if errors.Is(err, errStop) {
		h.d.stop()
	}
	if err != nil {
		return &durable.SyncError{Err: err}
	}
	h.f.synced = h.f.data
	return nil
}

func (h *diskHandle) Truncate(size int64) error {
	err := h.d.call("truncate", h.name)
	if err == nil || errors.Is(err, errStop) {
		h.f.data = h.f.data[:size:size]
	}
	if errors.Is(err, errStop) {
		h.d.stop()
	}
	return err
}

func (h *diskHandle) ReadAt(b []byte, off int64) (int, error) {
	if off >= int64(len(h.f.data)) {
		return 0, io.EOF
	}
	n := copy(b, h.f.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (h *diskHandle) WriteAt(b []byte, off int64) (int, error) {
	err := h.d.call("overwrite", h.name)
	if err != nil && !errors.Is(err, errStop) {
		return 0, err
	}
	data := bytes.Clone(h.f.data)
	if need := int(off) + len(b); need > len(data) {
		data = append(data, make([]byte, need-len(data))...)
	}
	copy(data[off:], b)
	h.f.data = data
	if err != nil {
		h.d.stop()
	}
	return len(b), nil
}

func (h *diskHandle) Close() error { return nil }

// diskLast is the last checkpoint signed here.
type diskLast struct{ d *disk }

func (l diskLast) load() (int64, merkle.Hash, bool) {
	return l.d.last.Size, l.d.last.Root, l.d.last.Size > 0
}
func (l diskLast) save(c merkle.Checkpoint) error { l.d.last = c; return nil }

// crashLog is what all crash tests write: a log with rotations, a blob and
// several archived checkpoints.
type crashLog struct {
	created layout.Created
	logKey  *merkle.Signer
	opts    Options
	acked   map[int64]merkle.Hash // leaf hashes of the events that were acknowledged
}

func newCrashLog(t testing.TB) (*crashLog, *disk) {
	clock := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	seed := byte(0)
	c := &crashLog{acked: make(map[int64]merkle.Hash)}
	c.opts = Options{
		Host: "h",
		Now:  func() time.Time { clock = clock.Add(21 * time.Second); return clock },
		newKey: func(name string) (*merkle.Signer, error) {
			seed++
			return merkle.KeyFromSeed(name, [32]byte{seed, 1})
		},
	}
	const origin = "crash.example/log"
	var keys [3]*merkle.Signer
	for i, name := range []string{origin, layout.EpochKeyName(origin), layout.RecoveryKeyName(origin)} {
		keys[i], _ = c.opts.newKey(name)
	}
	c.logKey = keys[0]
	c.created = layout.Created{Format: layout.FormatVersion, Origin: origin, LogKey: keys[0].Verifier(), EpochKey: keys[1].Verifier(), RecoveryKey: keys[2].Verifier()}
	d := &disk{files: make(map[string]*diskFile), keys: &diskFile{}}
	ef := &epochFile{f: &diskHandle{d, epochKeyFile, d.keys}, name: layout.EpochKeyName(origin)}
	if err := ef.begin(&epochSlot{0, keys[1]}); err != nil {
		t.Fatal(err)
	}
	l := newLog("L", d, &Keys{"K", c.logKey, ef, diskLast{d}}, c.opts)
	if err := l.create(c.created); err != nil {
		t.Fatal(err)
	}
	l.release()
	d.calls, d.trace = 0, nil
	return c, d
}

func (c *crashLog) clone() *crashLog {
	n := *c
	n.acked = maps.Clone(c.acked)
	return &n
}

func (d *disk) clone(rnd *rand.Rand) *disk {
	n := &disk{rnd: rnd, files: make(map[string]*diskFile), last: d.last, notes: slices.Clone(d.notes)}
	for name, f := range d.files {
		g := *f
		n.files[name] = &g
	}
	k := *d.keys
	n.keys = &k
	return n
}

// open opens the log on d.
func (c *crashLog) open(d *disk) (*Log, error) {
	ef, err := readEpochFile(&diskHandle{d, epochKeyFile, d.keys}, layout.EpochKeyName(c.created.Origin), nil)
	if err != nil {
		return nil, err
	}
	ring, err := readKeyring(d)
	if err != nil {
		return nil, err
	}
	l := newLog("L", d, &Keys{"K", c.logKey, ef, diskLast{d}}, c.opts)
	if err := l.begin(ring); err != nil {
		return nil, err
	}
	if err := l.finishRotation(); err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

// append appends n events, one of them with a blob if large, and notes what is
// acknowledged.
func (c *crashLog) append(l *Log, n int, large bool) error {
	var p event.Parser
	b := &Batch{WantLeaves: true}
	for i := range n {
		line := fmt.Sprintf(`{"source":"demo","type":"note","message":"%d%s"}`, i, strings.Repeat("x", 1500))
		if large && i == 0 {
			line = fmt.Sprintf(`{"source":"demo","type":"note","data":{"x":"%d%s"}}`, l.Size(), strings.Repeat("y", 70000))
		}
		d, err := p.Parse([]byte(line))
		if err != nil {
			return err
		}
		b.Drafts = append(b.Drafts, d)
	}
	err := l.Append(b)
	for i, leaf := range b.Leaves {
		c.acked[b.First+int64(i)] = leaf
	}
	return err
}

// session is what the log lives through. It goes on after errors, as the
// daemon does, until the log has failed for good.
func (c *crashLog) session(l *Log) (failed bool) {
	for _, step := range []func() error{
		func() error { return c.append(l, 3, false) },
		l.Checkpoint,
		func() error { return c.append(l, 8, false) },
		l.RotateKey,
		func() error { return c.append(l, 1, false) },
		func() error { return c.append(l, 2, true) },
		l.Checkpoint,
		func() error { return c.append(l, 4, false) },
		l.RotateKey,
		l.RotateKey,
		func() error { return c.append(l, 2, false) },
		l.Close,
	} {
		step()
		if l.failed != nil && l.failed.Error() != "log is closed" {
			return true
		}
	}
	return false
}

// run runs f until the machine stops.
func run(f func()) (stops bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(stopped); !ok {
				panic(r)
			}
			stops = true
		}
	}()
	f()
	return false
}

// check holds a log that has been opened after a crash, and closed, to its
// promises. It returns what is broken.
func (c *crashLog) check(d *disk) error {
	r, err := Verify(context.Background(), d, VerifyOptions{Key: c.created.LogKey, FirstEpochKey: c.created.EpochKey, Now: c.opts.Now()})
	if err != nil {
		return err
	}
	if !r.OK {
		return fmt.Errorf("verify:%s", faultList(r.Faults))
	}
	var tree merkle.Range
	var h merkle.Hasher
	roots := map[int64]merkle.Hash{}
	for _, line := range bytes.Split(bytes.TrimSuffix(d.files[layout.SegmentName(0)].data, []byte("\n")), []byte("\n")) {
		leaf := h.Leaf(line)
		if want, ok := c.acked[tree.Size()]; ok && want != leaf {
			return fmt.Errorf("event %d was acknowledged and is another one now", tree.Size())
		}
		tree.Append(leaf)
		roots[tree.Size()] = tree.Root()
	}
	for i := range c.acked {
		if i >= tree.Size() {
			return fmt.Errorf("event %d was acknowledged and is lost: there are %d", i, tree.Size())
		}
	}
	for _, note := range d.notes {
		cp, err := merkle.ParseNote(note)
		if err != nil {
			return err
		}
		if roots[cp.Size] != cp.Root {
			return fmt.Errorf("a checkpoint over %d events was signed that the log, of %d, does not fit", cp.Size, tree.Size())
		}
	}
	ef, err := readEpochFile(&diskHandle{d, epochKeyFile, d.keys}, layout.EpochKeyName(c.created.Origin), nil)
	if err != nil {
		return err
	}
	ring, err := readKeyring(d)
	if err != nil {
		return err
	}
	if current := ef.find(ring.EpochKey(ring.Epochs() - 1)); current < 0 || ef.slots[1-current] != nil {
		return fmt.Errorf("not exactly one usable epoch key: slots %v", ef.slots)
	}
	return nil
}

// checkImage verifies a crash image as it is, as one does with a snapshot that
// was taken at that moment: only what no checkpoint covers may be torn.
func (c *crashLog) checkImage(d *disk) error {
	r, err := Verify(context.Background(), d, VerifyOptions{Key: c.created.LogKey, Frozen: true, Now: c.opts.Now()})
	if err != nil {
		return err
	}
	for _, f := range r.Faults {
		switch {
		case f.Kind == FaultTail, f.Kind == FaultTorn:
		case f.Index >= r.Size && (f.Kind == FaultChanged || f.Kind == FaultInserted || f.Kind == FaultDeleted):
			// blocks that were never acknowledged, out of order
		default:
			return fmt.Errorf("crash image:%s", faultList(r.Faults))
		}
	}
	return nil
}

func crashSeeds() int {
	if os.Getenv("GB_TORTURE") == "1" {
		return 200
	}
	if raceDetector {
		return 1
	}
	return 4
}

// The machine may stop at any call, also while the log recovers, and lose any
// part of what was not synced: no acknowledged event is lost, no checkpoint
// was signed that the log does not fit, one epoch key is usable, the log
// verifies and can be written.
func TestCrashAtEveryCall(t *testing.T) {
	base, disk0 := newCrashLog(t)
	calls := 0
	for at := 1; ; at++ {
		done := false
		for seed := range crashSeeds() {
			rnd := rand.New(rand.NewPCG(uint64(at), uint64(seed)))
			c, d := base.clone(), disk0.clone(rnd)
			d.at = at
			done = !run(func() {
				l, err := c.open(d)
				if err != nil {
					t.Fatal(err)
				}
				c.session(l)
			})
			if done {
				calls = d.calls
				break
			}
			where := fmt.Sprintf("stopped at call %d (%s), seed %d", at, d.trace[len(d.trace)-1], seed)
			d = d.crash()
			if err := c.checkImage(d.clone(rnd)); err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			for again := rnd.IntN(20); again > 0; again = rnd.IntN(20) {
				d.at, d.calls = again, 0
				if !run(func() { c.open(d) }) {
					break
				}
				where += fmt.Sprintf(", again at %s", d.trace[len(d.trace)-1])
				d = d.crash()
			}
			d.at = 0
			l, err := c.open(d)
			if err != nil {
				t.Fatalf("%s: open: %v", where, err)
			}
			if err := c.append(l, 2, false); err != nil {
				t.Fatalf("%s: append: %v", where, err)
			}
			if err := l.RotateKey(); err != nil {
				t.Fatalf("%s: rotate: %v", where, err)
			}
			if err := l.Close(); err != nil {
				t.Fatalf("%s: close: %v", where, err)
			}
			if err := c.check(d); err != nil {
				t.Fatalf("%s: %v\n%s", where, err, strings.Join(d.trace, "\n"))
			}
		}
		if done {
			break
		}
	}
	if calls < 50 {
		t.Errorf("the session makes %d calls", calls)
	}
}

// Any call may fail, for lack of space or for good: the log goes on or stops,
// and what it holds after the next start is as after a crash.
func TestErrorAtEveryCall(t *testing.T) {
	base, disk0 := newCrashLog(t)
	for _, fail := range []error{fs.ErrInvalid, errors.New("input/output error")} {
		for at := 1; ; at++ {
			happened := false
			for seed := range crashSeeds() {
				rnd := rand.New(rand.NewPCG(uint64(at), uint64(seed)))
				c, d := base.clone(), disk0.clone(rnd)
				d.at, d.fail = at, fail
				l, err := c.open(d)
				where := fmt.Sprintf("%v at call %d", fail, at)
				if err == nil {
					synced := c.session(l)
					last := d.trace[len(d.trace)-1]
					if d.calls >= at {
						where += " (" + d.trace[at-1] + ")"
						if op, _, _ := strings.Cut(d.trace[at-1], " "); (op == "datasync" || op == "syncdir") && !synced {
							t.Fatalf("%s: the writer goes on after a failed sync", where)
						}
						if synced && d.calls > at+2 { // a truncate or a close may follow, nothing that writes events
							t.Fatalf("%s: %d calls after it, the last is %s", where, d.calls-at, last)
						}
					}
				}
				happened = happened || d.calls >= at
				if rnd.IntN(2) == 0 {
					d = d.crash()
				}
				d.at = 0
				if l, err = c.open(d); err != nil {
					t.Fatalf("%s: open: %v", where, err)
				}
				if err := c.append(l, 1, false); err != nil {
					t.Fatalf("%s: append: %v", where, err)
				}
				if err := l.Close(); err != nil {
					t.Fatalf("%s: close: %v", where, err)
				}
				if err := c.check(d); err != nil {
					t.Fatalf("%s: %v\n%s", where, err, strings.Join(d.trace, "\n"))
				}
			}
			if !happened {
				break
			}
		}
	}
}

// The segment and the archive may be cut at any byte behind the latest
// checkpoint: everything whole is kept, nothing half is taken, what is cut off
// is kept aside and reported.
func TestTruncatedAtEveryByte(t *testing.T) {
	base, d := newCrashLog(t)
	d.rnd = rand.New(rand.NewPCG(1, 1))
	l, err := base.open(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := base.append(l, 2, false); err != nil {
		t.Fatal(err)
	}
	if err := l.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	covered := len(d.files[layout.SegmentName(0)].data)
	size := l.Size()
	for range 3 {
		appendOne(t, l, "short")
	}
	l.release()
	whole := d.files[layout.SegmentName(0)].data
	step := 1
	if raceDetector {
		step = 7
	}
	for cut := covered; cut <= len(whole); cut += step {
		c, e := base.clone(), d.clone(d.rnd)
		clear(c.acked)
		e.files[layout.SegmentName(0)].data = whole[:cut:cut]
		kept := size + int64(bytes.Count(whole[covered:cut], []byte("\n")))
		torn := whole[bytes.LastIndexByte(whole[:cut], '\n')+1 : cut]
		l, err := c.open(e)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		want := kept
		if len(torn) > 0 {
			want++ // the report
			var names []string
			for name, f := range e.files {
				if strings.HasPrefix(name, layout.Torn+"/") {
					names = append(names, name)
					if !bytes.Equal(f.data, torn) {
						t.Errorf("cut at %d: kept other bytes than were cut off", cut)
					}
				}
			}
			if len(names) != 1 || !bytes.Contains(e.files[layout.SegmentName(0)].data, []byte(`"type":"log.recovered"`)) {
				t.Errorf("cut at %d: kept %v", cut, names)
			}
		}
		if l.Size() != want {
			t.Fatalf("cut at %d: %d events, want %d", cut, l.Size(), want)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := c.check(e); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
	// Below what the checkpoint covers it is damage, and nothing is changed.
	for cut := 0; cut < covered; cut += 13 {
		c, e := base.clone(), d.clone(d.rnd)
		e.files[layout.SegmentName(0)].data = whole[:cut:cut]
		_, err := c.open(e)
		var damaged *DamagedError
		if !errors.As(err, &damaged) {
			t.Fatalf("cut at %d of %d: %v", cut, covered, err)
		}
		if len(e.files[layout.SegmentName(0)].data) != cut {
			t.Fatalf("cut at %d: the writer changed a damaged log", cut)
		}
	}
	archive := d.files[layout.Checkpoints].data
	first := len(merkleNotes(t, archive)[0]) + 1
	for cut := first; cut <= len(archive); cut += step {
		c, e := base.clone(), d.clone(d.rnd)
		clear(c.acked)
		e.files[layout.Checkpoints].data = archive[:cut:cut]
		l, err := c.open(e)
		if err != nil {
			t.Fatalf("archive cut at %d: %v", cut, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := c.check(e); err != nil {
			t.Fatalf("archive cut at %d: %v", cut, err)
		}
	}
}

func merkleNotes(t *testing.T, data []byte) [][]byte {
	t.Helper()
	notes, rest := merkle.SplitNotes(data)
	if len(rest) > 0 || len(notes) < 2 {
		t.Fatalf("%d archived checkpoints and %d bytes", len(notes), len(rest))
	}
	return notes
}
