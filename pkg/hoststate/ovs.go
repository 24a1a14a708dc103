package hoststate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/ovs"
)

// OpenFlow is the part of a document about flows of bridges whose other
// settings it leaves alone.
type OpenFlow struct {
	Bridges map[string]ovs.Flows `json:"bridges" doc:"flows, by bridge: one that ovs names, or that was set up before" key:"ifname" required:"true"`
}

const (
	ovsPlugin      = "ovs"
	openflowPlugin = "openflow"

	networkOVS      = names.BusInterface + ".Network.OVS"
	networkOpenFlow = names.BusInterface + ".Network.OpenFlow"
	networkPath     = names.BusObject + "/network"

	// OpenFlowPath is the object of flows.
	OpenFlowPath = networkPath + "/openflow"
)

// A Switch is what this package needs of *ovs.Setup.
type Switch interface {
	// Survey reads what is and says what Apply would change.
	Survey(ctx context.Context, c *ovs.Config) (*ovs.Survey, error)
	// Apply brings the switch to c, in one transaction that is guarded by what
	// was read.
	Apply(ctx context.Context, c *ovs.Config, o ovs.ApplyOptions) (*ovs.Outcome, error)
	// Confirm keeps the change id that awaits it, and returns its id; "" is
	// whichever awaits it.
	Confirm(ctx context.Context, id string) (string, error)
	// Undo brings back what a checkpoint remembers, and the configuration that
	// was confirmed before.
	Undo(ctx context.Context, point *ovs.Checkpoint, before *ovs.Confirmed) error
	// InForce returns the configuration that is in force, fallback if none is.
	InForce(fallback *ovs.Config) (*ovs.Config, error)
	// Close ends the connection.
	Close()
}

// A SwitchHost is the switch of this host.
type SwitchHost struct {
	// Open returns the switch, for one goroutine, to be closed.
	Open  func() Switch
	Store *ovs.Store
	// Config is the file of the desired state that counts while nothing was
	// ever confirmed.
	Config string
	NixOS  bool
}

func checkOVS(p *Plugins) error {
	if p.OVS != nil {
		// What tags can't say, ovs.Parse does.
		if _, err := ovs.Parse(mustJSON(p.OVS)); err != nil {
			return under("plugins.ovs", err)
		}
	}
	if p.OpenFlow == nil {
		return nil
	}
	for _, name := range keys(p.OpenFlow.Bridges) {
		path := "plugins.openflow.bridges." + name
		f := p.OpenFlow.Bridges[name]
		if p.OVS != nil {
			b, named := p.OVS.Bridges[name]
			if !named {
				return wrong(path, "plugins.ovs does not name this bridge, and so removes it")
			}
			if b.Flows != nil {
				return wrong(path, "plugins.ovs has flows for this bridge too")
			}
		}
		// As a bridge with these flows, next to those that it wants to be isolated from.
		bridges := map[string]ovs.Bridge{name: {Flows: &f}}
		for _, other := range f.Isolate {
			if _, there := bridges[other]; !there {
				bridges[other] = ovs.Bridge{}
			}
		}
		if _, err := ovs.Parse(mustJSON(ovs.Config{Bridges: bridges})); err != nil {
			return under("plugins.openflow", err)
		}
	}
	return nil
}

// fallback is the configuration of the file, nil if there is none.
func (h *SwitchHost) fallback() (*ovs.Config, error) {
	b, err := os.ReadFile(h.Config)
	if errors.Is(err, fs.ErrNotExist) || h.Config == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c, err := ovs.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.Config, err)
	}
	return c, nil
}

// InForce returns the configuration that counts now, nil if none does.
func (h *SwitchHost) InForce(s Switch) (*ovs.Config, error) {
	f, err := h.fallback()
	if err != nil {
		return nil, err
	}
	return s.InForce(f)
}

// nixOwns says whether Nix wrote the file of the desired state.
func (h *SwitchHost) nixOwns() bool {
	if !h.NixOS {
		return false
	}
	path, err := filepath.EvalSymlinks(h.Config)
	return err == nil && strings.HasPrefix(path, "/nix/store/")
}

