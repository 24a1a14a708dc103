package opdbus

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/ovs"
)

// openflowInterface is the flows of the host's bridges. A bridge's flows are
// replaced at once, and stay over a restart of the switch, since they become
// part of what is in force.
func openflowInterface() iface {
	bridge := arg("bridge", "s", "Name of a bridge that was set up here.")
	changed := args(arg("changed", "b", "False if it was so already."))
	return iface{
		path: hoststate.OpenFlowPath, name: names.BusInterface + ".Network.OpenFlow",
		doc: "Flows of the host's bridges: those that were set up by gb-ovs-setup or Manager.Apply. Their flows are replaced at once; flows of others stay.",
		methods: []method{
			{Method: dbusjson.Method{Name: "ApplyDefaultRules", Doc: "Gives a bridge the default set: ARP, DHCP, neighbour discovery and SSH pass, other broadcast and multicast is limited, the rest is switched. Further rules stay.",
				In: args(bridge), Out: changed}, kind: changing, do: (*Daemon).applyDefaultRules},
			{Method: dbusjson.Method{Name: "AddFlowRule", Doc: "Adds a flow.", In: args(bridge, arg("rule", "s", "As ovs-ofctl(8) writes flows, without cookie: priority=100,tcp,tp_dst=80,actions=drop.")), Out: changed},
				kind: changing, do: (*Daemon).addFlowRule},
			{Method: dbusjson.Method{Name: "RemoveFlowRule", Doc: "Removes a flow that AddFlowRule has added, or that the desired state names.", In: args(bridge, arg("rule", "s", "As it was added.")), Out: changed},
				kind: changing, do: (*Daemon).removeFlowRule},
			{Method: dbusjson.Method{Name: "DumpFlows", Doc: "All flows of a bridge, those of others too.", In: args(arg("bridge", "s", "Any bridge of the switch.")), Out: args(arg("flows", "as", "As ovs-ofctl dump-flows prints them."))},
				kind: sensitive, do: (*Daemon).dumpFlows},
			{Method: dbusjson.Method{Name: "ClearFlows", Doc: "Removes all flows of ours, those that isolate the bridge too; it then switches as one without flows.", In: args(bridge), Out: changed},
				kind: changing, do: (*Daemon).clearFlows},
			{Method: dbusjson.Method{Name: "ApplyAllDefaultRules", Doc: "Gives every bridge that was set up here the default set.", Out: changed}, kind: changing, do: (*Daemon).applyAllDefaultRules},
			{Method: dbusjson.Method{Name: "ListBridges", Doc: "All bridges of the switch, those of others too.", Out: args(arg("bridges", "as", ""))}, kind: reading, do: (*Daemon).listBridges},
			{Method: dbusjson.Method{Name: "GetBridgeConfig", Doc: "What a bridge should be.", In: args(arg("bridge", "s", "Any bridge of the switch.")),
				Out: args(arg("config", "s", "JSON: bridge, managed (whether it was set up here), config (as in gb-ovs-setup's file; null if it was not)."))}, kind: sensitive, do: (*Daemon).getBridgeConfig},
		},
		signals: []dbusjson.Signal{{Name: "FlowsChanged", Doc: "The flows of a bridge have been changed through this daemon.", Args: args(arg("bridge", "s", ""))}},
	}
}

var errNoSwitch = &bus.Error{Name: "org.freedesktop.DBus.Error.NotSupported", Message: "this daemon was started without a switch"}

// editFlows has the caller change flows, of bridge or of all bridges.
func (d *Daemon) editFlows(ctx context.Context, p Principal, in bus.Incoming, bridge string, edit func(*ovs.Flows) error) ([]any, error) {
	if d.host.Switch == nil {
		return nil, errNoSwitch
	}
	a := ownAction(d.server.Address(), in.Path, "Network.OpenFlow", in.Member, in.Args)
	var changed []string
	_, err := d.Gate.Do(ctx, p, a, Options{}, func(ctx context.Context, _ string) (json.RawMessage, error) {
		var err error
		if changed, err = d.host.Switch.EditFlows(ctx, bridge, edit); err != nil {
			return nil, err
		}
		return json.Marshal(map[string]any{"changed": changed})
	})
	for _, name := range changed {
		d.emitAt(hoststate.OpenFlowPath, "Network.OpenFlow", "FlowsChanged", bus.NewBody("s", name))
	}
	if err != nil {
		return nil, err
	}
	return []any{len(changed) > 0}, nil
}

func withDefaults(f *ovs.Flows) error {
	f.Default = true
	return nil
}

