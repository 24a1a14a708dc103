package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
)

func checkpointCommand() *cli.Command {
	return &cli.Command{
		Name:  "checkpoint",
		Usage: "print the latest checkpoint",
		Description: `Prints the latest signed checkpoint (c2sp.org/tlog-checkpoint) after checking
its two signatures. With --sign it first signs one over what stands behind the
latest; a daemon that has the log does so by itself.

Example:

   gb-chain checkpoint --log L | head -2`,
		Flags: []cli.Flag{
			logFlag(), keysFlag(), witnessesFlag(),
			&cli.BoolFlag{Name: "sign", Usage: "sign one over all events first"},
			&cli.BoolFlag{Name: "json", Usage: "print origin, size and root as JSON"},
		},
		Action: func(c *cli.Context) error {
			if err := noArgument(c); err != nil {
				return err
			}
			dir := c.String("log")
			if c.Bool("sign") {
				l, err := chain.Open(dir, c.String("keys"), options())
				if err != nil {
					return err
				}
				if err := l.Close(); err != nil {
					return err
				}
				offer(c)
			}
			cp, err := chain.LatestCheckpoint(os.DirFS(dir))
			if err != nil {
				return fmt.Errorf("log %s: %w", dir, err)
			}
			if c.Bool("json") {
				return cli.PrintJSON(c.App.Writer, map[string]any{"origin": cp.Origin, "size": cp.Size, "root": cp.Root})
			}
			note, err := os.ReadFile(filepath.Join(dir, layout.Checkpoint))
			if err != nil {
				return err
			}
			_, err = c.App.Writer.Write(note)
			return err
		},
	}
}
