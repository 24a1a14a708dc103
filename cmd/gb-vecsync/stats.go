package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/index/qdrant"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
)

// stats is what the stats command prints with --json.
type stats struct {
	Healthy   bool              `json:"healthy"`
	Faults    []string          `json:"faults"` // why it isn't, for a person
	Events    int64             `json:"events"`
	Points    int64             `json:"points"`           // what one kind of line said on one host in one hour
	Templates int64             `json:"templates"`        // kinds of lines
	Pending   int64             `json:"pending"`          // of them whose vector is still to come
	Embedder  string            `json:"embedder"`         // that makes the vectors
	Newest    *time.Time        `json:"newest,omitempty"` // time of the newest event
	Age       float64           `json:"age_seconds"`      // of that, 0 if there is none
	Cursor    *vecsync.Cursor   `json:"cursor"`
	Findings  []vecsync.Finding `json:"findings"`
	Verified  bool              `json:"verified"`
	*lag
	Qdrant *qdrantStats `json:"qdrant,omitempty"`
}

// A qdrantStats is what Qdrant holds, of one log or of several.
type qdrantStats struct {
	Address   string   `json:"address"`
	Version   string   `json:"version,omitempty"` // of the server
	Logs      []string `json:"logs"`              // that are in it
	Events    int64    `json:"events"`            // of this log, or of all
	Points    int64    `json:"points"`
	Templates int64    `json:"templates"`
	Pending   int64    `json:"pending"`
	Refused   int      `json:"refused"` // records that it did not take
	Error     string   `json:"error,omitempty"`
}

// A lag is how far the index is behind the log.
type lag struct {
	LogEvents int64   `json:"log_events"`     // that a checkpoint covers
	Behind    int64   `json:"behind"`         // of them that the index has not
	Seconds   float64 `json:"behind_seconds"` // since the oldest of them was taken
}

// late is how long after it was taken an event that can't be found is a fault.
const late = 10 * time.Second

