package opdbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// A Host is the desired state of this host behind the choke point: what
// plans, applies and takes back for the daemon and the command line alike.
type Host struct {
	Gate   *Gate
	Conn   *bus.Conn
	Engine *hoststate.Engine
	LogDir string
	Switch *hoststate.SwitchHost // nil where there is none
}

// HostOptions say what a Host works on.
type HostOptions struct {
	Dir    string // of the journal
	LogDir string
	Root   string // where /etc/NIXOS is looked for; "/" on a host
	Switch *hoststate.SwitchHost
}

// readBus makes calls of the read list, and no others.
type readBus struct{ conn *bus.Conn }

func (r readBus) Call(ctx context.Context, c bus.Call) (bus.Body, error) {
	a, err := NewCall(r.conn.Address(), c)
	if err != nil {
		return bus.Body{}, err
	}
	if !IsRead(a) {
		return bus.Body{}, fmt.Errorf("%s is not on the read list", a)
	}
	return r.conn.Call(ctx, c)
}

// NewHost returns the host behind a connection.
func NewHost(g *Gate, conn *bus.Conn, o HostOptions) *Host {
	reads := readBus{conn}
	_, err := os.Stat(o.Root + "/etc/NIXOS")
	nixos := err == nil
	watch := func(ctx context.Context, matches ...bus.Match) (hoststate.Stream, error) {
		return bus.NewWatch(ctx, conn.Address(), 0, matches...)
	}
	plugins := []hoststate.Plugin{
		&hoststate.HostnamePlugin{Bus: reads, NixOS: nixos},
		&hoststate.SystemdPlugin{Bus: reads, NixOS: nixos, Watch: watch},
		&hoststate.SnapshotsPlugin{Root: o.Root, File: filepath.Join(o.Dir, "snapshots.env"), NixOS: nixos},
		&hoststate.PackagesPlugin{Root: o.Root, NixOS: nixos},
	}
	plugins = append(plugins, hoststate.ReadOnlyPlugins(reads, nixos)...)
	if o.Switch != nil {
		o.Switch.NixOS = nixos
		plugins = append(plugins, &hoststate.OVSPlugin{Host: o.Switch}, &hoststate.OpenFlowPlugin{Host: o.Switch})
	}
	return &Host{Gate: g, Conn: conn, LogDir: o.LogDir, Switch: o.Switch, Engine: &hoststate.Engine{Store: &hoststate.Store{Dir: o.Dir}, Plugins: plugins}}
}

// actionOf makes the action that the rules know of an operation.
func (h *Host) actionOf(op hoststate.Operation) Action {
	kind := KindCall
	if op.Own {
		kind = kindOwn
	}
	return Action{Kind: kind, Bus: h.Conn.Address(), Name: op.Name, Path: op.Path, Interface: op.Interface, Member: op.Member, Signature: op.Signature, Args: op.Args}
}

// partGate is the choke point for the parts of one change.
type partGate struct {
	host   *Host
	p      Principal
	parent string
}

// Do implements hoststate.Gate.
func (g *partGate) Do(ctx context.Context, op hoststate.Operation, act func(context.Context, hoststate.Send) (json.RawMessage, error)) error {
	return g.do(ctx, op, Options{Parent: g.parent}, act)
}

// Undo implements hoststate.Gate.
func (g *partGate) Undo(ctx context.Context, op hoststate.Operation, act func(context.Context, hoststate.Send) (json.RawMessage, error)) error {
	return g.do(ctx, op, Options{Parent: g.parent, Restoring: true, undo: true}, act)
}

func (g *partGate) do(ctx context.Context, op hoststate.Operation, o Options, act func(context.Context, hoststate.Send) (json.RawMessage, error)) error {
	a, conn := g.host.actionOf(op), g.host.Conn
	_, err := g.host.Gate.do(ctx, g.p, a, o, func(ctx context.Context, out *Outcome) (json.RawMessage, error) {
		return act(ctx, func(ctx context.Context) (bus.Body, error) {
			if op.Own {
				return bus.Body{}, errors.New("no service is called for this")
			}
			owner, err := conn.Owner(ctx, a.Name, true)
			if err != nil {
				return bus.Body{}, err
			}
			out.Owner = owner
			call, err := a.call(owner)
			if err != nil {
				return bus.Body{}, err
			}
			return conn.Call(ctx, call)
		})
	})
	return err
}

// A StatePlan is a plan, and what the rules say of it for who asked.
type StatePlan struct {
	*hoststate.Plan
	Decision     Decision   `json:"decision"`  // about the whole
	Decisions    []Decision `json:"decisions"` // about each action
	Irreversible []string   `json:"irreversible"`
}

