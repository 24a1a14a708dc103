package opdbus

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// openHost makes the host of the daemon's connection.
func (d *Daemon) openHost() {
	d.host = NewHost(d.Gate, d.server.Conn, HostOptions{Dir: d.StateDir, LogDir: d.LogDir, Root: d.Root, Switch: d.Switch})
	d.host.Engine.Log = d.Logger
	d.host.Engine.Tell = d.tell
	d.settled = make(chan struct{}, 1)
	list, err := d.host.Engine.Store.Changes()
	if err != nil {
		d.Logger.Error("the journal of the desired state can't be read", "dir", d.StateDir, "error", err)
	}
	d.setLast(list...)
}

// setLast remembers the latest of changes, newest first.
func (d *Daemon) setLast(changes ...*hoststate.Change) {
	last := dbusjson.Dict{}
	if len(changes) > 0 {
		c := changes[0]
		last = dbusjson.Dict{{Key: "id", Value: variant("s", c.ID)}, {Key: "time", Value: variant("s", c.Time.Format(time.RFC3339Nano))},
			{Key: "result", Value: variant("s", c.Result)}, {Key: "by", Value: variant("s", c.By)}, {Key: "plan", Value: variant("s", c.Plan.Hash)}}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = last
}

func (d *Daemon) lastApply() dbusjson.Dict {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last == nil {
		return dbusjson.Dict{}
	}
	return d.last
}

// tell has the bus know of a change's progress.
func (d *Daemon) tell(c hoststate.Change, step int) {
	d.steps.Add(1)
	if step >= 0 {
		a := c.Plan.Actions[step]
		d.emit("Manager", "StateChanged", bus.NewBody("sssss", c.ID, a.Plugin, a.Object, a.Verb, c.Steps[step].State))
		for _, bridge := range hoststate.FlowsOf(&a) {
			d.emitAt(hoststate.OpenFlowPath, "Network.OpenFlow", "FlowsChanged", bus.NewBody("s", bridge))
		}
		return
	}
	d.setLast(&c)
	select {
	case d.settled <- struct{}{}:
	default:
	}
	d.emitChanged(names.BusObject, "Manager", "LastApply", variant("a{sv}", d.lastApply()))
	switch c.Result {
	case hoststate.ResultPending:
		d.emit("Manager", "Applied", bus.NewBody("sss", c.ID, c.Plan.Hash, c.ConfirmBy.Format(time.RFC3339)))
	case hoststate.ResultApplied:
		d.emit("Manager", "Applied", bus.NewBody("sss", c.ID, c.Plan.Hash, ""))
	case hoststate.ResultRolledBack, hoststate.ResultFailed:
		reason := c.Reason
		if c.Error != "" {
			reason += ": " + c.Error
		}
		d.emit("Manager", "RolledBack", bus.NewBody("sss", c.ID, c.Result, Clean(reason)))
	}
}

const (
	recoverEvery = 250 * time.Millisecond // how often an overdue confirmation is looked for
	recoverAgain = 30 * time.Second       // after one that failed
)

// keepState takes back what a daemon before this one left half done, and what
// nobody confirms in time.
func (d *Daemon) keepState(ctx context.Context) {
	for wait := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-d.server.Done():
			return
		case <-time.After(wait):
		}
		wait = recoverEvery
		if _, err := os.Stat(d.host.Engine.Store.CurrentFile()); err != nil {
			continue
		}
		d.reload()
		c, _, err := d.host.Recover(ctx)
		if err != nil {
			d.Logger.Error("a change can't be taken back in full", "error", err)
			wait = recoverAgain
		}
		if c != nil {
			d.Logger.Warn("a change was taken back", "change", c.ID, "result", c.Result, "reason", c.Reason)
		}
	}
}

// plannedDocuments remembers the documents of the latest plans, so that who
// applies one need not send it again.
type plannedDocuments struct {
	hashes    []string // oldest first
	documents map[string]*hoststate.Document
	bytes     int
}

const (
	maxPlanned      = 64
	maxPlannedBytes = 16 << 20
)

func (p *plannedDocuments) add(hash string, d *hoststate.Document) {
	if p.documents == nil {
		p.documents = map[string]*hoststate.Document{}
	}
	if _, known := p.documents[hash]; known {
		p.hashes = slices.DeleteFunc(p.hashes, func(h string) bool { return h == hash })
	} else {
		p.bytes += len(d.Bytes())
	}
	p.documents[hash] = d
	p.hashes = append(p.hashes, hash)
	for len(p.hashes) > 1 && (len(p.hashes) > maxPlanned || p.bytes > maxPlannedBytes) {
		p.bytes -= len(p.documents[p.hashes[0]].Bytes())
		delete(p.documents, p.hashes[0])
		p.hashes = p.hashes[1:]
	}
}

