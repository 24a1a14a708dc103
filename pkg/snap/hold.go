package snap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

// A Hold keeps snapshots from being deleted, under a name. One of a cursor
// file is made by sending and releases by itself: each snapshot as soon as the
// file names it or a later one. (The one that the file names is kept anyway.)
type Hold struct {
	Name      string `json:"name"`             // a person's word for it, or the cursor file
	Cursor    string `json:"cursor,omitempty"` // the cursor file
	Snapshots []Held `json:"snapshots"`
}

// A Held is one snapshot of a hold.
type Held struct {
	UUID   subvol.UUID `json:"uuid"`
	Name   string      `json:"name"`
	ID     uint64      `json:"id"`
	Source subvol.UUID `json:"source_uuid"`
	Since  time.Time   `json:"since"`
}

const (
	holdsDir     = ".holds"
	cursorPrefix = "cursor-"
)

var holdName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// holdFile returns the name of the file of a hold.
func holdFile(name string) (string, error) {
	if filepath.IsAbs(name) { // a cursor file
		return cursorPrefix + pathKey(name) + ".json", nil
	}
	if !holdName.MatchString(name) || strings.HasPrefix(name, cursorPrefix) {
		return "", &PlaceError{fmt.Sprintf("hold %q: a name has letters, digits and ._- only, at most 64, and does not begin with %s", name, cursorPrefix), ""}
	}
	return name + ".json", nil
}

// lockHolds takes the lock on the holds, waiting for it.
func (s *Store) lockHolds(ctx context.Context) (*durable.Lock, error) {
	dir := filepath.Join(s.dir, holdsDir)
	if err := os.Mkdir(dir, 0o755); err == nil {
		if err := durable.SyncDir(s.dir); err != nil {
			return nil, fmt.Errorf("holds: %w", err)
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("holds: %w", err)
	}
	for {
		l, err := durable.TryLock(dir)
		if err == nil || !errors.Is(err, durable.ErrLocked) {
			return l, err
		}
		// Whoever has it deletes a few snapshots or writes one file.
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", err, context.Cause(ctx))
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// Holds returns all holds as they are written, by name.
func (s *Store) Holds() ([]Hold, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, holdsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("holds: %w", err)
	}
	var holds []Hold
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue // the beginnings of a file, left by a crash
		}
		h, err := s.readHold(e.Name())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		holds = append(holds, *h)
	}
	slices.SortFunc(holds, func(a, b Hold) int { return strings.Compare(a.Name, b.Name) })
	return holds, nil
}

func (s *Store) readHold(file string) (*Hold, error) {
	path := filepath.Join(s.dir, holdsDir, file)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("hold: %w", err)
	}
	h := new(Hold)
	if err := json.Unmarshal(b, h); err != nil {
		return nil, &PlaceError{fmt.Sprintf("hold file %s: %v", path, err), "nothing is deleted until it is mended or removed"}
	}
	return h, nil
}

// change reads the hold called name, lets edit change it and writes it, or
// removes it if no snapshot is left. The caller has the lock on the holds.
func (s *Store) change(name string, edit func(h *Hold)) error {
	file, err := holdFile(name)
	if err != nil {
		return err
	}
	h, err := s.readHold(file)
	if errors.Is(err, fs.ErrNotExist) {
		h, err = &Hold{Name: name}, nil
	}
	if err != nil {
		return err
	}
	before, err := json.Marshal(h)
	if err != nil {
		return err
	}
	edit(h)
	path := filepath.Join(s.dir, holdsDir, file)
	if len(h.Snapshots) == 0 {
		if err := os.Remove(path); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return fmt.Errorf("hold %s: %w", name, err)
		}
		return durable.SyncDir(filepath.Dir(path))
	}
	after, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if string(after) == string(before) {
		return nil
	}
	if err := durable.Replace(path, append(after, '\n'), 0o644); err != nil {
		return fmt.Errorf("hold %s: %w", name, err)
	}
	return nil
}

