package chain_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/tools"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// A testLog is a log with its keys, written by this process.
type testLog struct {
	t         *testing.T
	dir, keys string
	created   *chain.Created
	log       *chain.Log
	parser    event.Parser
	count     int
	notes     map[int64][]byte // checkpoints that somebody kept, by size
}

func newTestLog(t *testing.T) *testLog {
	l := &testLog{t: t, dir: filepath.Join(t.TempDir(), "log"), keys: t.TempDir(), notes: map[int64][]byte{}}
	var err error
	if l.created, err = chain.Create(l.dir, "prune.example/log", l.keys, chain.Options{}); err != nil {
		t.Fatal(err)
	}
	l.open()
	return l
}

func (l *testLog) open() {
	l.t.Helper()
	var err error
	if l.log, err = chain.Open(l.dir, l.keys, chain.Options{}); err != nil {
		l.t.Fatal(err)
	}
}

func (l *testLog) close() {
	l.t.Helper()
	if err := l.log.Close(); err != nil {
		l.t.Fatal(err)
	}
}

func (l *testLog) appendLine(line []byte) {
	l.t.Helper()
	d, err := l.parser.Parse(line)
	if err != nil {
		l.t.Fatal(err)
	}
	b := &chain.Batch{Drafts: []event.Draft{d}}
	if err := errors.Join(l.log.Append(b), b.Err); err != nil {
		l.t.Fatal(err)
	}
}

// fill appends events until the log has size of them.
func (l *testLog) fill(size int64) {
	l.t.Helper()
	for l.log.Size() < size {
		b := &chain.Batch{}
		for range min(4096, size-l.log.Size()) {
			l.count++
			d, err := l.parser.Parse(fmt.Appendf(nil, `{"source":"t","type":"t.n","message":"event %d"}`, l.count))
			if err != nil {
				l.t.Fatal(err)
			}
			b.Drafts = append(b.Drafts, d)
		}
		if err := errors.Join(l.log.Append(b), b.Err); err != nil {
			l.t.Fatal(err)
		}
	}
}

// keep signs the log as it is and keeps the checkpoint, as a witness would.
func (l *testLog) keep() int64 {
	l.t.Helper()
	if err := l.log.Checkpoint(); err != nil {
		l.t.Fatal(err)
	}
	note, err := os.ReadFile(filepath.Join(l.dir, layout.Checkpoint))
	if err != nil {
		l.t.Fatal(err)
	}
	l.notes[l.log.Size()] = note
	return l.log.Size()
}

func (l *testLog) prune(o chain.PruneOptions) error {
	l.t.Helper()
	plan, err := chain.PlanPrune(context.Background(), os.DirFS(l.dir), o)
	if err != nil {
		return err
	}
	if plan == nil {
		return errors.New("nothing to prune")
	}
	return l.log.Prune(plan, "a test")
}

// verify verifies the log with every kept checkpoint from size from on as a
// pin.
func (l *testLog) verify(dir string, from int64) *chain.Report {
	l.t.Helper()
	o := chain.VerifyOptions{Key: l.created.LogKey, Live: true}
	for size, note := range l.notes {
		if size >= from {
			o.Pins = append(o.Pins, chain.Pin{Name: fmt.Sprint(size), Note: note})
		}
	}
	r, err := chain.Verify(context.Background(), os.DirFS(dir), o)
	if err != nil {
		l.t.Fatal(err)
	}
	if r.OK && len(r.Pins) != len(o.Pins) {
		l.t.Errorf("agreed with %v of %d pins", r.Pins, len(o.Pins))
	}
	return r
}

func (l *testLog) query(dir string, o chain.QueryOptions) (events int, v chain.Verdict) {
	l.t.Helper()
	v, err := chain.Query(context.Background(), os.DirFS(dir), o, func(*event.Event, []byte) error { events++; return nil })
	if err != nil {
		l.t.Fatal(err)
	}
	return events, v
}

