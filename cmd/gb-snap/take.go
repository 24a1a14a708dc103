package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/snap"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
	"github.com/ghostbridge/ghostbridge/pkg/systemd"
)

func takeCommand() *cli.Command {
	return &cli.Command{
		Name:      "take",
		Usage:     "take a snapshot if there is something new, and prune",
		ArgsUsage: "SOURCE",
		Description: `Takes a read-only snapshot of SOURCE if it differs from its newest one, prints
its path, and then deletes what the policy does not keep. A write that has not
reached the disk is seen too. With --every it does so at absolute ticks until
it is stopped; a tick that comes while the one before is not done is skipped.

Never deleted are the newest snapshot, those that are held (gb-snap hold, and
gb-snap send --cursor) and those that a cursor file names. If they leave no
room below --max-count, no snapshot is taken, and that is an error.

With --log what was taken and deleted is recorded in the log, in batches, when
a snapshot is due anyway.

With --pending there is a file in that directory as long as the receiver with
the first --cursor lacks the newest snapshot; gb-snap send --pending removes
it. With --subvolume the directory of snapshots is mounted, and made, as that
subvolume beside SOURCE's, if it is not a subvolume yet.

Examples:

   gb-snap take --snapshots D SOURCE
   gb-snap take --snapshots D --every 1s --grid 60x1s,60x1m,24x1h SOURCE`,
		Flags: slices.Concat([]cli.Flag{
			snapshotsFlag(),
			&cli.DurationFlag{Name: "every", Usage: "take again every `TIME`, like 1s"},
			&cli.BoolFlag{Name: "force", Usage: "also if nothing has changed"},
			&cli.BoolFlag{Name: "n", Aliases: []string{"dry-run"}, Usage: "print what would be done"},
		}, policyFlags(), recordFlags(), []cli.Flag{
			runFlag(), pendingFlag(),
			&cli.StringFlag{Name: "subvolume", Usage: "mount the top-level subvolume `NAME` on the directory of snapshots, and make both"},
			&cli.StringFlag{Name: "metrics", EnvVars: []string{"GB_METRICS"}, Usage: "with --every: write metrics to `FILE` for Prometheus' textfile collector"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a tick in which something was done"},
			&cli.BoolFlag{Name: "exit-code", Usage: "exit with 4 if nothing has changed"},
		}),
		Action: runTake,
	}
}

// minEvery is the shortest period: below, the file system does nothing else.
const minEvery = 50 * time.Millisecond

func runTake(c *cli.Context) error {
	source, err := sourceArg(c)
	if err != nil {
		return err
	}
	every := c.Duration("every")
	switch {
	case c.IsSet("every") && every < minEvery:
		return cli.Usagef("--every %s: at least %s", every, minEvery)
	case c.IsSet("every") && (c.Bool("force") || c.Bool("n") || c.Bool("exit-code")):
		return cli.Usagef("--every does not go with --force, -n or --exit-code")
	case c.IsSet("metrics") && !c.IsSet("every"):
		return cli.Usagef("--metrics needs --every")
	}
	var pending *snap.Pending
	if dir := c.String("pending"); dir != "" {
		if len(c.StringSlice("cursor")) == 0 {
			return cli.Usagef("--pending needs the --cursor of the receiver")
		}
		pending = &snap.Pending{Dir: dir, Cursor: c.StringSlice("cursor")[0]}
	}
	if name := c.String("subvolume"); name != "" && !c.Bool("n") {
		if _, err := (subvol.System{}).MountBeside(source, name, c.String("snapshots")); err != nil {
			return fmt.Errorf("snapshot directory: %w", err)
		}
	}
	t := &snap.Taker{Source: source, Cursors: c.StringSlice("cursor"), Logger: cli.Logger(c.App.ErrWriter)}
	if t.Policy, t.Limits, err = policy(c); err != nil {
		return err
	}
	if t.Store, err = openStore(c); err != nil {
		return err
	}
	if c.Bool("n") {
		return planTake(c, t)
	}
	if err := t.Start(); err != nil {
		return err
	}
	defer t.Stop()
	if t.Recorder, err = openSpool(c, t.Store, source); err != nil {
		return err
	}
	if err := os.MkdirAll(c.String("run"), 0o755); err != nil {
		return fmt.Errorf("--run: %w", err)
	}
	if every > 0 {
		return loop(c, t, every, pending)
	}
	o, err := t.Take(c.Context, c.Bool("force"))
	file := snap.TicksFile(c.String("run"), t.Store)
	before, rerr := snap.ReadTicks(file)
	if rerr != nil {
		before = nil // it is written anew
	}
	if perr := snap.OneTick(t, before, o, err).Publish(file); perr != nil {
		err = errors.Join(err, fmt.Errorf("--run: %w", perr))
	}
	if pending != nil {
		if perr := pending.Mark(o.Newest); perr != nil {
			err = errors.Join(err, perr)
		}
	}
	if perr := printOutcome(c.App.Writer, t.Store, o, c.Bool("json")); perr != nil {
		err = errors.Join(err, perr)
	}
	if err == nil && o.Snapshot == nil && c.Bool("exit-code") {
		return cli.Exit(cli.ExitNothing)
	}
	return err
}

// metricsEvery is how often the metrics are written: a collector asks no more
// often, and the file may be on a disk.
const metricsEvery = 15 * time.Second

func loop(c *cli.Context, t *snap.Taker, every time.Duration, pending *snap.Pending) error {
	if _, err := systemd.Notify("READY=1"); err != nil {
		return err
	}
	var watchdog systemd.Watchdog
	var statusAt time.Time
	file := snap.TicksFile(c.String("run"), t.Store)
	metrics := c.String("metrics")
	var metricsAt time.Time
	failing := &trouble{log: t.Logger}
	l := &snap.Loop{Taker: t, Every: every, Each: func(k *snap.Ticks, o snap.Outcome, err error) {
		failing.tick(err)
		if err == nil {
			watchdog.Alive()
		}
		if time.Since(statusAt) >= metricsEvery {
			statusAt = time.Now()
			if _, nerr := systemd.Notify(fmt.Sprintf("STATUS=%d snapshots, %d taken, %d ticks skipped", k.Live, k.Taken, k.Skipped)); nerr != nil {
				failing.aside("status", nerr)
			}
		}
		if pending != nil {
			if perr := pending.Mark(o.Newest); perr != nil {
				failing.aside("--pending", perr)
			}
		}
		if perr := k.Publish(file); perr != nil {
			failing.aside("--run", perr)
		}
		if metrics != "" && time.Since(metricsAt) >= metricsEvery {
			metricsAt = time.Now()
			if merr := t.Store.WriteMetrics(metrics, k); merr != nil {
				failing.aside("--metrics", merr)
			}
		}
		if c.Bool("json") && (o.Snapshot != nil || len(o.Pruned.Deleted) > 0) {
			if perr := printOutcome(c.App.Writer, t.Store, o, true); perr != nil {
				failing.aside("standard output", perr)
			}
		}
	}}
	return l.Run(c.Context)
}

// trouble says once, and then once a minute, that something goes wrong each
// tick, and when it is over.
type trouble struct {
	log   *slog.Logger
	text  string
	at    time.Time
	count int
	other map[string]time.Time
}

func (t *trouble) tick(err error) {
	if err == nil {
		if t.count > 0 {
			t.log.Info("well again", "failed ticks", t.count)
		}
		t.text, t.count = "", 0
		return
	}
	t.count++
	if text := kind(err); text == t.text && time.Since(t.at) < time.Minute {
		return
	} else {
		t.text, t.at = text, time.Now()
	}
	var h interface{ Hint() string }
	if errors.As(err, &h) && h.Hint() != "" {
		t.log.Error("tick failed", "error", err, "hint", h.Hint(), "failed ticks", t.count)
		return
	}
	t.log.Error("tick failed", "error", err, "failed ticks", t.count)
}

// kind is err without what differs each tick: names and numbers of snapshots.
func kind(err error) string {
	var path *fs.PathError
	var full *snap.FullError
	switch {
	case errors.As(err, &full):
		return "full"
	case errors.As(err, &path):
		return path.Op + ": " + path.Err.Error()
	}
	return err.Error()
}

func (t *trouble) aside(what string, err error) {
	if time.Since(t.other[what]) < time.Minute {
		return
	}
	if t.other == nil {
		t.other = map[string]time.Time{}
	}
	t.other[what] = time.Now()
	t.log.Warn(what, "error", err)
}

// An outcome is what take prints as JSON.
type outcome struct {
	Snapshot *snapshotJSON `json:"snapshot"` // null if nothing has changed
	Seconds  float64       `json:"seconds"`  // that the ioctl took
	Live     int           `json:"live"`
	Deleted  []verdictJSON `json:"deleted"`
}

func printOutcome(w io.Writer, s *snap.Store, o snap.Outcome, json bool) error {
	if json {
		out := outcome{Seconds: o.Took.Seconds(), Live: o.Live, Deleted: []verdictJSON{}}
		if o.Snapshot != nil {
			sn := newSnapshotJSON(s, *o.Snapshot)
			out.Snapshot = &sn
		}
		for _, v := range o.Pruned.Deleted {
			out.Deleted = append(out.Deleted, newVerdictJSON(v))
		}
		return cli.PrintJSON(w, out)
	}
	if o.Snapshot == nil {
		return nil
	}
	_, err := fmt.Fprintln(w, filepath.Join(s.Dir(), o.Snapshot.Name))
	return err
}

// planTake says what take would do now.
func planTake(c *cli.Context, t *snap.Taker) error {
	due, plan, err := t.Plan(c.Context, c.Bool("force"))
	if err != nil {
		return err
	}
	if due {
		fmt.Fprintf(c.App.ErrWriter, "gb-snap: a snapshot of %s would be taken\n", t.Source)
	} else {
		fmt.Fprintf(c.App.ErrWriter, "gb-snap: nothing has changed in %s, no snapshot would be taken\n", t.Source)
	}
	return printPlan(c, plan)
}
