package vecsync

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
)

// A Cursor is what an index has applied. Published as a file of JSON, it tells
// gb-snap which snapshot the next stream starts from.
type Cursor struct {
	SourceUUID   sendstream.UUID `json:"source_uuid"`   // of the parent that the first stream came without: the snapshot sent in full
	SnapshotUUID sendstream.UUID `json:"snapshot_uuid"` // of the snapshot applied last, as its stream names it
	Ctransid     uint64          `json:"ctransid"`      // of that snapshot
	TreeSize     int64           `json:"tree_size"`     // events that are in the index
	Root         merkle.Hash     `json:"root"`          // of the tree of these
}

const cursorKey = "cursor"

// ReadCursor returns the cursor of an index, nil if nothing was applied yet. A
// *VersionError says that another version of this package has made it.
func ReadCursor(ix getter) (*Cursor, error) {
	data, err := ix.Get(cursorKey)
	if err != nil || data == nil {
		return nil, err
	}
	if err := checkVersion(ix); err != nil {
		return nil, err
	}
	c := new(Cursor)
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("cursor: %w", err)
	}
	return c, nil
}

// LogKey returns the verifier key of the log that an index is of, "" if nothing
// was applied yet or only another version of this package could tell.
func LogKey(ix getter) (string, error) {
	f, err := readFollower(ix)
	var other *VersionError
	if errors.As(err, &other) {
		return "", nil
	}
	if err != nil || f.ring == nil {
		return "", err
	}
	return f.ring.Created.LogKey.String(), nil
}

func (c *Cursor) json() []byte {
	data, err := json.Marshal(c)
	if err != nil { // no field can fail
		panic(err)
	}
	return data
}

// readCursorFile returns what Publish has written.
func readCursorFile(path string) (c Cursor, err error) {
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	return c, err
}

// Publish writes c to a file, atomically and durably.
func (c *Cursor) Publish(path string) error {
	if err := durable.Replace(path, append(c.json(), '\n'), 0o644); err != nil {
		return fmt.Errorf("cursor file: %w", err)
	}
	return nil
}

func saveCursor(tx index.Tx, c *Cursor) error {
	if err := tx.Set(versionKey, []byte(strconv.Itoa(stateVersion))); err != nil {
		return err
	}
	return tx.Set(cursorKey, c.json())
}
