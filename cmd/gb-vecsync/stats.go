package main

import (
	"fmt"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
)

// stats is what the stats command prints with --json.
type stats struct {
	Events   int64             `json:"events"`
	Newest   *time.Time        `json:"newest,omitempty"` // time of the newest event
	Age      float64           `json:"age_seconds"`      // of that, 0 if there is none
	Cursor   *vecsync.Cursor   `json:"cursor"`
	Findings []vecsync.Finding `json:"findings"`
	Verified bool              `json:"verified"`
}

func statsCommand() *cli.Command {
	return &cli.Command{
		Name:  "stats",
		Usage: "say what the index holds and whether it is sound",
		Description: `Prints the number of events, the age of the newest, the cursor and the tamper
findings. Exit code 3 if a finding stands.

Example:

   gb-vecsync stats --index I`,
		Flags: []cli.Flag{indexFlag(), &cli.BoolFlag{Name: "json", Usage: "print one JSON object"}},
		Action: func(c *cli.Context) error {
			path, err := indexPath(c)
			if err != nil {
				return err
			}
			db, err := local.OpenReader(path)
			if err != nil {
				return cli.WithHint(err, "gb-vecsync ingest or gb-vecsync rebuild makes it")
			}
			defer db.Close()
			s, err := readStats(db, time.Now())
			if err != nil {
				return err
			}
			if err := s.print(c); err != nil {
				return err
			}
			if !s.Verified {
				return cli.Exit(cli.ExitVerify)
			}
			return nil
		},
	}
}

func readStats(db *local.DB, now time.Time) (*stats, error) {
	s := &stats{Findings: []vecsync.Finding{}, Verified: true}
	var newest time.Time
	var err error
	if s.Events, newest, err = db.Count(); err != nil {
		return nil, err
	}
	if s.Events > 0 {
		s.Newest, s.Age = &newest, now.Sub(newest).Seconds()
	}
	if s.Cursor, err = vecsync.ReadCursor(db); err != nil {
		return nil, err
	}
	list, err := vecsync.Findings(db)
	if err != nil {
		return nil, err
	}
	for _, f := range list {
		s.Findings = append(s.Findings, f)
		s.Verified = s.Verified && f.Accepted != ""
	}
	return s, nil
}

func (s *stats) print(c *cli.Context) error {
	if c.Bool("json") {
		return cli.PrintJSON(c.App.Writer, s)
	}
	w := c.App.Writer
	fmt.Fprintf(w, "events    %d\n", s.Events)
	if s.Newest != nil {
		fmt.Fprintf(w, "newest    %s (%s ago)\n", s.Newest.Format(time.RFC3339), time.Duration(s.Age*float64(time.Second)).Round(time.Second))
	}
	if s.Cursor != nil {
		fmt.Fprintf(w, "verified  %d events, root %s\nsnapshot  %s\n", s.Cursor.TreeSize, s.Cursor.Root, s.Cursor.SnapshotUUID)
	}
	for i := range s.Findings {
		f := &s.Findings[i]
		accepted := "NOT VERIFIED"
		if f.Accepted != "" {
			accepted = "accepted: " + f.Accepted
		}
		fmt.Fprintf(w, "finding   %d, %s: %s at event %d: %s (%s)\n", f.Number, f.At.Format(time.RFC3339), f.Kind, f.Index, cli.Printable(f.Detail), cli.Printable(accepted))
	}
	return nil
}
