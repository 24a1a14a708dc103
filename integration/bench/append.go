//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/event"
)

// appends compare the log with a bare loop of one write and one fdatasync a
// batch, of lines as long as the log's, and with Tessera's POSIX driver, each by
// one writer.
var appends = func() []comparison {
	var list []comparison
	for _, fs := range []struct{ name, options string }{{"ext4", ""}, {"btrfs", "compress=zstd:9,noatime"}} {
		for _, batch := range []int{1, 100, 1000} {
			list = append(list, comparison{
				name:    fmt.Sprintf("append/%s/%d", fs.name, batch),
				title:   strings.TrimSpace(fmt.Sprintf("events appended, %d a batch, on %s %s", batch, fs.name, fs.options)),
				rounds:  5,
				metrics: []metric{{"rate", "events/s", more}, {"p50", "ms", less}, {"p99", "ms", less}},
				wants: []want{
					{"gb-chain's log", "rate", atLeast, 0.8, bareLoop},
					{"gb-chain's log", "rate", atLeast, 3, tesseraDriver},
				},
				setup: func(ctx context.Context, e *env) ([]contender, error) {
					return appendContenders(ctx, e, loopbtrfs.Options{FS: fs.name, MountOptions: fs.options, Size: 12 << 30}, batch)
				},
			})
		}
	}
	return list
}()

const (
	appendFor     = time.Second // a contender's turn
	bareLoop      = "write and fdatasync"
	tesseraDriver = "Tessera's POSIX driver"
)

func appendContenders(ctx context.Context, e *env, o loopbtrfs.Options, batch int) ([]contender, error) {
	mnt, err := e.mount(o)
	if err != nil {
		return nil, err
	}
	keys, err := e.dir("")
	if err != nil {
		return nil, err
	}
	if _, err := chain.Create(filepath.Join(mnt, "log"), "bench.example/log", keys, chain.Options{}); err != nil {
		return nil, err
	}
	l, err := chain.Open(filepath.Join(mnt, "log"), keys, chain.Options{})
	if err != nil {
		return nil, err
	}
	e.atEnd(l.Close)
	bare, err := os.OpenFile(filepath.Join(mnt, "bare"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	e.atEnd(bare.Close)

	var p event.Parser
	b := &chain.Batch{Peer: event.Peer{UID: uint32(os.Getuid())}}
	for k := range batch {
		d, err := p.Parse(fmt.Appendf(nil, `{"source":"bench","type":"interface.changed","subject":"vnet%d","message":"link state of vnet%d on ovsbr1 went from down to up","data":{"ofport":%d,"speed":10000000000,"duplex":"full","mtu":1500}}`, k, k, k))
		if err != nil {
			return nil, err
		}
		b.Drafts = append(b.Drafts, d)
	}
	// The bare loop writes the very bytes that the log stores for one batch.
	before, err := os.Stat(filepath.Join(mnt, "log", "000000.jsonl"))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(l.Append(b), b.Err); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(mnt, "log", "000000.jsonl"))
	if err != nil {
		return nil, err
	}
	data = data[before.Size():]
	return []contender{
		{name: bareLoop, run: func(ctx context.Context) (sample, error) {
			return appendTurn(ctx, batch, func() error {
				if _, err := bare.Write(data); err != nil {
					return err
				}
				return unix.Fdatasync(int(bare.Fd()))
			}, nil)
		}},
		{name: "gb-chain's log", ours: true, run: func(ctx context.Context) (sample, error) {
			return appendTurn(ctx, batch, func() error { return errors.Join(l.Append(b), b.Err) }, l.Checkpoint)
		}},
		tesseraAppender(ctx, e, filepath.Join(mnt, "tessera"), data, batch),
	}, nil
}

// appendTurn repeats commit for a while; afterwards, and once a second as the
// daemon does it, it signs.
func appendTurn(ctx context.Context, batch int, commit, sign func() error) (sample, error) {
	var took []float64
	begin := time.Now()
	for time.Since(begin) < appendFor {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t := time.Now()
		if err := commit(); err != nil {
			return nil, err
		}
		took = append(took, milliseconds(time.Since(t)))
	}
	if sign != nil {
		if err := sign(); err != nil {
			return nil, err
		}
	}
	total := time.Since(begin).Seconds()
	return sample{"rate": float64(len(took)*batch) / total, "p50": median(took), "p99": quantile(took, 0.99)}, nil
}
