package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
)

func rebuildCommand() *cli.Command {
	return &cli.Command{
		Name:  "rebuild",
		Usage: "make the index anew from the log",
		Description: `Reads the log's own files and makes the index anew: the same events as the
streams would have brought. The old index serves searches until the new one is
complete. The next stream must be a full one; it is compared with what was
read.

Findings of the old index are kept. One that stands refuses the rebuild unless
--accept names it and --reason says why, which becomes an event of the log.
What can't be verified any more is then left out of the index, and named.

Examples:

   gb-vecsync rebuild --log /var/lib/blockchain-timing/log --index I
   gb-vecsync rebuild --index I --accept 1 --reason "restored from backup"`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "log", EnvVars: []string{"GB_LOG"}, Value: names.LogDir, Usage: "the log's `DIR`"},
			indexFlag(), cursorFlag(), socketFlag(),
			&cli.IntSliceFlag{Name: "accept", Usage: "accept finding `N` (may be repeated)"},
			&cli.StringFlag{Name: "reason", Usage: "why it is accepted"},
			&cli.BoolFlag{Name: "unrecorded", Usage: "accept it without an event, if no daemon of the log can take one"},
		}, slices.Concat(embedderFlags(), qdrantFlags(), placementFlags())...),
		Action: runRebuild,
	}
}

