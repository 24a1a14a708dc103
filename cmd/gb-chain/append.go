package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/intake"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/record"
	"github.com/ghostbridge/ghostbridge/pkg/systemd"
)

func appendCommand() *cli.Command {
	return &cli.Command{
		Name:      "append",
		Usage:     "append events, one JSON object a line",
		ArgsUsage: "[FILE|- | -- COMMAND ARGS...]",
		Description: `Reads events from FILE, standard input or the output of COMMAND and appends
them. What can be read without waiting becomes one batch, made durable by one
fdatasync. The first line that is refused ends it: its number and the reason
are printed, the lines before it are stored, it and those behind it are not.

Where a daemon has the log, the events go through its socket. --format reads
the lines of other programs instead of events: journald (journalctl -o json),
kmsg (/dev/kmsg), busctl (busctl monitor --json=short), text.

With --resume a recorder of the journal goes on behind the newest entry that it
has in the log already, so that a restart neither leaves out an entry nor
records one twice: the log is its own memory. It is known by its uid and
systemd unit, and adds to COMMAND where it is to begin; with nothing in the log
it begins an hour ago.

A producer that is faster than the log waits. With --lossy it never does: what
there is no room for is dropped, and an event log.lost says how many events of
which source were, and from when to when.

Examples:

   printf '{"source":"demo","type":"note","message":"hello"}\n' | gb-chain append --log L -
   gb-chain append --format journald -- journalctl -f -o json
   gb-chain append --format journald --resume -- journalctl -f -o json`,
		Flags: []cli.Flag{
			logFlag(), keysFlag(), socketFlag(), waitFlag(), witnessesFlag(),
			&cli.StringFlag{Name: "format", Value: "event", Usage: "`FORMAT` of the lines: event, " + strings.Join(intake.Formats(), ", ")},
			&cli.StringFlag{Name: "source", Usage: "`SOURCE` of the events of --format text"},
			&cli.StringFlag{Name: "type", Usage: "`TYPE` of the events of --format text"},
			&cli.Int64Flag{Name: "after-seq", Value: -1, Usage: "leave out kernel messages up to number `N`, with --format kmsg"},
			&cli.BoolFlag{Name: "resume", Usage: "go on behind the newest entry in the log, with --format journald and COMMAND"},
			&cli.BoolFlag{Name: "lossy", Usage: "never let the producer wait: drop what comes faster than the log takes it, and say so in an event log.lost"},
			&cli.Int64Flag{Name: "queue", Value: 16 << 20, Usage: "`BYTES` of events that wait for the log at most, with --lossy"},
			&cli.BoolFlag{Name: "receipts", Usage: "print index and leaf hash of each event as JSON, once it is durable"},
		},
		Action: runAppend,
	}
}

func runAppend(c *cli.Context) error {
	o := chain.FeedOptions{Peer: self(), WantLeaves: c.Bool("receipts")}
	if format := c.String("format"); format != "event" {
		after := c.Int64("after-seq")
		convert, err := intake.New(format, intake.Options{Source: c.String("source"), Type: c.String("type"), Boot: bootTime(),
			After: uint64(max(after, 0)), HasAfter: after >= 0})
		if err != nil {
			return cli.Usagef("--format: %w, or event", err)
		}
		o.Convert = convert
	} else if c.IsSet("source") || c.IsSet("type") {
		return cli.Usagef("--source and --type are for --format text; an event says them itself")
	}
	if c.Bool("lossy") {
		if o.LossyBytes = c.Int64("queue"); o.LossyBytes <= 0 {
			return cli.Usagef("--queue wants a number of bytes above 0")
		}
	} else if c.IsSet("queue") {
		return cli.Usagef("--queue is for --lossy")
	}
	if o.WantLeaves {
		o.Done = func(b *chain.Batch) error { return printReceipts(c.App.Writer, b) }
	}
	command, isCommand := cli.AfterDashes(c)
	switch {
	case isCommand && len(command) == 0:
		return cli.Usagef("no command behind --")
	case isCommand && c.Args().Len() > len(command), c.Args().Len() > 1 && !isCommand:
		return cli.Usagef("append takes one FILE, or - for standard input, or -- COMMAND")
	}
	if c.Bool("resume") && (c.String("format") != "journald" || !isCommand) {
		return cli.Usagef("--resume is for --format journald and a COMMAND")
	}
	sink, err := openSink(c)
	if err != nil {
		return err
	}
	if c.Bool("resume") {
		if command, err = resumeJournal(c, command, &o); err != nil {
			return errors.Join(err, sink.Close())
		}
	}
	sink = &watchedSink{sink: sink}
	if _, err := systemd.Notify("READY=1"); err != nil {
		return errors.Join(err, sink.Close())
	}
	var stored int64
	if isCommand {
		stored, err = feedCommand(c, command, sink, o)
	} else {
		stored, err = feedFile(c, sink, o)
	}
	err = errors.Join(err, sink.Close())
	if cli.IsTerminal(c.App.ErrWriter) {
		fmt.Fprintf(c.App.ErrWriter, "gb-chain: %d events appended\n", stored)
	}
	return err
}

