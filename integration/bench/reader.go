//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream/streamtest"
)

const streamSize = 1 << 30

// readers compare the stream reader with the least that any reader does, and
// with btrfs receive --dump, on a stream in memory.
var readers = func() []comparison {
	var list []comparison
	for version := uint32(1); version <= 2; version++ {
		bound := 2.0 // of btrfs receive --dump
		if version == 2 {
			bound = 1.7
		}
		list = append(list, comparison{
			name:    fmt.Sprintf("reader/v%d", version),
			title:   fmt.Sprintf("a send stream of version %d and 1 GiB read", version),
			rounds:  5,
			metrics: []metric{{"rate", "MB/s", more}},
			wants: []want{
				{"sendstream.Reader", "rate", atLeast, bound, "btrfs receive --dump"},
				{"sendstream.Reader", "rate", atLeast, 0.7, "read and CRC-32C"},
			},
			setup: func(ctx context.Context, e *env) ([]contender, error) {
				return readerContenders(e, version)
			},
		})
	}
	return list
}()

func readerContenders(e *env, version uint32) ([]contender, error) {
	dir, err := e.ram()
	if err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(dir, "stream"))
	if err != nil {
		return nil, err
	}
	e.atEnd(f.Close)
	if err := streamtest.Bulk(f, version, streamSize); err != nil {
		return nil, err
	}
	turn := func(name string, ours bool, read func(ctx context.Context) error) contender {
		return contender{name: name, ours: ours, run: func(ctx context.Context) (sample, error) {
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				return nil, err
			}
			begin := time.Now()
			if err := read(ctx); err != nil {
				return nil, err
			}
			return sample{"rate": streamSize / 1e6 / time.Since(begin).Seconds()}, nil
		}}
	}
	dump := contender{name: "btrfs receive --dump", missing: "btrfs-progs are not installed"}
	if btrfs, err := require.Find("btrfs"); err == nil {
		dump = turn("btrfs receive --dump", false, func(ctx context.Context) error {
			return exec.CommandContext(ctx, btrfs, "receive", "--dump", "-f", f.Name()).Run()
		})
	}
	return []contender{
		dump,
		turn("read and CRC-32C", false, func(context.Context) error { _, err := streamtest.Checksum(f); return err }),
		turn("sendstream.Reader", true, func(context.Context) error { _, err := streamtest.Drain(f); return err }),
		turn("sendstream.WriteText", true, func(context.Context) error {
			return sendstream.WriteText(io.Discard, sendstream.NewReader(f, sendstream.Options{}), sendstream.TextOptions{})
		}),
	}, nil
}
