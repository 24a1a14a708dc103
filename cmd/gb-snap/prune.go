package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/snap"
)

func pruneCommand() *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "delete the snapshots that the policy does not keep",
		Description: `Deletes what the policy does not keep, the oldest first, and prints it with the
reason. With -n it prints every snapshot with keep or drop and the reason, and
deletes nothing. See gb-snap take for what is never deleted.

Examples:

   gb-snap prune --snapshots D --keep 100
   gb-snap prune --snapshots D -n --grid 60x1s,60x1m,24x1h,30x1d`,
		Flags: slices.Concat([]cli.Flag{snapshotsFlag()}, policyFlags(), []cli.Flag{
			&cli.BoolFlag{Name: "n", Aliases: []string{"dry-run"}, Usage: "print every snapshot and why it would stay or go"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a snapshot"},
			&cli.BoolFlag{Name: "exit-code", Usage: "exit with 4 if there is nothing to delete"},
		}, recordFlags()),
		Action: runPrune,
	}
}

func runPrune(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Usagef("prune takes no argument; it is about all snapshots in --snapshots")
	}
	p, lim, err := policy(c)
	if err != nil {
		return err
	}
	if !c.IsSet("max-deletes") {
		lim.Deletes = 0 // a person waits for it to be done
	}
	s, err := openStore(c)
	if err != nil {
		return err
	}
	job := snap.Pruning{Policy: p, Cursors: c.StringSlice("cursor"), Limits: lim, Now: time.Now()}
	if c.Bool("n") {
		plan, err := s.Plan(job)
		if err != nil {
			return err
		}
		if err := printPlan(c, plan); err != nil {
			return err
		}
		if c.Bool("exit-code") && !slices.ContainsFunc(plan, func(v snap.Verdict) bool { return !v.Keep }) {
			return cli.Exit(cli.ExitNothing)
		}
		return nil
	}
	spool, err := openSpool(c, s, "")
	if err != nil {
		return err
	}
	// What a person deletes is not deleted unless it is written down.
	job.Before = func(list []snap.Verdict) error { return spool.Deleting(job.Now, list) }
	done, err := s.Prune(c.Context, job)
	if perr := printPlan(c, done.Deleted); err == nil {
		err = perr
	}
	if len(done.Deleted) > 0 {
		if ferr := flush(c, s, spool); ferr != nil {
			fmt.Fprintf(c.App.ErrWriter, "gb-snap: the deletions wait for the log: %v\n", ferr)
		}
	}
	if err == nil && done.Left > 0 {
		fmt.Fprintf(c.App.ErrWriter, "gb-snap: %d more are to go: %s\n", done.Left, done.Why)
	}
	if err == nil && len(done.Deleted) == 0 && done.Left == 0 && c.Bool("exit-code") {
		return cli.Exit(cli.ExitNothing)
	}
	return err
}

// flush appends what a person has done to the log at once.
func flush(c *cli.Context, s *snap.Store, sp *snap.Spool) error {
	if sp.Empty() {
		return nil
	}
	list, err := s.List()
	if err != nil {
		return err
	}
	return sp.FlushNow(c.Context, time.Now(), snap.Alive(list))
}

// A verdictJSON is what prune prints of a snapshot as JSON.
type verdictJSON struct {
	Name   string   `json:"name"`
	UUID   string   `json:"uuid"`
	Keep   bool     `json:"keep"`
	Holds  []string `json:"holds"`
	Reason string   `json:"reason"`
}

func newVerdictJSON(v snap.Verdict) verdictJSON {
	held := v.Held
	if held == nil {
		held = []string{}
	}
	return verdictJSON{v.Name, v.UUID.String(), v.Keep, held, v.Reason}
}

func printPlan(c *cli.Context, plan []snap.Verdict) error {
	if c.Bool("json") {
		for _, v := range plan {
			if err := cli.PrintJSON(c.App.Writer, newVerdictJSON(v)); err != nil {
				return err
			}
		}
		return nil
	}
	if len(plan) == 0 {
		return nil
	}
	t := cli.NewTable(c.App.Writer, "name", "", "reason")
	for _, v := range plan {
		what := "drop"
		if v.Keep {
			what = "keep"
		}
		t.Row(v.Name, what, v.Reason)
	}
	return t.Flush()
}
