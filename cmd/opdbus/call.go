package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
	"github.com/ghostbridge/ghostbridge/pkg/opdbus"
)

func callCommand() *cli.Command {
	return &cli.Command{
		Name:      "call",
		Usage:     "call a method",
		ArgsUsage: "NAME PATH INTERFACE.METHOD [ARG...] | -",
		Description: `Calls a method and prints its results, one a line, as JSON. Each ARG is JSON of
the type that the method wants; for strings, paths and signatures a bare word
does. --args takes the array of all of them.

A method that is not on the read list counts as a change: the policy, and polkit,
must allow it, and intent and outcome are recorded in the log. -n says what the
policy says, and calls nothing.

With - it reads calls, one JSON object a line, over one connection:

   {"name":N,"path":P,"interface":I,"member":M,"args":[...],"signature":"optional"}

and answers each with a line {"ok":true,"signature":"s","out":[...]} or
{"ok":false,"error":"...","name":"..."}, in the order of the calls. Up to 32 calls
that are on the read list are under way at once; one that is not waits for the end
of all before it, and those behind it wait for its end.

Examples:

   opdbus call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager.GetUnit dbus.service
   opdbus call -n org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager.RestartUnit nginx.service replace`,
		Flags: append(append(busFlags(), gateFlags()...),
			&cli.StringFlag{Name: "args", Usage: "arguments as a `JSON` array"},
			&cli.StringFlag{Name: "signature", Usage: "`SIGNATURE` of the arguments, where the object does not say it"},
			&cli.BoolFlag{Name: "n", Aliases: []string{"dry-run"}, Usage: "say whether it would be allowed"},
		),
		Action:       runCall,
		BashComplete: completeTarget(methodsOf),
	}
}

func setCommand() *cli.Command {
	return &cli.Command{
		Name:      "set",
		Usage:     "set a property",
		ArgsUsage: "NAME PATH INTERFACE.PROPERTY VALUE",
		Description: `Sets a property to VALUE, which is JSON of its type; for strings, paths and
signatures a bare word does. It is a change like those of opdbus call.

Example:

   opdbus set org.example.Lamp /org/example/Lamp org.example.Lamp.Brightness 40`,
		Flags: append(append(busFlags(), gateFlags()...),
			&cli.StringFlag{Name: "signature", Usage: "`SIGNATURE` of the value, where the object does not say it"},
			&cli.BoolFlag{Name: "n", Aliases: []string{"dry-run"}, Usage: "say whether it would be allowed"},
		),
		Action:       runSet,
		BashComplete: completeTarget(propertiesOf),
	}
}

// parseArgs reads one argument for each type.
func parseArgs(types []*dbusjson.Type, words []string) ([]any, error) {
	if len(words) != len(types) {
		return nil, cli.Usagef("%d arguments, want %d of signature %q", len(words), len(types), dbusjson.JoinSignature(types))
	}
	values := make([]any, len(words))
	for i, w := range words {
		t := types[i]
		text := []byte(w)
		if (t.Code == 's' || t.Code == 'o' || t.Code == 'g') && !(strings.HasPrefix(w, `"`) && json.Valid(text)) {
			text = dbusjson.AppendString(nil, w)
		}
		v, err := dbusjson.Unmarshal(text, t)
		if err != nil {
			return nil, cli.Usagef("argument %d, of type %s: %w", i+1, t, err)
		}
		values[i] = v
	}
	return values, nil
}

// methodTypes returns the types of a method's arguments: those of signature if
// it is given, else as the object says.
func methodTypes(ctx context.Context, conn *bus.Conn, name, path, iface, member string, signature *string) ([]*dbusjson.Type, error) {
	if signature != nil {
		return dbusjson.ParseSignature(*signature)
	}
	i, err := lookup(ctx, conn, name, path, iface, false)
	var e *bus.Error
	if errors.As(err, &e) && strings.HasSuffix(e.Name, "NameHasNoOwner") {
		return nil, cli.WithHint(err, "if it can be started, opdbus introspect --start does; or give --signature")
	}
	if err != nil {
		return nil, err
	}
	m := i.Method(member)
	if m == nil {
		return nil, noMember("method", name, path, iface, member, methodsOf(i))
	}
	return dbusjson.ParseSignature(m.InSignature())
}

