package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
)

func appendCommand() *cli.Command {
	return &cli.Command{
		Name:      "append",
		Usage:     "append events, one JSON object a line",
		ArgsUsage: "[FILE|-]",
		Description: `Reads events from FILE or standard input and appends them. What can be read
without waiting becomes one batch, made durable by one fdatasync. The first
line that is refused ends it: its number and the reason are printed, the lines
before it are stored, it and those behind it are not.

Example:

   printf '{"source":"demo","type":"note","message":"hello"}\n' | gb-chain append --log L -`,
		Flags: []cli.Flag{
			logFlag(), keysFlag(),
			&cli.BoolFlag{Name: "receipts", Usage: "print index and leaf hash of each event as JSON, once it is durable"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Len() > 1 {
				return cli.Usagef("append takes one FILE, or - for standard input")
			}
			in, err := cli.OpenInput(c, c.Args().First())
			if err != nil {
				return err
			}
			defer in.Close()
			return appendDirect(c.Context, c, in)
		},
	}
}

func appendDirect(ctx context.Context, c *cli.Context, in io.Reader) error {
	l, err := chain.Open(c.String("log"), c.String("keys"), options())
	if err != nil {
		return err
	}
	o := chain.FeedOptions{Peer: self(), WantLeaves: c.Bool("receipts")}
	if o.WantLeaves {
		o.Done = func(b *chain.Batch) error { return printReceipts(c.App.Writer, b) }
	}
	stored, err := chain.Feed(ctx, in, chain.DirectSink{Log: l}, o)
	err = errors.Join(err, l.Close())
	if cli.IsTerminal(c.App.ErrWriter) {
		fmt.Fprintf(c.App.ErrWriter, "gb-chain: %d events appended\n", stored)
	}
	return err
}

func printReceipts(w io.Writer, b *chain.Batch) error {
	for i, leaf := range b.Leaves {
		if err := cli.PrintJSON(w, map[string]any{"index": b.First + int64(i), "leaf": leaf}); err != nil {
			return err
		}
	}
	return nil
}
