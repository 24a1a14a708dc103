package main

import (
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/snap"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "print how taking snapshots goes",
		ArgsUsage: "[SOURCE]",
		Description: `Prints how gb-snap take goes: when the last good tick was, how late ticks begin,
how many were skipped, how many snapshots there are, how many deleted ones the
kernel has not finished with, free space, and what is written to the devices a
day. A good tick is one after which the newest snapshot is what the source is.

Exit code 1 if the last good tick is older than three periods, or the source
has been ahead of its newest snapshot for that long. A source that does not
change is healthy.

Example:

   gb-snap status --snapshots D SOURCE`,
		Flags: []cli.Flag{
			snapshotsFlag(), runFlag(),
			&cli.DurationFlag{Name: "period", Value: time.Second, Usage: "`TIME` between two starts of gb-snap take, where it runs without --every"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object"},
		},
		Action: runStatus,
	}
}

func runStatus(c *cli.Context) error {
	if c.Args().Len() > 1 {
		return cli.Usagef("status takes at most one SOURCE")
	}
	source := ""
	if c.Args().Present() {
		var err error
		if source, err = filepath.Abs(c.Args().First()); err != nil {
			return err
		}
	}
	if c.Duration("period") <= 0 {
		return cli.Usagef("--period %s: want more than nothing", c.Duration("period"))
	}
	s, err := openStore(c)
	if err != nil {
		return err
	}
	ticks, err := snap.ReadTicks(snap.TicksFile(c.String("run"), s))
	if err != nil {
		return err
	}
	st, err := s.Status(source, ticks, c.Duration("period"))
	if err != nil {
		return err
	}
	if c.Bool("json") {
		err = cli.PrintJSON(c.App.Writer, st)
	} else {
		err = printStatus(c.App.Writer, st)
	}
	if err != nil {
		return err
	}
	if !st.Healthy {
		return cli.Exit(cli.ExitFailed)
	}
	return nil
}

func printStatus(w io.Writer, st *snap.Status) error {
	t := cli.NewTable(w)
	if st.Healthy {
		t.Row("health", "good")
	}
	for _, f := range st.Faults {
		t.Row("FAULT", f)
	}
	t.Row("source", st.Source)
	t.Row("snapshots", fmt.Sprintf("%d in %s, %d held", st.Live, st.Snapshots, st.Held))
	if st.Newest != nil {
		ahead := "the source is as it was then"
		if st.Ahead {
			ahead = "the source has changed since"
		}
		t.Row("newest", fmt.Sprintf("%s ago, %s", age(time.Since(*st.Newest)), ahead))
	}
	if k := st.Ticks; k != nil {
		if st.GoodAge != nil {
			t.Row("last good tick", fmt.Sprintf("%.1f s ago", *st.GoodAge))
		}
		if k.Period > 0 {
			mean := 0.0
			if n := k.Good + k.Failed; n > 0 {
				mean = k.LatenessSum / float64(n)
			}
			t.Row("ticks", fmt.Sprintf("%d good, %d failed, %d skipped, %d late, every %g s", k.Good, k.Failed, k.Skipped, k.Late, k.Period))
			t.Row("lateness", fmt.Sprintf("%.1f ms mean, %.1f ms at most", mean*1e3, k.LatenessMax*1e3))
			t.Row("since start", fmt.Sprintf("%d taken, %d times nothing new, %d deleted", k.Taken, k.Unchanged, k.Deleted))
		}
		if k.Left > 0 {
			t.Row("to delete", fmt.Sprintf("%d: %s", k.Left, k.LeftWhy))
		}
	}
	t.Row("cleaner", fmt.Sprintf("%d deleted snapshots to finish", st.Backlog))
	t.Row("space", fmt.Sprintf("%s free of %s, metadata %s of %s", snap.FormatBytes(st.Available), snap.FormatBytes(st.Size),
		snap.FormatBytes(st.Metadata[0]), snap.FormatBytes(st.Metadata[1])))
	if st.WrittenPerDay != nil {
		t.Row("written", snap.FormatBytes(uint64(*st.WrittenPerDay))+" a day")
	}
	if st.Qgroups {
		t.Row("WARNING", "quota groups are on: deleting snapshots is slow (btrfs quota disable)")
	}
	return t.Flush()
}
