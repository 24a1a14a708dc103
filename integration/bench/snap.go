//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/snap"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

// snapshots compare one tick of gb-snap with the bare ioctl and with
// btrfs-progs, a source that rests with one that is snapshotted each second
// anyway, and a synced writer beside gb-snap with one that is alone.
var snapshots = []comparison{
	{
		name:    "snapshot/tick",
		title:   "one snapshot of a source that has just changed, 60 kept, 20 in a turn",
		rounds:  7,
		metrics: []metric{{"wall", "ms", less}, {"cpu", "ms", less}},
		wants: []want{
			{"one tick of gb-snap, with pruning", "wall", atMost, 1.2, "ioctl"},
			{"gb-snap take, a process, with pruning", "cpu", atMost, 15, ""},
		},
		setup: tickContenders,
	},
	{
		name:    "snapshot/idle",
		title:   "device writes while nothing changes, 8 s in a turn",
		rounds:  3,
		metrics: []metric{{"written", "KiB/s", less}},
		wants:   []want{{"gb-snap take --every 1s", "written", atMost, 16, ""}},
		setup:   idleContenders,
	},
	{
		name:   "snapshot/writer",
		title:  "a writer of 1 MB/s, each append synced, with a snapshot a second, 10 s in a turn",
		rounds: 3,
		metrics: []metric{{"p50", "ms", less}, {"p99", "ms", less}, {"max", "ms", less}, {"rate", "KB/s", more},
			{"period", "s", ""}, {"skipped", "ticks", less}, {"live", "", ""}},
		wants: []want{
			{besideSnap, "p50", atMost, 1.2, "the writer alone"},
			{besideSnap, "period", atLeast, 0.99, ""},
			{besideSnap, "period", atMost, 1.01, ""},
			{besideSnap, "live", atMost, keep, ""},
		},
		setup: writerContenders,
	},
}

// A place is a source and a directory of snapshots on a btrfs of their own.
type place struct {
	mnt, source string
	run         string
	file        *os.File
}

func newPlace(e *env) (*place, error) {
	mnt, err := e.mount(loopbtrfs.Options{MountOptions: "compress=zstd:9,noatime", Size: 8 << 30})
	if err != nil {
		return nil, err
	}
	p := &place{mnt: mnt, source: filepath.Join(mnt, "source")}
	if p.run, err = e.dir(""); err != nil {
		return nil, err
	}
	if err := (subvol.System{}).Create(p.source); err != nil {
		return nil, err
	}
	if p.file, err = os.Create(filepath.Join(p.source, "file")); err != nil {
		return nil, err
	}
	e.atEnd(p.file.Close)
	return p, nil
}

// store makes a directory of snapshots.
func (p *place) store(name string) (string, error) {
	dir := filepath.Join(p.mnt, name)
	return dir, os.Mkdir(dir, 0o755)
}

// change is a small change that has reached the disk.
func (p *place) change() error {
	if _, err := p.file.WriteString("one more line of a log that grows\n"); err != nil {
		return err
	}
	return p.file.Sync()
}

const besideSnap = "beside gb-snap take --every 1s"

// keep is how many snapshots each contender keeps.
const keep = 60

// cleanerPatience is how long a turn waits for the kernel to have removed what
// was deleted before.
const cleanerPatience = time.Second