func runRebuild(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Usagef("rebuild takes no argument")
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
	old, err := openOld(path)
	if err != nil {
		return err
	}
	if old != nil {
		defer old.Close()
	}
	findings, accepted, err := acceptedFindings(c, old)
	if err != nil {
		return err
	}
	fresh := path + ".rebuild"
	if err := removeIndex(fresh); err != nil {
		return err
	}
	cursor, left, err := fill(c, fresh, old, findings, len(accepted) > 0)
	if f := new(vecsync.Finding); errors.As(err, &f) {
		return errors.Join(err, keepFinding(c, path, fresh, f), removeIndex(fresh))
	}
	if err == nil && len(accepted) > 0 {
		err = recordAccepted(c, fresh, accepted, left)
	}
	if err != nil {
		return errors.Join(err, removeIndex(fresh))
	}
	if err := replaceIndex(c, fresh, path); err != nil {
		return err
	}
	if err := publish(c, t); err != nil {
		return err
	}
	// The cursor file names a snapshot that this index has not applied.
	if err := os.Remove(cursorPath(c, path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cursor file: %w", err)
	}
	fmt.Fprintf(c.App.ErrWriter, "gb-vecsync: index %s made anew: %d events, root %s; the next stream must be a full one\n", t.name(), cursor.TreeSize, cursor.Root)
	for _, s := range left {
		fmt.Fprintf(c.App.ErrWriter, "gb-vecsync: left out, since nothing vouches for them: events %d to %d\n", s.First, s.Last)
	}
	return nil
}

// openOld opens the index that is replaced, be it of another version, for its
// findings; nil if there is none.
func openOld(path string) (*local.DB, error) {
	old, err := local.OpenState(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		if _, err = vecsync.Findings(old); err != nil { // it is some other database
			old.Close()
		}
	}
	if err != nil {
		return nil, cli.WithHint(err, "delete it if it is spoilt; the findings in it are lost with it, gb-chain verify finds again what is wrong with the log")
	}
	return old, nil
}

// acceptedFindings returns the old index's findings, with those accepted that
// the flags name; accepted are these alone.
func acceptedFindings(c *cli.Context, old *local.DB) (list, accepted []vecsync.Finding, err error) {
	accept, reason := c.IntSlice("accept"), c.String("reason")
	if len(accept) > 0 && strings.TrimSpace(reason) == "" {
		return nil, nil, cli.Usagef("--accept wants a --reason")
	}
	if old != nil {
		if list, err = vecsync.Findings(old); err != nil {
			return nil, nil, err
		}
	}
	for _, n := range accept {
		if n < 1 || n > len(list) {
			return nil, nil, cli.Usagef("--accept %d: the index has %d findings", n, len(list))
		}
		if list[n-1].Accepted == "" {
			list[n-1].Accepted = reason
			accepted = append(accepted, list[n-1])
		}
	}
	for i := range list {
		if list[i].Accepted == "" {
			return nil, nil, &list[i]
		}
	}
	return list, accepted, nil
}

func fill(c *cli.Context, path string, old *local.DB, findings []vecsync.Finding, accept bool) (vecsync.Cursor, []vecsync.Span, error) {
	db, err := openForWriting(c, path)
	if err != nil {
		return vecsync.Cursor{}, nil, err
	}
	defer db.Close()
	if err := vecsync.KeepFindings(db, findings); err != nil {
		return vecsync.Cursor{}, nil, err
	}
	o := vecsync.RebuildOptions{Accept: accept}
	if old != nil {
		o.Old = old
	}
	if cli.IsTerminal(c.App.ErrWriter) {
		o.Progress = func(done, size int64) {
			fmt.Fprintf(c.App.ErrWriter, "\rgb-vecsync: %d of %d events\x1b[K", done, size)
		}
		defer fmt.Fprint(c.App.ErrWriter, "\r\x1b[K")
	}
	cursor, left, err := vecsync.Rebuild(db, c.String("log"), o)
	if err != nil {
		return cursor, nil, err
	}
	if err := db.Settle(); err != nil {
		return cursor, nil, err
	}
	return cursor, left, db.Close()
}

// keepFinding keeps what a rebuild found in the old index, where it can be
// accepted. One of another version makes room for a new one without events, in
// which are its findings.
func keepFinding(c *cli.Context, path, fresh string, f *vecsync.Finding) error {
	db, err := openForWriting(c, path)
	var version *local.VersionError
	if errors.As(err, &version) {
		if err := replaceIndex(c, fresh, path); err != nil {
			return err
		}
		db, err = openForWriting(c, path)
	}
	if err != nil {
		return err
	}
	defer db.Close()
	f.At = time.Now().UTC()
	if err := vecsync.KeepFinding(db, f); err != nil {
		return err
	}
	return vecsync.RecordFinding(db, f, recorder(c, db).findings())
}

// recordAccepted makes an event of each accepted finding, before the index
// that rests on it takes the place of the old one.
func recordAccepted(c *cli.Context, fresh string, accepted []vecsync.Finding, left []vecsync.Span) error {
	if c.Bool("unrecorded") {
		fmt.Fprintln(c.App.ErrWriter, "gb-vecsync: no event of the log says that findings were accepted (--unrecorded)")
		return nil
	}
	db, err := local.OpenReader(fresh)
	if err != nil {
		return err
	}
	defer db.Close()
	r := recorder(c, db)
	for i := range accepted {
		if err := r.accepted(&accepted[i], left); err != nil {
			return cli.WithHint(fmt.Errorf("accepting a finding is an event of the log: %w", err),
				"start the log's gb-chain serve and name its socket with --socket; if it can't run, --unrecorded accepts without an event")
		}
	}
	return nil
}

// replaceIndex puts the index fresh into the place of the one at path. A reader
// has the old file open as long as it likes. What the old one has in its
// write-ahead log must not be taken for the new one's, so it is brought into
// its file first, and both logs removed.
func replaceIndex(c *cli.Context, fresh, path string) error {
	if old, err := openForWriting(c, path); err == nil {
		if err := errors.Join(old.Settle(), old.Close()); err != nil {
			return err
		}
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		for _, p := range []string{path, fresh} {
			if err := os.Remove(p + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("index: %w", err)
			}
		}
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	if err := removeIndex(fresh); err != nil { // its empty write-ahead log
		return err
	}
	if err := durable.SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return nil
}

// publish lets readers see in Qdrant what was made anew there.
func publish(c *cli.Context, t *target) error {
	if t.remote == nil {
		return nil
	}
	db, err := openForWriting(c, t.path)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Publish(); err != nil {
		return fmt.Errorf("%s is made anew, and %s does not show it yet; the next ingest tries again: %w", t.path, t.name(), err)
	}
	return nil
}

func removeIndex(path string) error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("index: %w", err)
		}
	}
	return nil
}
