package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
)

func applyCommand() *cli.Command {
	return &cli.Command{
		Name: "apply", Usage: "bring the host to a desired state, or leave it as it was", ArgsUsage: "FILE",
		Description: `Does what plan prints, one action after the other, each through the choke point,
and looks again. If something fails, or is not as it should be afterwards, what
was done is taken back, last action first. Where the daemon runs it does this;
the process may end.

With --confirm-timeout the change is taken back unless opdbus confirm comes in
that time, also after a restart of the daemon or a boot. A second apply changes
nothing.

Examples:

   opdbus apply -n state.json
   opdbus apply --confirm-timeout 90s state.json && opdbus confirm`,
		Flags: stateFlags(exitCodeFlag(), dryRunFlag("only print what would be done"),
			&cli.StringFlag{Name: "plan", Usage: "do the plan with this `HASH`, or nothing"},
			&cli.DurationFlag{Name: "confirm-timeout", Usage: "take it back unless it is confirmed within this `DURATION`"},
			&cli.BoolFlag{Name: "partial", Usage: "do what can be done although some can't be done here"}),
		Action: runApply,
	}
}

func runApply(c *cli.Context) error {
	d, err := readDocument(c)
	if err != nil {
		return err
	}
	if t := c.Duration("confirm-timeout"); t != 0 && (t < hoststate.MinConfirm || t > hoststate.MaxConfirm || t%time.Second != 0) {
		return cli.Usagef("--confirm-timeout %s: want whole seconds, %s to %s", t, hoststate.MinConfirm, hoststate.MaxConfirm)
	}
	if c.Bool("n") {
		return runPlan(c)
	}
	return withHost(c, func(ctx context.Context, h stateHost) error {
		ch, err := h.apply(ctx, d, hoststate.ApplyOptions{Plan: c.String("plan"), Confirm: c.Duration("confirm-timeout"), Partial: c.Bool("partial")})
		if ch != nil {
			if perr := printChange(c, ch); perr != nil {
				err = errors.Join(err, perr)
			}
		}
		if err != nil {
			return err
		}
		if ch.Result == hoststate.ResultPending {
			fmt.Fprintf(c.App.ErrWriter, "opdbus: the change %s is taken back at %s\nhint: if all is well: opdbus confirm %[1]s\n", ch.ID, ch.ConfirmBy.Local().Format(time.TimeOnly))
		}
		if ch.Result == hoststate.ResultNothing && c.Bool("exit-code") {
			return cli.Exit(cli.ExitNothing)
		}
		return nil
	})
}

func printChange(c *cli.Context, ch *hoststate.Change) error {
	if c.Bool("json") {
		return cli.PrintJSON(c.App.Writer, ch)
	}
	var w strings.Builder
	for _, s := range ch.Steps {
		fmt.Fprintf(&w, "%-11s  %s", s.State, cli.Printable(s.Title))
		if s.Error != "" {
			fmt.Fprintf(&w, ": %s", cli.Printable(s.Error))
		}
		if s.UndoError != "" {
			fmt.Fprintf(&w, "; not taken back: %s", cli.Printable(s.UndoError))
		}
		fmt.Fprintln(&w)
	}
	switch {
	case ch.Result == hoststate.ResultNothing:
		fmt.Fprintln(&w, "nothing to do")
	default:
		fmt.Fprintf(&w, "%s: %s", ch.ID, ch.Result)
		if ch.Reason != "" {
			fmt.Fprintf(&w, ", since %s", cli.Printable(ch.Reason))
		}
		fmt.Fprintln(&w)
	}
	_, err := io.WriteString(c.App.Writer, w.String())
	return err
}
