package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

func planCommand() *cli.Command {
	return &cli.Command{
		Name: "plan", Usage: "print what apply would do", ArgsUsage: "FILE",
		Description: `Compares a desired state with the host and prints what differs, what apply would
do, in order, what has no way back, what can't be done here and what to do
instead, and what the policy says. The plan's hash is over all of that and over
what was read: apply --plan HASH does that plan or nothing.

Example:

   opdbus plan state.json
   opdbus plan --json state.json | jq '.actions[] | select(.irreversible)'`,
		Flags:  stateFlags(exitCodeFlag()),
		Action: runPlan,
	}
}

func runPlan(c *cli.Context) error {
	d, err := readDocument(c)
	if err != nil {
		return err
	}
	return withHost(c, func(ctx context.Context, h stateHost) error {
		p, err := h.plan(ctx, d)
		if err != nil {
			return err
		}
		return printPlan(c, p)
	})
}

func printPlan(c *cli.Context, p *opdbus.StatePlan) error {
	var err error
	if c.Bool("json") {
		err = cli.PrintJSON(c.App.Writer, p)
	} else {
		err = writePlan(c.App.Writer, p)
	}
	if err != nil {
		return err
	}
	if p.Empty() && c.Bool("exit-code") {
		return cli.Exit(cli.ExitNothing)
	}
	return nil
}

func writeDifferences(w io.Writer, list []hoststate.Difference) {
	for _, d := range list {
		fmt.Fprintf(w, "~ %s %s: %s -> %s\n", cli.Printable(d.Plugin), cli.Printable(d.Path), shorten(d.Have), shorten(d.Want))
	}
}

// shorten is a value for a line.
func shorten(v json.RawMessage) string {
	s := string(v)
	if s == "" || s == "null" {
		return "none"
	}
	if r := []rune(s); len(r) > 100 {
		s = string(r[:100]) + "..."
	}
	return cli.Printable(s)
}

func writePlan(out io.Writer, p *opdbus.StatePlan) error {
	var w strings.Builder
	writeDifferences(&w, p.Differences)
	for i := range p.Actions {
		a := &p.Actions[i]
		fmt.Fprintf(&w, "%3d. %s (%s)", i+1, cli.Printable(a.Title()), a.Plugin)
		if a.Irreversible != "" {
			fmt.Fprintf(&w, ", irreversible: %s", a.Irreversible)
		}
		if d := p.Decisions[i]; d.Effect != opdbus.Allow {
			fmt.Fprintf(&w, ", %s: %s", d.Effect, cli.Printable(d.Reason))
		}
		fmt.Fprintln(&w)
	}
	for _, b := range p.Blocked {
		fmt.Fprintf(&w, "! %s %s can't be done here: %s\n", cli.Printable(b.Plugin), cli.Printable(b.Path), cli.Printable(b.Reason))
		switch {
		case b.Nix != "":
			fmt.Fprintf(&w, "    in the NixOS configuration: %s\n", cli.Printable(b.Nix))
		case b.Hint != "":
			fmt.Fprintf(&w, "    %s\n", cli.Printable(b.Hint))
		}
	}
	for _, warning := range p.Warnings {
		fmt.Fprintf(&w, "warning: %s\n", cli.Printable(warning))
	}
	if p.Empty() {
		fmt.Fprintln(&w, "nothing to do")
	} else if len(p.Actions) > 0 {
		fmt.Fprintf(&w, "policy: %s, %s\nplan: %s\n", p.Decision.Effect, cli.Printable(p.Decision.Reason), p.Hash)
	}
	_, err := io.WriteString(out, w.String())
	return err
}
