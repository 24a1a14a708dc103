package main

import (
	"fmt"
	"os"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/event"
)

func exportCommand() *cli.Command {
	return &cli.Command{
		Name:  "export",
		Usage: "write the log in a form for others",
		Description: `With --tiles DIR writes the log as C2SP tlog-tiles (c2sp.org/tlog-tiles), which
programs that know nothing of this one can verify and serve. Full tiles that
are there already are left alone, so that it can be run again.

With --ndjson prints the stored lines of all events.

Example:

   gb-chain export --log L --tiles /srv/tlog`,
		Flags: []cli.Flag{
			logFlag(),
			&cli.StringFlag{Name: "tiles", Usage: "write tiles into `DIR`"},
			&cli.BoolFlag{Name: "ndjson", Usage: "print all stored lines"},
		},
		Action: runExport,
	}
}

func runExport(c *cli.Context) error {
	if err := noArgument(c); err != nil {
		return err
	}
	dir := os.DirFS(c.String("log"))
	if c.Bool("ndjson") == (c.String("tiles") != "") {
		return cli.Usagef("export wants either --tiles DIR or --ndjson")
	}
	if c.Bool("ndjson") {
		p := newPrinter(c)
		p.json = true
		verdict, err := chain.Query(c.Context, dir, chain.QueryOptions{}, func(e *event.Event, line []byte) error { return p.print(e, line) })
		if err != nil {
			return fmt.Errorf("log %s: %w", c.String("log"), err)
		}
		if err := p.flush(); err != nil {
			return err
		}
		printVerdict(c.App.ErrWriter, verdict)
		if !verdict.Verified {
			return cli.Exit(cli.ExitVerify)
		}
		return nil
	}
	tree, err := chain.OpenTree(dir)
	if err != nil {
		return fmt.Errorf("log %s: %w", c.String("log"), err)
	}
	var progress func(done, size int64)
	if cli.IsTerminal(c.App.ErrWriter) {
		progress = func(done, size int64) {
			fmt.Fprintf(c.App.ErrWriter, "\rgb-chain: %d of %d events\x1b[K", done, size)
		}
		defer fmt.Fprintln(c.App.ErrWriter)
	}
	return tree.ExportTiles(c.Context, c.String("tiles"), progress)
}
