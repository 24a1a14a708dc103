package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

// stateTime is how long an apply may take: a little more than the daemon
// gives it.
const stateTime = 31 * time.Minute

// stateFlags are those of every command about the host's desired state.
func stateFlags(more ...cli.Flag) []cli.Flag {
	flags := append(more,
		&cli.StringFlag{Name: "bus", EnvVars: []string{"GB_BUS"}, Value: bus.System, Usage: "`BUS`: system, session or an address"},
		&cli.DurationFlag{Name: "timeout", Value: stateTime, Usage: "give up after `TIME`; what is under way goes on"},
		&cli.BoolFlag{Name: "json", Usage: "print JSON"})
	return append(append(flags, gateFlags()...), hostFlags()...)
}

func exitCodeFlag() cli.Flag {
	return &cli.BoolFlag{Name: "exit-code", Usage: "exit with 4 if there is nothing to do"}
}

func dryRunFlag(usage string) cli.Flag {
	return &cli.BoolFlag{Name: "n", Aliases: []string{"dry-run"}, Usage: usage}
}

// A stateHost answers the commands: the daemon where it runs, else this
// process.
type stateHost interface {
	plan(ctx context.Context, d *hoststate.Document) (*opdbus.StatePlan, error)
	apply(ctx context.Context, d *hoststate.Document, o hoststate.ApplyOptions) (*hoststate.Change, error)
	confirm(ctx context.Context, id string) (*hoststate.Change, error)
	rollback(ctx context.Context, id string) (*hoststate.Change, error)
	diff(ctx context.Context, d *hoststate.Document) ([]hoststate.Difference, error)
	read(ctx context.Context, plugins []string) (json.RawMessage, error)
	plugins(ctx context.Context) ([]hoststate.Listed, error)
	changes(ctx context.Context) ([]*hoststate.Change, error)
	change(ctx context.Context, id string) (*hoststate.Change, error)
}

// withHost connects, finds who answers, and calls do.
func withHost(c *cli.Context, do func(ctx context.Context, h stateHost) error) error {
	return withBus(c, func(ctx context.Context, conn *bus.Conn) error {
		_, err := conn.Owner(ctx, names.BusName, true)
		var e *bus.Error
		switch {
		case err == nil:
			return do(ctx, &daemonHost{conn, c.Bool("interactive")})
		case !errors.As(err, &e):
			return err
		}
		gate, self, closeGate, err := openGate(c)
		if err != nil {
			return err
		}
		defer closeGate()
		sw, err := switchHost(c)
		if err != nil {
			return err
		}
		host := opdbus.NewHost(gate, conn, opdbus.HostOptions{Dir: c.String("state"), LogDir: c.String("log"), Root: c.String("root"), Switch: sw})
		return do(ctx, &ownHost{host, self})
	})
}

// readDocument reads the desired state that the one argument names.
func readDocument(c *cli.Context) (*hoststate.Document, error) {
	if c.Args().Len() != 1 {
		return nil, cli.WithHint(cli.Usagef("%s takes one FILE, the desired state; - is standard input", c.Command.Name), "opdbus schema says what it may hold")
	}
	in, err := cli.OpenInput(c, c.Args().First())
	if err != nil {
		return nil, cli.Usagef("desired state: %w", err)
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(in, hoststate.MaxDocument+1))
	if err != nil {
		return nil, err
	}
	d, err := hoststate.Parse(data)
	if err != nil {
		var h interface{ Hint() string }
		hint := ""
		if errors.As(err, &h) {
			hint = h.Hint()
		}
		return nil, cli.WithHint(cli.Usagef("%s: %w", c.Args().First(), err), hint)
	}
	return d, nil
}

// oneID returns the ID that a command may have.
func oneID(c *cli.Context) (string, error) {
	if c.Args().Len() > 1 {
		return "", cli.Usagef("%s takes one ID", c.Command.Name)
	}
	return c.Args().First(), nil
}

// completeChange completes the id of a change.
func completeChange(c *cli.Context) {
	if c.Args().Present() {
		return
	}
	withHost(c, func(ctx context.Context, h stateHost) error {
		list, err := h.changes(ctx)
		for _, ch := range list {
			cli.Offer(c, ch.ID, fmt.Sprintf("%s, %s, by %s", ch.Time.Local().Format(time.DateTime), ch.Result, ch.By))
		}
		return err
	})
}

// answerChange has do done with the change that the argument names, or with
// -n prints which one that is: the latest that fits.
func answerChange(c *cli.Context, fits func(*hoststate.Change) bool, do func(h stateHost, ctx context.Context, id string) (*hoststate.Change, error)) error {
	id, err := oneID(c)
	if err != nil {
		return err
	}
	return withHost(c, func(ctx context.Context, h stateHost) error {
		if !c.Bool("n") {
			ch, err := do(h, ctx, id)
			if err != nil {
				return err
			}
			return printChange(c, ch)
		}
		list, err := h.changes(ctx)
		if err != nil {
			return err
		}
		for _, ch := range list {
			if fits(ch) && (id == "" || id == ch.ID) {
				return printChange(c, ch)
			}
		}
		return &hoststate.NoChangeError{ID: id, Reason: "there is no such change"}
	})
}

func stateCommand() *cli.Command {
	return &cli.Command{
		Name: "state", Usage: "print the host's state as a desired state has it", ArgsUsage: "[PLUGIN...]",
		Description: `Prints what is, in the form of a desired state: of the plugins that are named, or
of all that can be used on this host. --plugins lists those.

Examples:

   opdbus state --plugins
   opdbus state hostname systemd | jq .systemd.units`,
		Flags: stateFlags(&cli.BoolFlag{Name: "plugins", Usage: "list the plugins"}),
		BashComplete: func(c *cli.Context) {
			withHost(c, func(ctx context.Context, h stateHost) error {
				list, err := h.plugins(ctx)
				for _, p := range list {
					cli.Offer(c, p.Name, p.Doc)
				}
				return err
			})
		},
		Action: func(c *cli.Context) error {
			return withHost(c, func(ctx context.Context, h stateHost) error {
				if !c.Bool("plugins") {
					out, err := h.read(ctx, c.Args().Slice())
					if err != nil {
						return err
					}
					return cli.PrintJSON(c.App.Writer, out)
				}
				list, err := h.plugins(ctx)
				if err != nil {
					return err
				}
				t := cli.NewTable(c.App.Writer, "plugin", "what", "here")
				for _, p := range list {
					if c.Bool("json") {
						if err := cli.PrintJSON(c.App.Writer, p); err != nil {
							return err
						}
						continue
					}
					here := "yes"
					switch {
					case p.Unavailable != "":
						here = "no: " + p.Unavailable
					case p.ReadOnly:
						here = "to read"
					}
					t.Row(p.Name, p.Doc, here)
				}
				if c.Bool("json") {
					return nil
				}
				return t.Flush()
			})
		},
	}
}
