package main

import (
	"context"
	"io"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
)

func diffCommand() *cli.Command {
	return &cli.Command{
		Name: "diff", Usage: "print what is not as it should be", ArgsUsage: "[FILE]",
		Description: `Compares a desired state, or without FILE the one that was applied last, with the
host.

Example:

   opdbus diff --exit-code || echo drift`,
		Flags: stateFlags(exitCodeFlag()),
		Action: func(c *cli.Context) error {
			var d *hoststate.Document
			if c.Args().Present() {
				var err error
				if d, err = readDocument(c); err != nil {
					return err
				}
			}
			return withHost(c, func(ctx context.Context, h stateHost) error {
				list, err := h.diff(ctx, d)
				if err != nil {
					return err
				}
				if c.Bool("json") {
					for _, x := range list {
						if err := cli.PrintJSON(c.App.Writer, x); err != nil {
							return err
						}
					}
				} else {
					var w strings.Builder
					writeDifferences(&w, list)
					if _, err := io.WriteString(c.App.Writer, w.String()); err != nil {
						return err
					}
				}
				if len(list) == 0 && c.Bool("exit-code") {
					return cli.Exit(cli.ExitNothing)
				}
				return nil
			})
		},
	}
}
