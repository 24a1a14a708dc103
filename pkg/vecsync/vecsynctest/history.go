package vecsynctest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
)

// A History is a log, written by package chain, with the snapshots that were
// taken of it.
type History struct {
	t     testing.TB
	Dir   string // the log's directory
	keys  string
	log   *chain.Log
	clock time.Time
	rand  *rand.Rand
	steps []*Step
	next  uint64 // inode number
	count int64  // of events that were made up
	cache []cached
}

// A Step is a snapshot of the subvolume that the log is on.
type Step struct {
	UUID     sendstream.UUID
	Ctransid uint64
	Size     int64             // of the checkpoint that it holds, 0 if none
	Files    map[string]*Inode // by path in the subvolume
	Pruned   int64             // the first segment that no log.pruned below Size names

	want  []Event // the events below Size, from the first that is not pruned on
	cache *[]cached
}

// cached is an event that was decoded for another step.
type cached struct {
	line  string
	event Event
}

// An Inode is a file of a Step. A directory has no data.
type Inode struct {
	Ino   uint64
	IsDir bool
	Data  []byte
	mtime time.Time
	osIno uint64
}

// New makes a log. What it does later is drawn from seed; its keys are not.
func New(t testing.TB, seed uint64) *History {
	t.Helper()
	h := &History{t: t, clock: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), rand: rand.New(rand.NewPCG(seed, 5)), next: 257}
	dir := tempDir(t)
	h.Dir, h.keys = filepath.Join(dir, "log"), filepath.Join(dir, "keys")
	if err := os.Mkdir(h.keys, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := chain.Create(h.Dir, "vecsync.test/log", h.keys, h.options()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if h.log != nil {
			h.log.Close()
		}
	})
	return h
}

// tempDir makes a directory in memory, where there is one: a log syncs each
// batch, and how durable that is here is not what these tests are about.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "gb-history-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (h *History) options() chain.Options {
	return chain.Options{Host: "host", Now: func() time.Time {
		h.clock = h.clock.Add(time.Millisecond)
		return h.clock
	}}
}

// Log opens the log for writing.
func (h *History) Log() *chain.Log {
	h.t.Helper()
	if h.log == nil {
		log, err := chain.Open(h.Dir, h.keys, h.options())
		if err != nil {
			h.t.Fatal(err)
		}
		h.log = log
	}
	return h.log
}

// Append appends n events, whose lengths are random up to size, as one batch.
// No checkpoint covers them yet.
func (h *History) Append(n, size int) {
	h.t.Helper()
	b := &chain.Batch{}
	var p event.Parser
	for range n {
		h.count++
		text := make([]byte, h.rand.IntN(size+1))
		for i := range text {
			text[i] = 'a' + byte(h.rand.IntN(26))
		}
		d, err := p.Parse(fmt.Appendf(nil, `{"source":"test","type":"test.event","message":"event number %d","data":{"text":"%s"}}`, h.count, text))
		if err != nil {
			h.t.Fatal(err)
		}
		b.Drafts = append(b.Drafts, d)
	}
	if err := h.Log().Append(b); err != nil || b.Err != nil {
		h.t.Fatal(err, b.Err)
	}
}

// Checkpoint signs what was appended.
func (h *History) Checkpoint() {
	h.t.Helper()
	if err := h.Log().Checkpoint(); err != nil {
		h.t.Fatal(err)
	}
}

// RotateKey begins a new epoch.
func (h *History) RotateKey() {
	h.t.Helper()
	if err := h.Log().RotateKey(); err != nil {
		h.t.Fatal(err)
	}
}

