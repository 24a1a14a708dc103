package vecsync_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream/streamtest"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync/vecsynctest"
)

// hostile gives a full stream of a log in which commands, repeated until the
// stream has size bytes, are done to its segment.
func hostile(step *vecsynctest.Step, size int, commands ...sendstream.Command) io.Reader {
	head := vecsynctest.Commands(nil, step, vecsynctest.Form{Version: 2})
	var one, many, end bytes.Buffer
	encode := func(b *bytes.Buffer, list ...sendstream.Command) {
		w := sendstream.NewWriter(b)
		w.WriteCommand(&sendstream.Header{Version: 2})
		skip := b.Len()
		for _, c := range list {
			if err := w.WriteCommand(c); err != nil {
				panic(err)
			}
		}
		b.Next(skip)
	}
	encode(&many, commands...)
	encode(&end, head[len(head)-1])
	w := sendstream.NewWriter(&one)
	for _, c := range head[:len(head)-1] {
		if err := w.WriteCommand(c); err != nil {
			panic(err)
		}
	}
	n := int64(size/many.Len()) * int64(many.Len())
	return io.MultiReader(&one, io.LimitReader(&repeated{b: many.Bytes()}, n), &end)
}

type repeated struct {
	b  []byte
	at int
}

func (r *repeated) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		m := copy(p[n:], r.b[r.at:])
		n, r.at = n+m, (r.at+m)%len(r.b)
	}
	return n, nil
}

// A stream costs memory that does not depend on its size or on what it claims,
// and time in proportion to its size.
func TestHostileStreams(t *testing.T) {
	h := vecsynctest.New(t, 31)
	h.Append(200, 300)
	h.Checkpoint()
	step := h.Snapshot()
	seg := []byte("log/" + segment0)
	const far = 1 << 50
	const small, large = 3 << 20, 32 << 20 // what costs a system call each is given less
	sizes := map[string]int{"tiny writes": 12 << 20, "data": large, "a file of 2^50 bytes": large}
	for name, commands := range map[string][]sendstream.Command{
		"tiny writes":              {&sendstream.Write{Path: seg, Offset: 5, Data: []byte("x")}},
		"truncations":              {&sendstream.Truncate{Path: seg, Size: 0}, &sendstream.Write{Path: seg, Offset: 200 << 20, Data: make([]byte, 10)}},
		"a file of 2^50 bytes":     {&sendstream.Truncate{Path: seg, Size: far}, &sendstream.Write{Path: seg, Offset: far, Data: make([]byte, 10)}},
		"holes":                    {&sendstream.Fallocate{Path: seg, Mode: sendstream.FallocPunchHole | sendstream.FallocKeepSize, Offset: 0, Len: far}, &sendstream.Write{Path: seg, Offset: 64 << 20, Data: make([]byte, 10)}},
		"a checkpoint of 16 GiB":   {&sendstream.Write{Path: []byte("log/checkpoint"), Offset: 16 << 30, Data: []byte("x")}},
		"data":                     {&sendstream.Write{Path: seg, Offset: 0, Data: make([]byte, 100000)}},
		"encoded writes of nobody": {&sendstream.EncodedWrite{Path: seg, UnencodedFileLen: 1 << 40, UnencodedLen: 1 << 40, Data: make([]byte, 10)}},
		"clones":                   {&sendstream.Clone{Path: seg, Len: 4096, SourceUUID: step.UUID, SourceCtransid: step.Ctransid, SourcePath: seg}},
	} {
		t.Run(name, func(t *testing.T) {
			size := max(small, sizes[name])
			ix := vecsynctest.NewIndex()
			start := time.Now()
			peak := watch(func() {
				_, err := vecsync.Ingest(ix, hostile(step, size, commands...), vecsync.Options{TempDir: t.TempDir()})
				var s *vecsync.StreamError
				var f *vecsync.Finding
				var coded interface{ ExitCode() int }
				if !errors.As(err, &s) && !errors.As(err, &f) && !(errors.As(err, &coded) && coded.ExitCode() == 75) {
					t.Errorf("%v", err)
				}
			})
			t.Logf("%d MiB of memory for a stream of %d MiB, %v", peak>>20, size>>20, time.Since(start).Round(time.Millisecond))
			if peak > 24<<20 {
				t.Errorf("%d MiB of memory", peak>>20)
			}
			if took := time.Since(start); took > time.Minute {
				t.Errorf("took %v", took)
			}
			if len(ix.Events()) > 0 {
				t.Error("something of it was taken")
			}
		})
	}
}

