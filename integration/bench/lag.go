//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// lags time the way of one event from append to the search that finds it, by
// the real binaries one after the other, without the wait for the next second
// that the timer adds. There is no peer that does the same; the first row is
// the bare btrfs way: snapshot, send and dump by btrfs-progs.
var lags = []comparison{{
	name:    "lag",
	title:   "one event from append to searchable, each stage a process",
	rounds:  15,
	note:    "Each stage is a process that starts anew. The peer is the bare btrfs way, which finds nothing.",
	metrics: []metric{{"total", "ms", less}, {"append", "ms", less}, {"take", "ms", less}, {"send+ingest", "ms", less}, {"search", "ms", less}},
	setup:   lagContenders,
}}

// A pipeline is a log, its snapshots and an index on a btrfs of their own.
type pipeline struct {
	e                                           *env
	source, log, keys, snapshots, index, cursor string
	sent                                        int
}

func newPipeline(ctx context.Context, e *env) (*pipeline, error) {
	mnt, err := e.mount(loopbtrfs.Options{MountOptions: "compress=zstd:9,noatime", Size: 4 << 30})
	if err != nil {
		return nil, err
	}
	state, err := e.dir("")
	if err != nil {
		return nil, err
	}
	p := &pipeline{
		e: e, source: filepath.Join(mnt, names.TimingSubvolume), snapshots: filepath.Join(mnt, names.SnapshotsSubvolume),
		index: filepath.Join(mnt, "index.db"), keys: filepath.Join(state, "keys"), cursor: filepath.Join(state, "cursor.json"),
	}
	p.log = filepath.Join(p.source, "log")
	for _, dir := range []string{p.source, p.snapshots} {
		if _, err := output(exec.CommandContext(ctx, "btrfs", "-q", "subvolume", "create", dir)); err != nil {
			return nil, err
		}
	}
	if _, err := p.run(ctx, names.GBChain, "init", "--log", p.log, "--keys", p.keys, "--origin", "bench.example/log"); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *pipeline) run(ctx context.Context, tool string, args ...string) (string, error) {
	return output(exec.CommandContext(ctx, p.e.tool(tool), args...))
}

