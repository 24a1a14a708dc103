package main

import (
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/ovs"
)

func schemaCommand() *cli.Command {
	return &cli.Command{
		Name:  "schema",
		Usage: "print the JSON Schema of the desired state",
		Description: `Prints the JSON Schema (draft 2020-12) of the file that --config names.

Example:

   gb-ovs-setup schema > ovs.schema.json`,
		Action: func(c *cli.Context) error {
			_, err := c.App.Writer.Write(ovs.Schema())
			return err
		},
	}
}