func feedFile(c *cli.Context, sink sink, o chain.FeedOptions) (int64, error) {
	in, err := cli.OpenInput(c, c.Args().First())
	if err != nil {
		return 0, err
	}
	defer in.Close()
	var r io.Reader = in
	if c.String("format") == "kmsg" {
		r = kmsgReader{in}
	}
	return chain.Feed(c.Context, r, sink, o)
}

// A kmsgReader goes on after records that the kernel overwrote before they
// were read: read(2) says EPIPE once and stands at the next record.
type kmsgReader struct{ io.Reader }

func (k kmsgReader) Read(b []byte) (int, error) {
	for {
		n, err := k.Reader.Read(b)
		if !errors.Is(err, syscall.EPIPE) {
			return n, err
		}
	}
}

// feedCommand runs a producer and appends what it prints. It fails when the
// producer fails.
func feedCommand(c *cli.Context, argv []string, sink sink, o chain.FeedOptions) (int64, error) {
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stderr = c.App.ErrWriter
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	stored, err := chain.Feed(ctx, out, sink, o)
	if err != nil {
		cancel()
	}
	werr := cmd.Wait()
	if c.Context.Err() != nil {
		return stored, err // we ended it
	}
	if err != nil {
		return stored, err
	}
	if werr != nil {
		return stored, fmt.Errorf("%s: %w", argv[0], werr)
	}
	return stored, nil
}

// A sink is where append puts events.
type sink interface {
	chain.Sink
	io.Closer
}

// openSink opens the log, or the daemon that has it.
func openSink(c *cli.Context) (sink, error) {
	if c.IsSet("socket") {
		return dial(c, c.String("socket"), "")
	}
	dir := c.String("log")
	o := options()
	l, err := chain.Open(dir, c.String("keys"), o)
	if err == nil {
		return newDirectSink(c, l)
	}
	if !errors.Is(err, durable.ErrLocked) && !errors.Is(err, os.ErrPermission) {
		return nil, err
	}
	// A daemon has it, or the log is not ours to write: ask the daemon, which
	// must have this very log.
	created, kerr := chain.ReadCreated(os.DirFS(dir))
	if kerr != nil {
		return nil, err
	}
	s, derr := dial(c, names.ChainSocket, created.LogKey.String())
	if derr == nil {
		return s, nil
	}
	if errors.Is(err, os.ErrPermission) {
		return nil, cli.WithHint(err, "no daemon for this log answers at "+names.ChainSocket+" either; name its socket with --socket")
	}
	// Perhaps another append that ends soon.
	o.Wait = c.Duration("wait")
	if l, err = chain.Open(dir, c.String("keys"), o); err != nil {
		if errors.Is(err, durable.ErrLocked) {
			return nil, cli.WithHint(err, "if a daemon has the log, name its socket with --socket")
		}
		return nil, err
	}
	return newDirectSink(c, l)
}

// A watchedSink feeds the watchdog as long as appending does not hang.
type watchedSink struct {
	sink
	watchdog systemd.Watchdog
}

func (s *watchedSink) Idle() error {
	s.watchdog.Alive()
	return s.sink.Idle()
}

type directSink struct {
	chain.DirectSink
	log    *chain.Log
	offers *offers
}

func newDirectSink(c *cli.Context, l *chain.Log) (sink, error) {
	offers, err := startOffers(c)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return directSink{chain.DirectSink{Log: l}, l, offers}, nil
}

func (s directSink) Idle() error {
	err := s.DirectSink.Idle()
	s.offers.wake()
	return err
}

func (s directSink) Close() error {
	err := s.log.Close()
	s.offers.finish()
	return err
}

func dial(c *cli.Context, socket, key string) (sink, error) {
	client, err := record.Dial(c.Context, socket, record.Hello{Key: key, Receipts: c.Bool("receipts"), Sole: c.Bool("resume")})
	if err != nil {
		return nil, err
	}
	return chain.RemoteSink{Client: client}, nil
}

func printReceipts(w io.Writer, b *chain.Batch) error {
	for i, leaf := range b.Leaves {
		if err := cli.PrintJSON(w, map[string]any{"index": b.Index(i), "leaf": leaf}); err != nil {
			return err
		}
	}
	return nil
}

// bootTime returns when the kernel's log clock started: what CLOCK_MONOTONIC
// counts from, as wall-clock time now says.
func bootTime() time.Time {
	up, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return time.Time{}
	}
	var seconds float64
	if _, err := fmt.Sscan(string(up), &seconds); err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(seconds * float64(time.Second)))
}
