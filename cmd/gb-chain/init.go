package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
)

func initCommand() *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "make a new log and its keys",
		Description: `Makes the log's directory and its keys, and prints the public key that others
check the log with and, once, the recovery key: it is stored nowhere, and
starts a new epoch should the epoch key be lost. Keep it off this host. A log
that is there already is left as it is.

Example:

   gb-chain init --log L --origin host.example/log`,
		Flags: []cli.Flag{
			logFlag(), keysFlag(),
			&cli.StringFlag{Name: "origin", EnvVars: []string{"GB_ORIGIN"}, Usage: "the log's `NAME` for ever, such as host.example/log (default: this host's name and /log)"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object"},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return cli.Usagef("init takes no argument; the directory is --log DIR")
			}
			origin, dir := c.String("origin"), c.String("log")
			if origin == "" {
				host, err := os.Hostname()
				if err != nil {
					return err
				}
				origin = host + "/log"
			}
			made, err := chain.Create(dir, origin, c.String("keys"), options())
			if errors.Is(err, chain.ErrExists) {
				return alreadyThere(c, dir)
			}
			if err != nil {
				return err
			}
			if same, err := chain.CheckKeysDir(c.String("keys"), dir); err == nil && same {
				fmt.Fprintf(c.App.ErrWriter, "gb-chain: warning: the keys in %s are on the log's own btrfs subvolume: each snapshot of it keeps epoch keys that should be destroyed\n", made.KeysDir)
			}
			if c.Bool("json") {
				return cli.PrintJSON(c.App.Writer, map[string]any{
					"origin": made.Origin, "vkey": made.LogKey, "keys": made.KeysDir, "recovery_key": made.Recovery,
				})
			}
			_, err = fmt.Fprintf(c.App.Writer, "origin        %s\nvkey          %s\nkeys          %s\nrecovery key  %s\n",
				made.Origin, made.LogKey, made.KeysDir, made.Recovery)
			fmt.Fprintln(c.App.ErrWriter, "gb-chain: the recovery key is shown this once and stored nowhere; keep it off this host")
			return err
		},
	}
}

// alreadyThere accepts an existing log if it is the one that was asked for.
func alreadyThere(c *cli.Context, dir string) error {
	created, err := chain.ReadCreated(os.DirFS(dir))
	if err != nil {
		return fmt.Errorf("log %s is there already, but: %w", dir, err)
	}
	if want := c.String("origin"); want != "" && want != created.Origin {
		return cli.Usagef("log %s is there already, with the origin %s", dir, created.Origin)
	}
	fmt.Fprintf(c.App.ErrWriter, "gb-chain: log %s is there already; nothing was changed\n", dir)
	return nil
}
