package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/record"
	"github.com/ghostbridge/ghostbridge/pkg/snap"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

// recordFlags say where what is done is recorded.
func recordFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "log", EnvVars: []string{"GB_LOG"}, Usage: "record in the log in `DIR`; without it nothing is recorded"},
		&cli.StringFlag{Name: "socket", EnvVars: []string{"GB_CHAIN_SOCKET"}, Value: names.ChainSocket, Usage: "`SOCKET` of the daemon that has the log"},
		&cli.StringFlag{Name: "keys", EnvVars: []string{"GB_KEYS"}, Value: names.KeysDir, Usage: "`DIR` of the log's keys, where no daemon has it"},
		&cli.StringFlag{Name: "spool", EnvVars: []string{"GB_SPOOL"}, Value: names.SpoolDir, Usage: "`DIR`, outside of the source, in which events wait for the log"},
	}
}

// openSpool returns the spool of what is done to a store, nil without --log.
func openSpool(c *cli.Context, s *snap.Store, source string) (*snap.Spool, error) {
	log := c.String("log")
	if log == "" {
		return nil, nil
	}
	dir := c.String("spool")
	if source != "" {
		inside, err := subvol.System{}.Inside(existing(dir), source)
		if err != nil {
			return nil, fmt.Errorf("spool: %w", err)
		}
		if inside {
			return nil, cli.Usagef("--spool %s lies in the source %s: writing to it would make a snapshot due", dir, source)
		}
	}
	sp, err := snap.OpenSpool(dir, s, source)
	if err != nil {
		return nil, err
	}
	sp.Append = func(ctx context.Context, lines [][]byte) error {
		return appendEvents(ctx, log, c.String("socket"), c.String("keys"), lines)
	}
	return sp, nil
}

// existing returns dir or the nearest directory above it that exists.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// appendEvents appends through the daemon that has the log, or, where none
// answers, by itself.
func appendEvents(ctx context.Context, log, socket, keys string, lines [][]byte) error {
	created, err := chain.ReadCreated(os.DirFS(log))
	if err != nil {
		return err
	}
	client, err := record.Dial(ctx, socket, record.Hello{Key: created.LogKey.String()})
	if err == nil {
		defer client.Close()
		stop := context.AfterFunc(ctx, func() { client.Close() })
		defer stop()
		return client.Append(lines, nil)
	}
	peer := event.Peer{UID: uint32(os.Getuid()), Unit: chain.UnitOf(os.Getpid())}
	l, oerr := chain.Open(log, keys, chain.Options{Peer: peer})
	if oerr != nil {
		return fmt.Errorf("%w; and without it: %w", err, oerr)
	}
	_, err = chain.Feed(ctx, bytes.NewReader(append(bytes.Join(lines, []byte("\n")), '\n')), chain.DirectSink{Log: l}, chain.FeedOptions{Peer: peer})
	if cerr := l.Close(); err == nil {
		err = cerr
	}
	return err
}