// output runs cmd and returns what it printed; the error has its words.
func output(cmd *exec.Cmd) (string, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// record appends one event with a message.
func (p *pipeline) record(message string) error {
	cmd := exec.Command(p.e.tool(names.GBChain), "append", "--log", p.log, "--keys", p.keys, "-")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"source":"bench","type":"note","message":%q}`+"\n", message))
	_, err := output(cmd)
	return err
}

func (p *pipeline) take(ctx context.Context) error {
	_, err := p.run(ctx, names.GBSnap, "take", "--snapshots", p.snapshots, p.source)
	return err
}

// ship takes a snapshot and brings it into the index.
func (p *pipeline) ship(ctx context.Context) error {
	if err := p.take(ctx); err != nil {
		return err
	}
	return p.deliver(ctx)
}

// deliver is gb-snap send | gb-vecsync ingest.
func (p *pipeline) deliver(ctx context.Context) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	send := exec.CommandContext(ctx, p.e.tool(names.GBSnap), "send", "--snapshots", p.snapshots, "--cursor", p.cursor, p.source)
	ingest := exec.CommandContext(ctx, p.e.tool(names.GBVecsync), "ingest", "--index", p.index, "--cursor", p.cursor)
	var sendWords bytes.Buffer
	send.Stdout, send.Stderr, ingest.Stdin = w, &sendWords, r
	err = send.Start()
	w.Close()
	if err == nil {
		_, err = output(ingest)
		if werr := send.Wait(); werr != nil {
			err = errors.Join(err, fmt.Errorf("gb-snap send: %w: %s", werr, strings.TrimSpace(sendWords.String())))
		}
	}
	r.Close()
	return err
}

func lagContenders(ctx context.Context, e *env) ([]contender, error) {
	p, err := newPipeline(ctx, e)
	if err != nil {
		return nil, err
	}
	// A log of some size, so that the index is no empty one.
	var events bytes.Buffer
	for k := range 20000 {
		fmt.Fprintf(&events, `{"source":"bench","type":"fill","message":"interface vnet%d of ovsbr1 changed its state to up after %d ms"}`+"\n", k%300, k)
	}
	fill := exec.CommandContext(ctx, e.tool(names.GBChain), "append", "--log", p.log, "--keys", p.keys, "-")
	fill.Stdin = &events
	if _, err := output(fill); err != nil {
		return nil, err
	}
	if err := p.ship(ctx); err != nil {
		return nil, err
	}
	bare, err := newBareWay(ctx, e)
	if err != nil {
		return nil, err
	}
	return []contender{{name: "btrfs-progs, no index", run: bare.run}, {name: "GhostBridge", ours: true, run: p.lag}}, nil
}

// lag appends an event and brings it to where a search finds it.
func (p *pipeline) lag(ctx context.Context) (sample, error) {
	p.sent++
	word := fmt.Sprintf("zebra%d", p.sent)
	s := sample{}
	begin := time.Now()
	last := begin
	stage := func(name string) {
		now := time.Now()
		s[name] = milliseconds(now.Sub(last))
		last = now
	}
	if err := p.record("the word is " + word); err != nil {
		return nil, err
	}
	stage("append")
	if err := p.take(ctx); err != nil {
		return nil, err
	}
	stage("take")
	if err := p.deliver(ctx); err != nil {
		return nil, err
	}
	stage("send+ingest")
	out, err := p.run(ctx, names.GBVecsync, "search", "--index", p.index, "--json", word)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(out, word) {
		return nil, fmt.Errorf("%s is not found: %q", word, out)
	}
	stage("search")
	s["total"] = milliseconds(last.Sub(begin))
	return s, nil
}

// A bareWay is what one would build of btrfs-progs: a line in a file, a
// snapshot, and the dump of its increment. It finds nothing.
type bareWay struct {
	source, snapshots string
	n                 int
}

func newBareWay(ctx context.Context, e *env) (*bareWay, error) {
	mnt, err := e.mount(loopbtrfs.Options{MountOptions: "compress=zstd:9,noatime", Size: 2 << 30})
	if err != nil {
		return nil, err
	}
	b := &bareWay{source: filepath.Join(mnt, "source"), snapshots: mnt}
	if _, err := output(exec.CommandContext(ctx, "btrfs", "-q", "subvolume", "create", b.source)); err != nil {
		return nil, err
	}
	return b, b.snapshot(ctx)
}

func (b *bareWay) path(n int) string { return filepath.Join(b.snapshots, fmt.Sprintf("s%06d", n)) }

func (b *bareWay) snapshot(ctx context.Context) error {
	_, err := output(exec.CommandContext(ctx, "btrfs", "-q", "subvolume", "snapshot", "-r", b.source, b.path(b.n)))
	return err
}

func (b *bareWay) run(ctx context.Context) (sample, error) {
	s := sample{}
	begin := time.Now()
	f, err := os.OpenFile(filepath.Join(b.source, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(f, "event %d\n", b.n)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	s["append"] = milliseconds(time.Since(begin))
	t := time.Now()
	b.n++
	if err := b.snapshot(ctx); err != nil {
		return nil, err
	}
	s["take"] = milliseconds(time.Since(t))
	t = time.Now()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	send := exec.CommandContext(ctx, "btrfs", "send", "-q", "-p", b.path(b.n-1), b.path(b.n))
	dump := exec.CommandContext(ctx, "btrfs", "receive", "--dump")
	send.Stdout, dump.Stdin = w, r
	err = send.Start()
	w.Close()
	if err == nil {
		_, err = output(dump)
		err = errors.Join(err, send.Wait())
	}
	r.Close()
	if err != nil {
		return nil, err
	}
	s["send+ingest"] = milliseconds(time.Since(t))
	s["total"] = milliseconds(time.Since(begin))
	return s, nil
}
