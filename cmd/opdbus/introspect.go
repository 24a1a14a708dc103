package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

func introspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "introspect",
		Usage:     "show the members of an object, with their documentation",
		ArgsUsage: "NAME PATH [INTERFACE]",
		Description: `Shows interfaces, methods, properties and signals of an object, their flags
(deprecated, privileged, no reply, how a property tells of its changes) and what
the service says of them.

Example:

   opdbus introspect org.freedesktop.timedate1 /org/freedesktop/timedate1`,
		Flags:        append(busFlags(), startFlag()),
		Action:       runIntrospect,
		BashComplete: completeTarget(nil),
	}
}

func runIntrospect(c *cli.Context) error {
	args, err := arguments(c, "NAME", "PATH", "[INTERFACE]")
	if err != nil {
		return err
	}
	return withBus(c, func(ctx context.Context, conn *bus.Conn) error {
		node, err := conn.Introspect(ctx, args[0], args[1], c.Bool("start"))
		if err != nil {
			return err
		}
		if args[2] != "" {
			i, err := lookup(ctx, conn, args[0], args[1], args[2], false)
			if err != nil {
				return err
			}
			node = &dbusjson.Node{Interfaces: []dbusjson.Interface{*i}, Children: []string{}}
		}
		if c.Bool("json") {
			return cli.PrintJSON(c.App.Writer, node)
		}
		printNode(c.App.Writer, node)
		return nil
	})
}

func printNode(w io.Writer, n *dbusjson.Node) {
	line := func(doc, format string, a ...any) {
		fmt.Fprintln(w, cli.Printable(fmt.Sprintf(format, a...)))
		if doc != "" {
			for _, l := range strings.Split(doc, "\n") {
				fmt.Fprintln(w, "        "+cli.Printable(strings.TrimSpace(l)))
			}
		}
	}
	for _, i := range n.Interfaces {
		line(i.Doc, "%s%s", i.Name, flags(flag{i.Deprecated, "deprecated"}))
		for _, m := range i.Methods {
			line(m.Doc, "  method    %s(%s) -> (%s)%s", m.Name, argList(m.In), argList(m.Out),
				flags(flag{m.Deprecated, "deprecated"}, flag{m.NoReply, "no reply"}, flag{m.Privileged, "privileged"}))
		}
		for _, p := range i.Properties {
			line(p.Doc, "  property  %s %s %s%s", p.Type, p.Name, p.Access,
				flags(flag{p.Deprecated, "deprecated"}, flag{p.EmitsChanged != "true", "emits changed: " + p.EmitsChanged}))
		}
		for _, s := range i.Signals {
			line(s.Doc, "  signal    %s(%s)%s", s.Name, argList(s.Args), flags(flag{s.Deprecated, "deprecated"}))
		}
	}
	for _, child := range n.Children {
		line("", "object %s", child)
	}
}

type flag struct {
	set  bool
	name string
}

func flags(list ...flag) string {
	var set []string
	for _, f := range list {
		if f.set {
			set = append(set, f.name)
		}
	}
	if len(set) == 0 {
		return ""
	}
	return " [" + strings.Join(set, ", ") + "]"
}

func argList(args []dbusjson.Arg) string {
	var list []string
	for _, a := range args {
		list = append(list, strings.TrimSpace(a.Type+" "+a.Name))
	}
	return strings.Join(list, ", ")
}

func describeCommand() *cli.Command {
	return &cli.Command{
		Name:      "describe",
		Usage:     "print the JSON Schema of a method's arguments and results",
		ArgsUsage: "NAME PATH INTERFACE.METHOD",
		Description: `Prints one JSON object: the signature, and a JSON Schema (draft 2020-12) each for
the array of arguments that opdbus call takes and for the array of results.

Example:

   opdbus describe org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager.StartUnit`,
		Flags:        append(busFlags(), startFlag()),
		Action:       runDescribe,
		BashComplete: completeTarget(methodsOf),
	}
}

func runDescribe(c *cli.Context) error {
	args, err := arguments(c, "NAME", "PATH", "INTERFACE.METHOD")
	if err != nil {
		return err
	}
	iface, member, err := splitMember(args[2])
	if err != nil {
		return err
	}
	return withBus(c, func(ctx context.Context, conn *bus.Conn) error {
		i, err := lookup(ctx, conn, args[0], args[1], iface, c.Bool("start"))
		if err != nil {
			return err
		}
		m := i.Method(member)
		if m == nil {
			return noMember("method", args[0], args[1], iface, member, methodsOf(i))
		}
		in, err := dbusjson.ArgsSchema(args[2], m.Doc, m.In)
		if err != nil {
			return err
		}
		out, err := dbusjson.ArgsSchema(args[2]+" results", "", m.Out)
		if err != nil {
			return err
		}
		return cli.PrintJSON(c.App.Writer, map[string]any{
			"method": args[2], "doc": m.Doc, "in_signature": m.InSignature(), "out_signature": m.OutSignature(),
			"deprecated": m.Deprecated, "in": in, "out": out,
		})
	})
}
