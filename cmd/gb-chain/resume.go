package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/cli"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/intake"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
)

// journalBegin is where a recorder begins that has recorded nothing yet.
const journalBegin = "--since=-1h"

// resumeJournal returns the journalctl command that goes on where the log
// ends, and has o leave out the entry that it begins with.
//
// journalctl's --after-cursor would leave out an entry unseen if the one at
// the cursor is gone; --cursor prints the one at the cursor, so that it can be
// seen whether that is still there.
func resumeJournal(c *cli.Context, command []string, o *chain.FeedOptions) ([]string, error) {
	cursor, err := lastJournalCursor(c, o.Peer)
	if err != nil {
		return nil, err
	}
	command = append(slices.Clone(command), "--lines=all")
	if cursor == "" {
		return append(command, journalBegin), nil
	}
	convert, first := o.Convert, true
	o.Convert = func(line []byte) ([]byte, error) {
		if first {
			first = false
			have := intake.JournalCursor(line)
			if have == cursor {
				return nil, nil
			}
			cli.Logger(c.App.ErrWriter).Warn(fmt.Sprintf("the journal no longer has the entry %s: %s not recorded", cursor, missing(cursor, have)))
		}
		return convert(line)
	}
	return append(command, "--cursor="+cursor), nil
}

// missing says how many entries lie between two cursors.
func missing(from, to string) string {
	sequence := func(cursor string) (id string, n uint64) {
		for _, part := range strings.Split(cursor, ";") {
			switch key, value, _ := strings.Cut(part, "="); key {
			case "s":
				id = value
			case "i":
				n, _ = strconv.ParseUint(value, 16, 64)
			}
		}
		return id, n
	}
	fromID, a := sequence(from)
	toID, b := sequence(to)
	if fromID != toID || b <= a {
		return "an unknown number of entries was"
	}
	return fmt.Sprintf("%d entries were", b-a-1)
}

// lastJournalCursor returns the cursor of the newest journal entry that peer
// has in the log, "" if there is none.
func lastJournalCursor(c *cli.Context, peer event.Peer) (string, error) {
	dir := c.String("log")
	found := errors.New("found")
	cursor := ""
	_, err := chain.Query(c.Context, os.DirFS(dir), chain.QueryOptions{Filter: chain.Filter{Sources: []string{"journald"}}, Reverse: true},
		func(e *event.Event, _ []byte) (err error) {
			if e.Peer != peer {
				return nil
			}
			data := []byte(e.Data)
			if e.Blob != nil {
				if data, err = os.ReadFile(filepath.Join(dir, layout.BlobName(e.Blob.SHA256))); err != nil {
					return err
				}
			}
			var entry struct {
				Cursor string `json:"cursor"`
			}
			if json.Unmarshal(data, &entry) == nil && entry.Cursor != "" {
				cursor = entry.Cursor
				return found
			}
			return nil
		})
	if err != nil && !errors.Is(err, found) {
		return "", cli.WithHint(fmt.Errorf("log %s: where did the recorder stop: %w", dir, err), "--resume reads the log that it appends to; name it with --log")
	}
	return cursor, nil
}
