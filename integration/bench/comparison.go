//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/bench/report"
	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
)

// A comparison is one table: contenders that do the same work in turns.
type comparison struct {
	name    string // "append/btrfs/100": for -run
	title   string // one line for people
	note    string // what one must know to read the ratios, may be empty
	rounds  int    // default 5
	metrics []metric
	wants   []want
	// setup makes what the contenders need, through env, which takes it down
	// again. The first contender is the peer that ratios refer to.
	setup func(ctx context.Context, e *env) ([]contender, error)
}

// A metric is one column. The first of a comparison is what plots show.
type metric struct{ name, unit, better string }

const less, more = report.Less, report.More

// A want is a bound that the project set itself: a contender's metric, and with
// of its ratio to another contender's.
type want struct {
	contender, metric, relation string
	bound                       float64
	of                          string
}

const atMost, atLeast = report.AtMost, report.AtLeast

// A contender does the work once and says what it measured, by metric; one
// that it leaves out is not its own.
type contender struct {
	name    string
	ours    bool // not a peer
	run     func(ctx context.Context) (sample, error)
	missing string // why it can't run here; then run is nil
}

type sample map[string]float64

var (
	median   = report.Median
	quantile = report.Quantile
)

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// An env gives a comparison its places and takes them down afterwards.
type env struct {
	bin      string // directory of the binaries
	quick    bool
	words    tail // what programs say on standard error
	takeDown []func() error
}

// A tail keeps the end of what is written to it, for when something fails.
type tail struct {
	mu   sync.Mutex
	last []byte
}

const tailLength = 1000

// Write is io.Writer's; it never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, p...)
	t.last = t.last[max(0, len(t.last)-tailLength):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.last))
}

// turn is how long a long turn is: a quarter of it when a quick run is asked
// for.
func (e *env) turn(long time.Duration) time.Duration {
	if e.quick {
		return long / 4
	}
	return long
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
// its rounds, in each of which the contenders take turns. A dot is written to
// progress for each round.
func measure(ctx context.Context, c comparison, e *env, progress io.Writer) (res report.Comparison, err error) {
	begin := time.Now()
	defer func() {
		err = errors.Join(err, e.close())
		if words := e.words.String(); err != nil && words != "" {
			err = fmt.Errorf("%w\n%s", err, words)
		}
		res.Seconds = float64(int(10*time.Since(begin).Seconds())) / 10
	}()
	if c.rounds == 0 {
		c.rounds = 5
	}
	if e.quick {
		c.rounds = min(c.rounds, quickRounds)
	}
	res = report.Comparison{Name: c.name, Title: c.title, Note: c.note, Rounds: c.rounds}
	for _, m := range c.metrics {
		res.Metrics = append(res.Metrics, report.Metric{Name: m.name, Unit: m.unit, Better: m.better})
	}
	for _, w := range c.wants {
		res.Wants = append(res.Wants, report.Want{Contender: w.contender, Metric: w.metric, Relation: w.relation, Bound: w.bound, Of: w.of})
	}
	contenders, err := c.setup(ctx, e)
	if err != nil {
		return res, err
	}
	samples := make([]map[string][]float64, len(contenders))
	for i, x := range contenders {
		res.Rows = append(res.Rows, report.Row{Contender: x.name, Ours: x.ours, NotMeasured: x.missing})
		samples[i] = make(map[string][]float64)
	}
	if err := res.Check(); err != nil {
		return res, err
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
				samples[i][name] = append(samples[i][name], v)
			}
		}
		fmt.Fprint(progress, ".")
	}
	res.Summarise(samples)
	return res, nil
}
