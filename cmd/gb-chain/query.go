package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/event"
)

func queryCommand() *cli.Command {
	return &cli.Command{
		Name:  "query",
		Usage: "print events",
		Description: `Prints the events that match, oldest first, and says on standard error whether
what it read is what was signed. Times are RFC 3339, a date, a time of today
(15:04), now, today, yesterday, or an age such as -15m or -2d.

Example:

   gb-chain query --log L --since -15m --source ovs --severity warning`,
		Flags: []cli.Flag{
			logFlag(), vkeyFlag(),
			&cli.StringFlag{Name: "since", Usage: "not before `TIME`"},
			&cli.StringFlag{Name: "until", Usage: "before `TIME`"},
			&cli.StringSliceFlag{Name: "source", Usage: "of this `SOURCE` (may be repeated)"},
			&cli.StringSliceFlag{Name: "type", Usage: "of this `TYPE`, or all below it: bridge.* (may be repeated)"},
			&cli.StringFlag{Name: "severity", Usage: "of this `SEVERITY` or graver: emerg alert crit err warning notice info debug"},
			&cli.StringSliceFlag{Name: "host", Usage: "of this `HOST` (may be repeated)"},
			&cli.StringSliceFlag{Name: "actor", Usage: "by this `ACTOR` (may be repeated)"},
			&cli.StringSliceFlag{Name: "subject", Usage: "about this `SUBJECT` (may be repeated)"},
			&cli.StringSliceFlag{Name: "match", Usage: "with `KEY.PATH=VALUE` in data, such as port.name=ens1 or ips.0=10.0.0.1 (may be repeated, all must match)"},
			&cli.StringFlag{Name: "grep", Usage: "whose line matches the regular `EXPRESSION` (RE2)"},
			&cli.Int64Flag{Name: "n", Usage: "only the newest `N`"},
			&cli.BoolFlag{Name: "reverse", Aliases: []string{"r"}, Usage: "newest first"},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with new events as they come"},
			&cli.BoolFlag{Name: "json", Usage: "print the stored lines"},
		},
		Action: runQuery,
	}
}

func runQuery(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Usagef("query takes no argument; choose with --grep, --type and others")
	}
	o, err := queryOptions(c, time.Now())
	if err != nil {
		return err
	}
	if o.Reverse && c.Bool("follow") {
		return cli.Usagef("--reverse and --follow exclude each other")
	}
	dir := os.DirFS(c.String("log"))
	p := newPrinter(c)
	verdict, err := chain.Query(c.Context, dir, o, func(e *event.Event, line []byte) error {
		return p.print(e, line)
	})
	if err != nil {
		return fmt.Errorf("log %s: %w", c.String("log"), err)
	}
	if err := p.flush(); err != nil {
		return err
	}
	printVerdict(c.App.ErrWriter, verdict)
	if c.Bool("follow") {
		verdict, err = chain.Follow(c.Context, dir, verdict, o.Filter, 250*time.Millisecond, func(e *event.Event, line []byte) error {
			if err := p.print(e, line); err != nil {
				return err
			}
			return p.flush()
		})
		if err != nil {
			return fmt.Errorf("log %s: %w", c.String("log"), err)
		}
		printVerdict(c.App.ErrWriter, verdict)
	}
	if !verdict.Verified {
		return cli.Exit(cli.ExitVerify)
	}
	return nil
}

func queryOptions(c *cli.Context, now time.Time) (o chain.QueryOptions, err error) {
	keys, err := expectedKeys(c)
	if err != nil {
		return o, err
	}
	o.Key = keys.Log
	for name, t := range map[string]*time.Time{"since": &o.Since, "until": &o.Until} {
		if s := c.String(name); s != "" {
			if *t, err = chain.ParseTime(s, now); err != nil {
				return o, cli.Usagef("--%s: %w", name, err)
			}
		}
	}
	o.Sources, o.Types, o.Hosts = c.StringSlice("source"), c.StringSlice("type"), c.StringSlice("host")
	o.Actors, o.Subjects = c.StringSlice("actor"), c.StringSlice("subject")
	if s := c.String("severity"); s != "" {
		if o.Severity, err = event.ParseSeverity(s); err != nil {
			return o, cli.Usagef("--severity: %w", err)
		}
		o.HasSeverity = true
	}
	for _, s := range c.StringSlice("match") {
		m, err := chain.ParseFieldMatch(s)
		if err != nil {
			return o, err
		}
		o.Matches = append(o.Matches, m)
	}
	if s := c.String("grep"); s != "" {
		if o.Grep, err = regexp.Compile(s); err != nil {
			return o, cli.Usagef("--grep: %w", err)
		}
	}
	o.Last, o.Reverse = c.Int64("n"), c.Bool("reverse")
	if o.Last < 0 {
		return o, cli.Usagef("-n %d: want a positive number", o.Last)
	}
	return o, nil
}

func printVerdict(w io.Writer, v chain.Verdict) {
	if !v.Verified {
		fmt.Fprintf(w, "gb-chain: NOT VERIFIED: %s\n", v.Reason)
		return
	}
	fmt.Fprintf(w, "gb-chain: verified to #%d at %s, root %s", v.Size-1, v.Time.UTC().Format(time.RFC3339), v.Root)
	if v.Newer > 0 {
		fmt.Fprintf(w, "; %d newer events have no checkpoint yet", v.Newer)
	}
	if v.Pruned > 0 {
		fmt.Fprintf(w, "; events before #%d were pruned", v.Pruned)
	}
	fmt.Fprintln(w)
}
