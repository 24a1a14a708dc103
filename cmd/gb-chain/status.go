package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/record"
)

func statusCommand() *cli.Command {
	return &cli.Command{
		Name:  "status",
		Usage: "say how the log does, and what to do if it does not do well",
		Description: `Prints whether the log's daemon answers, how many events there are, how many of
them are signed, how old the newest ones are, and how much space is left. It
looks at the newest parts only: gb-chain verify reads all.

The daemon is asked where the log is the system's, or where --socket names it.
Exit code 1 if something is wrong; each fault says what to do.

Example:

   gb-chain status --log L`,
		Flags: []cli.Flag{
			logFlag(),
			&cli.StringFlag{Name: "socket", EnvVars: []string{"GB_CHAIN_SOCKET"}, Usage: "the daemon's `SOCKET` (default for the system's log: " + names.ChainSocket + ")"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object"},
		},
		Action: runStatus,
	}
}

// status is what the status command prints with --json.
type status struct {
	*chain.Status
	Daemon *float64 `json:"daemon_seconds,omitempty"` // how long the daemon took to answer
}

func runStatus(c *cli.Context) error {
	if err := noArgument(c); err != nil {
		return err
	}
	dir, socket := c.String("log"), c.String("socket")
	st, err := chain.ReadStatus(dir, time.Now())
	if err != nil {
		return fmt.Errorf("log %s: %w", dir, err)
	}
	s := status{Status: st}
	if socket == "" && dir == names.LogDir {
		socket = names.ChainSocket
	}
	if socket != "" {
		s.ask(c.Context, socket)
	}
	if c.Bool("json") {
		err = cli.PrintJSON(c.App.Writer, s)
	} else {
		err = s.print(c.App.Writer)
	}
	if err != nil {
		return err
	}
	if !s.Healthy {
		return cli.Exit(cli.ExitFailed)
	}
	return nil
}

// ask asks the daemon. Who may not is not told that it is broken.
func (s *status) ask(ctx context.Context, socket string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	begin := time.Now()
	client, err := record.Dial(ctx, socket, record.Hello{})
	if err == nil {
		client.Close()
		took := time.Since(begin).Seconds()
		s.Daemon = &took
		return
	}
	if errors.Is(err, fs.ErrPermission) {
		return
	}
	s.Healthy = false
	s.Faults = append(s.Faults, fmt.Sprintf("the daemon does not answer: %v: systemctl status blockchain-log.socket blockchain-log.service", err))
}

func (s *status) print(w io.Writer) error {
	t := cli.NewTable(w)
	if s.Healthy {
		t.Row("health", "good")
	}
	for _, f := range s.Faults {
		t.Row("FAULT", cli.Printable(f))
	}
	t.Row("log", cli.Printable(s.Origin))
	switch {
	case s.Daemon != nil:
		t.Row("daemon", fmt.Sprintf("answers within %.0f ms", *s.Daemon*1e3))
	case s.Writer:
		t.Row("writer", "has the log open")
	default:
		t.Row("writer", "none now")
	}
	signed := "all signed"
	if s.Newer > 0 {
		signed = fmt.Sprintf("%d not signed yet, for %.1f s", s.Newer, s.NewerAge)
	}
	t.Row("events", fmt.Sprintf("%d in %d segments, %s", s.Size+s.Newer, s.Segments, signed))
	if s.Newest != nil {
		t.Row("newest", fmt.Sprintf("%s ago", time.Since(*s.Newest).Round(100*time.Millisecond)))
	}
	t.Row("epoch", fmt.Sprint(s.Epoch))
	t.Row("space", fmt.Sprintf("%.1f GiB free", float64(s.Available)/(1<<30)))
	return t.Flush()
}
