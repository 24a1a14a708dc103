package main

import (
	"fmt"
	"os"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
)

func keyCommand() *cli.Command {
	return &cli.Command{
		Name:  "key",
		Usage: "print the log's public key",
		Description: `Prints the key that verifiers and witnesses of this log need, in the form of
c2sp.org/signed-note. Write it down where an intruder on this host can't reach
it.

Example:

   gb-chain key --log L > log.vkey`,
		Flags: []cli.Flag{logFlag(), &cli.BoolFlag{Name: "json", Usage: "print all public keys as one JSON object"}},
		Action: func(c *cli.Context) error {
			created, err := chain.ReadCreated(os.DirFS(c.String("log")))
			if err != nil {
				return fmt.Errorf("log %s: %w", c.String("log"), err)
			}
			if c.Bool("json") {
				return cli.PrintJSON(c.App.Writer, map[string]any{
					"origin": created.Origin, "vkey": created.LogKey, "first_epoch_vkey": created.EpochKey, "recovery_vkey": created.RecoveryKey,
				})
			}
			_, err = fmt.Fprintln(c.App.Writer, created.LogKey)
			return err
		},
	}
}