// applyAction is what somebody wants who applies a plan.
func (h *Host) applyAction(d *hoststate.Document, p *hoststate.Plan, o hoststate.ApplyOptions) Action {
	type shown struct {
		Title        string              `json:"title"`
		Do           hoststate.Operation `json:"do"`
		Irreversible string              `json:"irreversible,omitempty"`
	}
	list := make([]shown, len(p.Actions))
	for i := range p.Actions {
		list[i] = shown{p.Actions[i].Title(), p.Actions[i].Do, p.Actions[i].Irreversible}
	}
	actions, err := json.Marshal(list)
	if err != nil { // they were read from JSON
		actions = []byte("[]")
	}
	how := fmt.Sprintf(`{"confirm_seconds":%d,"partial":%t}`, int(o.Confirm/time.Second), o.Partial)
	return ownAction(h.Conn.Address(), names.BusObject, "Manager", "Apply", bus.NewBody("ssss", p.Hash, string(actions), how, string(d.Bytes())))
}

// maxShown bounds what an event, which is one line of the log, says of the
// actions of an apply, in bytes.
const maxShown = 24 << 10

// shownApply is applyAction for an event: what is done, without the rest.
func shownApply(p *hoststate.Plan, o hoststate.ApplyOptions) json.RawMessage {
	titles, size := []string{}, 0
	for i := range p.Actions {
		title := short(p.Actions[i].Title())
		if size += len(title); size > maxShown {
			titles = append(titles, fmt.Sprintf("and %d more", len(p.Actions)-i))
			break
		}
		titles = append(titles, title)
	}
	b, err := json.Marshal(map[string]any{"plan": p.Hash, "actions": titles, "irreversible": len(p.Irreversible()), "confirm_seconds": int(o.Confirm / time.Second), "partial": o.Partial})
	if err != nil {
		return json.RawMessage(`"not readable"`)
	}
	return b
}

func (h *Host) parts(p *hoststate.Plan) []Action {
	list := make([]Action, len(p.Actions))
	for i := range p.Actions {
		list[i] = h.actionOf(p.Actions[i].Do)
	}
	return list
}

// Plan compares a document with the host, and says what the rules say.
func (h *Host) Plan(ctx context.Context, p Principal, d *hoststate.Document) (*StatePlan, error) {
	plan, err := h.Engine.Plan(ctx, d)
	if err != nil {
		return nil, err
	}
	policy, parts := h.Gate.CurrentPolicy(), h.parts(plan)
	out := &StatePlan{Plan: plan, Decisions: []Decision{}, Irreversible: append([]string{}, plan.Irreversible()...)}
	out.Decision, _ = policy.withParts(p, policy.Decide(p, h.applyAction(d, plan, hoststate.ApplyOptions{})), parts)
	for _, a := range parts {
		out.Decisions = append(out.Decisions, policy.Decide(p, a))
	}
	return out, nil
}

// Apply brings the host to a document, as o.Plan says if it says something.
// An error that is a *hoststate.RolledBackError comes with the change.
func (h *Host) Apply(ctx context.Context, p Principal, d *hoststate.Document, o hoststate.ApplyOptions) (*hoststate.Change, error) {
	plan, err := h.Engine.Plan(ctx, d)
	if err != nil {
		return nil, err
	}
	if o.Plan != "" && o.Plan != plan.Hash {
		return nil, &hoststate.PlanChangedError{Want: o.Plan, Have: plan.Hash}
	}
	if len(plan.Blocked) > 0 && !o.Partial {
		return nil, &hoststate.BlockedError{List: plan.Blocked}
	}
	o.Plan, o.By = plan.Hash, p.Actor()
	if len(plan.Actions) == 0 {
		// Nothing is changed if it is what is in force already.
		f, err := h.Engine.Store.InForce()
		if err != nil {
			return nil, err
		}
		if f != nil && string(f.Document) == string(d.Bytes()) {
			return &hoststate.Change{ID: f.Change, Time: time.Now().UTC(), By: o.By, Result: hoststate.ResultNothing, Plan: plan, Steps: []hoststate.Step{}, Document: d.Bytes()}, nil
		}
	}
	var c *hoststate.Change
	_, err = h.Gate.Do(ctx, p, h.applyAction(d, plan, o), Options{Parts: h.parts(plan), Shown: shownApply(plan, o)}, func(ctx context.Context, id string) (json.RawMessage, error) {
		o.Intent = id
		var err error
		c, err = h.Engine.Apply(ctx, &partGate{h, p, id}, d, o)
		return resultOf(c), err
	})
	return c, err
}

// resultOf is a change in the outcome's event.
func resultOf(c *hoststate.Change) json.RawMessage {
	if c == nil {
		return nil
	}
	type step struct {
		Title     string `json:"title"`
		State     string `json:"state"`
		Error     string `json:"error,omitempty"`
		UndoError string `json:"undo_error,omitempty"`
	}
	steps, size := []step{}, 0
	for _, s := range c.Steps {
		x := step{short(s.Title), s.State, short(s.Error), short(s.UndoError)}
		if size += len(x.Title) + len(x.Error) + len(x.UndoError) + 60; size > maxShown {
			break
		}
		steps = append(steps, x)
	}
	b, err := json.Marshal(map[string]any{"change": c.ID, "result": c.Result, "actions": len(c.Steps), "steps": steps})
	if err != nil {
		return nil
	}
	return b
}

