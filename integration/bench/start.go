//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/peak"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// starts compare how long each tool takes from its start to the first byte
// that it prints, and how much memory it takes in all, doing the least that it
// does on real data; of gb-ovs-setup and gb-web the least that they do at all.
var starts = []comparison{{
	name:    "start",
	title:   "a process from its start to its first output",
	note:    "peak is of a run of its own, in which the program is stopped before its end.",
	rounds:  21,
	metrics: []metric{{"first", "ms", less}, {"whole", "ms", less}, {"cpu", "ms", less}, {"peak", "MB", less}},
	wants: []want{
		{"gb-snap list", "first", atMost, 20, ""},
		{"gb-vecsync search", "first", atMost, 20, ""},
		{"gb-snap list", "peak", atMost, 30, ""},
		{"gb-vecsync search", "peak", atMost, 30, ""},
	},
	setup: startContenders,
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
	bus, err := benchBus(e, 0)
	if err != nil {
		return nil, err
	}
	var list []contender
	for _, argv := range [][]string{
		{"/bin/echo", "hello"},
		{e.tool(names.GBSnap), "list", "--snapshots", p.snapshots},
		{e.tool(names.GBVecsync), "cursor", "--index", p.index},
		{e.tool(names.GBVecsync), "search", "--index", p.index, "first"},
		{e.tool(names.GBChain), "query", "--log", p.log},
		{e.tool(names.OPDBus), "names", "--bus", bus},
		{e.tool(names.GBOVSSetup), "schema"},
		{e.tool(names.GBWeb), "--version"},
	} {
		c := contender{name: filepath.Base(argv[0]), ours: filepath.Dir(argv[0]) == e.bin}
		if c.ours {
			c.name += " " + argv[1]
		}
		c.run = func(ctx context.Context) (sample, error) {
			s, err := e.timeStart(ctx, argv)
			if err != nil {
				return nil, err
			}
			most, err := peak.Run(exec.CommandContext(ctx, argv[0], argv[1:]...))
			s["peak"] = float64(most) / 1e6
			return s, err
		}
		list = append(list, c)
	}
	return list, nil
}

// timeStart times a program until it has printed something, and until its end.
func (e *env) timeStart(ctx context.Context, argv []string) (sample, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stderr = &e.words
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
	return sample{
		"first": milliseconds(first), "whole": milliseconds(whole),
		"cpu": milliseconds(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()),
	}, nil
}
