package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/search"
)

func searchCommand() *cli.Command {
	return &cli.Command{
		Name:      "search",
		Usage:     "ask the index a question",
		ArgsUsage: "QUESTION",
		Description: `Prints the events that answer QUESTION, best first, and up to where the index
has verified the log. Words in double quotes are looked for as a phrase. No
answer is an empty answer.

Example:

   gb-vecsync search --index I --since 2026-01-01T00:00:00Z "who touched the bridge"`,
		Flags: []cli.Flag{
			indexFlag(),
			&cli.IntFlag{Name: "n", Value: 10, Usage: "at most `N` hits"},
			&cli.StringFlag{Name: "since", Usage: "not before `TIME` (RFC 3339)"},
			&cli.StringFlag{Name: "until", Usage: "before `TIME` (RFC 3339)"},
			&cli.StringSliceFlag{Name: "source", Usage: "of this `SOURCE` (may be repeated)"},
			&cli.StringSliceFlag{Name: "type", Usage: "of this `TYPE` (may be repeated)"},
			&cli.StringSliceFlag{Name: "host", Usage: "of this `HOST` (may be repeated)"},
			&cli.StringSliceFlag{Name: "actor", Usage: "by this `ACTOR` (may be repeated)"},
			&cli.StringFlag{Name: "severity", Usage: "of this `SEVERITY` or graver"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object a hit"},
		},
		Action: runSearch,
	}
}

func runSearch(c *cli.Context) error {
	question := strings.Join(c.Args().Slice(), " ")
	q := index.Query{
		Sources: c.StringSlice("source"), Types: c.StringSlice("type"), Hosts: c.StringSlice("host"), Actors: c.StringSlice("actor"),
		Limit: c.Int("n"),
	}
	if q.Limit <= 0 || q.Limit > 10000 {
		return cli.Usagef("-n %d: want 1 to 10000", q.Limit)
	}
	for name, t := range map[string]*time.Time{"since": &q.Since, "until": &q.Until} {
		if s := c.String(name); s != "" {
			v, err := time.Parse(time.RFC3339Nano, s)
			if err != nil {
				return cli.Usagef("--%s %q: want an RFC 3339 time", name, s)
			}
			*t = v
		}
	}
	if s := c.String("severity"); s != "" {
		v, err := event.ParseSeverity(s)
		if err != nil {
			return cli.Usagef("--severity: %w", err)
		}
		q.Severity, q.HasSeverity = v, true
	}
	path, err := indexPath(c)
	if err != nil {
		return err
	}
	db, err := local.OpenReader(path)
	if err != nil {
		return cli.WithHint(err, "gb-vecsync ingest or gb-vecsync rebuild makes it")
	}
	defer db.Close()
	st, err := state(db)
	if err != nil {
		return err
	}
	hits, err := search.Ask(db, question, q, st)
	if errors.Is(err, search.ErrNoQuestion) {
		return cli.WithHint(cli.Usagef("%w", err), `gb-vecsync search "what changed on the bridge"`)
	}
	if err != nil {
		return err
	}
	for _, h := range hits {
		if c.Bool("json") {
			err = cli.PrintJSON(c.App.Writer, h)
		} else {
			err = printHit(c.App.Writer, h)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case st.Finding != "":
		fmt.Fprintf(c.App.ErrWriter, "gb-vecsync: NOT VERIFIED: %s\n", st.Finding)
	case st.Verified != nil:
		fmt.Fprintf(c.App.ErrWriter, "gb-vecsync: %d hits; the index has verified the log up to %d events, root %s\n", len(hits), st.Verified.TreeSize, st.Verified.Root)
	default:
		fmt.Fprintln(c.App.ErrWriter, "gb-vecsync: the index is empty")
	}
	return nil
}

func printHit(w io.Writer, h search.Hit) error {
	where := h.Source + " " + h.Type
	if h.Subject != "" {
		where += " " + h.Subject
	}
	_, err := fmt.Fprintf(w, "%6.2f  #%-8d %s  %-7s  %s\n        %s\n", h.Score, h.Occurrences[0].Index,
		h.Last.Local().Format("2006-01-02 15:04:05"), h.Severity, cli.Printable(where), cli.Printable(h.Message))
	return err
}
