package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

func logFlag() cli.Flag {
	return &cli.StringFlag{Name: "log", EnvVars: []string{"GB_LOG"}, Value: names.LogDir, Usage: "the log's `DIR`"}
}

func keysFlag() cli.Flag {
	return &cli.StringFlag{Name: "keys", EnvVars: []string{"GB_KEYS"}, Value: names.KeysDir,
		Usage: "`DIR` of the secret keys, outside of the log and of every snapshot"}
}

func waitFlag() cli.Flag {
	return &cli.DurationFlag{Name: "wait", Value: 10 * time.Second, Usage: "how long to wait, at most, until another writer has ended: a `DURATION`"}
}

func vkeyFlag() cli.Flag {
	return &cli.StringFlag{Name: "vkey", EnvVars: []string{"GB_VKEY"}, Usage: "the log's public `KEY` as gb-chain key prints it, or a file that holds it, or the output of key --json"}
}

// expected is what --vkey says of the log's keys.
type expected struct {
	Log        merkle.Verifier `json:"vkey"`
	FirstEpoch merkle.Verifier `json:"first_epoch_vkey"`
	Recovery   merkle.Verifier `json:"recovery_vkey"`
}

// expectedKeys returns the keys that --vkey names, zero ones where it names
// none.
func expectedKeys(c *cli.Context) (k expected, err error) {
	s := c.String("vkey")
	if s == "" {
		return k, nil
	}
	if data, err := os.ReadFile(s); err == nil {
		s = string(bytes.TrimSpace(data))
	}
	if strings.HasPrefix(s, "{") {
		if err := json.Unmarshal([]byte(s), &k); err != nil {
			return k, cli.Usagef("--vkey: %w", err)
		}
		if k.Log.IsZero() {
			return k, cli.Usagef("--vkey: no vkey in the JSON object")
		}
		return k, nil
	}
	if k.Log, err = merkle.ParseVerifier(s); err != nil {
		return k, cli.Usagef("--vkey: %w", err)
	}
	return k, nil
}

// noArgument refuses arguments, which would be taken for the log's directory by
// who gives one.
func noArgument(c *cli.Context) error {
	if c.Args().Present() {
		return cli.WithHint(cli.Usagef("%s takes no argument %.80q", c.Command.Name, c.Args().First()), "the log's directory is --log DIR")
	}
	return nil
}

// self is this process as the writer of an event.
func self() event.Peer {
	return event.Peer{UID: uint32(os.Getuid()), Unit: chain.UnitOf(os.Getpid())}
}

func options() chain.Options { return chain.Options{Peer: self()} }