func runCall(c *cli.Context) error {
	if c.Args().First() == "-" && c.Args().Len() == 1 {
		return runCalls(c)
	}
	args := c.Args().Slice()
	if len(args) < 3 {
		_, err := arguments(c, "NAME", "PATH", "INTERFACE.METHOD")
		return err
	}
	iface, member, err := splitMember(args[2])
	if err != nil {
		return err
	}
	if c.IsSet("args") && len(args) > 3 {
		return cli.Usagef("--args and arguments exclude each other")
	}
	if !dbusjson.ValidBusName(args[0]) || !dbusjson.ValidPath(args[1]) {
		return cli.Usagef("%q %q is no bus name and object path", args[0], args[1])
	}
	return withBus(c, func(ctx context.Context, conn *bus.Conn) error {
		var signature *string
		if c.IsSet("signature") {
			s := c.String("signature")
			signature = &s
		}
		types, err := methodTypes(ctx, conn, args[0], args[1], iface, member, signature)
		if err != nil {
			return err
		}
		var values []any
		if c.IsSet("args") {
			if values, err = dbusjson.UnmarshalArgs([]byte(c.String("args")), types); err != nil {
				return cli.Usagef("--args: %w", err)
			}
		} else if values, err = parseArgs(types, args[3:]); err != nil {
			return err
		}
		call := bus.Call{Name: args[0], Path: args[1], Interface: iface, Member: member, Args: bus.Body{Types: types, Values: values}, Interactive: c.Bool("interactive")}
		return doCall(ctx, c, conn, call)
	})
}

// doCall makes a call through the choke point and prints what it answers.
func doCall(ctx context.Context, c *cli.Context, conn *bus.Conn, call bus.Call) error {
	gate, self, closeGate, err := openGate(c)
	if err != nil {
		return err
	}
	defer closeGate()
	if c.Bool("n") {
		a, err := opdbus.NewCall(conn.Address(), call)
		if err != nil {
			return err
		}
		return printDecision(c, a, gate.CurrentPolicy().Decide(self, a))
	}
	answer, _, err := gate.Call(ctx, conn, self, call, opdbus.Options{})
	if err != nil {
		return err
	}
	text, err := answer.JSON()
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return cli.PrintJSON(c.App.Writer, map[string]any{"signature": answer.Signature(), "out": json.RawMessage(text)})
	}
	for i, v := range answer.Values {
		line, err := dbusjson.Marshal(answer.Types[i], v)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(c.App.Writer, cli.Printable(string(line))); err != nil {
			return err
		}
	}
	return nil
}

func runSet(c *cli.Context) error {
	args, err := arguments(c, "NAME", "PATH", "INTERFACE.PROPERTY", "VALUE")
	if err != nil {
		return err
	}
	iface, property, err := splitMember(args[2])
	if err != nil {
		return err
	}
	return withBus(c, func(ctx context.Context, conn *bus.Conn) error {
		signature := c.String("signature")
		if signature == "" {
			i, err := lookup(ctx, conn, args[0], args[1], iface, false)
			if err != nil {
				return err
			}
			p := i.Property(property)
			if p == nil {
				return noMember("property", args[0], args[1], iface, property, propertiesOf(i))
			}
			if p.Access == "read" {
				return fmt.Errorf("%s %s: %s is read-only", args[0], args[1], args[2])
			}
			signature = p.Type
		}
		t, err := dbusjson.ParseType(signature)
		if err != nil {
			return cli.Usagef("--signature: %w", err)
		}
		values, err := parseArgs([]*dbusjson.Type{t}, args[3:])
		if err != nil {
			return err
		}
		return doCall(ctx, c, conn, bus.Call{Name: args[0], Path: args[1], Interface: "org.freedesktop.DBus.Properties", Member: "Set", Interactive: c.Bool("interactive"),
			Args: bus.NewBody("ssv", iface, property, dbusjson.Variant{Type: t, Value: values[0]})})
	})
}
