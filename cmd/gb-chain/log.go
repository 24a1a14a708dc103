package main

import (
	"bytes"
	"os"
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
	return &cli.StringFlag{Name: "vkey", EnvVars: []string{"GB_VKEY"}, Usage: "the log's public `KEY` as gb-chain key prints it, or a file that holds it"}
}

// expectedKey returns the key that --vkey names, the zero Verifier if none.
func expectedKey(c *cli.Context) (merkle.Verifier, error) {
	s := c.String("vkey")
	if s == "" {
		return merkle.Verifier{}, nil
	}
	if data, err := os.ReadFile(s); err == nil {
		s = string(bytes.TrimSpace(data))
	}
	v, err := merkle.ParseVerifier(s)
	if err != nil {
		return v, cli.Usagef("--vkey: %w", err)
	}
	return v, nil
}

// self is this process as the writer of an event.
func self() event.Peer {
	return event.Peer{UID: uint32(os.Getuid()), Unit: chain.UnitOf(os.Getpid())}
}

func options() chain.Options { return chain.Options{Peer: self()} }
