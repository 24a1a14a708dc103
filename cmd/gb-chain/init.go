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

With --recovery-file the recovery key goes into a new file instead, for its
owner alone, that is not to be left there: a unit names one on a file system in
memory, from which the administrator fetches it.

Example:

   gb-chain init --log L --origin host.example/log`,
		Flags: []cli.Flag{
			logFlag(), keysFlag(),
			&cli.StringFlag{Name: "origin", EnvVars: []string{"GB_ORIGIN"}, Usage: "the log's `NAME` for ever, such as host.example/log (default: this host's name and /log)"},
			&cli.StringFlag{Name: "recovery-file", Usage: "put the recovery key into the new `FILE` instead of printing it"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object"},
		},
		Action: func(c *cli.Context) error {
			if err := noArgument(c); err != nil {
				return err
			}
			origin, dir := c.String("origin"), c.String("log")
			if origin == "" {
				host, err := os.Hostname()
				if err != nil {
					return err
				}
				origin = host + "/log"
			}
			// Before the key is made, so that it can't be lost on its way.
			recovery, err := recoveryFile(c.String("recovery-file"), dir)
			if err != nil {
				return err
			}
			made, err := chain.Create(dir, origin, c.String("keys"), options())
			if err != nil {
				recovery.discard()
			}
			if errors.Is(err, chain.ErrExists) {
				return alreadyThere(c, dir)
			}
			if err != nil {
				return err
			}
			if recovery != nil {
				if err := recovery.keep(made.Recovery); err != nil {
					return err
				}
			}
			if same, err := chain.CheckKeysDir(c.String("keys"), dir); err == nil && same {
				fmt.Fprintf(c.App.ErrWriter, "gb-chain: warning: the keys in %s are on the log's own btrfs subvolume: each snapshot of it keeps epoch keys that should be destroyed\n", made.KeysDir)
			}
			if c.Bool("json") {
				out := map[string]any{"origin": made.Origin, "vkey": made.LogKey, "keys": made.KeysDir}
				if recovery == nil {
					out["recovery_key"] = made.Recovery
				} else {
					out["recovery_file"] = recovery.Name()
				}
				return cli.PrintJSON(c.App.Writer, out)
			}
			if _, err = fmt.Fprintf(c.App.Writer, "origin        %s\nvkey          %s\nkeys          %s\n", made.Origin, made.LogKey, made.KeysDir); err != nil {
				return err
			}
			if recovery != nil {
				fmt.Fprintf(c.App.ErrWriter, "gb-chain: the recovery key is in %s and nowhere else; move it off this host\n", recovery.Name())
				return nil
			}
			_, err = fmt.Fprintf(c.App.Writer, "recovery key  %s\n", made.Recovery)
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

// A keyFile is a new file for the recovery key.
type keyFile struct{ *os.File }

// recoveryFile makes the file at path, nil if path is "" or if there is a log
// in dir already. A file that an interrupted init left is empty, and taken.
//
// BUG: an init that is killed in the moment between the log's being there and
// the key's being in the file leaves a log without a recovery key.
func recoveryFile(path, dir string) (*keyFile, error) {
	if path == "" {
		return nil, nil
	}
	if _, err := chain.LatestCheckpoint(os.DirFS(dir)); err == nil {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("recovery key: %w", err)
	}
	if info, err := f.Stat(); err != nil || info.Size() > 0 {
		f.Close()
		return nil, errors.Join(err, cli.WithHint(fmt.Errorf("recovery key: %s is not empty", path), "it may hold another log's key; move it away first"))
	}
	return &keyFile{f}, nil
}

func (k *keyFile) keep(key string) error {
	_, err := k.WriteString(key + "\n")
	if err == nil {
		err = k.Sync()
	}
	if err = errors.Join(err, k.Close()); err != nil {
		return fmt.Errorf("recovery key: %w", err)
	}
	return nil
}

// discard removes the file if there is one: nothing was put into it.
func (k *keyFile) discard() {
	if k != nil {
		k.Close()
		os.Remove(k.Name())
	}
}
