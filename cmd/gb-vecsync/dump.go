package main

import (
	"bufio"
	"errors"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
)

func dumpCommand() *cli.Command {
	return &cli.Command{
		Name:      "dump",
		Usage:     "print the commands of a send stream",
		ArgsUsage: "[FILE|-]",
		Description: `Prints what btrfs receive --dump prints, to the byte, or with --json one object
a command. --compat 6.2 escapes as that version of btrfs-progs did.

Example:

   gb-snap send --parent none SOURCE | gb-vecsync dump --json`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a command"},
			&cli.StringFlag{Name: "compat", Usage: "print as btrfs-progs `VERSION` did: 6.2"},
		},
		Action: runDump,
	}
}

func runDump(c *cli.Context) error {
	if c.Args().Len() > 1 {
		return cli.Usagef("dump takes one FILE, or - for standard input")
	}
	compat := c.String("compat")
	if compat != "" && compat != "6.2" {
		return cli.Usagef("--compat %q: only 6.2 is known", compat)
	}
	in, err := cli.OpenInput(c, c.Args().First())
	if err != nil {
		return err
	}
	defer in.Close()
	r := sendstream.NewReader(in, sendstream.Options{})
	w := bufio.NewWriterSize(c.App.Writer, 64<<10)
	if c.Bool("json") {
		err = sendstream.WriteJSON(w, r, sendstream.JSONOptions{})
	} else {
		err = sendstream.WriteText(w, r, textOptions(compat))
	}
	var bad *sendstream.Error
	if errors.As(err, &bad) {
		err = &vecsync.StreamError{Err: err}
	}
	return errors.Join(err, w.Flush())
}

func textOptions(compat string) sendstream.TextOptions {
	if compat == "6.2" {
		return sendstream.TextOptions{Progs: sendstream.Progs62}
	}
	return sendstream.TextOptions{}
}
