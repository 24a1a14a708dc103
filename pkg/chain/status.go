package chain

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"golang.org/x/sys/unix"
)

// A Status is how a log does, as far as looking at its newest parts tells:
// Verify reads all of it.
type Status struct {
	Healthy   bool       `json:"healthy"`
	Faults    []string   `json:"faults"` // why it isn't, for a person
	Origin    string     `json:"origin"`
	Writer    bool       `json:"writer"`            // somebody has the log open
	Size      int64      `json:"size"`              // events that the checkpoint covers
	Newer     int64      `json:"newer"`             // events behind it
	NewerAge  float64    `json:"newer_age_seconds"` // of the oldest of them that was looked at
	Newest    *time.Time `json:"newest,omitempty"`  // when the newest event was taken
	Epoch     int64      `json:"epoch"`             // number of the key that signs
	Segments  int        `json:"segments"`
	Available uint64     `json:"available_bytes"` // that the log's file system has free
}

// lowSpace is how few free bytes are a fault: a checkpoint, a segment and the
// file system's own needs while snapshots are deleted.
const lowSpace = 256 << 20

// ReadStatus looks at the log in dir. The error says that there is none, or
// that it can't be read; what is wrong with it is among the faults.
func ReadStatus(dir string, now time.Time) (*Status, error) {
	s := &Status{Faults: []string{}}
	fsys := os.DirFS(dir)
	created, err := ReadCreated(fsys)
	if err != nil {
		return nil, err
	}
	s.Origin = created.Origin
	var frozen bool
	if s.Writer, frozen, err = Writing(dir); err != nil {
		return nil, err
	}
	cp, err := LatestCheckpoint(fsys)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.Faults = append(s.Faults, "nothing is signed yet")
	case err != nil:
		s.Faults = append(s.Faults, fmt.Sprintf("checkpoint: %v: gb-chain verify says more", err))
	}
	s.Size = cp.Size
	data, err := fs.ReadFile(fsys, layout.Epochs)
	if err == nil {
		var keys *layout.Keyring
		if keys, err = layout.ReadKeyring(data); err == nil {
			s.Epoch = keys.Epochs() - 1
		}
	}
	if err != nil {
		s.Faults = append(s.Faults, fmt.Sprintf("epoch keys: %v", err))
	}
	if err := s.readTail(fsys, dir, now); err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nil, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	s.Available = st.Bavail * uint64(st.Bsize)
	if s.Available < lowSpace && !frozen {
		s.Faults = append(s.Faults, fmt.Sprintf("only %d MiB of space are free", s.Available>>20))
	}
	if s.NewerAge > TailAge.Seconds() && !frozen {
		what := "gb-chain checkpoint --sign signs them"
		if s.Writer {
			what = "the daemon can't sign: its own messages say why"
		}
		s.Faults = append(s.Faults, fmt.Sprintf("%d events are not signed, the oldest since %.0f s: %s", s.Newer, s.NewerAge, what))
	}
	s.Healthy = len(s.Faults) == 0
	return s, nil
}

// readTail finds the newest event, and the oldest that the checkpoint does not
// cover.
func (s *Status) readTail(fsys fs.FS, dir string, now time.Time) error {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return err
	}
	last := ""
	for _, e := range entries {
		if _, ok := layout.ParseSegmentName(e.Name()); ok {
			s.Segments++
			last = max(last, e.Name())
		}
	}
	if last == "" {
		return nil
	}
	newest, oldest, err := tailEvents(filepath.Join(dir, last), s.Size)
	if err != nil || newest == nil {
		return err
	}
	s.Newest, s.Newer = &newest.At, max(newest.Index+1-s.Size, 0)
	if s.Newer > 0 {
		s.NewerAge = max(now.Sub(oldest.At).Seconds(), 0)
	}
	return nil
}

// tailEvents returns the last whole event of a segment, nil if it has none, and
// the oldest one from index from on that is near it.
func tailEvents(path string, from int64) (newest, oldest *event.Event, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	// Room for lines of the greatest length, the last of which may be torn.
	tail := make([]byte, min(st.Size(), 4*(event.MaxLine+1)))
	if _, err := f.ReadAt(tail, st.Size()-int64(len(tail))); err != nil && err != io.EOF {
		return nil, nil, err
	}
	for end := bytes.LastIndexByte(tail, '\n'); end >= 0; {
		begin := bytes.LastIndexByte(tail[:end], '\n')
		if e, err := event.Decode(tail[begin+1 : end]); err == nil {
			if newest == nil {
				newest, oldest = e, e
			}
			if e.Index < from {
				break
			}
			oldest = e
		}
		end = begin
	}
	return newest, oldest, nil
}
