package sendstream_test

import (
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream/streamtest"
)

// bulkFile writes a bulk stream to a file once a run.
func bulkFile(b *testing.B, version uint32, size int64) *os.File {
	b.Helper()
	f, err := os.Create(filepath.Join(b.TempDir(), fmt.Sprintf("v%d", version)))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	if err := streamtest.Bulk(f, version, size); err != nil {
		b.Fatal(err)
	}
	return f
}

const benchSize = 256 << 20

// BenchmarkReader reads streams of a file in the page cache. Its bound is
// BenchmarkReadCRC.
func BenchmarkReader(b *testing.B) {
	for version := uint32(1); version <= 2; version++ {
		b.Run(fmt.Sprintf("v%d", version), func(b *testing.B) {
			f := bulkFile(b, version, benchSize)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Seek(0, io.SeekStart); err != nil {
					b.Fatal(err)
				}
				r := sendstream.NewReader(f, sendstream.Options{})
				for {
					if _, err := r.Next(); err == io.EOF {
						break
					} else if err != nil {
						b.Fatal(err)
					}
				}
				b.SetBytes(r.Offset())
			}
		})
	}
}

// BenchmarkReadCRC does what no reader can do without: it reads the bytes and
// computes their CRC-32C.
func BenchmarkReadCRC(b *testing.B) {
	f := bulkFile(b, 2, benchSize)
	table := crc32.MakeTable(crc32.Castagnoli)
	buf := make([]byte, 256<<10)
	for b.Loop() {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			b.Fatal(err)
		}
		sum, total := uint32(0), int64(0)
		for {
			n, err := f.Read(buf)
			sum = crc32.Update(sum, table, buf[:n])
			total += int64(n)
			if err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
		b.SetBytes(total)
	}
}

func BenchmarkDumpText(b *testing.B) {
	f := bulkFile(b, 2, benchSize)
	for b.Loop() {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			b.Fatal(err)
		}
		r := sendstream.NewReader(f, sendstream.Options{})
		if err := sendstream.WriteText(io.Discard, r, sendstream.TextOptions{}); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(r.Offset())
	}
}

func BenchmarkMemory(b *testing.B) {
	f := bulkFile(b, 2, benchSize)
	for b.Loop() {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			b.Fatal(err)
		}
		r := sendstream.NewReader(f, sendstream.Options{})
		if err := sendstream.Replay(&sendstream.Memory{}, r); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(r.Offset())
	}
}