// target is the configuration that a document wants, given the one in force:
// flows that it does not name stay.
func (h *SwitchHost) target(d *Document, inForce *ovs.Config) (*ovs.Config, error) {
	c := &ovs.Config{Bridges: map[string]ovs.Bridge{}}
	switch {
	case d.Plugins.OVS != nil:
		*c = *d.Plugins.OVS
		c.SchemaRef = ""
	case inForce != nil:
		*c = *inForce
	}
	c.Bridges = maps.Clone(c.Bridges)
	if d.Plugins.OVS != nil && inForce != nil {
		for name, b := range c.Bridges {
			if before, there := inForce.Bridges[name]; there && b.Flows == nil {
				b.Flows = before.Flows
				c.Bridges[name] = b
			}
		}
	}
	if d.Plugins.OpenFlow != nil {
		for _, name := range keys(d.Plugins.OpenFlow.Bridges) {
			b, there := c.Bridges[name]
			if !there {
				err := wrong("plugins.openflow.bridges."+name, "this bridge was not set up here")
				err.Advice = "name it in plugins.ovs too; set up are: " + strings.Join(keys(c.Bridges), ", ")
				return nil, err
			}
			f := d.Plugins.OpenFlow.Bridges[name]
			b.Flows = &f
			c.Bridges[name] = b
		}
	}
	checked, err := ovs.Parse(mustJSON(c))
	if err != nil {
		return nil, under("plugins.ovs", err)
	}
	return checked, nil
}

// planSwitch adds what a document wants of the switch.
func (h *SwitchHost) plan(ctx context.Context, plugin string, d *Document, p *Plan) error {
	s := h.Open()
	defer s.Close()
	inForce, err := h.InForce(s)
	if err != nil {
		return err
	}
	want, err := h.target(d, inForce)
	if err != nil {
		return err
	}
	v, err := s.Survey(ctx, want)
	if err != nil {
		return err
	}
	basis := map[string]any{"changes": v.Plan.Changes, "foreign": v.Plan.Foreign, "in_force": ""}
	if inForce != nil {
		basis["in_force"] = inForce.Hash()
	}
	p.Basis[plugin] = mustJSON(basis)
	p.Warnings = append(p.Warnings, v.Plan.Warnings...)
	for _, c := range v.Plan.Changes {
		path := c.Kind + " " + c.Name
		if len(c.Fields) == 0 {
			p.differs(plugin, path, nil, c.Action)
		}
		for _, f := range keys(c.Fields) {
			p.differs(plugin, path+" "+f, c.Fields[f].From, c.Fields[f].To)
		}
	}
	confirmed := inForce != nil && inForce.Hash() == want.Hash()
	if v.Plan.Empty() && confirmed {
		return nil
	}
	if h.nixOwns() {
		p.block(Blocked{Plugin: plugin, Path: "bridges", Reason: "Nix owns " + h.Config,
			Nix: `environment.etc."ghostbridge/ovs.json".text = ` + nixString(string(mustJSON(want))) + ";"})
		return nil
	}
	a := Action{Plugin: plugin, Object: objectOf(v.Plan.Changes), Verb: "set", Before: mustJSON(basis["in_force"]), After: mustJSON(v.Plan.Changes)}
	a.Do = operation(names.BusName, networkPath, networkOVS, "Apply", "ss", string(mustJSON(want)), string(mustJSON(v.Plan.Changes)))
	if plugin == openflowPlugin {
		a.Do = operation(names.BusName, OpenFlowPath, networkOpenFlow, "Apply", "ss", string(mustJSON(d.Plugins.OpenFlow)), string(mustJSON(v.Plan.Changes)))
		a.Object = "flows"
	}
	a.Do.Own = true
	undo := operation(names.BusName, a.Do.Path, a.Do.Interface, "Restore", "s", string(mustJSON(inForce)))
	undo.Own = true
	a.Undo = &undo
	p.Actions = append(p.Actions, a)
	return nil
}

