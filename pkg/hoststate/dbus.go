package hoststate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

// operation makes one of typed values.
func operation(name, path, iface, member, sig string, values ...any) Operation {
	types, err := dbusjson.ParseSignature(sig)
	if err != nil {
		panic(err)
	}
	args, err := dbusjson.MarshalArgs(types, values)
	if err != nil {
		panic(fmt.Sprintf("%s.%s: %v", iface, member, err)) // strings and booleans
	}
	return Operation{Name: name, Path: path, Interface: iface, Member: member, Signature: sig, Args: args}
}

// properties returns those of an interface, as Go values without their
// variants.
func properties(ctx context.Context, b Bus, name, path, iface string) (map[string]any, error) {
	body, err := b.Call(ctx, bus.Call{Name: name, Path: path, Interface: "org.freedesktop.DBus.Properties", Member: "GetAll", Args: bus.NewBody("s", iface)})
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", name, iface, err)
	}
	if body.Signature() != "a{sv}" {
		return nil, fmt.Errorf("%s %s: GetAll answered %q", name, iface, body.Signature())
	}
	out := make(map[string]any)
	for _, e := range body.Values[0].(dbusjson.Dict) {
		out[e.Key.(string)] = e.Value.(dbusjson.Variant).Value
	}
	return out, nil
}

func text(m map[string]any, key string) string {
	s, _ := m[key].(string)
	return s
}

// missing says why a service can't be used, "" if err is nil.
func missing(err error) string {
	if err == nil {
		return ""
	}
	var e *bus.Error
	if errors.As(err, &e) {
		switch strings.TrimPrefix(e.Name, "org.freedesktop.DBus.Error.") {
		case "ServiceUnknown", "NameHasNoOwner", "Spawn.ServiceNotFound":
			return "the service is not on the bus"
		}
	}
	return err.Error()
}

// sendOnly is the act of an action that is one call.
func sendOnly(ctx context.Context, send Send) (json.RawMessage, error) {
	b, err := send(ctx)
	if err != nil {
		return nil, err
	}
	return b.JSON()
}
