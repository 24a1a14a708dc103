package main

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime/debug"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/systemd"
)

func socketFlag() *cli.StringFlag {
	return &cli.StringFlag{Name: "socket", EnvVars: []string{"GB_CHAIN_SOCKET"}, Usage: "the daemon's `SOCKET` (default: " + names.ChainSocket + ")"}
}

func serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "let many producers append through a socket",
		Description: `Owns the log and appends what producers send through a Unix socket: events, one
a line, each batch acknowledged by a line {"first":N,"last":M} once it is
durable. Who may write which source is in a file that belongs to root:

   {"writers":[{"user":"ovs","sources":["ovs"]},{"uid":1000,"sources":["*"]}]}

root and the daemon's own user may write everything, others nothing without
it. A checkpoint is signed once a second when there is something new.

Producers that send more than can be written wait, users in turns. The daemon
takes at most 1,280 connections (a user other than root a quarter of them) and
384 MiB, whatever is sent.

Started by systemd it serves the sockets that it was started with, says when it
is ready, and feeds the watchdog.

Example:

   gb-chain serve --log L --socket /run/ghostbridge/chain.sock`,
		Flags: []cli.Flag{
			logFlag(), keysFlag(), socketFlag(), waitFlag(), witnessesFlag(),
			&cli.StringFlag{Name: "writers", EnvVars: []string{"GB_WRITERS"}, Value: names.WritersFile, Usage: "`FILE` that says who may write what"},
		},
		Action: runServe,
	}
}

func runServe(c *cli.Context) error {
	if err := noArgument(c); err != nil {
		return err
	}
	writers, err := chain.LoadWriters(c.String("writers"))
	if err != nil {
		return err
	}
	o := options()
	o.Wait = c.Duration("wait")
	l, err := chain.Open(c.String("log"), c.String("keys"), o)
	if err != nil {
		return err
	}
	listeners, err := listeners(c.String("socket"))
	if err != nil {
		return errors.Join(err, l.Close())
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(chain.MemoryLimit)
	}
	logger := cli.Logger(c.App.ErrWriter)
	logger.Info("serving", "log", c.String("log"), "origin", l.Keyring().Created.Origin, "size", l.Size(), "socket", listeners[0].Addr())
	var watchdog systemd.Watchdog
	offers, err := startOffers(c)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	s := &chain.Server{Log: l, Writers: writers, Logger: logger, Alive: watchdog.Alive, Signed: func(int64) { offers.wake() }}
	if _, err := systemd.Notify("READY=1"); err != nil {
		logger.Warn("notify", "error", err)
	}
	defer context.AfterFunc(c.Context, func() { systemd.Notify("STOPPING=1") })()
	err = s.Serve(c.Context, listeners...)
	err = errors.Join(err, l.Close())
	offers.finish()
	logger.Info("stopped", "size", l.Size())
	return err
}

// listeners returns the sockets that systemd has passed, else one at path.
func listeners(path string) ([]net.Listener, error) {
	passed, err := systemd.Listeners()
	if err != nil || len(passed) > 0 {
		return passed, err
	}
	if path == "" {
		path = names.ChainSocket
	}
	l, err := systemd.ListenUnix(path)
	return []net.Listener{l}, err
}