func (h *Hold) add(now time.Time, list ...Snapshot) {
	for _, sn := range list {
		if !slices.ContainsFunc(h.Snapshots, func(e Held) bool { return e.UUID == sn.UUID }) {
			h.Snapshots = append(h.Snapshots, Held{sn.UUID, sn.Name, sn.ID, sn.Source(), now.UTC().Truncate(time.Second)})
		}
	}
}

// release takes out what the cursor file has released.
func (h *Hold) release(list []Snapshot, c *Cursor) {
	h.Snapshots = slices.DeleteFunc(h.Snapshots, func(e Held) bool { return h.released(e, list, c) })
}

// released says whether cursor c, which may be nil, names e or a later
// snapshot of the same source.
func (h *Hold) released(e Held, list []Snapshot, c *Cursor) bool {
	if c == nil {
		return false
	}
	if sn, ok := find(list, c.SnapshotUUID); ok {
		return sn.Source() == e.Source && sn.ID >= e.ID
	}
	for _, other := range h.Snapshots {
		if other.UUID == c.SnapshotUUID {
			return other.Source == e.Source && other.ID >= e.ID
		}
	}
	return false
}

// AddHold holds sn under name.
func (s *Store) AddHold(ctx context.Context, name string, sn Snapshot, now time.Time) error {
	l, err := s.lockHolds(ctx)
	if err != nil {
		return err
	}
	defer l.Unlock()
	// It may have been deleted before the lock was ours.
	if _, err := s.btrfs.Info(s.Path(sn)); err != nil {
		return fmt.Errorf("hold %s: %w", name, err)
	}
	return s.change(name, func(h *Hold) { h.add(now, sn) })
}

// RemoveHold ends the hold called name, or, if text is not empty, for the one
// snapshot of that UUID or name, which need not exist any more.
func (s *Store) RemoveHold(ctx context.Context, name, text string) error {
	l, err := s.lockHolds(ctx)
	if err != nil {
		return err
	}
	defer l.Unlock()
	found := false
	err = s.change(name, func(h *Hold) {
		h.Snapshots = slices.DeleteFunc(h.Snapshots, func(e Held) bool {
			hit := text == "" || e.Name == text || e.UUID.String() == strings.ToLower(text)
			found = found || hit
			return hit
		})
	})
	if err == nil && !found {
		what := "no hold " + name
		if text != "" {
			what += " on " + text
		}
		return &PlaceError{s.dir + ": " + what, "gb-snap hold ls prints them"}
	}
	return err
}

// Holders says for each snapshot of list who keeps it from being deleted:
// names of holds, and the cursor files that name it, those in cursors and
// those of holds. After an error nothing may be deleted.
func (s *Store) Holders(list []Snapshot, cursors []string) (map[subvol.UUID][]string, error) {
	holds, err := s.Holds()
	if err != nil {
		return nil, err
	}
	by := map[subvol.UUID][]string{}
	seen := map[string]bool{}
	named := func(file string) (*Cursor, error) {
		c, err := ReadCursor(file)
		if err == nil && c != nil && !seen[file] {
			by[c.SnapshotUUID] = append(by[c.SnapshotUUID], "cursor "+file)
		}
		seen[file] = true
		return c, err
	}
	for _, h := range holds {
		var c *Cursor
		if h.Cursor != "" {
			if c, err = named(h.Cursor); err != nil {
				return nil, err
			}
		}
		for _, e := range h.Snapshots {
			if h.Cursor == "" || !h.released(e, list, c) {
				by[e.UUID] = append(by[e.UUID], "hold "+h.Name)
			}
		}
	}
	for _, file := range cursors {
		file, err := filepath.Abs(file)
		if err != nil {
			return nil, err
		}
		if _, err := named(file); err != nil {
			return nil, err
		}
	}
	return by, nil
}