// checkProofs proves what must still be provable when the events below pruned
// are gone.
func (l *testLog) checkProofs(pruned int64) {
	l.t.Helper()
	tree, err := chain.OpenTree(os.DirFS(l.dir))
	if err != nil {
		l.t.Fatal(err)
	}
	size := tree.Checkpoint.Size
	for _, i := range []int64{pruned, pruned + 1, pruned + 65535, pruned + 65536, (pruned + size) / 2, size - 1} {
		if i >= size {
			continue
		}
		proof, err := tree.Prove(i)
		if err != nil {
			l.t.Fatalf("event %d of %d: %v", i, size, err)
		}
		if _, err := chain.CheckProof(proof, l.created.LogKey, nil); err != nil {
			l.t.Errorf("event %d: %v", i, err)
		}
	}
	for old, note := range l.notes {
		proof, err := tree.ProveConsistency(old)
		if old < pruned && old%layout.SegmentEvents != 0 {
			if !errors.Is(err, fs.ErrNotExist) {
				l.t.Errorf("consistency with %d, which was pruned: %v", old, err)
			}
			continue
		}
		if err != nil {
			l.t.Fatalf("consistency with %d: %v", old, err)
		}
		p, err := chain.CheckProof(proof, l.created.LogKey, nil)
		if err != nil {
			l.t.Fatalf("consistency with %d: %v", old, err)
		}
		if c, err := merkle.Open(note, l.created.LogKey); err != nil || c.Root != p.OldRoot {
			l.t.Errorf("consistency with %d: another root", old)
		}
	}
	if pruned == 0 {
		return
	}
	if _, err := tree.Prove(pruned - 1); !errors.Is(err, fs.ErrNotExist) {
		l.t.Errorf("event %d, which was pruned: %v", pruned-1, err)
	}
}

const segment = int64(layout.SegmentEvents)

