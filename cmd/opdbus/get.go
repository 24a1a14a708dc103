package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/dbusjson"
)

func getCommand() *cli.Command {
	return &cli.Command{
		Name:      "get",
		Usage:     "print a property, or all of an interface",
		ArgsUsage: "NAME PATH INTERFACE[.PROPERTY]",
		Description: `Prints the value of a property as JSON, or with the name of an interface all its
properties. With --json each is an object of property, type and value.

Examples:

   opdbus get org.freedesktop.hostname1 /org/freedesktop/hostname1 org.freedesktop.hostname1.Hostname
   opdbus get --json org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager`,
		Flags:        busFlags(),
		Action:       runGet,
		BashComplete: completeTarget(propertiesOf),
	}
}

type propertyJSON struct {
	Property string          `json:"property"`
	Type     string          `json:"type"`
	Value    json.RawMessage `json:"value"`
}

func runGet(c *cli.Context) error {
	args, err := arguments(c, "NAME", "PATH", "INTERFACE[.PROPERTY]")
	if err != nil {
		return err
	}
	if !dbusjson.ValidInterface(args[2]) {
		return cli.Usagef("%q is not INTERFACE[.PROPERTY]", args[2])
	}
	return withBus(c, func(ctx context.Context, conn *bus.Conn) error {
		// What follows the last dot may be a property or a part of the
		// interface's name: the object knows.
		node, err := conn.Introspect(ctx, args[0], args[1], true)
		if err == nil && node.Interface(args[2]) != nil {
			all, err := conn.GetAll(ctx, args[0], args[1], args[2])
			if err != nil {
				return err
			}
			for _, e := range all {
				if err := printProperty(c, e.Key.(string), e.Value.(dbusjson.Variant), true); err != nil {
					return err
				}
			}
			return nil
		}
		iface, property, err := splitMember(args[2])
		if err != nil {
			return err
		}
		if node != nil && node.Interface(iface) != nil {
			if i := node.Interface(iface); i.Property(property) == nil {
				return noMember("property", args[0], args[1], iface, property, propertiesOf(i))
			}
		}
		v, err := conn.Get(ctx, args[0], args[1], iface, property)
		if err != nil {
			return err
		}
		return printProperty(c, property, v, false)
	})
}

func printProperty(c *cli.Context, name string, v dbusjson.Variant, named bool) error {
	text, err := dbusjson.Marshal(v.Type, v.Value)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return cli.PrintJSON(c.App.Writer, propertyJSON{name, v.Type.String(), text})
	}
	if named {
		fmt.Fprintf(c.App.Writer, "%s\t", cli.Printable(name))
	}
	_, err = fmt.Fprintln(c.App.Writer, cli.Printable(string(text)))
	return err
}
