package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

// temporary is EX_TEMPFAIL.
const temporary = 75

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
