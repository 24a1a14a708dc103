package main

import (
	"context"

	"github.com/ghostbridge/ghostbridge/pkg/bus"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
)

func namesCommand() *cli.Command {
	return &cli.Command{
		Name:  "names",
		Usage: "list who is on the bus",
		Description: `Lists the names on the bus with their owners, and those that would be started
when they are called. With --all connections without a name are listed as well.

Example:

   opdbus names --json | jq -r 'select(.uid == 0) | .name'`,
		Flags:  append(busFlags(), &cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "connections without a name too"}),
		Action: runNames,
	}
}

type nameJSON struct {
	Name        string  `json:"name"`
	Owner       string  `json:"owner,omitempty"`
	PID         uint32  `json:"pid,omitempty"`
	UID         *uint32 `json:"uid,omitempty"`
	User        string  `json:"user,omitempty"`
	Unit        string  `json:"unit,omitempty"`
	Activatable bool    `json:"activatable"`
}

func newNameJSON(n bus.Name) nameJSON {
	j := nameJSON{Name: n.Name, Owner: n.Owner, PID: n.PID, Activatable: n.Activatable}
	if n.HasUID {
		j.UID, j.User = &n.UID, userName(n.UID)
	}
	if n.PID != 0 {
		j.Unit = chain.UnitOf(int(n.PID))
	}
	return j
}

func runNames(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Usagef("names takes no argument")
	}
	return withBus(c, func(ctx context.Context, conn *bus.Conn) error {
		list, err := conn.Names(ctx, c.Bool("all"))
		if err != nil {
			return err
		}
		t := cli.NewTable(c.App.Writer, "name", "owner", "pid", "user", "unit", "activatable")
		for _, n := range list {
			j := newNameJSON(n)
			if c.Bool("json") {
				if err := cli.PrintJSON(c.App.Writer, j); err != nil {
					return err
				}
				continue
			}
			pid, act := any("-"), "-"
			if j.PID != 0 {
				pid = j.PID
			}
			if j.Activatable {
				act = "yes"
			}
			t.Row(j.Name, or(j.Owner), pid, or(j.User), or(j.Unit), act)
		}
		if c.Bool("json") {
			return nil
		}
		return t.Flush()
	})
}

func or(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