func (d *Daemon) applyDefaultRules(ctx context.Context, p Principal, in bus.Incoming) ([]any, error) {
	return d.editFlows(ctx, p, in, bridgeOf(in), withDefaults)
}

func (d *Daemon) applyAllDefaultRules(ctx context.Context, p Principal, in bus.Incoming) ([]any, error) {
	return d.editFlows(ctx, p, in, "", withDefaults)
}

// bridgeOf is the first argument; an empty one names no bridge, and not all.
func bridgeOf(in bus.Incoming) string {
	if name := in.Args.Values[0].(string); name != "" {
		return name
	}
	return "\x00"
}

func (d *Daemon) addFlowRule(ctx context.Context, p Principal, in bus.Incoming) ([]any, error) {
	rule := in.Args.Values[1].(string)
	if err := ovs.CheckRule(rule); err != nil {
		return nil, unknown("InvalidArgs", "rule %s: %v", Clean(rule), err)
	}
	return d.editFlows(ctx, p, in, bridgeOf(in), func(f *ovs.Flows) error {
		if !slices.ContainsFunc(f.Rules, func(r string) bool { return ovs.SameRule(r, rule) }) {
			f.Rules = append(f.Rules, rule)
		}
		return nil
	})
}

func (d *Daemon) removeFlowRule(ctx context.Context, p Principal, in bus.Incoming) ([]any, error) {
	rule := in.Args.Values[1].(string)
	if err := ovs.CheckRule(rule); err != nil {
		return nil, unknown("InvalidArgs", "rule %s: %v", Clean(rule), err)
	}
	return d.editFlows(ctx, p, in, bridgeOf(in), func(f *ovs.Flows) error {
		f.Rules = slices.DeleteFunc(f.Rules, func(r string) bool { return ovs.SameRule(r, rule) })
		return nil
	})
}

// plainSwitching is what a bridge without flows does. A bridge that had some
// would pass nothing if they were only removed.
const plainSwitching = "priority=0,actions=NORMAL"

func (d *Daemon) clearFlows(ctx context.Context, p Principal, in bus.Incoming) ([]any, error) {
	return d.editFlows(ctx, p, in, bridgeOf(in), func(f *ovs.Flows) error {
		*f = ovs.Flows{Rules: []string{plainSwitching}}
		return nil
	})
}

// A SwitchReader is what the daemon reads of a switch; *ovs.Setup is one.
type SwitchReader interface {
	// Bridges returns the names of all bridges.
	Bridges(ctx context.Context) ([]string, error)
	// Flows returns the flows of a bridge, as ovs-ofctl writes them.
	Flows(ctx context.Context, bridge string) ([]string, error)
}

func (d *Daemon) withSwitch(do func(s hoststate.Switch, r SwitchReader) ([]any, error)) ([]any, error) {
	if d.host.Switch == nil {
		return nil, errNoSwitch
	}
	s := d.host.Switch.Open()
	defer s.Close()
	r, ok := s.(SwitchReader)
	if !ok {
		return nil, errors.New("this switch can't be read")
	}
	return do(s, r)
}

func stringList(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

func (d *Daemon) dumpFlows(ctx context.Context, _ Principal, in bus.Incoming) ([]any, error) {
	return d.withSwitch(func(_ hoststate.Switch, r SwitchReader) ([]any, error) {
		flows, err := r.Flows(ctx, in.Args.Values[0].(string))
		return []any{stringList(flows)}, err
	})
}

func (d *Daemon) listBridges(ctx context.Context, _ Principal, _ bus.Incoming) ([]any, error) {
	return d.withSwitch(func(_ hoststate.Switch, r SwitchReader) ([]any, error) {
		list, err := r.Bridges(ctx)
		return []any{stringList(list)}, err
	})
}

func (d *Daemon) getBridgeConfig(ctx context.Context, _ Principal, in bus.Incoming) ([]any, error) {
	name := in.Args.Values[0].(string)
	return d.withSwitch(func(s hoststate.Switch, r SwitchReader) ([]any, error) {
		all, err := r.Bridges(ctx)
		if err != nil {
			return nil, err
		}
		c, err := d.host.Switch.InForce(s)
		if err != nil {
			return nil, err
		}
		out := struct {
			Bridge  string      `json:"bridge"`
			Managed bool        `json:"managed"`
			Config  *ovs.Bridge `json:"config"`
		}{Bridge: name}
		if c != nil {
			if b, ok := c.Bridges[name]; ok {
				out.Managed, out.Config = true, &b
			}
		}
		if !out.Managed && !slices.Contains(all, name) {
			return nil, unknown("InvalidArgs", "there is no bridge %s", Clean(name))
		}
		return jsonResult(out)
	})
}
