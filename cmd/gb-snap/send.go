package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/snap"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

func sendCommand() *cli.Command {
	return &cli.Command{
		Name:      "send",
		Usage:     "write the newest snapshot as a btrfs send stream",
		ArgsUsage: "SOURCE",
		Description: `Writes the difference between the snapshot that the receiver has and the newest
one of SOURCE, as btrfs receive and gb-vecsync ingest read it. What the receiver
has is said by its cursor file, or by --parent. If that snapshot is gone, it
exits with 5 and sends nothing; --parent none sends all. After a gap of more
than --replay it sends one stream for each snapshot between, a minute apart or
more, one behind the other.

With --cursor the snapshots that are sent from and to are held, so that they
are not pruned, until the cursor file names one of them or a later one.

With --to unix:PATH the stream goes to a Unix socket. gb-snap closes its side,
waits for the receiver to close, and exits with 0 only if the cursor file names
what was sent, and with 75 otherwise. With --resync it then sends all where the
receiver's snapshot is gone, and says so; the receiver takes what it lacks.

Examples:

   gb-snap send --snapshots D --cursor C SOURCE | gb-vecsync ingest --cursor C
   gb-snap send --snapshots D --parent none SOURCE | btrfs receive /mnt`,
		Flags: []cli.Flag{
			snapshotsFlag(),
			&cli.StringFlag{Name: "cursor", EnvVars: []string{"GB_CURSOR"}, Usage: "`FILE` in which the receiver says what it has"},
			&cli.StringFlag{Name: "parent", Usage: "`UUID` of the snapshot that the receiver has, or none"},
			&cli.StringFlag{Name: "to", Usage: "send to `unix:PATH` in place of standard output"},
			&cli.BoolFlag{Name: "resync", Usage: "with --to: if the parent is gone, send all of the newest snapshot"},
			pendingFlag(),
			&cli.BoolFlag{Name: "follow", Usage: "go on with each new snapshot until stopped"},
			&cli.DurationFlag{Name: "replay", Value: snap.DefaultReplay, Usage: "after a gap of more than `TIME` send the snapshots between too; 0: never"},
			&cli.BoolFlag{Name: "exit-code", Usage: "exit with 4 if there is nothing to send"},
		},
		Action: runSend,
	}
}

func runSend(c *cli.Context) error {
	source, err := sourceArg(c)
	if err != nil {
		return err
	}
	s := &snap.Sender{Source: source, Cursor: c.String("cursor"), Replay: c.Duration("replay")}
	switch p := c.String("parent"); p {
	case "":
		if s.Cursor == "" {
			return cli.WithHint(cli.Usagef("send: neither --cursor nor --parent says what the receiver has"), "--parent none sends all of the newest snapshot")
		}
	case "none":
		s.Parent = &subvol.UUID{}
	default:
		id, err := subvol.ParseUUID(p)
		if err != nil {
			return cli.Usagef("--parent: %w, nor none", err)
		}
		s.Parent = &id
	}
	if s.Store, err = openStore(c); err != nil {
		return err
	}
	switch {
	case c.Bool("resync") && c.String("to") == "":
		return cli.Usagef("--resync needs --to: behind a stream in a pipe no other one can begin")
	case c.String("pending") != "" && (s.Cursor == "" || c.String("to") == ""):
		return cli.Usagef("--pending needs --to and --cursor: else it is not known what has arrived")
	}
	send := func(ctx context.Context) ([]snap.Leg, error) { return nil, errNoFile }
	if to := c.String("to"); to != "" {
		path, ok := strings.CutPrefix(to, "unix:")
		if !ok || path == "" {
			return cli.Usagef("--to %s: want unix:PATH", to)
		}
		if c.Bool("follow") && s.Cursor == "" {
			return cli.Usagef("--follow with --to needs --cursor: else each stream would start from the same snapshot")
		}
		send = func(ctx context.Context) ([]snap.Leg, error) {
			legs, err := s.Deliver(ctx, path)
			var lost *snap.LostParentError
			if errors.As(err, &lost) && c.Bool("resync") {
				cli.Logger(c.App.ErrWriter).Warn("sending all of the newest snapshot", "because", err)
				s.Parent = &subvol.UUID{}
				legs, err = s.Deliver(ctx, path)
			}
			if dir := c.String("pending"); dir != "" && (err == nil || errors.Is(err, snap.ErrNothing)) {
				if perr := (snap.Pending{Dir: dir, Cursor: s.Cursor}).Clear(s.Store, source); perr != nil {
					err = errors.Join(err, perr)
				}
			}
			if err == nil {
				s.Parent = nil // from now on the cursor file says it
			}
			return legs, err
		}
	} else if out, ok := c.App.Writer.(*os.File); ok {
		if cli.IsTerminal(out) {
			return cli.WithHint(cli.Usagef("send: standard output is a terminal, and a stream is binary"), "gb-snap send ... | gb-vecsync ingest, or > FILE")
		}
		send = func(ctx context.Context) ([]snap.Leg, error) { return s.Stream(ctx, out) }
	}
	words := cli.IsTerminal(c.App.ErrWriter)
	sent := func(legs []snap.Leg) {
		for _, leg := range legs {
			if !words {
				return
			}
			if leg.Parent == nil {
				fmt.Fprintf(c.App.ErrWriter, "gb-snap: %s sent in full\n", leg.Target.Name)
			} else {
				fmt.Fprintf(c.App.ErrWriter, "gb-snap: %s sent against %s\n", leg.Target.Name, leg.Parent.Name)
			}
		}
	}
	if c.Bool("follow") {
		waiting := false
		return s.Follow(c.Context, send, func(legs []snap.Leg) {
			sent(legs)
			if s.Waiting && !waiting {
				fmt.Fprintf(c.App.ErrWriter, "gb-snap: waiting for %s to name what was sent\n", s.Cursor)
			}
			waiting = s.Waiting
		})
	}
	legs, err := send(c.Context)
	if errors.Is(err, snap.ErrNothing) {
		if c.Bool("exit-code") {
			return cli.Exit(cli.ExitNothing)
		}
		return nil
	}
	if err == nil {
		sent(legs)
	}
	return err
}

var errNoFile = errors.New("standard output is no file that the kernel could write to")
