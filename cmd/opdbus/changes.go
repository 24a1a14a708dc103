package main

import (
	"context"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
)

func changesCommand() *cli.Command {
	return &cli.Command{
		Name: "changes", Usage: "list the changes that were applied, or report on one", ArgsUsage: "[ID]",
		Description: `Without ID it lists the changes that are kept, newest first; with one it reports
what became of each action.

Example:

   opdbus changes --json | jq 'select(.result == "failed")'`,
		Flags:        stateFlags(),
		BashComplete: completeChange,
		Action: func(c *cli.Context) error {
			id, err := oneID(c)
			if err != nil {
				return err
			}
			return withHost(c, func(ctx context.Context, h stateHost) error {
				if id != "" {
					ch, err := h.change(ctx, id)
					if err != nil {
						return err
					}
					return printChange(c, ch)
				}
				list, err := h.changes(ctx)
				if err != nil {
					return err
				}
				t := cli.NewTable(c.App.Writer, "id", "result", "actions", "by", "why")
				for _, ch := range list {
					if c.Bool("json") {
						if err := cli.PrintJSON(c.App.Writer, ch); err != nil {
							return err
						}
						continue
					}
					why := ch.Reason
					if ch.Error != "" {
						why += ": " + ch.Error
					}
					t.Row(ch.ID, ch.Result, len(ch.Steps), ch.By, why)
				}
				if c.Bool("json") {
					return nil
				}
				return t.Flush()
			})
		},
	}
}
