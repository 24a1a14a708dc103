package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/ovs"
)

func confirmCommand() *cli.Command {
	return &cli.Command{
		Name:      "confirm",
		Usage:     "keep the change that awaits it",
		ArgsUsage: "[ID]",
		Description: `Keeps a change made with apply --confirm-timeout: its rollback is called off,
and boots apply it from now on.

Example:

   gb-ovs-setup confirm`,
		Flags: setupFlags(),
		Action: func(c *cli.Context) error {
			if c.Args().Len() > 1 {
				return cli.Usagef("confirm takes one ID")
			}
			s, err := setup(c)
			if err != nil {
				return err
			}
			defer s.Close()
			id, err := s.Confirm(c.Context, c.Args().First())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.App.Writer, id)
			return err
		},
	}
}

func rollbackCommand() *cli.Command {
	return &cli.Command{
		Name:      "rollback",
		Usage:     "take the change that awaits its confirmation back",
		ArgsUsage: "[ID]",
		Description: `Brings back what was there before a change made with apply --confirm-timeout:
the database's configuration, addresses, routes, offloads and flows. Its
configuration is refused from then on until it changes, or is applied with
--confirm-timeout again. It is never refused itself: where the log is away, its
events wait in the spool.

Example:

   gb-ovs-setup rollback`,
		Flags: setupFlags(
			&cli.DurationFlag{Name: "after", Usage: "wait for this `DURATION` first, and do nothing if the change is confirmed meanwhile"},
			&cli.BoolFlag{Name: "exit-code", Usage: "exit with 4 if no change awaits a confirmation"},
		),
		Action: runRollback,
	}
}

func runRollback(c *cli.Context) error {
	if c.Args().Len() > 1 {
		return cli.Usagef("rollback takes one ID")
	}
	s, err := setup(c)
	if err != nil {
		return err
	}
	defer s.Close()
	id, armed := c.Args().First(), c.IsSet("after")
	if armed {
		due, err := s.Await(c.Context, id, c.Duration("after"))
		if err != nil || !due {
			return err
		}
	}
	// The armed one tries for long: the database may be starting.
	for try := 0; ; try++ {
		done, err := s.Rollback(c.Context, id)
		switch {
		case errors.Is(err, ovs.ErrNothingPending) && (armed || c.Bool("exit-code")):
			if c.Bool("exit-code") {
				return cli.Exit(cli.ExitNothing)
			}
			return nil
		case err != nil && armed && try < 60 && c.Context.Err() == nil:
			time.Sleep(time.Second)
			continue
		case err != nil:
			return err
		}
		_, err = fmt.Fprintln(c.App.Writer, done)
		return err
	}
}
