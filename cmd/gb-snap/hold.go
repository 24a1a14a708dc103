package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/snap"
)

func holdCommand() *cli.Command {
	return &cli.Command{
		Name:  "hold",
		Usage: "keep snapshots from being deleted",
		Subcommands: []*cli.Command{
			{
				Name: "add", Usage: "hold a snapshot under a name", ArgsUsage: "NAME SNAPSHOT",
				Description: `Holds SNAPSHOT, given by its name or UUID, or newest, until gb-snap hold rm. A
name may hold several, and a snapshot may be held under several.

Example:

   gb-snap hold add audit-2026 newest`,
				Flags: slices.Concat([]cli.Flag{snapshotsFlag()}, recordFlags()),
				BashComplete: func(c *cli.Context) {
					if c.Args().Len() == 1 {
						completeSnapshots(c)
					}
				},
				Action: runHoldAdd,
			},
			{
				Name: "rm", Usage: "end a hold", ArgsUsage: "NAME [SNAPSHOT]",
				Description: `Ends the hold called NAME, or only its hold on SNAPSHOT. NAME may be a cursor
file whose receiver will not come back.

Example:

   gb-snap hold rm audit-2026`,
				Flags:        slices.Concat([]cli.Flag{snapshotsFlag()}, recordFlags()),
				BashComplete: completeHeld,
				Action:       runHoldRemove,
			},
			{
				Name: "ls", Usage: "print the holds",
				Description: `Prints what is held, by whom and since when.

Example:

   gb-snap hold ls --json`,
				Flags:  []cli.Flag{snapshotsFlag(), &cli.BoolFlag{Name: "json", Usage: "print one JSON object a hold"}},
				Action: runHoldList,
			},
		},
	}
}

// completeSnapshots completes the name of a snapshot.
func completeSnapshots(c *cli.Context) {
	s, err := openStore(c)
	if err != nil {
		return
	}
	list, err := s.List()
	if err != nil || len(list) == 0 {
		return
	}
	cli.Offer(c, "newest", "")
	for _, sn := range slices.Backward(list) {
		cli.Offer(c, sn.Name, sn.Time.Local().Format(time.DateTime))
	}
}

// completeHeld completes the name of a hold, and of a snapshot that it holds.
func completeHeld(c *cli.Context) {
	s, err := openStore(c)
	if err != nil {
		return
	}
	holds, err := s.Holds()
	if err != nil {
		return
	}
	for _, h := range holds {
		switch {
		case !c.Args().Present():
			cli.Offer(c, h.Name, fmt.Sprintf("%d snapshots", len(h.Snapshots)))
		case c.Args().Len() == 1 && c.Args().First() == h.Name:
			for _, held := range h.Snapshots {
				cli.Offer(c, held.Name, "held since "+held.Since.Local().Format(time.DateTime))
			}
		}
	}
}

func runHoldAdd(c *cli.Context) error {
	if c.Args().Len() != 2 {
		return cli.WithHint(cli.Usagef("hold add takes a NAME and a SNAPSHOT"), "gb-snap hold add audit newest")
	}
	name := c.Args().Get(0)
	s, err := openStore(c)
	if err != nil {
		return err
	}
	spool, err := openSpool(c, s, "")
	if err != nil {
		return err
	}
	sn, err := s.Find(c.Args().Get(1))
	if err != nil {
		return err
	}
	now := time.Now()
	if err := s.AddHold(c.Context, name, sn, now); err != nil {
		return err
	}
	return recorded(c, s, spool, spool.Held(now, name, sn))
}

func runHoldRemove(c *cli.Context) error {
	if n := c.Args().Len(); n < 1 || n > 2 {
		return cli.WithHint(cli.Usagef("hold rm takes a NAME, and may take a SNAPSHOT"), "gb-snap hold ls prints both")
	}
	name, snapshot := c.Args().Get(0), c.Args().Get(1)
	s, err := openStore(c)
	if err != nil {
		return err
	}
	spool, err := openSpool(c, s, "")
	if err != nil {
		return err
	}
	if err := s.RemoveHold(c.Context, name, snapshot); err != nil {
		return err
	}
	return recorded(c, s, spool, spool.Released(time.Now(), name, snapshot))
}

// recorded appends what a person has just done to the log. It is done, so that
// it is not in the log yet is said and is no failure; what is not even in the
// spool is one.
func recorded(c *cli.Context, s *snap.Store, spool *snap.Spool, err error) error {
	if err != nil {
		return fmt.Errorf("done, but not recorded: %w", err)
	}
	if err := flush(c, s, spool); err != nil {
		fmt.Fprintf(c.App.ErrWriter, "gb-snap: the event waits for the log: %v\n", err)
	}
	return nil
}

func runHoldList(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Usagef("hold ls takes no argument")
	}
	s, err := openStore(c)
	if err != nil {
		return err
	}
	holds, err := s.Holds()
	if err != nil {
		return err
	}
	table := cli.NewTable(c.App.Writer, "hold", "snapshot", "uuid", "since")
	for _, h := range holds {
		if c.Bool("json") {
			if err := cli.PrintJSON(c.App.Writer, h); err != nil {
				return err
			}
			continue
		}
		for _, e := range h.Snapshots {
			table.Row(h.Name, e.Name, e.UUID, e.Since.Format(time.RFC3339))
		}
	}
	if c.Bool("json") {
		return nil
	}
	return table.Flush()
}
