package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
)

func proveCommand() *cli.Command {
	return &cli.Command{
		Name:      "prove",
		Usage:     "print a proof that an event is in the log",
		ArgsUsage: "INDEX",
		Description: `Prints a C2SP tlog-proof (c2sp.org/tlog-proof) that the event with INDEX is in
the log: the event, its audit path and a signed checkpoint. It can be checked
offline with the log's public key alone.

With --consistency M it proves instead that the log's first M events are those
of an earlier checkpoint over M.

Example:

   gb-chain prove --log L 12 > 12.tlog-proof
   gb-chain check --vkey log.vkey 12.tlog-proof`,
		Flags: []cli.Flag{
			logFlag(),
			&cli.Int64Flag{Name: "consistency", Usage: "prove consistency with the size `M`"},
		},
		Action: func(c *cli.Context) error {
			tree, err := chain.OpenTree(os.DirFS(c.String("log")))
			if err != nil {
				return fmt.Errorf("log %s: %w", c.String("log"), err)
			}
			var proof []byte
			switch {
			case c.IsSet("consistency") && c.Args().Present():
				return cli.Usagef("prove takes either INDEX or --consistency M")
			case c.IsSet("consistency"):
				proof, err = tree.ProveConsistency(c.Int64("consistency"))
			default:
				index, perr := strconv.ParseInt(c.Args().First(), 10, 64)
				if perr != nil || c.Args().Len() != 1 {
					return cli.Usagef("prove wants the INDEX of one event")
				}
				proof, err = tree.Prove(index)
			}
			if err != nil {
				return err
			}
			_, err = c.App.Writer.Write(proof)
			return err
		},
	}
}

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "check a proof, offline",
		ArgsUsage: "[FILE|-]",
		Description: `Checks a proof that gb-chain prove made, with the log's public key and nothing
else, and prints the event. --event checks it against a line of one's own. Exit
code 3 if it is not good.

Example:

   gb-chain check --vkey log.vkey 12.tlog-proof`,
		Flags: []cli.Flag{
			vkeyFlag(),
			&cli.StringFlag{Name: "event", Usage: "`FILE` with the event's stored line"},
			&cli.BoolFlag{Name: "json", Usage: "print what was proved as JSON"},
		},
		Action: runCheck,
	}
}

func runCheck(c *cli.Context) error {
	keys, err := expectedKeys(c)
	if err != nil {
		return err
	}
	if keys.Log.IsZero() {
		return cli.WithHint(cli.Usagef("check wants the log's public key: --vkey"), "gb-chain key prints it on the log's host; it must not come with the proof")
	}
	if c.Args().Len() > 1 {
		return cli.Usagef("check takes one FILE, or - for standard input")
	}
	in, err := cli.OpenInput(c, c.Args().First())
	if err != nil {
		return err
	}
	defer in.Close()
	const limit = 1 << 20
	data, err := io.ReadAll(io.LimitReader(in, limit))
	if err != nil {
		return err
	}
	var line []byte
	if file := c.String("event"); file != "" {
		if line, err = os.ReadFile(file); err != nil {
			return err
		}
		if n := len(line); n > 0 && line[n-1] == '\n' {
			line = line[:n-1]
		}
	}
	p, err := chain.CheckProof(data, keys.Log, line)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		out := map[string]any{"origin": p.Checkpoint.Origin, "size": p.Checkpoint.Size, "root": p.Checkpoint.Root}
		if p.Line != nil {
			out["index"], out["line"] = p.Index, string(p.Line)
		} else {
			out["old"], out["old_root"] = p.Old, p.OldRoot
		}
		return cli.PrintJSON(c.App.Writer, out)
	}
	if p.Line != nil {
		fmt.Fprintf(c.App.ErrWriter, "gb-chain: event %d is in %s as of size %d\n", p.Index, p.Checkpoint.Origin, p.Checkpoint.Size)
		_, err = fmt.Fprintf(c.App.Writer, "%s\n", p.Line)
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s: the first %d events of %d are those with root %s\n", p.Checkpoint.Origin, p.Old, p.Checkpoint.Size, p.OldRoot)
	return err
}