// Names cost memory up to the limit, and what was made and removed again costs
// no more; the number of a file's names does not make a write to it dearer.
func TestHostileNames(t *testing.T) {
	const limit = 8 << 20
	name := func(i int) []byte { return fmt.Appendf(nil, "o%d-1-0", i) }
	for what, test := range map[string]struct {
		n    int
		next func(w *sendstream.Writer, i int) error
	}{
		"files": {1000000, func(w *sendstream.Writer, i int) error {
			return errors.Join(w.WriteCommand(&sendstream.Mkfile{Path: name(i), Ino: uint64(i)}), w.WriteCommand(&sendstream.Truncate{Path: name(i), Size: 5}))
		}},
		"files made and removed": {1000000, func(w *sendstream.Writer, i int) error {
			return errors.Join(w.WriteCommand(&sendstream.Mkfile{Path: name(0), Ino: uint64(i)}), w.WriteCommand(&sendstream.Truncate{Path: name(0), Size: 5}),
				w.WriteCommand(&sendstream.Unlink{Path: name(0)}))
		}},
		"a file of many names": {200000, func(w *sendstream.Writer, i int) error {
			switch {
			case i == 0:
				return w.WriteCommand(&sendstream.Mkfile{Path: []byte("f"), Ino: 5})
			case i < 20000:
				return w.WriteCommand(&sendstream.Link{Path: fmt.Append(nil, i), Existing: []byte("f")})
			}
			return w.WriteCommand(&sendstream.Write{Path: []byte("f"), Data: []byte("x")})
		}},
	} {
		t.Run(what, func(t *testing.T) {
			r, w := io.Pipe()
			go func() {
				sw := sendstream.NewWriter(w)
				err := errors.Join(sw.WriteCommand(&sendstream.Header{Version: 2}), sw.WriteCommand(&sendstream.Subvol{Path: []byte("s"), UUID: sendstream.UUID{1}}))
				for i := 0; i < test.n && err == nil; i++ {
					err = test.next(sw, i)
				}
				w.CloseWithError(err)
			}()
			start := time.Now()
			var err error
			peak := watch(func() {
				_, err = vecsync.Ingest(vecsynctest.NewIndex(), r, vecsync.Options{TempDir: t.TempDir(), MaxNames: limit})
			})
			r.Close()
			t.Logf("%d MiB of memory, %v: %v", peak>>20, time.Since(start).Round(time.Millisecond), err)
			if !errors.Is(err, sendstream.ErrTooLarge) && !errors.Is(err, sendstream.ErrNoEnd) {
				t.Error(err)
			}
			if peak > 3*limit {
				t.Errorf("%d MiB of memory", peak>>20)
			}
			if took := time.Since(start); took > time.Minute {
				t.Errorf("took %v", took)
			}
		})
	}
}

// watch returns by how much the heap grows at most while f runs.
func watch(f func()) uint64 {
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	runtime.GC()
	before := heap()
	var peak atomic.Uint64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			peak.Store(max(peak.Load(), heap()))
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	f()
	close(stop)
	<-stopped
	return max(peak.Load(), before) - before
}

// FuzzIngest gives the ingester streams that are broken in all the ways the
// fuzzer thinks of, with their checksums made right again: it never panics,
// and takes nothing but what is in the log.
func FuzzIngest(f *testing.F) {
	h := vecsynctest.New(f, 32) // a small one, or a fuzzer spends its time in minimising
	h.Append(1, 10)
	h.Checkpoint()
	one := h.Snapshot()
	h.Append(2, 10)
	h.Checkpoint()
	two := h.Snapshot()
	ix := vecsynctest.NewIndex()
	if _, err := vecsync.Ingest(ix, bytes.NewReader(vecsynctest.Stream(nil, one, vecsynctest.Form{Version: 2})), vecsync.Options{}); err != nil {
		f.Fatal(err)
	}
	for _, version := range []uint32{1, 2} {
		f.Add(vecsynctest.Stream(one, two, vecsynctest.Form{Version: version}))
		f.Add(vecsynctest.Stream(nil, two, vecsynctest.Form{Version: version, Compressed: true}))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		ix := ix.Clone()
		n, err := vecsync.Ingest(ix, bytes.NewReader(streamtest.Mend(stream)), vecsync.Options{TempDir: t.TempDir()})
		if d1, d2 := one.Diff(ix), two.Diff(ix); d1 != "" && d2 != "" {
			t.Fatalf("%d applied, %v: %s", n, err, d1)
		}
	})
}