func tickContenders(ctx context.Context, e *env) ([]contender, error) {
	p, err := newPlace(e)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, name := range []string{"ioctl", "tick", "process", "progs", "both"} {
		dir, err := p.store(name)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, dir)
		// Full from the start, as it is in the long run.
		for i := range keep {
			if err := (subvol.System{}).Snapshot(p.source, filepath.Join(dir, snap.Name(time.Now().Add(time.Duration(i-100)*time.Second)))); err != nil {
				return nil, err
			}
		}
	}
	store, err := snap.OpenStore(subvol.System{}, dirs[1])
	if err != nil {
		return nil, err
	}
	policy := snap.Policy{Keep: keep, MaxCount: keep}
	taker := &snap.Taker{Store: store, Source: p.source, Policy: policy}
	if err := taker.Start(); err != nil {
		return nil, err
	}
	e.atEnd(taker.Stop)
	// Without a bound on the cleaner's backlog, which in 20 snapshots without a
	// pause grows as it never does at one a second.
	take := []string{e.tool(names.GBSnap), "take", "--snapshots", dirs[2], "--run", p.run, "--keep", strconv.Itoa(keep), "--max-count", strconv.Itoa(keep), "--max-backlog", "0", p.source}
	list := []contender{
		{name: "ioctl", run: func(ctx context.Context) (sample, error) {
			s, err := p.turn(ctx, func(name string) (time.Duration, error) {
				return 0, subvol.System{}.Snapshot(p.source, filepath.Join(dirs[0], name))
			})
			return s, errors.Join(err, thinOut(dirs[0]))
		}},
		{name: "ioctl, and one that deletes the oldest", run: func(ctx context.Context) (sample, error) {
			oldest, err := newestLast(dirs[4])
			if err != nil {
				return nil, err
			}
			return p.turn(ctx, func(name string) (time.Duration, error) {
				err := subvol.System{}.Delete(dirs[4], oldest[0].Name, oldest[0].ID)
				oldest = oldest[1:]
				return 0, errors.Join(err, subvol.System{}.Snapshot(p.source, filepath.Join(dirs[4], name)))
			})
		}},
		{name: "one tick of gb-snap, with pruning", ours: true, run: func(ctx context.Context) (sample, error) {
			return p.turn(ctx, func(string) (time.Duration, error) {
				o, err := taker.Take(ctx, false)
				if err == nil && (o.Snapshot == nil || o.Live != keep) {
					err = fmt.Errorf("it took %v, %d live", o.Snapshot, o.Live)
				}
				return 0, err
			})
		}},
		{name: "gb-snap take, a process, with pruning", ours: true, run: func(ctx context.Context) (sample, error) {
			return p.turn(ctx, func(string) (time.Duration, error) { return process(ctx, take...) })
		}},
	}
	progs := contender{name: "btrfs subvolume snapshot -r, a process"}
	if path, err := exec.LookPath("btrfs"); err != nil {
		progs.missing = err.Error()
	} else {
		progs.run = func(ctx context.Context) (sample, error) {
			s, err := p.turn(ctx, func(name string) (time.Duration, error) {
				return process(ctx, path, "-q", "subvolume", "snapshot", "-r", p.source, filepath.Join(dirs[3], name))
			})
			return s, errors.Join(err, thinOut(dirs[3]))
		}
	}
	return append(list, progs), nil
}

// turn takes 20 snapshots, each after a change. take returns the CPU time of
// the process that it was, if it was one.
func (p *place) turn(ctx context.Context, take func(name string) (cpu time.Duration, err error)) (sample, error) {
	// Nobody pays for what others have deleted, as far as the cleaner wakes: it may
	// sleep for 30 s, whoever syncs.
	for deadline := time.Now().Add(cleanerPatience); time.Now().Before(deadline); {
		n, err := subvol.System{}.Backlog(p.mnt)
		if err == nil && n > 0 {
			err = exec.Command("sync", "-f", p.mnt).Run() // the cleaner wakes with a commit
		}
		if err := errors.Join(err, sleep(ctx, 20*time.Millisecond)); err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
	}
	var wall, cpu []float64
	for range 20 {
		if err := errors.Join(ctx.Err(), p.change()); err != nil {
			return nil, err
		}
		name := snap.Name(time.Now())
		begin := time.Now()
		used, err := take(name)
		if err != nil {
			return nil, err
		}
		wall = append(wall, milliseconds(time.Since(begin)))
		if used > 0 {
			cpu = append(cpu, milliseconds(used))
		}
	}
	s := sample{"wall": median(wall)}
	if len(cpu) > 0 {
		s["cpu"] = median(cpu)
	}
	return s, nil
}

