package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/enrich"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/redact"
	"github.com/ghostbridge/ghostbridge/pkg/search"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
)

func indexFlag() cli.Flag {
	return &cli.StringFlag{Name: "index", EnvVars: []string{"GB_INDEX"}, Value: names.IndexFile, Usage: "the index's `FILE`"}
}

// indexPath returns the file that --index names.
func indexPath(c *cli.Context) (string, error) {
	path := c.String("index")
	if strings.HasPrefix(path, "qdrant://") {
		return "", cli.Usagef("index %s: Qdrant is not built in yet; name a file", path)
	}
	return path, nil
}

// openForWriting opens the index at path for changes, and makes it if it is not
// there. All that write make the same points of the same events.
func openForWriting(c *cli.Context, path string) (*local.DB, error) {
	e, err := embedder(c)
	if err != nil {
		return nil, err
	}
	texts := enrich.Load(enrich.CatalogFile)
	return local.Open(path, local.Options{Embedder: documents{e}, Enrich: texts.Event, Redact: redact.Text, Unembedded: func(err error) {
		fmt.Fprintf(c.App.ErrWriter, "gb-vecsync: no vectors for now, words find the events: %s\n", cli.Printable(err.Error()))
	}})
}

// lockIndex makes this process the only one that changes the index at path.
func lockIndex(path string) (*durable.Lock, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	f.Close()
	lock, err := durable.TryLock(path + ".lock")
	if errors.Is(err, durable.ErrLocked) {
		return nil, &busyError{fmt.Errorf("index %s: %w", path, err)}
	}
	return lock, err
}

type busyError struct{ error }

func (e *busyError) Unwrap() error { return e.error }
func (e *busyError) ExitCode() int { return cli.ExitTryAgain }
func (e *busyError) Hint() string {
	return "another gb-vecsync changes this index; try again when it is done"
}

// state says how far the index has verified the log.
func state(db *local.DB) (search.State, error) {
	cursor, err := vecsync.ReadCursor(db)
	if err != nil {
		return search.State{}, err
	}
	finding, err := vecsync.Standing(db)
	if err != nil {
		return search.State{}, err
	}
	var s search.State
	switch {
	case finding != nil:
		s.Finding = finding.Error()
	case cursor != nil:
		s.Verified = &search.Verified{TreeSize: cursor.TreeSize, Root: cursor.Root.String()}
	}
	return s, nil
}
