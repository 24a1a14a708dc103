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

The secret keys are in the --keys directory. Two secrets may be credentials of
the unit instead (LoadCredentialEncrypted= of systemd.exec(5), which puts them
in $CREDENTIALS_DIRECTORY):

   gb-chain-log.key      the log key: the content of the file log.key, which can
                         then be removed; not sealed
   gb-chain-sealing.key  32 bytes, or their base64, under which log.key and
                         epoch.key are kept encrypted (AES-256-GCM): init seals
                         where it is given, key seal what is there already

With either, a copy of the disk has no key of the log; whoever is root on the
running host has them all the same. A sealing key that is lost takes the keys
with it. An epoch key among the credentials is refused: it could not be
destroyed there.

Example:

   gb-chain key --log L > log.vkey`,
		Subcommands: []*cli.Command{sealCommand(false), sealCommand(true)},
		Flags:       []cli.Flag{logFlag(), &cli.BoolFlag{Name: "json", Usage: "print all public keys as one JSON object"}},
		Action: func(c *cli.Context) error {
			if err := noArgument(c); err != nil {
				return err
			}
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

func sealCommand(unseal bool) *cli.Command {
	c := &cli.Command{
		Name: "seal", Usage: "encrypt the stored keys",
		Description: `Stores log.key and epoch.key anew, encrypted under the credential
gb-chain-sealing.key, while nobody has the log open. What stood in log.key
before may stay on the disk until it is overwritten.

Example:

   systemd-run --pipe --wait -p LoadCredentialEncrypted=gb-chain-sealing.key:FILE gb-chain key seal`,
	}
	if unseal {
		c.Name, c.Usage = "unseal", "store the keys without encryption again"
		c.Description = `Undoes key seal; it needs the same credential.

Example:

   systemd-run --pipe --wait -p LoadCredentialEncrypted=gb-chain-sealing.key:FILE gb-chain key unseal`
	}
	c.Flags = []cli.Flag{logFlag(), keysFlag(), waitFlag()}
	c.Action = func(c *cli.Context) error {
		if err := noArgument(c); err != nil {
			return err
		}
		o := options()
		o.Wait = c.Duration("wait")
		return chain.SealKeys(c.String("log"), c.String("keys"), unseal, o)
	}
	return c
}
