package subvol

import (
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Memory is a double of System: subvolumes that exist only in it, by their
// path. Its content is one number that grows with each Write, and its cleaner
// works only when told to.
type Memory struct {
	// Now is the clock of creation and change times, time.Now if nil.
	Now func() time.Time
	// Fail, if not nil, is asked before each operation ("snapshot", "delete",
	// "info", "names", "send", "stamp", "backlog", "space") and may make it
	// fail.
	Fail func(op, path string) error

	mu      sync.Mutex
	volumes map[string]*volume
	next    uint64 // id, and a UUID is made of it
	transid uint64
	zombies int
	space   Space
	sent    []SendJob
}

type volume struct {
	info    Info
	content uint64 // on the disk
	pending uint64 // written, not on the disk yet
}

// NewMemory returns a file system with one empty subvolume at each path.
func NewMemory(paths ...string) *Memory {
	m := &Memory{volumes: map[string]*volume{}, next: 256, transid: 10, space: Space{Size: 1 << 30, Available: 1 << 29}}
	for _, p := range paths {
		if err := m.Create(p); err != nil {
			panic(err) // the same path twice
		}
	}
	return m
}

func (m *Memory) now() time.Time {
	if m.Now != nil {
		return m.Now().UTC()
	}
	return time.Now().UTC()
}

// begin locks m, or returns the error that op is to have.
func (m *Memory) begin(op, path string) error {
	if m.Fail != nil {
		if err := m.Fail(op, path); err != nil {
			return pathError(op, path, err)
		}
	}
	m.mu.Lock()
	return nil
}

func (m *Memory) add(path string, v *volume) error {
	if m.volumes[path] != nil {
		return fs.ErrExist
	}
	m.next++
	m.transid++
	v.info.ID = m.next
	binary.BigEndian.PutUint64(v.info.UUID[8:], m.next)
	v.info.OTransID = m.transid
	v.info.OTime = m.now()
	m.volumes[path] = v
	return nil
}

// Create makes an empty subvolume.
func (m *Memory) Create(path string) error {
	if err := m.begin("create", path); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if err := m.add(path, &volume{}); err != nil {
		return pathError("create subvolume", path, err)
	}
	v := m.volumes[path]
	v.info.CTransID, v.info.CTime = m.transid, m.now()
	return nil
}

// Write changes the subvolume at path; unsynced, so that Info does not show it
// yet.
func (m *Memory) Write(path string, unsynced bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.volumes[path]
	v.pending++
	if !unsynced {
		m.sync(v)
	}
}

func (m *Memory) sync(v *volume) {
	if v.pending == 0 {
		return
	}
	m.transid++
	v.content, v.pending = v.content+v.pending, 0
	v.info.CTransID, v.info.CTime, v.info.Generation = m.transid, m.now(), m.transid
}

// Clean makes the cleaner finish with up to n deleted subvolumes.
func (m *Memory) Clean(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.zombies = max(0, m.zombies-n)
}

// SetAvailable sets the free space.
func (m *Memory) SetAvailable(n uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.space.Available = n
}

// Sent returns the streams that were sent.
func (m *Memory) Sent() []SendJob {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sent
}

// Remove takes the subvolume at path away, as somebody else may do.
func (m *Memory) Remove(path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.volumes, path)
}

func (m *Memory) at(path string) (*volume, error) {
	v := m.volumes[path]
	if v == nil {
		return nil, pathError("subvolume", path, fs.ErrNotExist)
	}
	return v, nil
}

// Info is as System's.
func (m *Memory) Info(path string) (Info, error) {
	if err := m.begin("info", path); err != nil {
		return Info{}, err
	}
	defer m.mu.Unlock()
	v, err := m.at(path)
	if err != nil {
		return Info{}, err
	}
	return v.info, nil
}

