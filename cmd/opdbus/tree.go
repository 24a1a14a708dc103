package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
)

func treeCommand() *cli.Command {
	return &cli.Command{
		Name:      "tree",
		Usage:     "list the objects of one name, or of all",
		ArgsUsage: "[NAME [PATH]]",
		Description: `Lists the objects of NAME at or below PATH, with their interfaces. Without NAME
it looks over every name that has an owner; nobody is started for it.

Examples:

   opdbus tree org.freedesktop.login1
   opdbus tree --json | jq -r .path`,
		Flags:        append(busFlags(), startFlag()),
		Action:       runTree,
		BashComplete: completeTarget(nil),
	}
}

type objectJSON struct {
	Name       string   `json:"name"`
	Path       string   `json:"path"`
	Interfaces []string `json:"interfaces"`
	Error      string   `json:"error,omitempty"`
}

func runTree(c *cli.Context) error {
	if !c.Args().Present() {
		return withBus(c, func(ctx context.Context, conn *bus.Conn) error {
			trees, err := conn.TreeOfAll(ctx)
			for _, t := range trees {
				if t.Err != nil {
					fmt.Fprintf(c.App.ErrWriter, "opdbus: %s: %v\n", t.Name.Name, t.Err)
				}
				if perr := printObjects(c, t.Name.Name, t.Objects); perr != nil {
					return perr
				}
			}
			return err
		})
	}
	args, err := arguments(c, "NAME", "[PATH]")
	if err != nil {
		return err
	}
	if args[1] == "" {
		args[1] = "/"
	}
	return withBus(c, func(ctx context.Context, conn *bus.Conn) error {
		objects, err := conn.Tree(ctx, args[0], args[1], c.Bool("start"))
		if len(objects) == 1 && objects[0].Err != nil {
			return objects[0].Err
		}
		return errors.Join(printObjects(c, args[0], objects), err)
	})
}

func printObjects(c *cli.Context, name string, objects []bus.Object) error {
	if !c.Bool("json") {
		fmt.Fprintln(c.App.Writer, cli.Printable(name))
	}
	for _, o := range objects {
		j := objectJSON{Name: name, Path: o.Path, Interfaces: []string{}}
		if o.Err != nil {
			j.Error = o.Err.Error()
		} else {
			for _, i := range o.Node.Interfaces {
				j.Interfaces = append(j.Interfaces, i.Name)
			}
		}
		if c.Bool("json") {
			if err := cli.PrintJSON(c.App.Writer, j); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(c.App.Writer, "  %s\n", cli.Printable(o.Path))
		if j.Error != "" {
			fmt.Fprintf(c.App.Writer, "      not introspected: %s\n", cli.Printable(j.Error))
		}
		for _, i := range j.Interfaces {
			if !standardInterfaces[i] {
				fmt.Fprintf(c.App.Writer, "      %s\n", i)
			}
		}
	}
	return nil
}

// standardInterfaces are what nearly every object has.
var standardInterfaces = map[string]bool{
	"org.freedesktop.DBus.Introspectable": true, "org.freedesktop.DBus.Peer": true, "org.freedesktop.DBus.Properties": true,
}