func short(s string) string {
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "..."
	}
	return Clean(s)
}

// Confirm makes the change that awaits it permanent.
func (h *Host) Confirm(ctx context.Context, p Principal, id string) (*hoststate.Change, error) {
	a := ownAction(h.Conn.Address(), names.BusObject, "Manager", "Confirm", bus.NewBody("s", id))
	var c *hoststate.Change
	_, err := h.Gate.Do(ctx, p, a, Options{}, func(ctx context.Context, intent string) (json.RawMessage, error) {
		var err error
		c, err = h.Engine.Confirm(ctx, &partGate{h, p, intent}, id)
		return resultOf(c), err
	})
	return c, err
}

// Rollback takes a change back. It works without the log, whose events wait in
// the spool.
func (h *Host) Rollback(ctx context.Context, p Principal, id string) (*hoststate.Change, error) {
	target, err := h.Engine.Target(id)
	if err != nil {
		return nil, err
	}
	return h.rollback(ctx, p, target, "asked for by "+p.Actor(), Options{Restoring: true})
}

func (h *Host) rollback(ctx context.Context, p Principal, target *hoststate.Change, reason string, o Options) (*hoststate.Change, error) {
	id := target.ID
	var titles []string
	for _, s := range target.Steps {
		titles = append(titles, s.Title)
	}
	o.About = strings.Join(titles, ", ") + ", of " + target.By + "; " + reason
	a := ownAction(h.Conn.Address(), names.BusObject, "Manager", "Rollback", bus.NewBody("s", id))
	var c *hoststate.Change
	_, err := h.Gate.Do(ctx, p, a, o, func(ctx context.Context, intent string) (json.RawMessage, error) {
		var err error
		if c, err = h.Engine.Rollback(ctx, &partGate{h, p, intent}, id, reason); err == nil && c.Result == hoststate.ResultFailed {
			err = &hoststate.RolledBackError{Change: c, Err: errors.New("see its steps")}
		}
		return resultOf(c), err
	})
	return c, err
}

// EntranceSelf is the entrance of what the daemon does by itself: going back.
const EntranceSelf = "self"

// Recover takes back a change that was cut off, or that nobody confirmed in
// time. It returns the change, nil if there is none, and else how long the one
// that awaits a confirmation may still have it.
func (h *Host) Recover(ctx context.Context) (c *hoststate.Change, left time.Duration, err error) {
	due, left, err := h.Engine.Due()
	if due == nil || err != nil {
		return nil, left, err
	}
	p := Self("", false)
	p.Entrance = EntranceSelf
	if due.Result == hoststate.ResultCommitting {
		if c, err = h.Engine.Finish(ctx); err == nil {
			h.resolve(ctx, p, due, true)
			return c, 0, nil
		}
		// What can't be made permanent goes back.
	}
	reason := "nobody confirmed it in time"
	if due.Result != hoststate.ResultPending {
		reason = "the process that was at it ended"
	}
	c, err = h.rollback(ctx, p, due, reason, Options{Restoring: true, undo: true})
	if due.Result != hoststate.ResultPending {
		h.resolve(ctx, p, due, false)
	}
	return c, 0, err
}

// resolve gives the intents of a change that was cut off their outcomes.
func (h *Host) resolve(ctx context.Context, p Principal, c *hoststate.Change, kept bool) {
	if h.LogDir == "" || h.Gate.Journal == nil {
		return
	}
	now := time.Now()
	open, err := Unresolved(ctx, os.DirFS(h.LogDir), c.Time.Add(-time.Minute), now)
	if err != nil {
		return // doctor will show them
	}
	what := "the process ended before its outcome was known; the change was taken back"
	if kept {
		what = "the process ended before its outcome was known; the change was made permanent"
	}
	for _, o := range open {
		if o.ID != c.Intent && o.Parent != c.Intent {
			continue
		}
		data := map[string]any{"id": o.ID, "ok": kept, "change": c.ID}
		if kept {
			data["note"] = what
		} else {
			data["error"], data["unknown"] = what, true
		}
		h.Gate.Journal.Record(ctx, eventLine(event{Time: now, Source: "opdbus", Type: EventOutcome, Subject: names.BusName, Severity: "warning", Actor: p.Actor(),
			Message: o.Message + ": cut off", Data: data}))
	}
}

// Diff compares a document, or if it is empty the one in force, with the host.
func (h *Host) Diff(ctx context.Context, text string) ([]hoststate.Difference, error) {
	if text == "" {
		f, err := h.Engine.Store.InForce()
		if err != nil {
			return nil, err
		}
		if f == nil {
			return nil, &hoststate.NoChangeError{Reason: "no desired state has been applied: say which one is meant"}
		}
		text = string(f.Document)
	}
	d, err := hoststate.Parse([]byte(text))
	if err != nil {
		return nil, err
	}
	p, err := h.Engine.Plan(ctx, d)
	if err != nil {
		return nil, err
	}
	return p.Differences, nil
}