func process(ctx context.Context, argv ...string) (cpu time.Duration, err error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("%v: %w: %s", argv, err, out)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

func newestLast(dir string) ([]snap.Snapshot, error) {
	store, err := snap.OpenStore(subvol.System{}, dir)
	if err != nil {
		return nil, err
	}
	return store.List()
}

// thinOut leaves the newest of a directory's snapshots.
func thinOut(dir string) error {
	list, err := newestLast(dir)
	if err != nil {
		return err
	}
	for _, sn := range list[:max(len(list)-keep, 0)] {
		if err := (subvol.System{}).Delete(dir, sn.Name, sn.ID); err != nil {
			return err
		}
	}
	return nil
}

func idleContenders(ctx context.Context, e *env) ([]contender, error) {
	long := e.turn(8 * time.Second)
	var list []contender
	for _, skip := range []bool{false, true} {
		p, err := newPlace(e)
		if err != nil {
			return nil, err
		}
		dir, err := p.store("snapshots")
		if err != nil {
			return nil, err
		}
		if err := p.change(); err != nil {
			return nil, err
		}
		written := func(during func() error) (sample, error) {
			if err := exec.Command("sync", "-f", p.mnt).Run(); err != nil {
				return nil, err
			}
			before, err := subvol.System{}.Written(p.mnt)
			if err != nil {
				return nil, err
			}
			if err := during(); err != nil {
				return nil, err
			}
			if err := exec.Command("sync", "-f", p.mnt).Run(); err != nil {
				return nil, err
			}
			after, err := subvol.System{}.Written(p.mnt)
			return sample{"written": float64(after-before) / 1024 / long.Seconds()}, err
		}
		c := contender{name: "a snapshot each second, 60 kept"}
		if skip {
			c.name, c.ours = "gb-snap take --every 1s", true
			c.run = func(ctx context.Context) (sample, error) {
				stop, err := every(ctx, e, p, dir)
				if err != nil {
					return nil, err
				}
				time.Sleep(time.Second) // its first snapshot is not what is measured
				s, err := written(func() error { return sleep(ctx, long) })
				_, serr := stop()
				return s, errors.Join(err, serr)
			}
		} else {
			c.run = func(ctx context.Context) (sample, error) {
				s, err := written(func() error {
					for begin := time.Now(); time.Since(begin) < long; {
						if err := (subvol.System{}).Snapshot(p.source, filepath.Join(dir, snap.Name(time.Now()))); err != nil {
							return err
						}
						if err := errors.Join(thinOut(dir), sleep(ctx, time.Second)); err != nil {
							return err
						}
					}
					return nil
				})
				return s, err
			}
		}
		list = append(list, c)
	}
	return list, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// every starts gb-snap take --every 1s. stop ends it and returns what it told
// of itself.
func every(ctx context.Context, e *env, p *place, dir string) (stop func() (*snap.Ticks, error), err error) {
	cmd := exec.CommandContext(ctx, e.tool(names.GBSnap), "take", "--every", "1s", "--snapshots", dir, "--run", p.run,
		"--grid", "40x1s,60x1m", "--max-count", strconv.Itoa(keep), p.source)
	cmd.Stderr = &e.words
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() (*snap.Ticks, error) {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return nil, err
		}
		if err := cmd.Wait(); err != nil {
			return nil, err
		}
		files, err := filepath.Glob(filepath.Join(p.run, "snap-*.json"))
		if err != nil || len(files) != 1 {
			return nil, fmt.Errorf("%d files of ticks, %w", len(files), err)
		}
		b, err := os.ReadFile(files[0])
		if err != nil {
			return nil, err
		}
		k := new(snap.Ticks)
		return k, json.Unmarshal(b, k)
	}, nil
}

func writerContenders(ctx context.Context, e *env) ([]contender, error) {
	long := e.turn(10 * time.Second)
	p, err := newPlace(e)
	if err != nil {
		return nil, err
	}
	dir, err := p.store("snapshots")
	if err != nil {
		return nil, err
	}
	alone := contender{name: "the writer alone", run: func(ctx context.Context) (sample, error) { return p.write(ctx, long) }}
	beside := contender{name: besideSnap, ours: true, run: func(ctx context.Context) (sample, error) {
		stop, err := every(ctx, e, p, dir)
		if err != nil {
			return nil, err
		}
		s, err := p.write(ctx, long)
		k, serr := stop()
		if err := errors.Join(err, serr); err != nil {
			return nil, err
		}
		all, err := newestLast(dir)
		if err != nil {
			return nil, err
		}
		s["live"], s["skipped"] = float64(len(all)), float64(k.Skipped)
		// Those of this turn that the grid has not thinned out.
		recent := slices.DeleteFunc(slices.Clone(all), func(sn snap.Snapshot) bool { return time.Since(sn.Time) > long-time.Second })
		if n := len(recent); n > 1 {
			s["period"] = recent[n-1].Time.Sub(recent[0].Time).Seconds() / float64(n-1)
		}
		return s, nil
	}}
	return []contender{alone, beside}, nil
}

// write appends 10 KB a hundred times a second, to twenty files in turn, each
// append synced.
func (p *place) write(ctx context.Context, long time.Duration) (sample, error) {
	files := make([]*os.File, 20)
	for i := range files {
		f, err := os.Create(filepath.Join(p.source, fmt.Sprintf("w%02d", i)))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		files[i] = f
	}
	block := make([]byte, 10<<10)
	rand.Read(block)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var took []float64
	begin := time.Now()
	for time.Since(begin) < long {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
		f := files[len(took)%len(files)]
		t := time.Now()
		if _, err := f.Write(block); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		took = append(took, milliseconds(time.Since(t)))
	}
	return sample{"p50": median(took), "p99": quantile(took, 0.99), "max": slices.Max(took),
		"rate": float64(len(took)*len(block)) / 1000 / time.Since(begin).Seconds()}, nil
}