func jsonResult(v any) ([]any, error) {
	text, err := json.Marshal(v)
	return []any{string(text)}, err
}

func (d *Daemon) plan(ctx context.Context, p Principal, in bus.Incoming) ([]any, error) {
	doc, err := hoststate.Parse([]byte(in.Args.Values[0].(string)))
	if err != nil {
		return nil, err
	}
	plan, err := d.host.Plan(ctx, p, doc)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.planned.add(plan.Hash, doc)
	d.mu.Unlock()
	return jsonResult(plan)
}

// applyOptions reads the argument of Apply.
func applyOptions(in dbusjson.Dict) (o hoststate.ApplyOptions, err error) {
	for _, e := range in {
		v := e.Value.(dbusjson.Variant)
		switch x := v.Value.(type) {
		case uint32:
			if e.Key == "confirm_seconds" {
				if o.Confirm = time.Duration(x) * time.Second; x == 0 || o.Confirm > hoststate.MaxConfirm {
					return o, unknown("InvalidArgs", "confirm_seconds %d: want 1 to %d", x, hoststate.MaxConfirm/time.Second)
				}
				continue
			}
		case bool:
			if e.Key == "partial" {
				o.Partial = x
				continue
			}
		}
		return o, unknown("InvalidArgs", "option %.64q of type %s is not known: there are confirm_seconds (u) and partial (b)", e.Key, v.Type)
	}
	return o, nil
}

func (d *Daemon) apply(ctx context.Context, p Principal, in bus.Incoming) ([]any, error) {
	text, hash := in.Args.Values[0].(string), in.Args.Values[1].(string)
	o, err := applyOptions(in.Args.Values[2].(dbusjson.Dict))
	if err != nil {
		return nil, err
	}
	o.Plan = hash
	var doc *hoststate.Document
	if text == "" {
		d.mu.Lock()
		doc = d.planned.documents[hash]
		d.mu.Unlock()
		if doc == nil {
			return nil, &bus.Error{Name: "org.freedesktop.opdbus.Error.PlanChanged", Message: "this daemon knows no such plan any more: plan again"}
		}
	} else if doc, err = hoststate.Parse([]byte(text)); err != nil {
		return nil, err
	}
	c, err := d.host.Apply(ctx, p, doc, o)
	if err != nil {
		return nil, err
	}
	return jsonResult(c)
}

func (d *Daemon) confirm(ctx context.Context, p Principal, in bus.Incoming) ([]any, error) {
	c, err := d.host.Confirm(ctx, p, in.Args.Values[0].(string))
	if err != nil {
		return nil, err
	}
	return jsonResult(c)
}

func (d *Daemon) rollback(ctx context.Context, p Principal, in bus.Incoming) ([]any, error) {
	c, err := d.host.Rollback(ctx, p, in.Args.Values[0].(string))
	if err != nil {
		return nil, err
	}
	return jsonResult(c)
}

func (d *Daemon) diff(ctx context.Context, _ Principal, in bus.Incoming) ([]any, error) {
	list, err := d.host.Diff(ctx, in.Args.Values[0].(string))
	if err != nil {
		return nil, err
	}
	return jsonResult(list)
}

func (d *Daemon) readState(ctx context.Context, _ Principal, in bus.Incoming) ([]any, error) {
	var list []string
	for _, n := range in.Args.Values[0].([]any) {
		list = append(list, n.(string))
	}
	state, err := d.host.Engine.Read(ctx, list)
	if err != nil {
		return nil, err
	}
	return jsonResult(state)
}

func (d *Daemon) listPlugins(ctx context.Context, _ Principal, _ bus.Incoming) ([]any, error) {
	out := []any{}
	for _, a := range d.host.Engine.List(ctx) {
		text, err := json.Marshal(a)
		if err != nil {
			return nil, err
		}
		out = append(out, string(text))
	}
	return []any{out}, nil
}

func (d *Daemon) changes(context.Context, Principal, bus.Incoming) ([]any, error) {
	list, err := d.host.Engine.Store.Changes()
	if err != nil {
		return nil, err
	}
	out := []any{}
	for _, c := range list {
		c.Plan, c.Document, c.InForce = nil, nil, nil
		text, err := json.Marshal(c)
		if err != nil {
			return nil, err
		}
		out = append(out, string(text))
	}
	return []any{out}, nil
}

func (d *Daemon) getChange(_ context.Context, _ Principal, in bus.Incoming) ([]any, error) {
	c, err := d.host.Engine.Store.Get(in.Args.Values[0].(string))
	if err != nil {
		return nil, err
	}
	return jsonResult(c)
}
