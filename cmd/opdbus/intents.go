package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

func intentsCommand() *cli.Command {
	return &cli.Command{
		Name:  "intents",
		Usage: "see changes of which it is not known whether they were done, and say so",
		Description: `An intent is recorded before a change, its outcome after it. What was killed in
between leaves an intent without outcome, and opdbus doctor complains about it until
a person has found out whether it was done, and has said so: that is recorded too.`,
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list intents without outcome, oldest first",
				Description: "Example:\n\n   opdbus intents list --json | jq -r .message",
				Flags: []cli.Flag{logFlag(), &cli.BoolFlag{Name: "json", Usage: "print JSON"},
					&cli.StringFlag{Name: "since", Usage: "of this `TIME` or later; all of the log without it"}},
				Action: runIntentsList,
			},
			{
				Name: "resolve", Usage: "say what became of one", ArgsUsage: "ID",
				Description: `polkit must know who you are (org.freedesktop.opdbus.approve).

Example:

   opdbus intents resolve 0123456789abcdef --found not-done --note "nginx still had the old configuration"`,
				Flags: append(gateFlags(),
					&cli.StringFlag{Name: "found", Required: true, Usage: "`WHAT` was found out: " + strings.Join(opdbus.Found(), ", ")},
					&cli.StringFlag{Name: "note", Usage: "`TEXT` for those who read the log"}),
				BashComplete: completeIntent,
				Action:       runIntentsResolve,
			},
		},
	}
}

// completeIntent completes the ID of an intent without outcome.
func completeIntent(c *cli.Context) {
	if c.Args().Present() {
		return
	}
	list, _ := opdbus.Unresolved(c.Context, os.DirFS(c.String("log")), time.Time{}, time.Now())
	for _, o := range list {
		cli.Offer(c, o.ID, o.Message)
	}
}

func runIntentsList(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Usagef("list takes no argument")
	}
	now := time.Now()
	var since time.Time
	if s := c.String("since"); s != "" {
		var err error
		if since, err = chain.ParseTime(s, now); err != nil {
			return cli.Usagef("--since: %v", err)
		}
	}
	list, err := opdbus.Unresolved(c.Context, os.DirFS(c.String("log")), since, now)
	if err != nil {
		return err
	}
	t := cli.NewTable(c.App.Writer, "id", "time", "by", "action")
	for _, o := range list {
		if c.Bool("json") {
			if err := cli.PrintJSON(c.App.Writer, o); err != nil {
				return err
			}
			continue
		}
		t.Row(o.ID, o.Time.Local().Format(time.DateTime), o.Actor, o.Message)
	}
	if c.Bool("json") || len(list) == 0 {
		return nil
	}
	return t.Flush()
}

func runIntentsResolve(c *cli.Context) error {
	if c.Args().Len() != 1 {
		return cli.WithHint(cli.Usagef("want one ID"), "opdbus intents list has them")
	}
	gate, self, closeGate, err := openGate(c)
	if err != nil {
		return err
	}
	defer closeGate()
	self.Interactive = true
	ctx, cancel := context.WithTimeout(c.Context, 3*time.Minute)
	defer cancel()
	o, err := gate.Resolve(ctx, self, bus.System, os.DirFS(c.String("log")), c.Args().First(), c.String("found"), c.String("note"))
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s %s: %s\n", o.ID, c.String("found"), cli.Printable(o.Message))
	return nil
}
