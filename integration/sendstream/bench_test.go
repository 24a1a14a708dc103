//go:build linux

package sendstream_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream/streamtest"
)

// BenchmarkAgainstProgs reads a stream of 1 GiB in the page cache with a
// Reader, with read and CRC-32C alone, and with btrfs receive --dump, in turns,
// and reports medians and their ratios:
//
//	x-dump    how many times as fast as btrfs receive --dump the Reader is
//	x-text    the same of WriteText
//	of-crc    the Reader's speed as a share of that of read and CRC-32C
//
// TMPDIR should be a tmpfs. One iteration is one turn: -benchtime 9x.
func BenchmarkAgainstProgs(b *testing.B) {
	require.Tool(b, "btrfs")
	for version := uint32(1); version <= 2; version++ {
		b.Run(fmt.Sprintf("v%d", version), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "stream"))
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			if err := streamtest.Bulk(f, version, 1<<30); err != nil {
				b.Fatal(err)
			}
			contenders := map[string]func() error{
				"reader": func() error { _, err := streamtest.Drain(f); return err },
				"crc":    func() error { _, err := streamtest.Checksum(f); return err },
				"text": func() error {
					return sendstream.WriteText(io.Discard, sendstream.NewReader(f, sendstream.Options{}), sendstream.TextOptions{})
				},
				"dump": func() error { return exec.Command("btrfs", "receive", "--dump", "-f", f.Name()).Run() },
			}
			times := map[string][]time.Duration{}
			for b.Loop() {
				for _, name := range []string{"reader", "crc", "text", "dump"} {
					if _, err := f.Seek(0, io.SeekStart); err != nil {
						b.Fatal(err)
					}
					start := time.Now()
					if err := contenders[name](); err != nil {
						b.Fatal(err)
					}
					times[name] = append(times[name], time.Since(start))
				}
			}
			median := func(name string) float64 {
				slices.Sort(times[name])
				return times[name][len(times[name])/2].Seconds()
			}
			b.ReportMetric(median("dump")/median("reader"), "x-dump")
			b.ReportMetric(median("dump")/median("text"), "x-text")
			b.ReportMetric(median("crc")/median("reader"), "of-crc")
			for name := range times {
				b.ReportMetric(median(name)*1000, name+"-ms")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
