package main

import (
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/hoststate"
)

func schemaCommand() *cli.Command {
	return &cli.Command{
		Name: "schema", Usage: "print the JSON Schema of a desired state",
		Description: "Prints the JSON Schema (draft 2020-12) of what plan and apply take.\n\nExample:\n\n   opdbus schema > state.schema.json",
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return cli.Usagef("schema takes no argument")
			}
			_, err := c.App.Writer.Write(hoststate.Schema())
			return err
		},
	}
}
