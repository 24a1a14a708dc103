package timeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// line is event i as a log stores it, one each 10 ms, with a message of some length.
func line(i int64, source string, severity event.Severity, length int) []byte {
	at := start.Add(time.Duration(i) * 10 * time.Millisecond).Format(event.TimeFormat)
	return event.Close(fmt.Appendf(nil, `{"i":%d,"at":%q,"peer":{"uid":0},"source":%q,"type":"t.%d","message":"m%d %s","time":%q,"host":"h","severity":%q,"actor":"a"`,
		i, at, source, i%7, i, strings.Repeat("x", length), at, severity.String()))
}

// makeLog writes a log of n events from event first on; no line has the same
// length as its neighbours.
func makeLog(t testing.TB, first, n int64) (*Log, string) {
	t.Helper()
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for i := first; i < n; i++ {
		length := r.IntN(200)
		if r.IntN(500) == 0 {
			length = 60_000
		}
		b.Write(line(i, []string{"kernel", "ovs", "mcp"}[i%3], event.Severity(i%8), length))
		b.WriteByte('\n')
		if (i+1)%layout.SegmentEvents == 0 || i == n-1 {
			if err := os.WriteFile(filepath.Join(dir, layout.SegmentName(i/layout.SegmentEvents)), b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			b.Reset()
		}
	}
	return &Log{FS: os.DirFS(dir)}, dir
}

func appendTo(t testing.TB, dir string, n int64, lines ...[]byte) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, layout.SegmentName(n/layout.SegmentEvents)), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, l := range lines {
		if _, err := f.Write(append(slices.Clone(l), '\n')); err != nil {
			t.Fatal(err)
		}
	}
}

// Any event is found by its index, in the first segment, at its borders and in
// the last one, which is not full.
func TestEveryIndexIsFound(t *testing.T) {
	const n = 2*layout.SegmentEvents + 1234
	l, _ := makeLog(t, 0, n)
	first, end, err := l.Bounds()
	if first != 0 || end != n || err != nil {
		t.Fatal(first, end, err)
	}
	indexes := []int64{0, 1, layout.SegmentEvents - 1, layout.SegmentEvents, 2*layout.SegmentEvents - 1, 2 * layout.SegmentEvents, n - 1}
	for range 500 {
		indexes = append(indexes, rand.Int64N(n))
	}
	for _, i := range indexes {
		r, err := l.Get(t.Context(), i)
		if err != nil || r.Event == nil || r.Event.Index != i || !strings.HasPrefix(r.Event.Message, fmt.Sprintf("m%d ", i)) {
			t.Fatalf("event %d: %+v, %v", i, r, err)
		}
	}
	for _, i := range []int64{-1, n, n + 1, 1 << 40} {
		var gone *GoneError
		if _, err := l.Get(t.Context(), i); !errors.As(err, &gone) {
			t.Errorf("event %d: %v", i, err)
		}
	}
}

// A page costs a bounded number of reads, wherever it is.
func TestPageCostsTheSameEverywhere(t *testing.T) {
	const n = 2*layout.SegmentEvents + 60_000
	_, dir := makeLog(t, 0, n)
	counted := &countingFS{dir: dir}
	l := &Log{FS: counted}
	worst := int64(0)
	for range 300 {
		counted.bytes = 0
		if _, err := l.Before(t.Context(), 0, rand.Int64N(n), 100, nil, Budget); err != nil {
			t.Fatal(err)
		}
		worst = max(worst, counted.bytes)
	}
	// 100 lines of 450 bytes on average, now and then one of 60 KB, and the way there.
	if worst > 1<<20 {
		t.Errorf("a page took %d bytes of reading", worst)
	}
}

