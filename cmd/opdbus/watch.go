package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

func watchCommand() *cli.Command {
	return &cli.Command{
		Name:      "watch",
		Usage:     "print signals as they come",
		ArgsUsage: "[NAME]",
		Description: `Prints signals, of NAME or of everybody, in the order in which the bus sent them,
until it is stopped. The bus never waits for the reader: what finds the queue
full is dropped, and how many were is printed in their place.

With --json each is an event line, as gb-chain append takes it; secrets are left
out and long values cut. --recorder does this for a log on the same host: it says
who sent a signal, and leaves out what the recording itself causes: our own units
that start each second and end well, the news that the log has grown, and
connections that come and go.

Examples:

   opdbus watch --interface org.freedesktop.systemd1.Manager org.freedesktop.systemd1
   gb-chain append --socket /run/ghostbridge/chain.sock -- opdbus watch --recorder`,
		Flags: append(busFlags(),
			&cli.StringFlag{Name: "path", Usage: "of this object `PATH`"},
			&cli.StringFlag{Name: "path-namespace", Usage: "of objects at or below `PATH`"},
			&cli.StringFlag{Name: "interface", Usage: "of this `INTERFACE`"},
			&cli.StringFlag{Name: "member", Usage: "with this `NAME`"},
			&cli.StringFlag{Name: "arg0", Usage: "whose first argument is `TEXT`"},
			&cli.IntFlag{Name: "queue", Value: bus.DefaultQueue, Usage: "let `N` signals wait for the reader"},
			&cli.BoolFlag{Name: "recorder", Usage: "print event lines for a log on this host"},
			&cli.IntFlag{Name: "n", Usage: "end after `N` signals"},
		),
		Action:       runWatch,
		BashComplete: completeTarget(nil),
	}
}

func runWatch(c *cli.Context) error {
	if c.Args().Len() > 1 {
		return cli.Usagef("watch takes one NAME")
	}
	m := bus.Match{Sender: c.Args().First(), Path: c.String("path"), PathNamespace: c.String("path-namespace"),
		Interface: c.String("interface"), Member: c.String("member"), Arg0: c.String("arg0")}
	if c.Int("queue") < 1 {
		return cli.Usagef("--queue %d: want a positive number", c.Int("queue"))
	}
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	w, err := bus.NewWatch(ctx, c.String("bus"), c.Int("queue"), m)
	if err != nil {
		return err
	}
	defer w.Close()
	var events func(bus.Signal) [][]byte
	switch {
	case c.Bool("recorder"):
		r, err := opdbus.NewRecorder(ctx, c.String("bus"), w)
		if err != nil {
			return err
		}
		events = func(s bus.Signal) [][]byte { return r.Events(c.Context, s) }
	case c.Bool("json"):
		events = func(s bus.Signal) [][]byte { return opdbus.SignalEvents(c.String("bus"), s) }
	}
	for n := 0; c.Int("n") == 0 || n < c.Int("n"); n++ {
		s, err := w.Next(c.Context)
		if errors.Is(err, context.Canceled) {
			return nil // it was told to end
		}
		if err != nil {
			return err
		}
		if events != nil {
			for _, line := range events(s) {
				if _, err := fmt.Fprintf(c.App.Writer, "%s\n", line); err != nil {
					return err
				}
			}
			continue
		}
		if s.Dropped > 0 {
			fmt.Fprintf(c.App.Writer, "... %d signals were dropped\n", s.Dropped)
		}
		args, err := s.Body.JSON()
		if s.Err != nil || err != nil {
			args = fmt.Appendf(nil, "(not readable: %v)", errors.Join(s.Err, err))
		}
		if _, err := fmt.Fprintf(c.App.Writer, "%s %s %s %s.%s %s\n", s.Time.Format("15:04:05.000000"), s.Sender, cli.Printable(s.Path), s.Interface, s.Member, cli.Printable(string(args))); err != nil {
			return err
		}
	}
	return nil
}
