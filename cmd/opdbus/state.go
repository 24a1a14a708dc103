package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
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

// temporary is EX_TEMPFAIL.
const temporary = 75

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

// A daemonHost is the daemon.
type daemonHost struct {
	conn        *bus.Conn
	interactive bool
}

// A daemonError is what the daemon has answered.
type daemonError struct{ answer *bus.Error }

func (e daemonError) Error() string { return e.answer.Message }
func (e daemonError) Unwrap() error { return e.answer }

func (e daemonError) kind() string {
	return strings.TrimPrefix(strings.TrimPrefix(e.answer.Name, "org.freedesktop.opdbus.Error."), "org.freedesktop.DBus.Error.")
}

// ExitCode is 75 where the same again may work.
func (e daemonError) ExitCode() int {
	switch e.kind() {
	case "Busy", "ApprovalNeeded", "LimitsExceeded", "NotRecorded":
		return temporary
	case "InvalidArgs":
		return cli.ExitUsage
	}
	return cli.ExitFailed
}

// Hint says what a person can do.
func (e daemonError) Hint() string {
	switch e.kind() {
	case "ApprovalNeeded":
		return "opdbus approvals list, opdbus approvals approve ID, then the same command again"
	case "Busy":
		return "opdbus changes shows it; opdbus confirm or opdbus rollback ends one that awaits its confirmation"
	case "PlanChanged":
		return "opdbus plan shows what would be done now"
	case "Blocked":
		return "opdbus plan shows what to do instead; --partial does the rest"
	case "RolledBack", "RollbackFailed":
		return "opdbus changes ID has the report"
	case "NotRecorded":
		return "is gb-chain serve running?"
	case "AccessDenied":
		return "the policy's file, and polkit, decide; opdbus plan shows what the policy says of each action"
	case "InteractiveAuthorizationRequired":
		return "--interactive lets polkit ask, if an agent runs in the session"
	}
	return ""
}

func (d *daemonHost) call(ctx context.Context, out any, member, sig string, args ...any) error {
	call := bus.Call{Name: names.BusName, Path: names.BusObject, Interface: names.BusInterface + ".Manager", Member: member, Interactive: d.interactive}
	if sig != "" {
		types, err := dbusjson.ParseSignature(sig)
		if err != nil {
			return err
		}
		call.Args = bus.Body{Types: types, Values: args}
	}
	b, err := d.conn.Call(ctx, call)
	var e *bus.Error
	if errors.As(err, &e) {
		return daemonError{e}
	}
	if err != nil {
		return err
	}
	if list, ok := b.Values[0].([]any); ok && b.Signature() == "as" {
		var texts []json.RawMessage
		for _, t := range list {
			texts = append(texts, json.RawMessage(t.(string)))
		}
		text, err := json.Marshal(texts)
		if err != nil {
			return err
		}
		return json.Unmarshal(text, out)
	}
	text, ok := b.Values[0].(string)
	if !ok {
		return fmt.Errorf("%s answered %q: is it another version?", member, b.Signature())
	}
	return json.Unmarshal([]byte(text), out)
}

func (d *daemonHost) plan(ctx context.Context, doc *hoststate.Document) (*opdbus.StatePlan, error) {
	p := new(opdbus.StatePlan)
	return p, d.call(ctx, p, "Plan", "s", string(doc.Bytes()))
}

