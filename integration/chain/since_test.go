package chain_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
)

// A countingFS counts the bytes that are read of each file.
type countingFS struct {
	fs.FS
	mu   sync.Mutex
	read map[string]int64
}

func newCountingFS(dir string) *countingFS {
	return &countingFS{FS: os.DirFS(dir), read: map[string]int64{}}
}

func (c *countingFS) Open(name string) (fs.File, error) {
	f, err := c.FS.Open(name)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || info.IsDir() {
		return f, err
	}
	return &countingFile{f, c, name}, nil
}

func (c *countingFS) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(c.FS, name) }

type countingFile struct {
	fs.File
	c    *countingFS
	name string
}

func (f *countingFile) count(n int) {
	f.c.mu.Lock()
	f.c.read[f.name] += int64(n)
	f.c.mu.Unlock()
}

func (f *countingFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.count(n)
	return n, err
}

func (f *countingFile) Seek(off int64, whence int) (int64, error) {
	return f.File.(io.Seeker).Seek(off, whence)
}

func (f *countingFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.(io.ReaderAt).ReadAt(p, off)
	f.count(n)
	return n, err
}

// verifySince goes on from a state that was kept as JSON, and says how many
// bytes of segments it read.
func (l *testLog) verifySince(t *testing.T, dir string, s *chain.State) (*chain.Report, int64) {
	t.Helper()
	kept, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = chain.ReadState(kept); err != nil {
		t.Fatal(err)
	}
	fsys := newCountingFS(dir)
	r, err := chain.Verify(context.Background(), fsys, chain.VerifyOptions{Key: l.created.LogKey, Live: true, Since: s})
	if err != nil {
		t.Fatal(err)
	}
	var read int64
	for name, n := range fsys.read {
		if _, ok := layout.ParseSegmentName(name); ok {
			read += n
		}
	}
	return r, read
}

func TestVerifySinceReadsWhatIsNew(t *testing.T) {
	l := newTestLog(t)
	var s *chain.State
	for _, step := range []struct {
		size   int64
		rotate bool
	}{{2, false}, {1000, true}, {segment - 1, false}, {segment, false}, {segment + 1, false}, {segment + 1, false}, {segment + 5, true}, {segment + 5000, false}, {3 * segment, false}, {3*segment + 9, true}} {
		l.fill(step.size)
		if step.rotate {
			if err := l.log.RotateKey(); err != nil {
				t.Fatal(err)
			}
		}
		l.keep()
		r := l.verify(l.dir, 0)
		if !r.OK || r.State == nil {
			t.Fatalf("%d events: %v", step.size, r.Faults)
		}
		if s == nil {
			s = r.State
			continue
		}
		since, read := l.verifySince(t, l.dir, s)
		if !since.OK || since.Size != r.Size || since.Root != r.Root || !since.Time.Equal(r.Time) || since.Since != s.Size || since.Epochs != r.Epochs {
			t.Fatalf("%d events since %d: %+v\nthe whole: %+v", step.size, s.Size, since, r)
		}
		if most := (r.Size - s.Size) * 400; read > most {
			t.Errorf("%d events since %d: %d bytes read, want at most %d", step.size, s.Size, read, most)
		}
		next := since.State
		if next == nil || next.Root != r.State.Root || next.Offset != r.State.Offset || next.Archive != r.State.Archive || next.Epochs != r.State.Epochs {
			t.Fatalf("%d events since %d: state %+v, of the whole %+v", step.size, s.Size, next, r.State)
		}
		s = next
	}
	l.close()
}

