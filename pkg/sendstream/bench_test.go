package sendstream_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream/streamtest"
)

// bench times what do does with a bulk stream of 256 MiB in a file, which is
// in the page cache.
func bench(b *testing.B, version uint32, do func(io.Reader) error) {
	f, err := os.Create(filepath.Join(b.TempDir(), "stream"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if err := streamtest.Bulk(f, version, 256<<20); err != nil {
		b.Fatal(err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			b.Fatal(err)
		}
		if err := do(f); err != nil {
			b.Fatal(err)
		}
	}
}

func eachVersion(b *testing.B, do func(io.Reader) error) {
	for version := uint32(1); version <= 2; version++ {
		b.Run(fmt.Sprintf("v%d", version), func(b *testing.B) { bench(b, version, do) })
	}
}

// BenchmarkChecksum is the bound of BenchmarkReader.
func BenchmarkChecksum(b *testing.B) {
	eachVersion(b, func(f io.Reader) error { _, err := streamtest.Checksum(f); return err })
}

func BenchmarkReader(b *testing.B) {
	eachVersion(b, func(f io.Reader) error { _, err := streamtest.Drain(f); return err })
}

func BenchmarkWriteText(b *testing.B) {
	eachVersion(b, func(f io.Reader) error {
		return sendstream.WriteText(io.Discard, sendstream.NewReader(f, sendstream.Options{}), sendstream.TextOptions{})
	})
}

func BenchmarkWriteJSON(b *testing.B) {
	eachVersion(b, func(f io.Reader) error {
		return sendstream.WriteJSON(io.Discard, sendstream.NewReader(f, sendstream.Options{}), sendstream.JSONOptions{})
	})
}

func BenchmarkMemory(b *testing.B) {
	eachVersion(b, func(f io.Reader) error {
		return sendstream.Replay(new(sendstream.Memory), sendstream.NewReader(f, sendstream.Options{}))
	})
}

func BenchmarkNamespace(b *testing.B) {
	eachVersion(b, func(f io.Reader) error {
		n := sendstream.NewNamespace()
		for c, err := range sendstream.NewReader(f, sendstream.Options{}).All() {
			if err != nil {
				return err
			}
			if _, err := n.Apply(c); err != nil {
				return err
			}
		}
		return nil
	})
}

// BenchmarkDecode decodes the encoded writes of recorded streams.
func BenchmarkDecode(b *testing.B) {
	for _, name := range []string{"zlib", "zstd", "lzo"} {
		b.Run(name, func(b *testing.B) {
			f, err := os.Open("testdata/" + name + ".stream")
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			var writes []*sendstream.EncodedWrite
			size := int64(0)
			for c, err := range sendstream.NewReader(f, sendstream.Options{}).All() {
				if err != nil {
					b.Fatal(err)
				}
				if e, ok := c.(*sendstream.EncodedWrite); ok {
					writes = append(writes, sendstream.Copy(e).(*sendstream.EncodedWrite))
					size += int64(e.UnencodedFileLen)
				}
			}
			var d sendstream.Decoder
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				for _, w := range writes {
					if _, err := d.Decode(w); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