func (d *daemonHost) apply(ctx context.Context, doc *hoststate.Document, o hoststate.ApplyOptions) (*hoststate.Change, error) {
	options := dbusjson.Dict{}
	add := func(key, sig string, v any) {
		t, _ := dbusjson.ParseType(sig)
		options = append(options, dbusjson.Entry{Key: key, Value: dbusjson.Variant{Type: t, Value: v}})
	}
	if o.Confirm != 0 {
		add("confirm_seconds", "u", uint32(o.Confirm/time.Second))
	}
	if o.Partial {
		add("partial", "b", true)
	}
	c := new(hoststate.Change)
	err := d.call(ctx, c, "Apply", "ssa{sv}", string(doc.Bytes()), o.Plan, options)
	var e daemonError
	if errors.As(err, &e) && (e.kind() == "RolledBack" || e.kind() == "RollbackFailed") {
		var list []*hoststate.Change
		if lerr := d.call(ctx, &list, "Changes", ""); lerr == nil && len(list) > 0 {
			return list[0], err
		}
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (d *daemonHost) confirm(ctx context.Context, id string) (*hoststate.Change, error) {
	c := new(hoststate.Change)
	return c, d.call(ctx, c, "Confirm", "s", id)
}

func (d *daemonHost) rollback(ctx context.Context, id string) (*hoststate.Change, error) {
	c := new(hoststate.Change)
	return c, d.call(ctx, c, "Rollback", "s", id)
}

func (d *daemonHost) diff(ctx context.Context, doc *hoststate.Document) ([]hoststate.Difference, error) {
	text := ""
	if doc != nil {
		text = string(doc.Bytes())
	}
	var list []hoststate.Difference
	return list, d.call(ctx, &list, "Diff", "s", text)
}

func (d *daemonHost) read(ctx context.Context, plugins []string) (json.RawMessage, error) {
	list := []any{}
	for _, p := range plugins {
		list = append(list, p)
	}
	var out json.RawMessage
	return out, d.call(ctx, &out, "State", "as", list)
}

func (d *daemonHost) plugins(ctx context.Context) (list []hoststate.Listed, err error) {
	return list, d.call(ctx, &list, "ListPlugins", "")
}

func (d *daemonHost) changes(ctx context.Context) (list []*hoststate.Change, err error) {
	return list, d.call(ctx, &list, "Changes", "")
}

func (d *daemonHost) change(ctx context.Context, id string) (*hoststate.Change, error) {
	c := new(hoststate.Change)
	return c, d.call(ctx, c, "GetChange", "s", id)
}

// An ownHost is this process.
type ownHost struct {
	host *opdbus.Host
	self opdbus.Principal
}

func (o *ownHost) plan(ctx context.Context, d *hoststate.Document) (*opdbus.StatePlan, error) {
	return o.host.Plan(ctx, o.self, d)
}

func (o *ownHost) apply(ctx context.Context, d *hoststate.Document, a hoststate.ApplyOptions) (*hoststate.Change, error) {
	if a.Confirm != 0 {
		return nil, cli.WithHint(errors.New("nobody would take the change back in time: the daemon does not run"), "systemctl start op-dbus.service")
	}
	if c, _, err := o.host.Recover(ctx); err != nil {
		return c, err
	}
	return o.host.Apply(ctx, o.self, d, a)
}

func (o *ownHost) confirm(ctx context.Context, id string) (*hoststate.Change, error) {
	return o.host.Confirm(ctx, o.self, id)
}

func (o *ownHost) rollback(ctx context.Context, id string) (*hoststate.Change, error) {
	return o.host.Rollback(ctx, o.self, id)
}

func (o *ownHost) diff(ctx context.Context, d *hoststate.Document) ([]hoststate.Difference, error) {
	text := ""
	if d != nil {
		text = string(d.Bytes())
	}
	return o.host.Diff(ctx, text)
}

func (o *ownHost) read(ctx context.Context, plugins []string) (json.RawMessage, error) {
	state, err := o.host.Engine.Read(ctx, plugins)
	if err != nil {
		return nil, err
	}
	return json.Marshal(state)
}

func (o *ownHost) plugins(ctx context.Context) ([]hoststate.Listed, error) {
	return o.host.Engine.List(ctx), nil
}

func (o *ownHost) changes(context.Context) ([]*hoststate.Change, error) {
	return o.host.Engine.Store.Changes()
}

func (o *ownHost) change(_ context.Context, id string) (*hoststate.Change, error) {
	return o.host.Engine.Store.Get(id)
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

func planCommand() *cli.Command {
	return &cli.Command{
		Name: "plan", Usage: "print what apply would do", ArgsUsage: "FILE",
		Description: `Compares a desired state with the host and prints what differs, what apply would
do, in order, what has no way back, what can't be done here and what to do
instead, and what the policy says. The plan's hash is over all of that and over
what was read: apply --plan HASH does that plan or nothing.

Example:

   opdbus plan state.json
   opdbus plan --json state.json | jq '.actions[] | select(.irreversible)'`,
		Flags:  stateFlags(exitCodeFlag()),
		Action: runPlan,
	}
}

func runPlan(c *cli.Context) error {
	d, err := readDocument(c)
	if err != nil {
		return err
	}
	return withHost(c, func(ctx context.Context, h stateHost) error {
		p, err := h.plan(ctx, d)
		if err != nil {
			return err
		}
		return printPlan(c, p)
	})
}

func printPlan(c *cli.Context, p *opdbus.StatePlan) error {
	var err error
	if c.Bool("json") {
		err = cli.PrintJSON(c.App.Writer, p)
	} else {
		err = writePlan(c.App.Writer, p)
	}
	if err != nil {
		return err
	}
	if p.Empty() && c.Bool("exit-code") {
		return cli.Exit(cli.ExitNothing)
	}
	return nil
}

func writeDifferences(w io.Writer, list []hoststate.Difference) {
	for _, d := range list {
		fmt.Fprintf(w, "~ %s %s: %s -> %s\n", cli.Printable(d.Plugin), cli.Printable(d.Path), shorten(d.Have), shorten(d.Want))
	}
}

// shorten is a value for a line.
func shorten(v json.RawMessage) string {
	s := string(v)
	if s == "" || s == "null" {
		return "none"
	}
	if r := []rune(s); len(r) > 100 {
		s = string(r[:100]) + "..."
	}
	return cli.Printable(s)
}

func writePlan(out io.Writer, p *opdbus.StatePlan) error {
	var w strings.Builder
	writeDifferences(&w, p.Differences)
	for i := range p.Actions {
		a := &p.Actions[i]
		fmt.Fprintf(&w, "%3d. %s (%s)", i+1, cli.Printable(a.Title()), a.Plugin)
		if a.Irreversible != "" {
			fmt.Fprintf(&w, ", irreversible: %s", a.Irreversible)
		}
		if d := p.Decisions[i]; d.Effect != opdbus.Allow {
			fmt.Fprintf(&w, ", %s: %s", d.Effect, cli.Printable(d.Reason))
		}
		fmt.Fprintln(&w)
	}
	for _, b := range p.Blocked {
		fmt.Fprintf(&w, "! %s %s can't be done here: %s\n", cli.Printable(b.Plugin), cli.Printable(b.Path), cli.Printable(b.Reason))
		switch {
		case b.Nix != "":
			fmt.Fprintf(&w, "    in the NixOS configuration: %s\n", cli.Printable(b.Nix))
		case b.Hint != "":
			fmt.Fprintf(&w, "    %s\n", cli.Printable(b.Hint))
		}
	}
	for _, warning := range p.Warnings {
		fmt.Fprintf(&w, "warning: %s\n", cli.Printable(warning))
	}
	if p.Empty() {
		fmt.Fprintln(&w, "nothing to do")
	} else if len(p.Actions) > 0 {
		fmt.Fprintf(&w, "policy: %s, %s\nplan: %s\n", p.Decision.Effect, cli.Printable(p.Decision.Reason), p.Hash)
	}
	_, err := io.WriteString(out, w.String())
	return err
}

func applyCommand() *cli.Command {
	return &cli.Command{
		Name: "apply", Usage: "bring the host to a desired state, or leave it as it was", ArgsUsage: "FILE",
		Description: `Does what plan prints, one action after the other, each through the choke point,
and looks again. If something fails, or is not as it should be afterwards, what
was done is taken back, last action first. Where the daemon runs it does this;
the process may end.

With --confirm-timeout the change is taken back unless opdbus confirm comes in
that time, also after a restart of the daemon or a boot. A second apply changes
nothing.

Examples:

   opdbus apply -n state.json
   opdbus apply --confirm-timeout 90s state.json && opdbus confirm`,
		Flags: stateFlags(exitCodeFlag(), dryRunFlag("only print what would be done"),
			&cli.StringFlag{Name: "plan", Usage: "do the plan with this `HASH`, or nothing"},
			&cli.DurationFlag{Name: "confirm-timeout", Usage: "take it back unless it is confirmed within this `DURATION`"},
			&cli.BoolFlag{Name: "partial", Usage: "do what can be done although some can't be done here"}),
		Action: runApply,
	}
}

func runApply(c *cli.Context) error {
	d, err := readDocument(c)
	if err != nil {
		return err
	}
	if t := c.Duration("confirm-timeout"); t != 0 && (t < hoststate.MinConfirm || t > hoststate.MaxConfirm || t%time.Second != 0) {
		return cli.Usagef("--confirm-timeout %s: want whole seconds, %s to %s", t, hoststate.MinConfirm, hoststate.MaxConfirm)
	}
	if c.Bool("n") {
		return runPlan(c)
	}
	return withHost(c, func(ctx context.Context, h stateHost) error {
		ch, err := h.apply(ctx, d, hoststate.ApplyOptions{Plan: c.String("plan"), Confirm: c.Duration("confirm-timeout"), Partial: c.Bool("partial")})
		if ch != nil {
			if perr := printChange(c, ch); perr != nil {
				err = errors.Join(err, perr)
			}
		}
		if err != nil {
			return err
		}
		if ch.Result == hoststate.ResultPending {
			fmt.Fprintf(c.App.ErrWriter, "opdbus: the change %s is taken back at %s\nhint: if all is well: opdbus confirm %[1]s\n", ch.ID, ch.ConfirmBy.Local().Format(time.TimeOnly))
		}
		if ch.Result == hoststate.ResultNothing && c.Bool("exit-code") {
			return cli.Exit(cli.ExitNothing)
		}
		return nil
	})
}

func printChange(c *cli.Context, ch *hoststate.Change) error {
	if c.Bool("json") {
		return cli.PrintJSON(c.App.Writer, ch)
	}
	var w strings.Builder
	for _, s := range ch.Steps {
		fmt.Fprintf(&w, "%-11s  %s", s.State, cli.Printable(s.Title))
		if s.Error != "" {
			fmt.Fprintf(&w, ": %s", cli.Printable(s.Error))
		}
		if s.UndoError != "" {
			fmt.Fprintf(&w, "; not taken back: %s", cli.Printable(s.UndoError))
		}
		fmt.Fprintln(&w)
	}
	switch {
	case ch.Result == hoststate.ResultNothing:
		fmt.Fprintln(&w, "nothing to do")
	default:
		fmt.Fprintf(&w, "%s: %s", ch.ID, ch.Result)
		if ch.Reason != "" {
			fmt.Fprintf(&w, ", since %s", cli.Printable(ch.Reason))
		}
		fmt.Fprintln(&w)
	}
	_, err := io.WriteString(c.App.Writer, w.String())
	return err
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
			fmt.Fprintln(c.App.Writer, ch.ID)
		}
		return err
	})
}

