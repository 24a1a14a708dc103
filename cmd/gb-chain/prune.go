package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/record"
)

func pruneCommand() *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "delete the oldest events, and say so in the log",
		Description: `Deletes whole segments of 65,536 events, the oldest first, and what is in blobs
for them alone. An event of type log.pruned says for good which, and why. Their
lines in the file seals stay, so that the rest verifies, every proof of the rest
holds, and so does consistency with every size from the first event that stays.

Nothing is deleted that somebody has not seen yet who must be able to go on: a
witness, the index behind a cursor, who holds a pin. The cursor of gb-vecsync at
its usual place counts without being named.

Example:

   gb-chain prune --log L --before -90d --reason 'kept for 90 days' --dry-run`,
		Flags: []cli.Flag{
			logFlag(), keysFlag(), socketFlag(), waitFlag(), witnessesFlag(),
			&cli.StringFlag{Name: "before", Usage: "segments that ended before `TIME`, by the log's clock"},
			&cli.Int64Flag{Name: "keep-bytes", Usage: "the oldest segments, until the others have at most `N` bytes"},
			&cli.StringFlag{Name: "reason", Usage: "`TEXT` for the log"},
			&cli.StringSliceFlag{Name: "cursor", Usage: "do not go past this cursor `FILE` (may be repeated)"},
			&cli.StringSliceFlag{Name: "pin", Usage: "do not go past this checkpoint or cursor, `FILE|URL` (may be repeated)"},
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "say what would be deleted, and delete nothing"},
			&cli.BoolFlag{Name: "json", Usage: "print what was deleted as one JSON object"},
		},
		Action: runPrune,
	}
}

func runPrune(c *cli.Context) error {
	dir := c.String("log")
	o := chain.PruneOptions{KeepBytes: c.Int64("keep-bytes")}
	if c.Args().Present() || c.IsSet("before") == c.IsSet("keep-bytes") || o.KeepBytes < 0 {
		return cli.Usagef("prune wants either --before TIME or --keep-bytes N")
	}
	if s := c.String("before"); s != "" {
		t, err := chain.ParseTime(s, time.Now())
		if err != nil {
			return cli.Usagef("--before: %w", err)
		}
		o.Before = t
	}
	if c.String("reason") == "" && !c.Bool("dry-run") {
		return cli.Usagef("prune wants a --reason: it stays in the log")
	}
	created, err := chain.ReadCreated(os.DirFS(dir))
	if err != nil {
		return fmt.Errorf("log %s: %w", dir, err)
	}
	if o.Stand, err = stands(c, created.LogKey); err != nil {
		return err
	}
	plan, err := chain.PlanPrune(c.Context, os.DirFS(dir), o)
	if err != nil {
		return fmt.Errorf("log %s: %w", dir, err)
	}
	if plan == nil {
		fmt.Fprintln(c.App.ErrWriter, "gb-chain: no segment is old enough; nothing was deleted")
		if c.Bool("json") {
			return cli.PrintJSON(c.App.Writer, map[string]any{"events": 0, "bytes": 0, "deleted": false})
		}
		return nil
	}
	if !c.Bool("dry-run") {
		if err := prune(c, dir, created.LogKey.String(), plan); err != nil {
			return err
		}
	}
	if c.Bool("json") {
		return cli.PrintJSON(c.App.Writer, map[string]any{"first": plan.First, "last": plan.Last, "events": plan.Events(), "bytes": plan.Bytes, "root": plan.Root, "deleted": !c.Bool("dry-run")})
	}
	what := "deleted"
	if c.Bool("dry-run") {
		what = "would delete"
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s %d events, segments %d to %d, %d bytes\n", what, plan.Events(), plan.First, plan.Last, plan.Bytes)
	return err
}

// prune has the daemon delete that owns the log, or deletes itself.
func prune(c *cli.Context, dir, key string, plan *chain.PrunePlan) error {
	reason := c.String("reason")
	remote := func(socket string) error {
		client, err := record.Dial(c.Context, socket, record.Hello{Key: key})
		if err != nil {
			return err
		}
		defer client.Close()
		if _, err := client.Prune(record.Prune{First: plan.First, Last: plan.Last, Root: plan.Root.String(), Reason: reason}); err != nil {
			return fmt.Errorf("prune: %w", err)
		}
		return nil
	}
	if c.IsSet("socket") {
		return remote(c.String("socket"))
	}
	l, err := chain.Open(dir, c.String("keys"), options())
	if errors.Is(err, durable.ErrLocked) {
		rerr := remote(names.ChainSocket)
		var none *record.UnavailableError
		if rerr == nil || !errors.As(rerr, &none) {
			return rerr
		}
		// Perhaps an append that ends soon.
		o := options()
		o.Wait = c.Duration("wait")
		l, err = chain.Open(dir, c.String("keys"), o)
	}
	if errors.Is(err, durable.ErrLocked) {
		return cli.WithHint(err, "if a daemon has the log, name its socket with --socket")
	}
	if err != nil {
		return err
	}
	err = errors.Join(l.Prune(plan, reason), l.Close())
	offer(c)
	return err
}
