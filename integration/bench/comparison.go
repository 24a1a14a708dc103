//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
)

// A comparison is one table: contenders that do the same work in turns.
type comparison struct {
	name    string // "append/btrfs/100": for -run
	title   string // one line for people
	note    string // what one must know to read the ratios, may be empty
	rounds  int    // default 5
	metrics []metric
	// setup makes what the contenders need, through env, which takes it down
	// again. The first contender is the peer that ratios refer to.
	setup func(ctx context.Context, e *env) ([]contender, error)
}

// A metric is one column. The first of a comparison is what ratios are of.
type metric struct {
	name, unit string
	// want is the bound that the project set itself, for people: "≥ 0.8 of
	// the peer".
	want string
}

// A contender does the work once and says what it measured, by metric; one
// that it leaves out is not its own.
type contender struct {
	name    string
	run     func(ctx context.Context) (sample, error)
	missing string // why it can't run here; then run is nil
}

type sample map[string]float64

// An env gives a comparison its places and takes them down afterwards.
type env struct {
	bin      string // directory of the binaries
	takeDown []func() error
}

// tool returns the path of one of our binaries.
func (e *env) tool(name string) string { return filepath.Join(e.bin, name) }

// atEnd has f called when the comparison is over, the last one first.
func (e *env) atEnd(f func() error) { e.takeDown = append(e.takeDown, f) }

// dir makes a directory below parent, the system's temporary one if empty.
func (e *env) dir(parent string) (string, error) {
	dir, err := os.MkdirTemp(parent, "gb-bench-")
	if err == nil {
		e.atEnd(func() error { return os.RemoveAll(dir) })
	}
	return dir, err
}

// ram makes a directory in memory, where there is one.
func (e *env) ram() (string, error) {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return e.dir("/dev/shm")
	}
	return e.dir("")
}

// mount makes a file system on a loop device.
func (e *env) mount(o loopbtrfs.Options) (string, error) {
	if os.Geteuid() != 0 {
		return "", errors.New("needs root for a loop mount")
	}
	mnt, down, err := loopbtrfs.Make(o)
	if err == nil {
		e.atEnd(down)
	}
	return mnt, err
}

func (e *env) close() error {
	var errs []error
	for i := len(e.takeDown) - 1; i >= 0; i-- {
		errs = append(errs, e.takeDown[i]())
	}
	return errors.Join(errs...)
}

// measure runs a comparison: one round to warm up, which does not count, then
// its rounds, in each of which the contenders take turns.
func measure(ctx context.Context, c comparison, bin string) (res result, err error) {
	e := &env{bin: bin}
	defer func() { err = errors.Join(err, e.close()) }()
	contenders, err := c.setup(ctx, e)
	if err != nil {
		return result{}, err
	}
	if c.rounds == 0 {
		c.rounds = 5
	}
	res = result{Name: c.name, Title: c.title, Rounds: c.rounds, Note: c.note}
	for _, m := range c.metrics {
		res.Metrics = append(res.Metrics, resultMetric{m.name, m.unit, m.want})
	}
	for _, x := range contenders {
		res.Rows = append(res.Rows, row{Contender: x.name, Missing: x.missing, Samples: map[string][]float64{}})
	}
	for round := range c.rounds + 1 {
		for i, x := range contenders {
			if x.missing != "" {
				continue
			}
			s, err := x.run(ctx)
			if err != nil {
				return res, fmt.Errorf("%s: %w", x.name, err)
			}
			if round == 0 {
				continue
			}
			for name, v := range s {
				res.Rows[i].Samples[name] = append(res.Rows[i].Samples[name], v)
			}
		}
	}
	res.summarise()
	return res, nil
}