func confirmCommand() *cli.Command {
	return &cli.Command{
		Name: "confirm", Usage: "keep the change that awaits it", ArgsUsage: "[ID]",
		Description: `Keeps a change made with apply --confirm-timeout.

Example:

   opdbus confirm`,
		Flags:        stateFlags(dryRunFlag("only print which change it would be")),
		BashComplete: completeChange,
		Action: func(c *cli.Context) error {
			return answerChange(c, func(ch *hoststate.Change) bool { return ch.Result == hoststate.ResultPending }, stateHost.confirm)
		},
	}
}

func rollbackCommand() *cli.Command {
	return &cli.Command{
		Name: "rollback", Usage: "take the latest change back", ArgsUsage: "[ID]",
		Description: `Takes back the change that awaits its confirmation, or else the last one that was
applied: last action first, each object to what it was before. What had no way
back stays, and the report says so. It is done without the log, too: its events
then wait in the spool.

Example:

   opdbus rollback`,
		Flags:        stateFlags(dryRunFlag("only print which change it would be")),
		BashComplete: completeChange,
		Action: func(c *cli.Context) error {
			return answerChange(c, func(ch *hoststate.Change) bool {
				return ch.Result == hoststate.ResultPending || ch.Result == hoststate.ResultApplied || ch.Result == hoststate.ResultFailed
			}, stateHost.rollback)
		},
	}
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

func diffCommand() *cli.Command {
	return &cli.Command{
		Name: "diff", Usage: "print what is not as it should be", ArgsUsage: "[FILE]",
		Description: `Compares a desired state, or without FILE the one that was applied last, with the
host.

Example:

   opdbus diff --exit-code || echo drift`,
		Flags: stateFlags(exitCodeFlag()),
		Action: func(c *cli.Context) error {
			var d *hoststate.Document
			if c.Args().Present() {
				var err error
				if d, err = readDocument(c); err != nil {
					return err
				}
			}
			return withHost(c, func(ctx context.Context, h stateHost) error {
				list, err := h.diff(ctx, d)
				if err != nil {
					return err
				}
				if c.Bool("json") {
					for _, x := range list {
						if err := cli.PrintJSON(c.App.Writer, x); err != nil {
							return err
						}
					}
				} else {
					var w strings.Builder
					writeDifferences(&w, list)
					if _, err := io.WriteString(c.App.Writer, w.String()); err != nil {
						return err
					}
				}
				if len(list) == 0 && c.Bool("exit-code") {
					return cli.Exit(cli.ExitNothing)
				}
				return nil
			})
		},
	}
}

func changesCommand() *cli.Command {
	return &cli.Command{
		Name: "changes", Usage: "list the changes that were applied, or report on one", ArgsUsage: "[ID]",
		Description: `Without ID it lists the changes that are kept, newest first; with one it reports
what became of each action.

Example:

   opdbus changes --json | jq 'select(.result == "failed")'`,
		Flags:        stateFlags(),
		BashComplete: completeChange,
		Action: func(c *cli.Context) error {
			id, err := oneID(c)
			if err != nil {
				return err
			}
			return withHost(c, func(ctx context.Context, h stateHost) error {
				if id != "" {
					ch, err := h.change(ctx, id)
					if err != nil {
						return err
					}
					return printChange(c, ch)
				}
				list, err := h.changes(ctx)
				if err != nil {
					return err
				}
				t := cli.NewTable(c.App.Writer, "id", "result", "actions", "by", "why")
				for _, ch := range list {
					if c.Bool("json") {
						if err := cli.PrintJSON(c.App.Writer, ch); err != nil {
							return err
						}
						continue
					}
					why := ch.Reason
					if ch.Error != "" {
						why += ": " + ch.Error
					}
					t.Row(ch.ID, ch.Result, len(ch.Steps), ch.By, why)
				}
				if c.Bool("json") {
					return nil
				}
				return t.Flush()
			})
		},
	}
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
					fmt.Fprintln(c.App.Writer, p.Name)
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

func schemaCommand() *cli.Command {
	return &cli.Command{
		Name: "schema", Usage: "print the JSON Schema of a desired state",
		Description: "Prints the JSON Schema (draft 2020-12) of what plan and apply take.\n\nExample:\n\n   opdbus schema > state.schema.json",
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return cli.Usagef("schema takes no argument")
			}
			_, err := c.App.Writer.Write(hoststate.Schema())
			return err
		},
	}
}
