package main

import (
	"path/filepath"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/snap"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

func snapshotsFlag() cli.Flag {
	return &cli.StringFlag{Name: "snapshots", EnvVars: []string{"GB_SNAPSHOTS"}, Value: names.SnapshotsDir, Usage: "`DIR` of the snapshots"}
}

func runFlag() cli.Flag {
	return &cli.StringFlag{Name: "run", EnvVars: []string{"GB_RUN"}, Value: names.RunDir, Usage: "`DIR`, not on a disk, in which take leaves what status reads"}
}

func pendingFlag() cli.Flag {
	return &cli.StringFlag{Name: "pending", Usage: "`DIR`, not on a disk, for the mark that the receiver lacks a snapshot"}
}

func openStore(c *cli.Context) (*snap.Store, error) {
	return snap.OpenStore(subvol.System{}, c.String("snapshots"))
}

// sourceArg returns the one argument SOURCE.
func sourceArg(c *cli.Context) (string, error) {
	if c.Args().Len() != 1 || c.Args().First() == "" {
		return "", cli.WithHint(cli.Usagef("%s takes one SOURCE, a btrfs subvolume", c.Command.Name), "see "+c.Command.HelpName+" --help")
	}
	return filepath.Abs(c.Args().First())
}

// policyFlags say what stays.
func policyFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "grid", EnvVars: []string{"GB_SNAP_GRID"}, DefaultText: snap.DefaultPolicy.Grid.String() + ", none with --keep",
			Usage: "keep the first snapshot of each slot: `COUNTxTIME,...`"},
		&cli.IntFlag{Name: "keep", EnvVars: []string{"GB_SNAP_KEEP"}, Usage: "keep the newest `N` of each source"},
		&cli.IntFlag{Name: "max-count", EnvVars: []string{"GB_SNAP_MAX_COUNT"}, Value: snap.DefaultPolicy.MaxCount, Usage: "never more than `N` snapshots, 0 for no limit; the oldest go first"},
		&cli.StringFlag{Name: "min-free", EnvVars: []string{"GB_SNAP_MIN_FREE"}, Usage: "below `SIZE` free, like 2G, the oldest go"},
		&cli.StringSliceFlag{Name: "cursor", EnvVars: []string{"GB_CURSOR"}, Usage: "keep the snapshot that `FILE` names (may be repeated; those of send are known)"},
		&cli.IntFlag{Name: "max-deletes", Value: snap.DefaultLimits.Deletes, Usage: "delete at most `N` at a time, 0 for no limit"},
		&cli.IntFlag{Name: "max-backlog", Value: snap.DefaultLimits.Backlog, Usage: "delete none while the kernel has more than `N` deleted ones to finish, 0 for no limit"},
	}
}

func policy(c *cli.Context) (p snap.Policy, lim snap.Limits, err error) {
	p = snap.Policy{Grid: snap.DefaultPolicy.Grid, Keep: c.Int("keep"), MaxCount: c.Int("max-count")}
	lim = snap.Limits{Deletes: c.Int("max-deletes"), Backlog: c.Int("max-backlog")}
	for _, name := range []string{"keep", "max-count", "max-deletes", "max-backlog"} {
		if c.Int(name) < 0 {
			return p, lim, cli.Usagef("--%s %d: less than nothing", name, c.Int(name))
		}
	}
	if c.IsSet("keep") {
		p.Grid = nil
	}
	if c.IsSet("grid") {
		if p.Grid, err = snap.ParseGrid(c.String("grid")); err != nil {
			return p, lim, cli.Usagef("--grid: %w", err)
		}
	}
	if s := c.String("min-free"); s != "" {
		if p.MinFree, err = snap.ParseBytes(s); err != nil {
			return p, lim, cli.Usagef("--min-free: %w", err)
		}
	}
	return p, lim, nil
}