func blobNames(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, layout.Blobs, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestMain(m *testing.M) { tools.Main(m) }

func TestPrune(t *testing.T) {
	l := newTestLog(t)
	first := fmt.Appendf(nil, `{"source":"t","type":"t.blob","data":{"a":"%s"}}`, strings.Repeat("first", 20000))
	shared := fmt.Appendf(nil, `{"source":"t","type":"t.blob","data":{"a":"%s"}}`, strings.Repeat("shared", 20000))
	l.appendLine(first)
	l.appendLine(shared)
	l.keep()
	l.fill(1000)
	if err := l.log.RotateKey(); err != nil {
		t.Fatal(err)
	}
	l.keep()
	l.fill(segment)
	l.keep()
	l.fill(segment + 100)
	l.appendLine(shared)
	stands := l.keep()
	if err := l.log.RotateKey(); err != nil {
		t.Fatal(err)
	}
	l.fill(2*segment + 500)
	l.keep()
	if r := l.verify(l.dir, 0); !r.OK {
		t.Fatal(r.Faults)
	}
	l.checkProofs(0)
	if n := len(blobNames(t, l.dir)); n != 2 {
		t.Fatalf("%d blobs", n)
	}
	before, keysBefore := copyDir(t, l.dir), copyDir(t, l.keys)

	// Not past somebody who needs it.
	for _, size := range []int64{0, 1, segment - 1} {
		err := l.prune(chain.PruneOptions{KeepBytes: 1, Stand: []chain.Stand{{Name: "cursor c", Size: size}, {Name: "other", Size: 1 << 40}}})
		var hint interface{ Hint() string }
		if err == nil || !strings.Contains(err.Error(), "cursor c stands at") || !errors.As(err, &hint) || !strings.Contains(hint.Hint(), "until then 0 segments") {
			t.Fatalf("a cursor at %d: %v", size, err)
		}
	}
	if err := l.prune(chain.PruneOptions{KeepBytes: 1, Stand: []chain.Stand{{Name: "witness w", Size: stands}}}); err == nil || !strings.Contains(err.Error(), "witness w stands at") {
		t.Fatalf("a witness within the second segment: %v", err)
	}
	if r := l.verify(l.dir, 0); !r.OK || r.Pruned != 0 {
		t.Fatal(r.Faults)
	}
	var size int64
	for n := range int64(3) {
		info, err := os.Stat(filepath.Join(l.dir, layout.SegmentName(n)))
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if err := l.prune(chain.PruneOptions{KeepBytes: size - 1, Stand: []chain.Stand{{Name: "witness w", Size: stands}}}); err != nil {
		t.Fatal(err)
	}
	after := copyDir(t, l.dir)
	if _, err := os.Stat(filepath.Join(l.dir, layout.SegmentName(0))); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("segment 0: %v", err)
	}
	if _, err := os.Stat(filepath.Join(l.dir, layout.SegmentName(1))); err != nil {
		t.Fatal(err)
	}
	if n := len(blobNames(t, l.dir)); n != 1 {
		t.Errorf("%d blobs, want the shared one", n)
	}
	if r := l.verify(l.dir, stands); !r.OK || r.Pruned != segment || r.Size != l.log.Size() || r.Epochs != 3 {
		t.Fatalf("%+v", r)
	}
	l.checkProofs(segment)
	if n, v := l.query(l.dir, chain.QueryOptions{}); !v.Verified || v.Pruned != segment || int64(n) != l.log.Size()-segment {
		t.Fatalf("%d events, %+v", n, v)
	}
	if n, v := l.query(l.dir, chain.QueryOptions{Last: 3, Reverse: true}); !v.Verified || n != 3 {
		t.Fatalf("%d events, %+v", n, v)
	}
	// The log goes on, with its keys and after a restart.
	if err := l.log.RotateKey(); err != nil {
		t.Fatal(err)
	}
	l.close()
	l.open()
	l.fill(2*segment + 700)
	l.keep()
	if r := l.verify(l.dir, stands); !r.OK || r.Epochs != 4 {
		t.Fatalf("%+v", r)
	}

	t.Run("the index agrees", func(t *testing.T) {
		index := filepath.Join(t.TempDir(), "index.db")
		run := func(args ...string) []byte {
			t.Helper()
			out, err := exec.Command(tools.Path(t, "gb-vecsync"), args...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %v\n%s", args, err, out)
			}
			return out
		}
		run("rebuild", "--log", l.dir, "--index", index, "--cursor", filepath.Join(t.TempDir(), "cursor"))
		var stats struct {
			Events   int64
			Findings []any
		}
		if err := json.Unmarshal(run("stats", "--json", "--index", index), &stats); err != nil {
			t.Fatal(err)
		}
		if stats.Events != l.log.Size()-segment || len(stats.Findings) > 0 {
			t.Errorf("%+v, the log has %d events", stats, l.log.Size()-segment)
		}
	})

	t.Run("tampering", func(t *testing.T) {
		for name, c := range map[string]struct {
			change func(dir string)
			kinds  []chain.FaultKind
			bad    bool // for a query
		}{
			"another segment is gone": {func(dir string) { os.Remove(filepath.Join(dir, layout.SegmentName(1))) }, []chain.FaultKind{chain.FaultSegmentGone}, true},
			"the file pruned says more": {func(dir string) {
				os.Remove(filepath.Join(dir, layout.SegmentName(1)))
				edit(t, filepath.Join(dir, layout.PrunedFile), `"last":0`, `"last":1`)
			}, []chain.FaultKind{chain.FaultSegmentGone}, true},
			"a seal of what was pruned": {func(dir string) {
				seals, err := os.ReadFile(filepath.Join(dir, layout.Seals))
				if err != nil {
					t.Fatal(err)
				}
				lines := bytes.SplitAfter(seals, []byte("\n"))
				var s layout.Seal
				if err := json.Unmarshal(lines[0], &s); err != nil {
					t.Fatal(err)
				}
				s.Root[0] ^= 1
				lines[0] = s.Line()
				if err := os.WriteFile(filepath.Join(dir, layout.Seals), bytes.Join(lines, nil), 0o644); err != nil {
					t.Fatal(err)
				}
			}, []chain.FaultKind{chain.FaultSeal, chain.FaultChanged}, true},
			"a key that was introduced in what was pruned": {func(dir string) {
				// With a checksum that fits, as the first epoch's key would be
				// replaced.
				data, err := os.ReadFile(filepath.Join(dir, layout.Epochs))
				if err != nil {
					t.Fatal(err)
				}
				line, rest, _ := bytes.Cut(data, []byte("\n"))
				line = bytes.Replace(line[:bytes.LastIndex(line, []byte(`,"c":"`))], []byte(`"host":"`), []byte(`"host":"x`), 1)
				line = event.Close(bytes.Clone(line))
				if err := os.WriteFile(filepath.Join(dir, layout.Epochs), append(append(line, '\n'), rest...), 0o644); err != nil {
					t.Fatal(err)
				}
			}, []chain.FaultKind{chain.FaultEpoch}, true},
		} {
			dir := copyDir(t, l.dir)
			c.change(dir)
			r := l.verify(dir, 1<<60)
			kinds := map[chain.FaultKind]bool{}
			for _, f := range r.Faults {
				kinds[f.Kind] = true
			}
			for _, k := range c.kinds {
				if !kinds[k] {
					t.Errorf("%s: %v, not %s", name, r.Faults, k)
				}
			}
			if len(kinds) > len(c.kinds) {
				t.Errorf("%s: %v", name, r.Faults)
			}
			if _, v := l.query(dir, chain.QueryOptions{}); v.Verified == c.bad && name != "a key that was introduced in what was pruned" {
				t.Errorf("%s: query: %+v", name, v)
			}
		}
	})

	t.Run("interrupted", func(t *testing.T) {
		l.interrupted(t, before, after, keysBefore)
	})

	// A second time, and that the event of the first prune is pruned itself.
	l.fill(3*segment + 10)
	l.keep()
	for last := int64(1); last <= 2; last++ {
		size = 0
		for n := last; n <= 3; n++ {
			if info, err := os.Stat(filepath.Join(l.dir, layout.SegmentName(n))); err == nil {
				size += info.Size()
			}
		}
		if err := l.prune(chain.PruneOptions{KeepBytes: size - 1}); err != nil {
			t.Fatal(err)
		}
		end := (last + 1) * segment
		if r := l.verify(l.dir, end); !r.OK || r.Pruned != end {
			t.Fatalf("%+v", r)
		}
		l.checkProofs(end)
		if n, v := l.query(l.dir, chain.QueryOptions{}); !v.Verified || int64(n) != l.log.Size()-end {
			t.Fatalf("%d events, %+v", n, v)
		}
		l.close()
		l.open()
	}
	if n := len(blobNames(t, l.dir)); n != 0 {
		t.Errorf("%d blobs are left", n)
	}
	l.close()
}

// interrupted puts together what a crash within Prune leaves, out of the log
// as it was before and after it.
func (l *testLog) interrupted(t *testing.T, before, after, keysBefore string) {
	restore := map[string][]string{ // what is as it was before
		"before the file pruned":   {layout.PrunedFile, layout.Checkpoint, layout.Checkpoints, layout.SegmentName(0), layout.Blobs},
		"before the checkpoint":    {layout.Checkpoint, layout.Checkpoints, layout.SegmentName(0), layout.Blobs},
		"before anything is gone":  {layout.SegmentName(0), layout.Blobs},
		"after the blobs are gone": {layout.SegmentName(0)},
	}
	for _, name := range slices.Sorted(maps.Keys(restore)) {
		dir := copyDir(t, after)
		for _, what := range restore[name] {
			os.RemoveAll(filepath.Join(dir, what))
			if info, err := os.Stat(filepath.Join(before, what)); err == nil && info.IsDir() {
				if err := os.CopyFS(filepath.Join(dir, what), os.DirFS(filepath.Join(before, what))); err != nil {
					t.Fatal(err)
				}
			} else if err == nil {
				copyFile(t, filepath.Join(before, what), filepath.Join(dir, what))
			}
		}
		log, err := chain.Open(dir, copyDir(t, keysBefore), chain.Options{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(dir, layout.SegmentName(0))); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: segment 0 is still there: %v", name, err)
		}
		if n := len(blobNames(t, dir)); n != 1 {
			t.Errorf("%s: %d blobs, want the shared one", name, n)
		}
		if err := log.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if r := l.verify(dir, 1<<60); !r.OK || r.Pruned != segment {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func edit(t *testing.T, file, from, to string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(data, []byte(from)) {
		t.Fatalf("%s does not hold %s", file, from)
	}
	if err := os.WriteFile(file, bytes.Replace(data, []byte(from), []byte(to), 1), 0o644); err != nil {
		t.Fatal(err)
	}
}
