package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/record"
)

func rotateKeyCommand() *cli.Command {
	return &cli.Command{
		Name:  "rotate-key",
		Usage: "begin a new epoch and destroy the old epoch's key",
		Description: `Makes a new epoch key, has the old one sign it inside the log and a checkpoint
over that, and destroys the old one. Whoever takes over this host later can't
sign for what was before. Run it every hour. Where a daemon has the log, it
rotates.

With --recovery-key a lost epoch key is replaced: the file holds the key that
init printed.

Example:

   gb-chain rotate-key --log L`,
		Flags: []cli.Flag{
			logFlag(), keysFlag(), socketFlag(), waitFlag(), witnessesFlag(),
			&cli.StringFlag{Name: "recovery-key", Usage: "`FILE` with the recovery key, where the epoch key is lost"},
		},
		Action: runRotateKey,
	}
}

func runRotateKey(c *cli.Context) error {
	if err := noArgument(c); err != nil {
		return err
	}
	dir := c.String("log")
	if c.IsSet("socket") {
		return rotateRemote(c, c.String("socket"), "")
	}
	if file := c.String("recovery-key"); file != "" {
		secret, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("recovery key: %w", err)
		}
		o := options()
		o.Wait = c.Duration("wait")
		l, err := chain.RotateLostKey(dir, c.String("keys"), string(secret), o)
		if err != nil {
			return err
		}
		return closeRotated(c, l)
	}
	l, err := chain.Open(dir, c.String("keys"), options())
	if errors.Is(err, durable.ErrLocked) {
		created, kerr := chain.ReadCreated(os.DirFS(dir))
		if kerr != nil {
			return kerr
		}
		rerr := rotateRemote(c, names.ChainSocket, created.LogKey.String())
		var none *record.UnavailableError
		if rerr == nil || !errors.As(rerr, &none) {
			return rerr
		}
		// Perhaps an append that ends soon.
		o := options()
		o.Wait = c.Duration("wait")
		l, err = chain.Open(dir, c.String("keys"), o)
	}
	if errors.Is(err, durable.ErrLocked) {
		return cli.WithHint(err, "if a daemon has the log, name its socket with --socket")
	}
	if err != nil {
		return err
	}
	if err := l.RotateKey(); err != nil {
		return errors.Join(err, l.Close())
	}
	return closeRotated(c, l)
}

func closeRotated(c *cli.Context, l *chain.Log) error {
	epoch := l.Keyring().Epochs() - 1
	if err := l.Close(); err != nil {
		return err
	}
	offer(c)
	fmt.Fprintf(c.App.ErrWriter, "gb-chain: epoch %d begins\n", epoch)
	return nil
}

func rotateRemote(c *cli.Context, socket, key string) error {
	client, err := record.Dial(c.Context, socket, record.Hello{Key: key})
	if err != nil {
		return err
	}
	defer client.Close()
	epoch, err := client.RotateKey()
	if err != nil {
		return fmt.Errorf("rotate the key: %w", err)
	}
	fmt.Fprintf(c.App.ErrWriter, "gb-chain: epoch %d begins\n", epoch)
	return nil
}