// objectOf names the bridges that changes are about.
func objectOf(changes []ovs.Change) string {
	var bridges []string
	for _, c := range changes {
		name := c.Bridge
		if c.Kind == "bridge" || c.Kind == "flows" {
			name = c.Name
		}
		if name != "" && !slices.Contains(bridges, name) {
			bridges = append(bridges, name)
		}
	}
	switch len(bridges) {
	case 0:
		return "the switch"
	case 1:
		return "bridge " + bridges[0]
	}
	slices.Sort(bridges)
	return "bridges " + strings.Join(bridges, ", ")
}

// FlowsOf returns the bridges whose flows an action changes.
func FlowsOf(a *Action) (bridges []string) {
	var changes []ovs.Change
	if a.Plugin != ovsPlugin && a.Plugin != openflowPlugin || json.Unmarshal(a.After, &changes) != nil {
		return nil
	}
	for _, c := range changes {
		if c.Kind == "flows" {
			bridges = append(bridges, c.Name)
		}
	}
	return bridges
}

// keptSwitch is what taking a change of the switch back needs.
type keptSwitch struct {
	Before *ovs.Confirmed  `json:"before"` // confirmed before the change
	Hash   string          `json:"hash"`   // of the new configuration
	ID     string          `json:"id,omitempty"`
	Point  *ovs.Checkpoint `json:"point,omitempty"`
}

// Times within which the switch takes a change back by itself: beyond the time
// in which the whole is to be confirmed, and where nobody need confirm, in case
// the process that is at it ends and no other comes.
const (
	switchGrace = 30 * time.Second
	switchAlone = 15 * time.Minute
	switchProbe = 20 * time.Second
)

func (h *SwitchHost) do(ctx context.Context, g Gate, a *Action, o DoOptions) (json.RawMessage, error) {
	s := h.Open()
	defer s.Close()
	want, err := h.wanted(a, s)
	if err != nil {
		return nil, err
	}
	v, err := s.Survey(ctx, want)
	if err != nil {
		return nil, err
	}
	if now := mustJSON(v.Plan.Changes); string(now) != string(a.After) {
		return nil, &MeanwhileError{a.Object, string(now), string(a.After)}
	}
	kept := keptSwitch{Hash: want.Hash()}
	if kept.Before, err = h.Store.Confirmed(); err != nil {
		return nil, err
	}
	if err := o.Keep(mustJSON(kept)); err != nil {
		return nil, err
	}
	options := ovs.ApplyOptions{ProbeTime: switchProbe}
	if !v.Plan.Empty() {
		options.ConfirmTimeout = switchAlone
		if !o.Deadline.IsZero() {
			options.ConfirmTimeout = time.Until(o.Deadline) + switchGrace
		}
	}
	err = g.Do(ctx, a.Do, func(ctx context.Context, _ Send) (json.RawMessage, error) {
		out, err := s.Apply(ctx, want, options)
		if err != nil {
			return nil, err
		}
		if kept.ID = out.ID; out.ID != "" {
			if kept.Point, err = h.Store.Load(out.ID); err != nil {
				return nil, err
			}
		}
		return mustJSON(map[string]any{"changed": out.Changed, "id": out.ID, "hash": want.Hash()}), nil
	})
	return mustJSON(kept), err
}

// wanted returns the configuration of an action.
func (h *SwitchHost) wanted(a *Action, s Switch) (*ovs.Config, error) {
	var args []string
	if err := json.Unmarshal(a.Do.Args, &args); err != nil || len(args) != 2 {
		return nil, errors.New("the action has not two arguments")
	}
	if a.Plugin == ovsPlugin {
		return ovs.Parse([]byte(args[0]))
	}
	flows := new(OpenFlow)
	if err := json.Unmarshal([]byte(args[0]), flows); err != nil {
		return nil, err
	}
	inForce, err := h.InForce(s)
	if err != nil {
		return nil, err
	}
	return h.target(&Document{Version: 1, Plugins: Plugins{OpenFlow: flows}}, inForce)
}

