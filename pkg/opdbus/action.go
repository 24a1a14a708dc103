package opdbus

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

// Kinds of actions.
const (
	KindCall = "call" // of a method
	KindSet  = "set"  // of a property
)

// An Action is what somebody wants to do. Its fields are all that authorises
// it: what is not in here must not change what is done.
type Action struct {
	Kind      string          `json:"kind"`
	Bus       string          `json:"bus"`       // system, session or an address
	Name      string          `json:"name"`      // well-known name
	Path      string          `json:"path"`      // object
	Interface string          `json:"interface"` // of the method or property
	Member    string          `json:"member"`    // method or property
	Signature string          `json:"signature"` // of Args
	Args      json.RawMessage `json:"args"`      // as dbusjson.MarshalArgs writes them
}

// NewCall makes the action of a call. A call of Properties.Set becomes the
// setting of that property, so that no rule can be gone around by it.
func NewCall(busName string, c bus.Call) (Action, error) {
	a := Action{Kind: KindCall, Bus: busName, Name: c.Name, Path: c.Path, Interface: c.Interface, Member: c.Member}
	body := c.Args
	if c.Interface == "org.freedesktop.DBus.Properties" && c.Member == "Set" {
		if body.Signature() != "ssv" {
			return a, &bus.Error{Name: "org.freedesktop.DBus.Error.InvalidArgs", Message: fmt.Sprintf("Properties.Set takes ssv, not %q", body.Signature())}
		}
		a.Kind, a.Interface, a.Member = KindSet, body.Values[0].(string), body.Values[1].(string)
		body = bus.Body{Types: body.Types[2:], Values: body.Values[2:]}
	}
	args, err := body.JSON()
	if err != nil {
		return a, err
	}
	a.Signature, a.Args = body.Signature(), args
	return a, nil
}

// call returns the call that does a, to the owner of its name.
func (a Action) call(owner string) (bus.Call, error) {
	types, err := dbusjson.ParseSignature(a.Signature)
	if err != nil {
		return bus.Call{}, err
	}
	values, err := dbusjson.UnmarshalArgs(a.Args, types)
	if err != nil {
		return bus.Call{}, err
	}
	c := bus.Call{Name: owner, Path: a.Path, Interface: a.Interface, Member: a.Member, Args: bus.Body{Types: types, Values: values}, NoAutoStart: true}
	if a.Kind == KindSet {
		if len(values) != 1 || a.Signature != "v" {
			return c, fmt.Errorf("setting a property takes one variant, not %q", a.Signature)
		}
		c.Interface, c.Member = "org.freedesktop.DBus.Properties", "Set"
		c.Args = bus.NewBody("ssv", a.Interface, a.Member, values[0])
	}
	return c, nil
}

// canonical returns the bytes that stand for the action: JSON with the fields
// of Action in their order, no spaces.
func (a Action) canonical() []byte {
	b := []byte(`{"kind":`)
	for i, f := range []struct{ key, value string }{{"bus", a.Bus}, {"name", a.Name}, {"path", a.Path}, {"interface", a.Interface}, {"member", a.Member}, {"signature", a.Signature}} {
		if i == 0 {
			b = dbusjson.AppendString(b, a.Kind)
		}
		b = append(append(append(b, `,"`...), f.key...), `":`...)
		b = dbusjson.AppendString(b, f.value)
	}
	b = append(b, `,"args":`...)
	if len(a.Args) == 0 {
		b = append(b, "[]"...)
	}
	return append(append(b, a.Args...), '}')
}

// Hash returns the SHA-256 of the action's canonical bytes, in hex. An
// approval is bound to it.
func (a Action) Hash() string {
	sum := sha256.Sum256(a.canonical())
	return hex.EncodeToString(sum[:])
}

// String is for people: set or call, and what.
func (a Action) String() string {
	verb := "call"
	if a.Kind == KindSet {
		verb = "set"
	}
	return fmt.Sprintf("%s %s.%s of %s %s", verb, a.Interface, a.Member, a.Name, a.Path)
}

// texts returns the arguments as the rules see them: strings as they are, the
// rest as JSON.
func (a Action) texts() []string {
	var items []json.RawMessage
	if json.Unmarshal(a.Args, &items) != nil {
		return nil
	}
	list := make([]string, len(items))
	for i, item := range items {
		if json.Unmarshal(item, &list[i]) != nil {
			list[i] = string(item)
		}
	}
	return list
}

// ParseAction makes the action of a call whose arguments are JSON.
func ParseAction(busName, name, path, iface, member, signature, args string) (Action, error) {
	types, err := dbusjson.ParseSignature(signature)
	if err != nil {
		return Action{}, err
	}
	values, err := dbusjson.UnmarshalArgs([]byte(args), types)
	if err != nil {
		return Action{}, err
	}
	return NewCall(busName, bus.Call{Name: name, Path: path, Interface: iface, Member: member, Args: bus.Body{Types: types, Values: values}})
}
