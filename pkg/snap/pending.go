package snap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A Pending is a directory that is empty exactly if the receiver with the
// given cursor file has the newest snapshot: what a service manager waits on
// (systemd.path(5), DirectoryNotEmpty=). There is a mark, an empty file named
// like a snapshot, for what the receiver lacks.
//
// The taker marks after each tick in which the cursor does not name the newest
// snapshot, whether that is new or not, so that no mark can be lost for longer
// than a tick. The sender removes only marks of what it has delivered.
type Pending struct {
	Dir    string // on no disk: a mark stands for nothing after a boot
	Cursor string
}

// Mark leaves a mark for newest unless the cursor names it. newest may be nil.
func (p Pending) Mark(newest *Snapshot) error {
	if newest == nil {
		return nil
	}
	// A cursor that can't be read is the sender's to complain about.
	if cur, err := ReadCursor(p.Cursor); err == nil && cur != nil && cur.SnapshotUUID == newest.UUID {
		return nil
	}
	marks, err := p.marks()
	if err != nil {
		return err
	}
	for _, name := range marks {
		if name == newest.Name {
			return nil
		}
	}
	f, err := os.OpenFile(filepath.Join(p.Dir, newest.Name), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("mark: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("mark: %w", err)
	}
	// One is enough. The new one is there before the old ones go.
	return p.remove(marks)
}

// Clear removes the marks but those of snapshots of source that came after
// the one that the cursor names.
func (p Pending) Clear(s *Store, source string) error {
	// In this order: a mark that is made meanwhile is not seen, and stays.
	marks, err := p.marks()
	if err != nil || len(marks) == 0 {
		return err
	}
	src, err := s.source(source)
	if err != nil {
		return err
	}
	list, err := s.List()
	if err != nil {
		return err
	}
	cur, err := ReadCursor(p.Cursor)
	if err != nil {
		return err
	}
	var applied uint64
	if cur != nil {
		if sn, ok := find(list, cur.SnapshotUUID); ok {
			applied = sn.ID
		}
	}
	later := make(map[string]bool)
	for _, sn := range list {
		later[sn.Name] = sn.Source() == src.UUID && sn.ID > applied
	}
	var done []string
	for _, name := range marks {
		if !later[name] {
			done = append(done, name)
		}
	}
	return p.remove(done)
}

func (p Pending) marks() ([]string, error) {
	d, err := os.Open(p.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(p.Dir, 0o755); err != nil {
			return nil, fmt.Errorf("marks: %w", err)
		}
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("marks: %w", err)
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("marks: %w", err)
	}
	return names, nil
}

func (p Pending) remove(names []string) error {
	for _, name := range names {
		if err := os.Remove(filepath.Join(p.Dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("mark: %w", err)
		}
	}
	return nil
}