func (h *SwitchHost) undo(ctx context.Context, g Gate, a *Action, raw json.RawMessage) error {
	if raw == nil {
		return nil // it had not begun
	}
	var kept keptSwitch
	if err := json.Unmarshal(raw, &kept); err != nil {
		return err
	}
	s := h.Open()
	defer s.Close()
	return g.Undo(ctx, *a.Undo, func(ctx context.Context, _ Send) (json.RawMessage, error) {
		if kept.Point == nil {
			// The process may have ended before it knew the checkpoint.
			id, err := h.Store.Pending()
			if err != nil {
				return nil, err
			}
			if id != "" {
				point, err := h.Store.Load(id)
				if err != nil {
					return nil, err
				}
				if point.Hash == kept.Hash {
					kept.Point = point
				}
			}
		}
		return nil, s.Undo(ctx, kept.Point, kept.Before)
	})
}

func (h *SwitchHost) commit(ctx context.Context, raw json.RawMessage) error {
	var kept keptSwitch
	if err := json.Unmarshal(raw, &kept); err != nil || kept.ID == "" {
		return err
	}
	s := h.Open()
	defer s.Close()
	_, err := s.Confirm(ctx, kept.ID)
	if errors.Is(err, ovs.ErrNothingPending) {
		// Somebody may have confirmed it with gb-ovs-setup.
		last, lerr := h.Store.Confirmed()
		if lerr == nil && last != nil && last.Hash == kept.Hash {
			return nil
		}
		return errors.Join(errors.New("the switch has taken its change back"), lerr)
	}
	return err
}

// OVSPlugin sets up bridges, as gb-ovs-setup does.
type OVSPlugin struct{ Host *SwitchHost }

// About implements Plugin.
func (o *OVSPlugin) About() About {
	return About{Name: ovsPlugin, Doc: "Open vSwitch: bridges, ports, offload, flows, as gb-ovs-setup", After: []string{hostnamePlugin}}
}

// Available implements Plugin.
func (o *OVSPlugin) Available(ctx context.Context) string { return o.Host.unavailable(ctx) }

