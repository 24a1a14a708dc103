package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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
--accept names it and --reason says why.

Example:

   gb-vecsync rebuild --log /var/lib/blockchain-timing/log --index I`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "log", EnvVars: []string{"GB_LOG"}, Value: names.LogDir, Usage: "the log's `DIR`"},
			indexFlag(), cursorFlag(),
			&cli.IntSliceFlag{Name: "accept", Usage: "accept finding `N` (may be repeated)"},
			&cli.StringFlag{Name: "reason", Usage: "why it is accepted"},
		},
		Action: runRebuild,
	}
}

func runRebuild(c *cli.Context) error {
	if c.Args().Present() {
		return cli.Usagef("rebuild takes no argument")
	}
	path, err := indexPath(c)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	lock, err := lockIndex(path)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	findings, err := acceptedFindings(c, path)
	if err != nil {
		return err
	}
	fresh := path + ".rebuild"
	if err := removeIndex(fresh); err != nil {
		return err
	}
	cursor, err := fill(c, fresh, findings)
	if err != nil {
		return errors.Join(err, removeIndex(fresh))
	}
	// A reader has the old file open as long as it likes. What the old one
	// had in its write-ahead log must not be taken for the new one's.
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("index: %w", err)
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
	// The cursor file names a snapshot that this index has not applied.
	if err := os.Remove(cursorPath(c, path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cursor file: %w", err)
	}
	fmt.Fprintf(c.App.ErrWriter, "gb-vecsync: index %s made anew: %d events, root %s; the next stream must be a full one\n", path, cursor.TreeSize, cursor.Root)
	return nil
}

// acceptedFindings returns the old index's findings, with those accepted that
// the flags name.
func acceptedFindings(c *cli.Context, path string) ([]vecsync.Finding, error) {
	accept := c.IntSlice("accept")
	if len(accept) > 0 && c.String("reason") == "" {
		return nil, cli.Usagef("--accept wants a --reason")
	}
	var list []vecsync.Finding
	old, err := local.OpenReader(path)
	var version *local.VersionError
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.As(err, &version):
		// Nothing to keep.
	case err != nil:
		return nil, err
	default:
		defer old.Close()
		if list, err = vecsync.Findings(old); err != nil {
			return nil, err
		}
	}
	for _, n := range accept {
		if n < 1 || n > len(list) {
			return nil, cli.Usagef("--accept %d: the index has %d findings", n, len(list))
		}
		list[n-1].Accepted = c.String("reason")
	}
	for i := range list {
		if list[i].Accepted == "" {
			return nil, &list[i]
		}
	}
	return list, nil
}

func fill(c *cli.Context, path string, findings []vecsync.Finding) (vecsync.Cursor, error) {
	db, err := local.Open(path)
	if err != nil {
		return vecsync.Cursor{}, err
	}
	defer db.Close()
	if err := vecsync.KeepFindings(db, findings); err != nil {
		return vecsync.Cursor{}, err
	}
	var progress func(done, size int64)
	if cli.IsTerminal(c.App.ErrWriter) {
		progress = func(done, size int64) {
			fmt.Fprintf(c.App.ErrWriter, "\rgb-vecsync: %d of %d events\x1b[K", done, size)
		}
		defer fmt.Fprint(c.App.ErrWriter, "\r\x1b[K")
	}
	cursor, err := vecsync.Rebuild(db, c.String("log"), progress)
	if err != nil {
		return cursor, err
	}
	return cursor, db.Close()
}

func removeIndex(path string) error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("index: %w", err)
		}
	}
	return nil
}
