package main

import (
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
)

func cursorCommand() *cli.Command {
	return &cli.Command{
		Name:  "cursor",
		Usage: "print where the index stands",
		Description: `Prints the cursor as JSON: the snapshot that was applied last, and size and root
of the tree of the events in the index. With --publish it also writes the
cursor file again. Exit code 4, with --exit-code, if nothing was applied yet.

Example:

   gb-vecsync cursor --index I`,
		Flags: append([]cli.Flag{
			indexFlag(), cursorFlag(),
			&cli.BoolFlag{Name: "publish", Usage: "write the cursor file"},
			&cli.BoolFlag{Name: "exit-code", Usage: "exit with 4 if nothing was applied yet"},
		}, qdrantFlags()...),
		Action: func(c *cli.Context) error {
			t, err := indexTarget(c)
			if err != nil {
				return err
			}
			path := t.path
			db, err := local.OpenReader(path)
			if err != nil {
				return cli.WithHint(err, "gb-vecsync ingest or gb-vecsync rebuild makes it")
			}
			defer db.Close()
			cursor, err := vecsync.ReadCursor(db)
			if err != nil {
				return err
			}
			if cursor == nil {
				if c.Bool("exit-code") {
					return cli.Exit(cli.ExitNothing)
				}
				return nil
			}
			if c.Bool("publish") {
				if err := cursor.Publish(cursorPath(c, path)); err != nil {
					return err
				}
			}
			return cli.PrintJSON(c.App.Writer, cursor)
		},
	}
}