func (h *SwitchHost) unavailable(ctx context.Context) string {
	s := h.Open()
	defer s.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var err error
	if r, ok := s.(interface {
		Bridges(ctx context.Context) ([]string, error)
	}); ok {
		_, err = r.Bridges(ctx) // anybody may ask: it is to be cheap
	} else {
		_, err = s.Survey(ctx, &ovs.Config{Bridges: map[string]ovs.Bridge{}})
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// Read implements Plugin: the configuration in force.
func (o *OVSPlugin) Read(context.Context, *Document) (any, error) {
	s := o.Host.Open()
	defer s.Close()
	return o.Host.InForce(s)
}

// Plan implements Plugin.
func (o *OVSPlugin) Plan(ctx context.Context, d *Document, p *Plan) error {
	if d.Plugins.OVS == nil {
		return nil
	}
	return o.Host.plan(ctx, ovsPlugin, d, p)
}

// Do implements Plugin.
func (o *OVSPlugin) Do(ctx context.Context, g Gate, a *Action, opts DoOptions) (json.RawMessage, error) {
	return o.Host.do(ctx, g, a, opts)
}

// Undo implements Plugin.
func (o *OVSPlugin) Undo(ctx context.Context, g Gate, a *Action, kept json.RawMessage) error {
	return o.Host.undo(ctx, g, a, kept)
}

// Commit implements committer.
func (o *OVSPlugin) Commit(ctx context.Context, _ *Action, kept json.RawMessage) error {
	return o.Host.commit(ctx, kept)
}

// OpenFlowPlugin sets flows of bridges that are set up already. A document that
// has bridges as well sets both at once, in the ovs plugin's action.
type OpenFlowPlugin struct{ Host *SwitchHost }

// About implements Plugin.
func (o *OpenFlowPlugin) About() About {
	return About{Name: openflowPlugin, Doc: "flows of bridges", After: []string{ovsPlugin}}
}

// Available implements Plugin.
func (o *OpenFlowPlugin) Available(ctx context.Context) string { return o.Host.unavailable(ctx) }

// Read implements Plugin: the flows that are in force.
func (o *OpenFlowPlugin) Read(context.Context, *Document) (any, error) {
	s := o.Host.Open()
	defer s.Close()
	c, err := o.Host.InForce(s)
	out := &OpenFlow{Bridges: map[string]ovs.Flows{}}
	if err != nil || c == nil {
		return out, err
	}
	for name, b := range c.Bridges {
		if b.Flows != nil {
			out.Bridges[name] = *b.Flows
		}
	}
	return out, nil
}

// Plan implements Plugin.
func (o *OpenFlowPlugin) Plan(ctx context.Context, d *Document, p *Plan) error {
	if d.Plugins.OpenFlow == nil || d.Plugins.OVS != nil {
		return nil
	}
	return o.Host.plan(ctx, openflowPlugin, d, p)
}

// Do implements Plugin.
func (o *OpenFlowPlugin) Do(ctx context.Context, g Gate, a *Action, opts DoOptions) (json.RawMessage, error) {
	return o.Host.do(ctx, g, a, opts)
}

// Undo implements Plugin.
func (o *OpenFlowPlugin) Undo(ctx context.Context, g Gate, a *Action, kept json.RawMessage) error {
	return o.Host.undo(ctx, g, a, kept)
}

// Commit implements committer.
func (o *OpenFlowPlugin) Commit(ctx context.Context, _ *Action, kept json.RawMessage) error {
	return o.Host.commit(ctx, kept)
}

// A NotSetUpError says that a bridge is not one that was set up here.
type NotSetUpError struct {
	Bridge string
	Known  []string
}

func (e *NotSetUpError) Error() string {
	return fmt.Sprintf("bridge %.64q was not set up here", e.Bridge)
}

// Hint says what to do.
func (e *NotSetUpError) Hint() string {
	if len(e.Known) == 0 {
		return "none was: gb-ovs-setup apply, or opdbus apply with plugins.ovs"
	}
	return "set up are: " + strings.Join(e.Known, ", ")
}

// DBusName is the error's name on the bus.
func (e *NotSetUpError) DBusName() string { return "org.freedesktop.opdbus.Error.NoBridge" }

// EditFlows changes the flows of one bridge, or of all that were set up if
// bridge is empty, and nothing else. It says of which bridges it has changed
// them. The flows of each are replaced at once.
func (h *SwitchHost) EditFlows(ctx context.Context, bridge string, edit func(*ovs.Flows) error) (changed []string, err error) {
	s := h.Open()
	defer s.Close()
	c, err := h.InForce(s)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, &NotSetUpError{Bridge: bridge}
	}
	if _, known := c.Bridges[bridge]; !known && bridge != "" {
		return nil, &NotSetUpError{bridge, keys(c.Bridges)}
	}
	if h.nixOwns() {
		return nil, &BlockedError{[]Blocked{{Plugin: openflowPlugin, Path: "bridges", Reason: "Nix owns " + h.Config, Nix: "the bridge's flows are in what makes " + h.Config}}}
	}
	next := *c
	next.Bridges = maps.Clone(c.Bridges)
	for _, name := range keys(c.Bridges) {
		if bridge != "" && name != bridge {
			continue
		}
		b := c.Bridges[name]
		f := ovs.Flows{}
		if b.Flows != nil {
			f = *b.Flows
			f.Rules = slices.Clone(f.Rules)
		}
		if err := edit(&f); err != nil {
			return nil, err
		}
		if b.Flows == nil || string(mustJSON(*b.Flows)) != string(mustJSON(f)) {
			changed = append(changed, name)
		}
		b.Flows = &f
		next.Bridges[name] = b
	}
	checked, err := ovs.Parse(mustJSON(next))
	if err != nil {
		return nil, under("", err)
	}
	v, err := s.Survey(ctx, checked)
	if err != nil {
		return nil, err
	}
	for _, ch := range v.Plan.Changes {
		if ch.Kind != "flows" && ch.Kind != "bridge" {
			return nil, fmt.Errorf("the switch is not as it should be: %s %s; opdbus diff, gb-ovs-setup plan show it", ch.Kind, ch.Name)
		}
		if ch.Kind == "flows" && !slices.Contains(changed, ch.Name) {
			changed = append(changed, ch.Name)
		}
	}
	if _, err := s.Apply(ctx, checked, ovs.ApplyOptions{}); err != nil {
		return nil, err
	}
	return changed, nil
}
