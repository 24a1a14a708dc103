package opdbus

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/ovs"
)

// How the switch is, for those who may not look at it themselves.
func init() {
	interfaces = append(interfaces, iface{path: names.BusObject, name: names.BusInterface + ".Network", doc: "The switch of this host.",
		methods: []method{{Method: dbusjson.Method{Name: "Status", Doc: "Bridges, ports, counters, offloads, flows and what is not as it should be.", Out: args(arg("status", "s", "JSON, as gb-ovs-setup status --json."))},
			kind: sensitive, do: (*Daemon).switchStatus}}})
}

func (d *Daemon) switchStatus(ctx context.Context, _ Principal, _ bus.Incoming) ([]any, error) {
	return d.withSwitch(func(s hoststate.Switch, _ SwitchReader) ([]any, error) {
		looker, ok := s.(interface {
			Status(ctx context.Context, c *ovs.Config) *ovs.Status
		})
		if !ok {
			return nil, errors.New("this switch can't be looked at")
		}
		c, err := d.host.Switch.InForce(s)
		if err != nil {
			return nil, err
		}
		text, err := json.Marshal(looker.Status(ctx, c))
		return []any{string(text)}, err
	})
}