func TestPagesGoThroughTheWholeLog(t *testing.T) {
	const n = layout.SegmentEvents + 5000
	l, _ := makeLog(t, 0, n)
	for _, c := range []struct {
		name string
		f    *Choice
		want func(i int64) bool
	}{
		{"all", nil, func(int64) bool { return true }},
		{"source", NewChoice(&chain.Filter{Sources: []string{"ovs"}}, nil), func(i int64) bool { return i%3 == 1 }},
		{"severity", NewChoice(&chain.Filter{HasSeverity: true, Severity: event.Alert}, nil), func(i int64) bool { return i%8 <= 1 }},
		{"type", NewChoice(&chain.Filter{Types: []string{"t.*"}}, nil), func(int64) bool { return true }},
		{"none", NewChoice(&chain.Filter{Sources: []string{"no"}}, nil), func(int64) bool { return false }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []int64
			for end := int64(-1); ; {
				p, err := l.Before(t.Context(), 0, end, 997, c.f, 3000)
				if err != nil {
					t.Fatal(err)
				}
				if p.To-p.From > 3000 {
					t.Fatalf("looked at %d events", p.To-p.From)
				}
				for _, r := range p.Rows {
					got = append(got, r.Index)
				}
				if end = p.From; p.From == p.First {
					break
				}
			}
			var back []int64
			for from := int64(0); ; {
				p, err := l.After(t.Context(), from, 997, c.f, 3000)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range slices.Backward(p.Rows) {
					back = append(back, r.Index)
				}
				if from = p.To; p.To == p.End {
					break
				}
			}
			var want []int64
			for i := range int64(n) {
				if c.want(i) {
					want = append(want, i)
				}
			}
			if !slices.Equal(back, want) {
				t.Errorf("forwards: %d events, want %d", len(back), len(want))
			}
			slices.Reverse(want)
			if !slices.Equal(got, want) {
				t.Errorf("backwards: %d events, want %d", len(got), len(want))
			}
		})
	}
}

func TestPrunedLogBeginsLater(t *testing.T) {
	l, _ := makeLog(t, layout.SegmentEvents, layout.SegmentEvents+100)
	first, end, err := l.Bounds()
	if first != layout.SegmentEvents || end != layout.SegmentEvents+100 || err != nil {
		t.Fatal(first, end, err)
	}
	if _, err := l.Get(t.Context(), 5); err == nil || !strings.Contains(err.Error(), "pruned") {
		t.Error(err)
	}
	p, err := l.Before(t.Context(), 0, -1, 1000, nil, Budget)
	if err != nil || len(p.Rows) != 100 {
		t.Fatal(len(p.Rows), err)
	}
}

func TestTornAndDamagedLines(t *testing.T) {
	l, dir := makeLog(t, 0, 100)
	name := filepath.Join(dir, layout.SegmentName(0))
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data, []byte(`"m50 `))
	data[at+1] = 'M'
	if err := os.WriteFile(name, append(data, `{"i":100,"at":"torn`...), 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := l.Before(t.Context(), 0, -1, 1000, NewChoice(&chain.Filter{Sources: []string{"no"}}, nil), Budget)
	if err != nil || len(p.Rows) != 1 || p.Rows[0].Index != 50 || p.Rows[0].Damaged == nil || p.End != 100 {
		t.Errorf("%+v, %v: want the damaged event alone, whatever the filter", p, err)
	}
}

func TestFindByTime(t *testing.T) {
	l, _ := makeLog(t, 0, 5000)
	for _, i := range []int64{0, 1, 777, 4999} {
		got, err := l.Find(t.Context(), start.Add(time.Duration(i)*10*time.Millisecond))
		if got != i || err != nil {
			t.Errorf("%d: found %d, %v", i, got, err)
		}
	}
	if got, err := l.Find(t.Context(), start.Add(time.Hour)); got != 5000 || err != nil {
		t.Error(got, err)
	}
}