// Crash ends the writer as a crash does, in the middle of a write: torn stands
// at the end of the log. The next Append recovers.
func (h *History) Crash(torn []byte) {
	h.t.Helper()
	if err := h.Log().Close(); err != nil {
		h.t.Fatal(err)
	}
	h.log = nil
	f, err := os.OpenFile(h.activeSegment(), os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = f.Write(torn)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	f.Close()
}

func (h *History) activeSegment() string {
	last := int64(0)
	for {
		if _, err := os.Stat(filepath.Join(h.Dir, layout.SegmentName(last+1))); err != nil {
			return filepath.Join(h.Dir, layout.SegmentName(last))
		}
		last++
	}
}

// AnnouncePrune appends the event that says that the segments up to last are
// deleted, and signs it.
func (h *History) AnnouncePrune(first, last int64) {
	h.t.Helper()
	d, err := event.Own(layout.TypePruned, event.Notice, "pruned", layout.Pruned{First: first, Last: last, Events: (last - first + 1) * layout.SegmentEvents, Reason: "test"})
	if err != nil {
		h.t.Fatal(err)
	}
	if err := h.Log().Append(&chain.Batch{Drafts: []event.Draft{d}}); err != nil {
		h.t.Fatal(err)
	}
	h.Checkpoint()
}

// Remove removes a file of the log.
func (h *History) Remove(name string) {
	h.t.Helper()
	if err := os.Remove(filepath.Join(h.Dir, name)); err != nil {
		h.t.Fatal(err)
	}
}

// Fork returns a log of its own that has the same past. The writer of h has
// ended then.
func (h *History) Fork(t testing.TB) *History {
	t.Helper()
	if h.log != nil {
		if err := h.log.Close(); err != nil {
			t.Fatal(err)
		}
		h.log = nil
	}
	dir := tempDir(t)
	f := &History{t: t, clock: h.clock, rand: rand.New(rand.NewPCG(h.next, 6)), next: h.next, count: h.count,
		Dir: filepath.Join(dir, "log"), keys: filepath.Join(dir, "keys")}
	if err := os.CopyFS(dir, os.DirFS(filepath.Dir(h.Dir))); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(f.keys, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(p, 0o700)
		} else if err == nil {
			err = os.Chmod(p, 0o600)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	f.cache = h.cache[:len(h.cache):len(h.cache)]
	for _, s := range h.steps {
		c := *s
		c.Files, c.cache = make(map[string]*Inode), &f.cache
		for p, n := range s.Files {
			m := *n
			if info, err := os.Stat(filepath.Join(dir, p)); err == nil {
				m.osIno, m.mtime = info.Sys().(*syscall.Stat_t).Ino, info.ModTime()
			}
			c.Files[p] = &m
		}
		f.steps = append(f.steps, &c)
	}
	t.Cleanup(func() {
		if f.log != nil {
			f.log.Close()
		}
	})
	return f
}

// Steps returns the snapshots so far.
func (h *History) Steps() []*Step { return h.steps }

// Step returns snapshot k.
func (h *History) Step(k int) *Step { return h.steps[k] }

// Snapshot takes a snapshot.
func (h *History) Snapshot() *Step {
	h.t.Helper()
	k := len(h.steps)
	s := &Step{UUID: sendstream.UUID{0xaa, byte(k >> 8), byte(k)}, Ctransid: uint64(100 + k), Files: make(map[string]*Inode)}
	var last *Step
	if k > 0 {
		last = h.steps[k-1]
	}
	root := filepath.Dir(h.Dir)
	err := filepath.WalkDir(h.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		s.Files[rel], err = h.inode(last, rel, path, d)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	s.cache = &h.cache
	s.measure()
	h.steps = append(h.steps, s)
	return s
}

// inode says which file of the snapshot before this is, if any: btrfs sends
// only what has changed of one that was there.
func (h *History) inode(last *Step, rel, path string, d fs.DirEntry) (*Inode, error) {
	info, err := d.Info()
	if err != nil {
		return nil, err
	}
	n := &Inode{IsDir: d.IsDir(), mtime: info.ModTime(), osIno: info.Sys().(*syscall.Stat_t).Ino}
	var before *Inode
	if last != nil {
		if before = last.Files[rel]; before == nil || before.osIno != n.osIno || before.IsDir != n.IsDir {
			before = nil
			for p, other := range last.Files {
				if !n.IsDir && !other.IsDir && other.osIno == n.osIno && p == rel+".tmp" {
					before = other // a file that was renamed
				}
			}
		}
	}
	if before != nil && int64(len(before.Data)) == info.Size() && before.mtime.Equal(n.mtime) {
		n.Data = before.Data
	} else if !n.IsDir {
		if n.Data, err = os.ReadFile(path); err != nil {
			return nil, err
		}
	}
	_, segment := layout.ParseSegmentName(d.Name())
	if before != nil && (n.IsDir || segment || bytes.HasPrefix(n.Data, before.Data)) {
		n.Ino = before.Ino
	} else {
		n.Ino = h.next
		h.next++
	}
	return n, nil
}

// ReadStep returns a Step of a snapshot on a file system, in which the log is
// the directory log.
func ReadStep(dir string, uuid sendstream.UUID, ctransid uint64) (*Step, error) {
	s := &Step{UUID: uuid, Ctransid: ctransid, Files: make(map[string]*Inode), cache: new([]cached)}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		n := new(Inode)
		n.Data, err = os.ReadFile(path)
		s.Files[rel] = n
		return err
	})
	if err != nil {
		return nil, err
	}
	s.measure()
	return s, nil
}

// measure looks for how much of the log is signed, and what it says that it
// deletes.
func (s *Step) measure() {
	if note := s.Files["log/"+layout.Checkpoint]; note != nil {
		if c, err := merkle.ParseNote(note.Data); err == nil { // or a test has spoilt it
			s.Size = c.Size
		}
	}
	for path, f := range s.Files {
		if _, ok := layout.ParseSegmentName(filepath.Base(path)); !ok || !bytes.Contains(f.Data, []byte(layout.TypePruned)) {
			continue
		}
		for line := range bytes.Lines(f.Data) {
			e, err := event.Decode(bytes.TrimSuffix(line, []byte("\n")))
			if err != nil || e.Type != layout.TypePruned || e.Index >= s.Size {
				continue
			}
			var p layout.Pruned
			if json.Unmarshal(e.Data, &p) == nil {
				s.Pruned = max(s.Pruned, p.Last+1)
			}
		}
	}
}

// Events returns what an index of the snapshot must hold.
func (s *Step) Events() ([]Event, error) {
	if s.want != nil {
		return s.want, nil
	}
	first := s.Pruned * layout.SegmentEvents
	for i := first; i < s.Size; {
		f := s.Files["log/"+layout.SegmentName(i/layout.SegmentEvents)]
		if f == nil {
			return nil, fmt.Errorf("the segment of event %d is not there", i)
		}
		for line := range bytes.Lines(f.Data) {
			if i == s.Size {
				break
			}
			e, err := s.decode(i, bytes.TrimSuffix(line, []byte("\n")))
			if err != nil {
				return nil, fmt.Errorf("event %d of the log: %w", i, err)
			}
			s.want = append(s.want, e)
			i++
		}
	}
	return s.want, nil
}

func (s *Step) decode(i int64, line []byte) (Event, error) {
	c := *s.cache
	if i < int64(len(c)) && c[i].line == string(line) {
		return c[i].event, nil
	}
	e, err := event.Decode(line)
	if err != nil {
		return Event{}, err
	}
	if i == int64(len(c)) {
		*s.cache = append(c, cached{string(line), stored(e)})
	}
	return stored(e), nil
}

// Diff says how an index differs from what it must hold at step s, "" if it
// does not.
func (s *Step) Diff(x *Index) string {
	var wrong []string
	complain := func(format string, args ...any) {
		if len(wrong) < 5 {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	want, err := s.Events()
	if err != nil {
		return err.Error()
	}
	events := x.Events()
	if len(events) != len(want) {
		complain("%d events, want %d", len(events), len(want))
	}
	for _, e := range want {
		got, ok := events[e.Index]
		if !ok {
			complain("event %d is lost", e.Index)
		} else if got != e {
			complain("event %d is %+v, want %+v", e.Index, got, e)
		}
	}
	return strings.Join(wrong, "\n")
}