// Names is as System's.
func (m *Memory) Names(dir string) ([]string, error) {
	if err := m.begin("names", dir); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var names []string
	for path := range m.volumes {
		if filepath.Dir(path) == filepath.Clean(dir) {
			names = append(names, filepath.Base(path))
		}
	}
	return names, nil
}

// Snapshot is as System's.
func (m *Memory) Snapshot(src, dst string) error {
	if err := m.begin("snapshot", dst); err != nil {
		return err
	}
	defer m.mu.Unlock()
	v, err := m.at(src)
	if err != nil {
		return err
	}
	m.sync(v) // the kernel writes out the source first
	s := &volume{content: v.content, info: Info{ParentUUID: v.info.UUID, CTransID: v.info.CTransID, CTime: v.info.CTime, ReadOnly: true}}
	if err := m.add(dst, s); err != nil {
		return pathError("snapshot", dst, err)
	}
	return nil
}

// Delete is as System's.
func (m *Memory) Delete(dir, name string, id uint64) error {
	path := filepath.Join(dir, name)
	if err := m.begin("delete", path); err != nil {
		return err
	}
	defer m.mu.Unlock()
	v, err := m.at(path)
	if err != nil {
		return err
	}
	if v.info.ID != id {
		return pathError("delete snapshot", path, fmt.Errorf("it is subvolume %d, not %d", v.info.ID, id))
	}
	delete(m.volumes, path)
	m.zombies++
	return nil
}

// Backlog is as System's.
func (m *Memory) Backlog(dir string) (int, error) {
	if err := m.begin("backlog", dir); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	return m.zombies, nil
}

// Space is as System's.
func (m *Memory) Space(dir string) (Space, error) {
	if err := m.begin("space", dir); err != nil {
		return Space{}, err
	}
	defer m.mu.Unlock()
	return m.space, nil
}

// FSID is as System's.
func (m *Memory) FSID(string) (UUID, error) { return UUID{0: 0xf5}, nil }

// Qgroups is as System's.
func (m *Memory) Qgroups(string) (bool, error) { return false, nil }

// Written is as System's.
func (m *Memory) Written(string) (uint64, error) { return 0, ErrUnsupported }

// Changed is as System's; every change is a byte.
func (m *Memory) Changed(path string, since uint64) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, err := m.at(path)
	if err != nil {
		return 0, err
	}
	if v.info.CTransID > since {
		return 1, nil
	}
	return 0, nil
}

// Stamp is as System's.
func (m *Memory) Stamp(_ context.Context, path string) (Stamp, error) {
	if err := m.begin("stamp", path); err != nil {
		return Stamp{}, err
	}
	defer m.mu.Unlock()
	v, err := m.at(path)
	if err != nil {
		return Stamp{}, err
	}
	var s Stamp
	binary.BigEndian.PutUint64(s.Sum[:], v.content+v.pending)
	s.Entries = 1
	return s, nil
}

// Send writes, in place of a stream, a line with the two UUIDs.
func (m *Memory) Send(ctx context.Context, j SendJob) error {
	if err := m.begin("send", j.Path); err != nil {
		return err
	}
	defer m.mu.Unlock()
	v, err := m.at(j.Path)
	if err != nil {
		return err
	}
	if v.info.UUID != j.UUID {
		return &WrongSubvolumeError{j.Path, j.UUID, v.info.UUID}
	}
	if !v.info.ReadOnly {
		return pathError("send", j.Path, syscall.EPERM)
	}
	if j.ParentPath != "" {
		p, err := m.at(j.ParentPath)
		if err != nil {
			return err
		}
		if p.info.UUID != j.ParentUUID {
			return &WrongSubvolumeError{j.ParentPath, j.ParentUUID, p.info.UUID}
		}
	}
	m.sent = append(m.sent, j)
	_, err = fmt.Fprintf(j.Out, "%s from %s\n", j.UUID, j.ParentUUID)
	return err
}

// Inside is as System's.
func (m *Memory) Inside(dir, source string) (bool, error) { return below(dir, source) }
