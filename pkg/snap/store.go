package snap

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

// Btrfs is what this package needs of the file system: subvol.System, or
// subvol.Memory in tests.
type Btrfs interface {
	// Info returns what the kernel knows of the subvolume at path.
	Info(path string) (subvol.Info, error)
	// Names returns the names of the subvolumes directly in dir, in no order.
	Names(dir string) ([]string, error)
	// Inside says whether dir lies in the subvolume source, or below it in another.
	Inside(dir, source string) (bool, error)
	// Snapshot makes a read-only snapshot dst of src.
	Snapshot(src, dst string) error
	// Delete deletes the subvolume name in dir if its id is the one given.
	Delete(dir, name string, id uint64) error
	// Backlog returns how many deleted subvolumes are not cleaned up yet.
	Backlog(dir string) (int, error)
	// Space returns how full the file system of dir is.
	Space(dir string) (subvol.Space, error)
	// Qgroups says whether quota groups are on.
	Qgroups(dir string) (bool, error)
	// Written returns the bytes written to the file system's devices.
	Written(dir string) (uint64, error)
	// Changed returns the bytes of file data that the subvolume at path has from
	// transactions later than since.
	Changed(path string, since uint64) (uint64, error)
	// Stamp returns by what a change of the subvolume at path is seen.
	Stamp(ctx context.Context, path string) (subvol.Stamp, error)
	// Send writes a send stream.
	Send(ctx context.Context, j subvol.SendJob) error
}

// A Snapshot is one of a Store.
type Snapshot struct {
	Name string
	Time time.Time // that Name says
	subvol.Info
}

// Source returns the UUID of the subvolume that s is a snapshot of.
func (s Snapshot) Source() subvol.UUID { return s.ParentUUID }

const timeFormat = "20060102T150405.000000000Z"

// Name returns the name of a snapshot taken at t.
func Name(t time.Time) string { return t.UTC().Format(timeFormat) }

// ParseName returns the time that a snapshot's name says, and whether it is
// such a name.
func ParseName(name string) (time.Time, bool) {
	t, err := time.Parse(timeFormat, name)
	return t, err == nil && Name(t) == name
}

// A Store is a directory of snapshots. It is for one goroutine.
type Store struct {
	dir   string
	btrfs Btrfs
	known map[string]Snapshot // by name; what a name stands for is asked once
}

// OpenStore returns the store in directory dir, which must be there.
func OpenStore(b Btrfs, dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: dir, Err: errors.New("not a directory")}
	}
	if err != nil {
		return nil, &PlaceError{fmt.Sprintf("snapshot directory: %v", err), "make it on the source's btrfs, but outside the source, or name another with --snapshots"}
	}
	return &Store{dir: dir, btrfs: b, known: map[string]Snapshot{}}, nil
}

// Dir returns the store's directory.
func (s *Store) Dir() string { return s.dir }

// Path returns where a snapshot is.
func (s *Store) Path(sn Snapshot) string { return filepath.Join(s.dir, sn.Name) }

// List returns the snapshots, those taken first first. What in the directory
// is not a read-only snapshot with a time for a name is not one of them.
func (s *Store) List() ([]Snapshot, error) {
	names, err := s.btrfs.Names(s.dir)
	if err != nil {
		return nil, fmt.Errorf("snapshot directory: %w", err)
	}
	fresh := make(map[string]Snapshot, len(names))
	list := make([]Snapshot, 0, len(names))
	for _, name := range names {
		sn, ok := s.known[name]
		if !ok {
			t, ok := ParseName(name)
			if !ok {
				continue
			}
			info, err := s.btrfs.Info(filepath.Join(s.dir, name))
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, subvol.ErrNotSubvolume) {
				continue // deleted meanwhile, or a directory of that name
			}
			if err != nil {
				return nil, fmt.Errorf("snapshot %s: %w", name, err)
			}
			if !info.ReadOnly || info.ParentUUID.IsZero() {
				continue
			}
			sn = Snapshot{name, t, info}
		}
		fresh[name] = sn
		list = append(list, sn)
	}
	s.known = fresh
	slices.SortFunc(list, func(a, b Snapshot) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// Of returns those of list that are of source.
func Of(list []Snapshot, source subvol.UUID) []Snapshot {
	var of []Snapshot
	for _, sn := range list {
		if sn.Source() == source {
			of = append(of, sn)
		}
	}
	return of
}

// newest returns the newest snapshot of source in list.
func newest(list []Snapshot, source subvol.UUID) (Snapshot, bool) {
	for _, sn := range slices.Backward(list) {
		if sn.Source() == source {
			return sn, true
		}
	}
	return Snapshot{}, false
}

// find returns the snapshot of list with a UUID.
func find(list []Snapshot, id subvol.UUID) (Snapshot, bool) {
	for _, sn := range list {
		if sn.UUID == id {
			return sn, true
		}
	}
	return Snapshot{}, false
}

// Find returns the snapshot that text names: by UUID, by name, or "newest".
func (s *Store) Find(text string) (Snapshot, error) {
	list, err := s.List()
	if err != nil {
		return Snapshot{}, err
	}
	if text == "newest" && len(list) > 0 {
		return list[len(list)-1], nil
	}
	id, uerr := subvol.ParseUUID(text)
	for _, sn := range list {
		if sn.Name == text || uerr == nil && sn.UUID == id {
			return sn, nil
		}
	}
	return Snapshot{}, &NotFoundError{s.dir, text}
}

// source returns what the kernel knows of the source.
func (s *Store) source(path string) (subvol.Info, error) {
	info, err := s.btrfs.Info(path)
	if errors.Is(err, subvol.ErrNotSubvolume) {
		return info, &PlaceError{fmt.Sprintf("source %s is not a btrfs subvolume", path), "make it with: btrfs subvolume create " + path}
	}
	if err != nil {
		return info, &SourceError{path, err}
	}
	return info, nil
}

// pathKey is a short name for files that belong to a path.
func pathKey(path string) string {
	sum := sha256.Sum256([]byte(filepath.Clean(path)))
	return hex.EncodeToString(sum[:8])
}

// Changes returns, for each snapshot of list, the bytes of new data since the
// one before of the same source; for the first one, all. nil is not known,
// which needs root.
func (s *Store) Changes(list []Snapshot) []*uint64 {
	before := map[subvol.UUID]uint64{}
	sizes := make([]*uint64, len(list))
	for i, sn := range list {
		if n, err := s.btrfs.Changed(s.Path(sn), before[sn.Source()]); err == nil {
			sizes[i] = &n
		}
		before[sn.Source()] = sn.OTransID
	}
	return sizes
}
