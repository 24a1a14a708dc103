package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

func policyFlag() cli.Flag {
	return &cli.StringFlag{Name: "policy", EnvVars: []string{"GB_POLICY"}, Value: names.PolicyFile, Usage: "policy `FILE`, which belongs to root"}
}

func approvalsFlag() cli.Flag {
	return &cli.StringFlag{Name: "approvals", EnvVars: []string{"GB_APPROVALS"}, Value: names.ApprovalsDir, Usage: "`DIR` of approvals"}
}

func logFlag() cli.Flag {
	return &cli.StringFlag{Name: "log", EnvVars: []string{"GB_LOG"}, Value: names.LogDir, Usage: "`DIR` of the log"}
}

func chainSocketFlag() cli.Flag {
	return &cli.StringFlag{Name: "socket", EnvVars: []string{"GB_CHAIN_SOCKET"}, Value: names.ChainSocket, Usage: "`SOCKET` of the daemon that has the log"}
}

func spoolFlag() cli.Flag {
	return &cli.StringFlag{Name: "spool", EnvVars: []string{"GB_SPOOL"}, Value: names.SpoolDir, Usage: "`DIR` in which events wait for the log"}
}

// errOtherBus is why polkit can't be asked.
var errOtherBus = errors.New("this is not the system bus, and polkit knows only who is there")

// gateFlags are those of every command that changes something.
func gateFlags() []cli.Flag {
	return []cli.Flag{
		policyFlag(), approvalsFlag(),
		logFlag(), chainSocketFlag(),
		&cli.StringFlag{Name: "keys", EnvVars: []string{"GB_KEYS"}, Value: names.KeysDir, Usage: "`DIR` of the log's keys, where no daemon has it"},
		spoolFlag(),
		&cli.BoolFlag{Name: "interactive", Aliases: []string{"i"}, Usage: "polkit may ask for a password"},
	}
}

// openGate returns the choke point of this process and who it is. The log is
// opened at the first change, so that reads need none.
func openGate(c *cli.Context) (g *opdbus.Gate, self opdbus.Principal, closeGate func(), err error) {
	policy, err := opdbus.LoadPolicy(c.String("policy"))
	if err != nil {
		return nil, self, nil, err
	}
	journal := &lateJournal{open: func(ctx context.Context) (opdbus.Journal, error) {
		return opdbus.OpenJournal(ctx, c.String("log"), c.String("socket"), c.String("keys"))
	}}
	g = &opdbus.Gate{Journal: journal, Approvals: &opdbus.Approvals{Dir: c.String("approvals")}, Spool: &opdbus.Spool{Dir: c.String("spool")}}
	g.SetPolicy(policy)
	closers := []func() error{journal.Close}
	subject := ""
	// polkit is on the system bus, and knows us by our name there.
	if system, err := bus.Connect(c.Context, bus.System); err != nil {
		g.Polkit = opdbus.NoAuthority{Err: err}
	} else {
		g.Polkit, subject = &opdbus.Polkit{Conn: system}, system.Unique()
		closers = append(closers, system.Close)
	}
	return g, opdbus.Self(subject, c.Bool("interactive")), func() {
		for _, f := range closers {
			f()
		}
	}, nil
}

// A lateJournal is opened when the first event is to be recorded. It is for
// one goroutine at a time to begin with.
type lateJournal struct {
	open    func(context.Context) (opdbus.Journal, error)
	journal opdbus.Journal
}

func (l *lateJournal) Record(ctx context.Context, lines ...[]byte) error {
	if l.journal == nil {
		j, err := l.open(ctx)
		if err != nil {
			return err
		}
		l.journal = j
	}
	return l.journal.Record(ctx, lines...)
}

func (l *lateJournal) Close() error {
	if l.journal == nil {
		return nil
	}
	return l.journal.Close()
}

// printDecision says what the policy says.
func printDecision(c *cli.Context, a opdbus.Action, d opdbus.Decision) error {
	if c.Bool("json") {
		return cli.PrintJSON(c.App.Writer, map[string]any{"action": a, "sha256": a.Hash(), "decision": d})
	}
	polkit := d.Polkit
	if polkit == "" {
		polkit = "not asked"
	}
	_, err := fmt.Fprintf(c.App.Writer, "%s\n  effect  %s\n  why     %s\n  polkit  %s\n  sha256  %s\n", cli.Printable(a.String()), d.Effect, cli.Printable(d.Reason), polkit, a.Hash())
	return err
}