func statsCommand() *cli.Command {
	return &cli.Command{
		Name:  "stats",
		Usage: "say what the index holds and whether it is sound",
		Description: `Prints the number of events, the age of the newest, the cursor and the tamper
findings, and how far the index is behind the log: that of the system, or the
one that --log names. Each fault says what to do. With Qdrant, the index's own
state says how far it is; where there is none, what Qdrant holds of all logs.

Exit code 3 if a finding stands, 1 if an event is in the log and not in the
index for more than ten seconds.

Example:

   gb-vecsync stats --index I --log L`,
		Flags: append([]cli.Flag{
			indexFlag(),
			&cli.StringFlag{Name: "log", EnvVars: []string{"GB_LOG"}, Usage: "the log's `DIR` (default for the system's index: " + names.LogDir + ")"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON object"},
		}, qdrantFlags()...),
		Action: func(c *cli.Context) error {
			t, err := indexTarget(c)
			if err != nil {
				return err
			}
			path := t.path
			db, err := local.OpenReader(path)
			if t.remote != nil && errors.Is(err, fs.ErrNotExist) {
				return remoteStats(c, t)
			}
			if err != nil {
				return cli.WithHint(err, "gb-vecsync ingest or gb-vecsync rebuild makes it")
			}
			defer db.Close()
			s, err := readStats(db, time.Now())
			if err != nil {
				return err
			}
			dir := c.String("log")
			if dir == "" && (path == names.IndexFile || path == names.QdrantStateFile) {
				dir = names.LogDir
			}
			if dir != "" {
				if err := s.compare(dir, time.Now()); err != nil {
					return fmt.Errorf("log %s: %w", dir, err)
				}
			}
			if t.remote != nil {
				if err := s.askQdrant(c, t, db); err != nil {
					return err
				}
			}
			s.Healthy = len(s.Faults) == 0
			if err := s.print(c); err != nil {
				return err
			}
			if !s.Verified {
				return cli.Exit(cli.ExitVerify)
			}
			if !s.Healthy {
				return cli.Exit(cli.ExitFailed)
			}
			return nil
		},
	}
}

// ask asks Qdrant what it holds.
func (q *qdrantStats) ask(c *cli.Context, t *target, tenant string) error {
	t.remote.Patience = min(t.remote.Patience, askPatience)
	client, err := qdrant.Dial(*t.remote)
	if err != nil {
		return err
	}
	defer client.Close()
	q.Address, q.Logs = t.remote.Address(), []string{}
	if q.Version, err = client.Version(c.Context); err != nil {
		return err
	}
	r, err := qdrant.OpenReader(c.Context, client, tenant)
	if err != nil {
		return err
	}
	for name := range r.States() {
		q.Logs = append(q.Logs, name)
	}
	slices.Sort(q.Logs)
	totals, err := r.Totals()
	q.Events, q.Points, q.Templates, q.Pending = totals.Events, totals.Points, totals.Templates, totals.Pending
	return err
}

// askQdrant compares what Qdrant holds of this log with its state.
func (s *stats) askQdrant(c *cli.Context, t *target, db *local.DB) error {
	owner, err := t.owner()
	if err != nil {
		return err
	}
	refused, err := db.Refusals()
	if err != nil {
		return err
	}
	s.Qdrant = &qdrantStats{Refused: len(refused)}
	if n := len(refused); n > 0 {
		s.Faults = append(s.Faults, fmt.Sprintf("qdrant did not take %d records, as %s %s: %s; gb-vecsync rebuild sends them again", n, refused[0].Kind, refused[0].ID, refused[0].Reason))
	}
	err = s.Qdrant.ask(c, t, owner)
	var none *qdrant.NoneError
	switch {
	case errors.As(err, &none) && s.Events == 0:
	case errors.As(err, &none):
		s.Faults = append(s.Faults, err.Error()+", and the state holds events: the next ingest sends all of it, or gb-vecsync rebuild")
	case err != nil:
		s.Faults = append(s.Faults, err.Error()+"; events wait in the log, searches on this host go to the state")
		s.Qdrant.Error = err.Error()
	case s.Qdrant.Events != s.Events || s.Qdrant.Points+int64(len(refused)) < s.Points:
		s.Faults = append(s.Faults, fmt.Sprintf("qdrant holds %d events in %d points, the state %d in %d: gb-vecsync rebuild makes it anew", s.Qdrant.Events, s.Qdrant.Points, s.Events, s.Points))
	}
	return nil
}

// remoteStats prints what Qdrant holds, where no log is indexed on this host.
func remoteStats(c *cli.Context, t *target) error {
	s := &stats{Faults: []string{}, Findings: []vecsync.Finding{}, Verified: true, Healthy: true, Qdrant: new(qdrantStats)}
	if err := s.Qdrant.ask(c, t, t.tenant); err != nil {
		return err
	}
	s.Events, s.Points, s.Templates, s.Pending = s.Qdrant.Events, s.Qdrant.Points, s.Qdrant.Templates, s.Qdrant.Pending
	return s.print(c)
}

func readStats(db *local.DB, now time.Time) (*stats, error) {
	s := &stats{Faults: []string{}, Findings: []vecsync.Finding{}, Verified: true}
	totals, err := db.Totals()
	if err != nil {
		return nil, err
	}
	s.Events, s.Points, s.Templates, s.Pending, s.Embedder = totals.Events, totals.Points, totals.Templates, totals.Pending, totals.Embedder
	if s.Events > 0 {
		s.Newest, s.Age = &totals.Newest, now.Sub(totals.Newest).Seconds()
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
	if !s.Verified {
		s.Faults = append(s.Faults, "the log was tampered with, or is not the one that was indexed: see the findings, and gb-chain verify")
	}
	return s, nil
}

// compare finds how far the index is behind the log in dir. A log that may not
// be read tells nothing.
func (s *stats) compare(dir string, now time.Time) error {
	tree, err := chain.OpenTree(os.DirFS(dir))
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	// Not by the number of events: what nothing vouches for is left out.
	have := int64(0)
	if s.Cursor != nil {
		have = s.Cursor.TreeSize
	}
	size := tree.Checkpoint.Size
	s.lag = &lag{LogEvents: size, Behind: max(size-have, 0)}
	if s.Behind == 0 {
		return nil
	}
	line, err := tree.Line(have)
	if err != nil {
		return err
	}
	oldest, err := event.Decode(line)
	if err != nil {
		return err
	}
	s.Seconds = max(now.Sub(oldest.At).Seconds(), 0)
	if s.Seconds > late.Seconds() {
		s.Faults = append(s.Faults, fmt.Sprintf("%d events can't be found yet, the oldest since %.0f s: gb-snap status tells whether snapshots are taken; "+
			"systemctl status btrfs-vector-sync.path btrfs-vector-sync.service gb-vecsync.socket, why they don't arrive", s.Behind, s.Seconds))
	}
	return nil
}

func (s *stats) print(c *cli.Context) error {
	if c.Bool("json") {
		return cli.PrintJSON(c.App.Writer, s)
	}
	w := c.App.Writer
	if s.Healthy {
		fmt.Fprintln(w, "health    good")
	}
	for _, f := range s.Faults {
		fmt.Fprintf(w, "FAULT     %s\n", cli.Printable(f))
	}
	fmt.Fprintf(w, "events    %d\npoints    %d, of %d kinds of lines\n", s.Events, s.Points, s.Templates)
	if s.Pending > 0 {
		fmt.Fprintf(w, "pending   %d kinds of lines wait for a vector of %s; they are found by their words\n", s.Pending, s.Embedder)
	}
	if s.Newest != nil {
		fmt.Fprintf(w, "newest    %s (%s ago)\n", s.Newest.Format(time.RFC3339), time.Duration(s.Age*float64(time.Second)).Round(time.Second))
	}
	if q := s.Qdrant; q != nil && q.Error == "" {
		fmt.Fprintf(w, "qdrant    %s, version %s: %d events in %d points, of %d kinds of lines; logs: %s\n", q.Address, cli.Printable(q.Version), q.Events, q.Points, q.Templates, cli.Printable(strings.Join(q.Logs, ", ")))
	}
	if s.lag != nil {
		behind := "all in the index"
		if s.Behind > 0 {
			behind = fmt.Sprintf("%d not in the index yet, for %.1f s", s.Behind, s.Seconds)
		}
		fmt.Fprintf(w, "log       %d events, %s\n", s.LogEvents, behind)
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