// Readers at every place, some behind what the tail keeps, some that go away and
// come back, get each event once and in order.
func TestTailMissesNothing(t *testing.T) {
	l, dir := makeLog(t, 0, 20_000)
	tail := &Tail{Log: l, Every: time.Millisecond, Frame: func(r Row) []byte { return fmt.Appendf(nil, "%d\n", r.Index) }}
	if err := tail.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() { tail.Run(ctx) })
	const end = 33_000 // more than the ring holds come while they read
	for k, from := range []int64{0, 5, 12_345, 19_999, 20_000} {
		choose := func(r Row) bool { return k%2 == 0 || r.Event.Source == "ovs" }
		all.Go(func() {
			next := from
			for next < end {
				one, stop := context.WithCancel(ctx)
				got := 0
				err := tail.Stream(one, next, choose, func(b []byte) error {
					for l := range strings.Lines(string(b)) {
						if strings.HasPrefix(l, "id: ") || strings.HasPrefix(l, ":") || l == "\n" {
							continue
						}
						var i int64
						fmt.Sscan(l, &i)
						for k%2 == 1 && next < i && next%3 != 1 {
							next++
						}
						if i != next {
							t.Errorf("reader from %d: event %d, want %d", from, i, next)
							cancel()
						}
						next++
						for k%2 == 1 && next < end && next%3 != 1 {
							next++
						}
					}
					if got++; got == 7 || next >= end {
						stop()
						return errors.New("gone")
					}
					return nil
				})
				stop()
				if ctx.Err() != nil || err == nil {
					return
				}
			}
		})
	}
	for i := int64(20_000); i < end; i += 100 {
		var lines [][]byte
		for k := i; k < i+100; k++ {
			lines = append(lines, line(k, []string{"kernel", "ovs", "mcp"}[k%3], 6, 3))
		}
		appendTo(t, dir, i, lines...)
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	deadline := time.After(time.Minute)
	for {
		select {
		case <-done:
			return
		case <-deadline:
			t.Fatal("readers wait for events that are there")
		case <-time.After(10 * time.Millisecond):
			if tail.Live() == 0 && tail.Next() == end {
				cancel()
			}
		}
	}
}

func TestSummaryCountsAll(t *testing.T) {
	const n = 10_000
	l, _ := makeLog(t, 0, n)
	s := &Summary{Log: l, Keep: 100 * 365 * 24 * time.Hour}
	s.Start(n - 10)
	for i := int64(n - 10); i < n; i++ {
		r, err := l.Get(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		s.Add(r)
	}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := s.Between(start.Add(-time.Minute), start.Add(time.Hour), 120)
	total, grave := uint32(0), uint32(0)
	for _, b := range c.Buckets {
		total += b.Total()
		grave += b.Counts[event.Alert]
	}
	if total != n || grave != n/8 || !c.Done || c.From != 0 {
		t.Errorf("%d events, %d of them alerts, from %d, done %v", total, grave, c.From, c.Done)
	}
	if f := c.Facets[BySource]; len(f) != 3 || f[0].Value != "kernel" || f[0].Count != n/3+1 {
		t.Errorf("%+v", f)
	}
}

// Whatever bytes a segment holds, reading ends, with an error or without.
func FuzzReadEnds(f *testing.F) {
	f.Add([]byte(""), int64(0))
	f.Add([]byte("\n\n\n"), int64(1))
	f.Add(append(line(0, "a", 6, 3), '\n'), int64(0))
	f.Add(append(append(line(0, "a", 6, 3), '\n'), line(7, "a", 6, 3)...), int64(7))
	f.Add([]byte(`{"i":99999999,`+"\n"), int64(5))
	f.Fuzz(func(t *testing.T, data []byte, index int64) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, layout.SegmentName(0)), data, 0o644); err != nil {
			t.Fatal(err)
		}
		l := &Log{FS: os.DirFS(dir)}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		l.Get(ctx, index)
		l.Before(ctx, 0, -1, 10, nil, Budget)
		l.After(ctx, 0, 10, nil, Budget)
		l.Find(ctx, start)
		if ctx.Err() != nil {
			t.Fatal("it goes on and on")
		}
	})
}

func BenchmarkPage(b *testing.B) {
	const n = 2*layout.SegmentEvents + 60_000
	l, _ := makeLog(b, 0, n)
	for b.Loop() {
		if _, err := l.Before(b.Context(), 0, rand.Int64N(n), 100, nil, Budget); err != nil {
			b.Fatal(err)
		}
	}
}