func TestVerifySinceFinds(t *testing.T) {
	l := newTestLog(t)
	l.fill(500)
	l.keep()
	earlier := copyDir(t, l.dir)
	l.fill(1000)
	l.keep()
	s := l.verify(l.dir, 0).State
	l.fill(1500)
	l.keep()
	l.close()
	name := layout.SegmentName(0)
	for what, c := range map[string]struct {
		change func(dir string)
		kind   chain.FaultKind
		other  chain.FaultKind
	}{
		"an earlier state": {func(dir string) {
			os.RemoveAll(dir)
			if err := os.CopyFS(dir, os.DirFS(earlier)); err != nil {
				t.Fatal(err)
			}
		}, chain.FaultRolledBack, ""},
		"a new event is changed": {func(dir string) { alter(t, filepath.Join(dir, name), 1200, "event", "EVENT") }, chain.FaultChanged, ""},
		"a new event is gone":    {func(dir string) { alter(t, filepath.Join(dir, name), 1200, "", "") }, chain.FaultDeleted, ""},
		"the segment is cut below the state": {func(dir string) {
			if err := os.Truncate(filepath.Join(dir, name), s.Offset-1); err != nil {
				t.Fatal(err)
			}
		}, chain.FaultTruncated, chain.FaultForked},
		"the archive is cut below the state": {func(dir string) {
			if err := os.Truncate(filepath.Join(dir, layout.Checkpoints), 5); err != nil {
				t.Fatal(err)
			}
		}, chain.FaultCheckpoint, ""},
	} {
		dir := copyDir(t, l.dir)
		c.change(dir)
		r, _ := l.verifySince(t, dir, s)
		if len(r.Faults) == 0 || r.Faults[0].Kind != c.kind && r.Faults[0].Kind != c.other || r.State != nil {
			t.Errorf("%s: %v, want %s", what, r.Faults, c.kind)
		}
	}
	other := newTestLog(t)
	other.fill(1100)
	other.keep()
	if r, err := chain.Verify(context.Background(), os.DirFS(other.dir), chain.VerifyOptions{Live: true, Since: s}); err != nil || r.OK {
		t.Errorf("another log: %v %v", r, err)
	}
	other.close()
	for _, bad := range []string{"", "{}", `{"tree_size":-1}`, `{"tree_size":1,"roots":[]}`} {
		if _, err := chain.ReadState([]byte(bad)); err == nil {
			t.Errorf("%q is a state", bad)
		}
	}
}

// A query reads the segments that can hold what matches, and the newest one.
func TestQueryReadsNoOtherSegment(t *testing.T) {
	l := newTestLog(t)
	l.fill(3*segment + 10)
	l.keep()
	l.close()
	data, err := os.ReadFile(filepath.Join(l.dir, layout.Seals))
	if err != nil {
		t.Fatal(err)
	}
	seals, _, err := layout.ParseSeals(data)
	if err != nil {
		t.Fatal(err)
	}
	fsys := newCountingFS(l.dir)
	n := 0
	v, err := chain.Query(context.Background(), fsys, chain.QueryOptions{Filter: chain.Filter{Since: seals[1].Time.Min, Until: seals[1].Time.Max}},
		func(*event.Event, []byte) error { n++; return nil })
	if err != nil || !v.Verified || n == 0 {
		t.Fatal(n, v, err)
	}
	if fsys.read[layout.SegmentName(1)] == 0 || fsys.read[layout.SegmentName(3)] == 0 || fsys.read[layout.SegmentName(0)] > 0 && !seals[0].Time.Max.Equal(seals[1].Time.Min) || fsys.read[layout.SegmentName(2)] > 0 {
		t.Errorf("read: %v", fsys.read)
	}
}

// alter replaces text in a line and makes its checksum fit; without a text it
// removes the line.
func alter(t *testing.T, file string, line int, from, to string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	l := lines[line]
	if from == "" {
		lines[line] = nil
	} else {
		l = bytes.Replace(l[:bytes.LastIndex(l, []byte(`,"c":"`))], []byte(from), []byte(to), 1)
		lines[line] = append(event.Close(bytes.Clone(l)), '\n')
	}
	if err := os.WriteFile(file, bytes.Join(lines, nil), 0o644); err != nil {
		t.Fatal(err)
	}
}
