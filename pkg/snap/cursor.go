package snap

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

// A Cursor is how far an index has come. The index writes it; what gb-snap
// needs of it is the snapshot.
type Cursor struct {
	SourceUUID   subvol.UUID `json:"source_uuid"`   // of the snapshot that was sent in full
	SnapshotUUID subvol.UUID `json:"snapshot_uuid"` // applied last; zero for none
	CTransID     uint64      `json:"ctransid"`
	TreeSize     int64       `json:"tree_size"`
	Root         string      `json:"root"`
}

// maxCursor is more than any cursor has bytes.
const maxCursor = 64 << 10

// ReadCursor reads a cursor file. It returns nil if there is none yet, or if
// the index has applied no snapshot; the error is a *CursorError.
func ReadCursor(path string) (*Cursor, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &CursorError{path, err}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCursor+1))
	if err != nil {
		return nil, &CursorError{path, err}
	}
	if len(b) > maxCursor {
		return nil, &CursorError{path, errors.New("too long for a cursor")}
	}
	// Pointers tell a missing key from an empty one.
	var c struct {
		Cursor
		SnapshotUUID *subvol.UUID `json:"snapshot_uuid"`
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&c); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it is empty")
		}
		return nil, &CursorError{path, err}
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, &CursorError{path, errors.New("more than one value")}
	}
	if c.SnapshotUUID == nil {
		return nil, &CursorError{path, errors.New("it has no snapshot_uuid")}
	}
	if c.SnapshotUUID.IsZero() {
		return nil, nil
	}
	c.Cursor.SnapshotUUID = *c.SnapshotUUID
	return &c.Cursor, nil
}
