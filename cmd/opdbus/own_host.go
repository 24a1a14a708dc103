package main

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

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
