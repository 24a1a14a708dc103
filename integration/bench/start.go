//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// starts compare how long each tool takes from its start to the first byte
// that it prints, and how much memory it takes in all, doing the least that it
// does on real data.
var starts = []comparison{{
	name:    "start",
	title:   "a process from its start to its first output",
	rounds:  21,
	metrics: []metric{{"first", "ms", "< 20 for gb-snap and gb-vecsync"}, {"whole", "ms", ""}, {"cpu", "ms", ""}, {"peak", "MB", "< 30 for gb-snap and gb-vecsync"}},
	setup:   startContenders,
}}

func startContenders(ctx context.Context, e *env) ([]contender, error) {
	p, err := newPipeline(ctx, e)
	if err != nil {
		return nil, err
	}
	if err := p.record("first"); err != nil {
		return nil, err
	}
	if err := p.ship(ctx); err != nil {
		return nil, err
	}
	var list []contender
	for _, argv := range [][]string{
		{"/bin/echo", "hello"},
		{e.tool(names.GBSnap), "list", "--snapshots", p.snapshots},
		{e.tool(names.GBVecsync), "cursor", "--index", p.index},
		{e.tool(names.GBVecsync), "search", "--index", p.index, "first"},
		{e.tool(names.GBChain), "query", "--log", p.log},
	} {
		name := filepath.Base(argv[0])
		if len(argv) > 2 {
			name += " " + argv[1]
		}
		list = append(list, contender{name: name, run: func(ctx context.Context) (sample, error) { return start(ctx, argv) }})
	}
	return list, nil
}

func start(ctx context.Context, argv []string) (sample, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	one := make([]byte, 1)
	n, rerr := io.ReadFull(out, one)
	first := time.Since(begin)
	if _, err := io.Copy(io.Discard, out); err != nil {
		return nil, err
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%s: %w", argv[0], err)
	}
	whole := time.Since(begin)
	if n == 0 {
		return nil, errors.Join(fmt.Errorf("%s printed nothing", argv[0]), rerr)
	}
	state := cmd.ProcessState
	usage := state.SysUsage().(*syscall.Rusage)
	return sample{
		"first": milliseconds(first), "whole": milliseconds(whole),
		"cpu": milliseconds(state.UserTime() + state.SystemTime()), "peak": float64(usage.Maxrss) * 1024 / 1e6,
	}, nil
}
