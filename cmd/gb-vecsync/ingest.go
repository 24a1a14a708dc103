package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/systemd"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
)

func ingestCommand() *cli.Command {
	return &cli.Command{
		Name:  "ingest",
		Usage: "apply the send streams on standard input",
		Description: `Reads btrfs send streams, one after the other, of snapshots of the subvolume
that the log is on. Of each it takes what the snapshot's signed checkpoint
covers, all of it or nothing, and then publishes the cursor file, from which
gb-snap send takes the parent of the next stream.

A stream that contradicts what the index knows of the log is a tamper finding:
exit code 3. It is kept, shown in every answer, and recorded in the log where a
daemon takes it; nothing more is applied until gb-vecsync rebuild --accept.

Example:

   gb-snap send --cursor C SOURCE | gb-vecsync ingest --index I --cursor C`,
		Flags: append([]cli.Flag{
			indexFlag(), cursorFlag(), socketFlag(),
			&cli.StringFlag{Name: "path", EnvVars: []string{"GB_LOG_PATH"}, Usage: "the log's `DIR` within the subvolume, if it holds several"},
			&cli.Int64Flag{Name: "max-names", Value: 128, Usage: "at most `MIB` of memory for the names of the subvolume's files, some 1,500 each"},
			&cli.BoolFlag{Name: "exit-code", Usage: "exit with 4 if there was no stream"},
		}, slices.Concat(embedderFlags(), qdrantFlags(), placementFlags())...),
		Action: runIngest,
	}
}

func cursorFlag() cli.Flag {
	return &cli.StringFlag{Name: "cursor", EnvVars: []string{"GB_CURSOR"},
		Usage: "the cursor `FILE` (default: the index's name and .cursor; of the system's index " + names.CursorFile + ")"}
}

func cursorPath(c *cli.Context, index string) string {
	if path := c.String("cursor"); path != "" {
		return path
	}
	return defaultCursor(index)
}

// defaultCursor is the cursor file of an index. That of the system's is where
// the units have it: a rebuild by hand must not leave theirs behind, which
// names a snapshot that the new index has not seen.
func defaultCursor(index string) string {
	if index == names.IndexFile || index == names.QdrantStateFile {
		return names.CursorFile
	}
	return index + ".cursor"
}

func runIngest(c *cli.Context) error {
	if c.Args().Len() > 1 || c.Args().Present() && c.Args().First() != "-" {
		return cli.Usagef("ingest reads streams from standard input and takes no argument")
	}
	if cli.IsTerminal(c.App.Reader) {
		return cli.WithHint(cli.Usagef("ingest: standard input is a terminal"), "gb-snap send --cursor C SOURCE | gb-vecsync ingest")
	}
	if n := c.Int64("max-names"); n < 1 || n > 1<<20 {
		return cli.Usagef("--max-names %d: want 1 to %d", n, 1<<20)
	}
	t, err := indexTarget(c)
	if err != nil {
		return err
	}
	path := t.path
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	lock, err := lockIndex(path)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	db, err := openForWriting(c, path)
	if err != nil {
		return err
	}
	defer db.Close()
	applied, err := vecsync.Ingest(db, &watchedReader{r: c.App.Reader}, vecsync.Options{
		Path: c.String("path"), MaxNames: c.Int64("max-names") << 20, Cursor: cursorPath(c, path), TempDir: filepath.Dir(path), Record: recorder(c, db).findings(),
		Applied: func(cur vecsync.Cursor, events int64) {
			if cli.IsTerminal(c.App.ErrWriter) {
				fmt.Fprintf(c.App.ErrWriter, "gb-vecsync: snapshot %s applied, %d new events, %d in all\n", cur.SnapshotUUID, events, cur.TreeSize)
			}
		},
	})
	if err != nil {
		return err
	}
	if applied == 0 && c.Bool("exit-code") {
		return cli.Exit(cli.ExitNothing)
	}
	return db.Close()
}

// A watchedReader feeds the watchdog with each read: an ingester that hangs
// behind one, or whose sender does, is to be killed.
type watchedReader struct {
	r        io.Reader
	watchdog systemd.Watchdog
}

func (w *watchedReader) Read(b []byte) (int, error) {
	w.watchdog.Alive()
	return w.r.Read(b)
}
