//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/peak"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// ingests time what one second's stream costs the ingester, beside the dump of
// the same stream by btrfs-progs, which keeps nothing of it.
var ingests = []comparison{{
	name:    "ingest",
	title:   "the stream of 1,000 events, into an index of 50,000",
	rounds:  11,
	metrics: []metric{{"cpu", "ms", less}, {"wall", "ms", less}, {"peak", "MB", less}},
	wants: []want{
		{"gb-vecsync ingest", "cpu", atMost, 100, ""},
		{"gb-vecsync ingest", "peak", atMost, 64, ""},
	},
	setup: ingestContenders,
}}

const eventsASecond = 1000

func ingestContenders(ctx context.Context, e *env) ([]contender, error) {
	p, err := newPipeline(ctx, e)
	if err != nil {
		return nil, err
	}
	if err := p.fill(ctx, 50000); err != nil {
		return nil, err
	}
	if err := p.ship(ctx); err != nil {
		return nil, err
	}
	// next is a stream of 1,000 events that the index has not got.
	next := func(ctx context.Context) ([]byte, error) {
		if err := p.fill(ctx, eventsASecond); err != nil {
			return nil, err
		}
		if err := p.take(ctx); err != nil {
			return nil, err
		}
		stream, err := p.run(ctx, names.GBSnap, "send", "--snapshots", p.snapshots, "--cursor", p.cursor, p.source)
		return []byte(stream), err
	}
	var stream []byte
	return []contender{
		{name: "btrfs receive --dump", run: func(ctx context.Context) (s sample, err error) {
			if stream, err = next(ctx); err != nil {
				return nil, err
			}
			return costs(exec.CommandContext(ctx, "btrfs", "receive", "--dump"), stream)
		}},
		{name: "gb-vecsync ingest", ours: true, run: func(ctx context.Context) (sample, error) {
			return costs(exec.CommandContext(ctx, e.tool(names.GBVecsync), "ingest", "--index", p.index, "--cursor", p.cursor), stream)
		}},
	}, nil
}

// fill appends n events as one batch.
func (p *pipeline) fill(ctx context.Context, n int) error {
	var events bytes.Buffer
	for range n {
		p.sent++
		fmt.Fprintf(&events, `{"source":"bench","type":"fill","message":"interface vnet%d of ovsbr1 changed its state to up after %d ms","data":{"port":"vnet%d","ofport":%d}}`+"\n",
			p.sent%300, p.sent, p.sent%300, p.sent%512)
	}
	cmd := exec.CommandContext(ctx, p.e.tool(names.GBChain), "append", "--log", p.log, "--keys", p.keys, "-")
	cmd.Stdin = &events
	_, err := output(cmd)
	return err
}

// costs runs cmd on an input and says what it took.
func costs(cmd *exec.Cmd, input []byte) (sample, error) {
	cmd.Stdin = bytes.NewReader(input)
	var words bytes.Buffer
	cmd.Stderr = &words
	begin := time.Now()
	most, err := peak.Run(cmd)
	if err != nil {
		return nil, errors.Join(err, errors.New(strings.TrimSpace(words.String())))
	}
	wall := time.Since(begin)
	return sample{
		"cpu":  milliseconds(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()),
		"wall": milliseconds(wall), "peak": float64(most) / 1e6,
	}, nil
}
