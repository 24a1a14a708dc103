package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/durable"
)

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name:  "verify",
		Usage: "recompute the whole log and name every fault",
		Description: `Recomputes every line, segment, checkpoint, signature and epoch, and prints
each fault with its kind and index. Works while the log is written, and on a
read-only snapshot. Exit code 3 on any fault.

--vkey says whose log it must be. Given the output of key --json it also knows
the first epoch key, so that not even who holds the log key could have started
another log under it.

A log that fits together may still be an earlier state of itself. --pin names
a signed checkpoint or a cursor file that was kept elsewhere, or the URL of one,
which the log must agree with; without one it says that a rollback is not
excluded.

--since-checkpoint FILE keeps in FILE how far the log was good, and reads the
next time only what has come since: seconds where the whole takes minutes. What
was verified before is not looked at again, so verify the whole now and then.
A FILE kept where the log's host can't write is a pin too.

Example:

   gb-chain verify --log L --vkey log.vkey --pin /mnt/other-host/checkpoint`,
		Flags: []cli.Flag{
			logFlag(), vkeyFlag(),
			&cli.StringSliceFlag{Name: "pin", Usage: "a checkpoint or cursor, `FILE|URL` (may be repeated)"},
			&cli.BoolFlag{Name: "require-pin", Usage: "fail with 3 if no pin was given"},
			&cli.StringFlag{Name: "since-checkpoint", Usage: "read only what has come since the state in `FILE`, and keep the new one there"},
			&cli.BoolFlag{Name: "json", Usage: "print the report as one JSON object"},
		},
		Action: runVerify,
	}
}

func runVerify(c *cli.Context) error {
	if err := noArgument(c); err != nil {
		return err
	}
	dir := c.String("log")
	keys, err := expectedKeys(c)
	if err != nil {
		return err
	}
	o := chain.VerifyOptions{Key: keys.Log, FirstEpochKey: keys.FirstEpoch, RecoveryKey: keys.Recovery}
	if o.Pins, err = pins(c); err != nil {
		return err
	}
	stateFile := c.String("since-checkpoint")
	if o.Since, err = readState(stateFile); err != nil {
		return err
	}
	if o.Live, o.Frozen, err = chain.Writing(dir); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	if cli.IsTerminal(c.App.ErrWriter) {
		o.Progress = func(done, size int64) {
			fmt.Fprintf(c.App.ErrWriter, "\rgb-chain: %d of %d events\x1b[K", done, size)
		}
	}
	r, err := chain.Verify(c.Context, os.DirFS(dir), o)
	if o.Progress != nil {
		fmt.Fprint(c.App.ErrWriter, "\r\x1b[K")
	}
	if err != nil {
		return fmt.Errorf("log %s: %w", dir, err)
	}
	if err := printReport(c, r); err != nil {
		return err
	}
	if stateFile != "" && r.State != nil {
		data, err := json.Marshal(r.State)
		if err != nil {
			return err
		}
		if err := durable.Replace(stateFile, append(data, '\n'), 0o644); err != nil {
			return fmt.Errorf("--since-checkpoint: %w", err)
		}
	}
	if !r.OK || c.Bool("require-pin") && len(r.Pins) == 0 {
		return cli.Exit(cli.ExitVerify)
	}
	return nil
}

func printReport(c *cli.Context, r *chain.Report) error {
	if c.Bool("json") {
		return cli.PrintJSON(c.App.Writer, r)
	}
	for _, f := range r.Faults {
		fmt.Fprintln(c.App.Writer, cli.Printable(f.String()))
	}
	var b strings.Builder
	if r.Since > 0 {
		fmt.Fprintf(&b, "the first %d events were verified earlier and not read again\n", r.Since)
	}
	if r.Pruned > 0 {
		fmt.Fprintf(&b, "the first %d events were deleted, as the log says\n", r.Pruned)
	}
	if r.OK {
		fmt.Fprintf(&b, "verified: %s, %d events to %s, root %s, %d segments, %d epochs, %d archived checkpoints", cli.Printable(r.Origin), r.Size,
			r.Time.UTC().Format("2006-01-02T15:04:05Z"), r.Root, r.Segments, r.Epochs, r.Archived)
		if r.Tail > 0 {
			fmt.Fprintf(&b, "; %d newer events have no checkpoint yet", r.Tail)
		}
	} else {
		fmt.Fprintf(&b, "NOT VERIFIED: %d faults", len(r.Faults))
	}
	b.WriteString("\n")
	if !r.KeyPinned {
		fmt.Fprintf(&b, "the key is the log's own word: %s (--vkey names the one that you expect)\n", r.Key)
	}
	if len(r.Pins) == 0 && len(c.StringSlice("pin")) > 0 {
		b.WriteString("rollback not excluded: the log agrees with no pin\n")
	} else if len(r.Pins) == 0 {
		b.WriteString("rollback not excluded: no outside pin was given (--pin)\n")
	} else {
		fmt.Fprintf(&b, "pins agreed with: %s\n", strings.Join(r.Pins, ", "))
	}
	_, err := fmt.Fprint(c.App.Writer, b.String())
	return err
}
