package chain

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/event"
)

// BenchmarkAppend appends batches in a directory in memory, where there is
// one: what a batch costs but for the disk. TMPDIR names it.
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir, keys := filepath.Join(b.TempDir(), "log"), b.TempDir()
			if _, err := Create(dir, "bench.example/log", keys, Options{}); err != nil {
				b.Fatal(err)
			}
			l, err := Open(dir, keys, Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			var p event.Parser
			batch := &Batch{}
			for k := range n {
				d, err := p.Parse(fmt.Appendf(nil, `{"source":"bench","type":"interface.changed","subject":"vnet%d","message":"link state of vnet%d on ovsbr1 went from down to up","data":{"ofport":%d,"speed":10000000000,"duplex":"full","mtu":1500}}`, k, k, k))
				if err != nil {
					b.Fatal(err)
				}
				batch.Drafts = append(batch.Drafts, d)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := errors.Join(l.Append(batch), batch.Err); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/event")
		})
	}
}

// BenchmarkVerify verifies a log of three segments and a half in the page
// cache.
func BenchmarkVerify(b *testing.B) {
	const events = 3<<16 + 1<<15
	dir, keys := filepath.Join(b.TempDir(), "log"), b.TempDir()
	if _, err := Create(dir, "bench.example/log", keys, Options{}); err != nil {
		b.Fatal(err)
	}
	l, err := Open(dir, keys, Options{})
	if err != nil {
		b.Fatal(err)
	}
	var p event.Parser
	for k := 0; l.Size() < events; {
		batch := &Batch{}
		for range min(4096, events-l.Size()) {
			k++
			d, err := p.Parse(fmt.Appendf(nil, `{"source":"bench","type":"interface.changed","subject":"vnet%d","message":"link state of vnet%d on ovsbr1 went from down to up","data":{"ofport":%d,"speed":10000000000,"duplex":"full","mtu":1500}}`, k%64, k%64, k))
			if err != nil {
				b.Fatal(err)
			}
			batch.Drafts = append(batch.Drafts, d)
		}
		if err := errors.Join(l.Append(batch), batch.Err); err != nil {
			b.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if r, err := Verify(b.Context(), os.DirFS(dir), VerifyOptions{}); err != nil || !r.OK {
			b.Fatal(err, r)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*events), "ns/event")
}
