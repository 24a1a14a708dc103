package sendstream

import (
	"fmt"
	"io"
	"iter"
	"maps"
	"syscall"
)

// A Memory is a [Tree] in memory, of all the subvolumes that were sent to it,
// as btrfs receive would make them in a directory. Clones and snapshots share
// data. Its zero value is ready for use; it is not safe for concurrent use.
//
// A command costs O(log n) steps, n being the number of extents of the files
// it names, and not more memory than a small multiple of its size; a Snapshot
// copies the parent's names. Holes take nothing, so a file's Size can be far
// more than the memory there is.
type Memory struct {
	// MaxBytes bounds the memory of names, attributes and data of all
	// subvolumes, as far as this package can count it. 0 means DefaultMaxTree.
	// A tree that needs more than three quarters of it can be refused.
	MaxBytes int64
	// Decoder decodes EncodedWrite commands.
	Decoder Decoder

	pool    extentPool
	names   int64 // what the names of all subvolumes take
	subvols map[UUID]*Subvolume
	current *Subvolume // nil before the first and after an End
}

// A Subvolume is the state of one subvolume in a Memory.
type Subvolume struct {
	Path     string // as the stream named it
	UUID     UUID
	Ctransid uint64
	Parent   UUID // of a Snapshot
	// Complete reports whether the stream went on to an End or the next
	// subvolume.
	Complete bool

	names   *Namespace
	content map[FileID]*extent
}

// Subvolume returns the subvolume with a UUID.
func (m *Memory) Subvolume(uuid UUID) (*Subvolume, bool) {
	s, ok := m.subvols[uuid]
	return s, ok
}

// Subvolumes yields all subvolumes in no particular order.
func (m *Memory) Subvolumes() iter.Seq[*Subvolume] { return maps.Values(m.subvols) }

// Forget drops a subvolume, so that what it takes counts no longer. It can't
// be a parent or a source of clones any more.
func (m *Memory) Forget(uuid UUID) {
	s := m.subvols[uuid]
	if s == nil {
		return
	}
	if s == m.current {
		m.current = nil
	}
	m.names -= subvolumeCost + s.names.used
	delete(m.subvols, uuid)
}

// Names returns the subvolume's names and attributes. The Namespace must not
// be changed.
func (s *Subvolume) Names() *Namespace { return s.names }

// ReadAt reads from a regular file of the subvolume, as io.ReaderAt does.
func (s *Subvolume) ReadAt(f *File, p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fmt.Errorf("read at %d: negative offset", offset)
	}
	n := s.content[f.ID].read(p, uint64(offset))
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Open returns a reader of the content of a regular file of the subvolume.
func (s *Subvolume) Open(f *File) *io.SectionReader {
	return io.NewSectionReader(contentReader{s, f}, 0, int64(f.Size))
}

type contentReader struct {
	s *Subvolume
	f *File
}

func (r contentReader) ReadAt(p []byte, offset int64) (int, error) {
	return r.s.ReadAt(r.f, p, offset)
}

// Apply carries out one command. A Snapshot needs its parent to be one of the
// subvolumes, complete, and a Clone its source.
func (m *Memory) Apply(c Command) error {
	switch c := c.(type) {
	case *Header:
		return nil
	case *Subvol:
		return m.begin(&Subvolume{Path: string(c.Path), UUID: c.UUID, Ctransid: c.Ctransid}, c)
	case *Snapshot:
		return m.begin(&Subvolume{Path: string(c.Path), UUID: c.UUID, Ctransid: c.Ctransid, Parent: c.ParentUUID}, c)
	}
	if m.current == nil {
		return fmt.Errorf("%v: %w: no subvolume before it", c.Kind(), ErrOrder)
	}
	if err := m.reserve(commandSize(c)); err != nil {
		return err
	}
	var source *extent
	if c, ok := c.(*Clone); ok {
		var err error
		if source, err = m.source(c); err != nil {
			return fmt.Errorf("clone from %q to %q: %w", clip(c.SourcePath), clip(c.Path), err)
		}
	}
	var data []byte
	if c, ok := c.(*EncodedWrite); ok {
		var err error
		if data, err = m.Decoder.Decode(c); err != nil {
			return fmt.Errorf("encoded_write %q: %w", clip(c.Path), err)
		}
	}
	before := m.current.names.used
	effect, err := m.current.names.Apply(c)
	m.names += m.current.names.used - before
	if err != nil {
		return err
	}
	f := effect.File
	content := m.current.content
	switch c := c.(type) {
	case *End:
		m.current.Complete = true
		m.current = nil
	case *Unlink, *Rename:
		for _, gone := range []*File{f, effect.Replaced} {
			if gone != nil && gone.Nlink == 0 {
				delete(content, gone.ID)
			}
		}
	case *Write:
		content[f.ID] = m.pool.replace(content[f.ID], c.Offset, m.pool.of(c.Data))
	case *EncodedWrite:
		content[f.ID] = m.pool.replace(content[f.ID], c.Offset, m.pool.of(data))
	case *Clone:
		content[f.ID] = m.pool.replace(content[f.ID], c.Offset, source)
	case *Truncate:
		content[f.ID] = m.pool.resize(content[f.ID], f.Size)
	case *Fallocate:
		x := content[f.ID]
		if c.Mode&(FallocPunchHole|FallocZeroRange) != 0 && c.Offset < x.len() {
			x = m.pool.replace(x, c.Offset, m.pool.hole(min(c.Len, x.len()-c.Offset)))
		}
		content[f.ID] = m.pool.resize(x, f.Size)
	}
	return nil
}

func (m *Memory) begin(s *Subvolume, c Command) error {
	if m.subvols[s.UUID] != nil {
		return fmt.Errorf("%v %q: %v: %w", c.Kind(), clip(c.Target()), s.UUID, syscall.EEXIST)
	}
	if m.current != nil { // its End was omitted
		m.current.Complete = true
		m.current = nil
	}
	if _, ok := c.(*Snapshot); ok {
		parent := m.subvols[s.Parent]
		if parent == nil || !parent.Complete {
			return fmt.Errorf("%v %q: %w: %v", c.Kind(), clip(c.Target()), ErrParent, s.Parent)
		}
		if err := m.reserve(subvolumeCost + parent.names.used); err != nil {
			return err
		}
		s.names = parent.names.copy()
		s.content = maps.Clone(parent.content)
	} else {
		if err := m.reserve(subvolumeCost + fileCost); err != nil {
			return err
		}
		s.names = NewNamespace()
		s.names.untracked = true
		s.content = make(map[FileID]*extent)
	}
	if _, err := s.names.Apply(c); err != nil {
		return err
	}
	if m.subvols == nil {
		m.subvols = make(map[UUID]*Subvolume)
	}
	m.subvols[s.UUID] = s
	m.names += subvolumeCost + s.names.used
	m.current = s
	return nil
}

// source returns the extents that a Clone refers to, as they are now.
func (m *Memory) source(c *Clone) (*extent, error) {
	s := m.current
	if c.SourceUUID != s.UUID {
		s = m.subvols[c.SourceUUID]
		if s == nil || !s.Complete || s.Ctransid != c.SourceCtransid {
			return nil, fmt.Errorf("%w: %v at %d", ErrParent, c.SourceUUID, c.SourceCtransid)
		}
	}
	f, err := s.names.Lookup(c.SourcePath)
	if err != nil {
		return nil, err
	}
	if err := f.content(); err != nil {
		return nil, err
	}
	if c.SourceOffset+c.Len > f.Size {
		return nil, fmt.Errorf("%w: the source has %d bytes", syscall.EINVAL, f.Size)
	}
	return m.pool.slice(s.content[f.ID], c.SourceOffset, c.Len), nil
}

// reserve makes sure that need bytes fit, and leaves names the rest.
func (m *Memory) reserve(need int64) error {
	limit := m.MaxBytes
	if limit <= 0 {
		limit = DefaultMaxTree
	}
	if m.names+m.pool.allocated+need > limit {
		m.pool.allocated = m.pool.live(func(yield func(*extent)) {
			for s := range m.Subvolumes() {
				for _, x := range s.content {
					yield(x)
				}
			}
		})
		// A quarter in reserve, or the count would run again and again.
		if m.names+m.pool.allocated+need > limit/4*3 {
			return fmt.Errorf("%w: tree of more than %d bytes", ErrTooLarge, limit)
		}
	}
	if m.current != nil {
		m.current.names.MaxBytes = limit - m.pool.allocated - (m.names - m.current.names.used)
	}
	return nil
}

// subvolumeCost is what a Subvolume takes besides its names and data.
const subvolumeCost = 800

// commandSize bounds what a command can add.
func commandSize(c Command) int64 {
	const nodes = 512 * extentCost // of splits and joins of two deep trees
	size := 1024 + bytesCost(2*len(c.Target()))
	switch c := c.(type) {
	case *Write:
		size += nodes + bytesCost(len(c.Data))
	case *EncodedWrite:
		size += nodes + bytesCost(int(min(c.UnencodedFileLen, 1<<40)))
	case *Clone, *Truncate, *Fallocate:
		size += nodes
	case *Rename:
		size += bytesCost(2 * len(c.To))
	case *Symlink:
		size += bytesCost(len(c.Dest))
	case *SetXattr:
		size += bytesCost(2*len(c.Name)) + bytesCost(len(c.Value))
	}
	return size
}

// copy returns a Namespace of its own that has the same state.
func (n *Namespace) copy() *Namespace {
	d := *n
	d.changed, d.changedUsed = nil, 0
	d.files = make(map[FileID]*File, len(n.files))
	for id, f := range n.files {
		g := *f
		g.xattrs = maps.Clone(f.xattrs) // values are never changed in place
		g.entries, g.links = nil, nil
		d.files[id] = &g
	}
	for id, f := range n.files {
		g := d.files[id]
		if f.link.dir != nil {
			g.link.dir = d.files[f.link.dir.ID]
		}
		if f.entries != nil {
			g.entries = make(map[string]*File, len(f.entries))
			for name, child := range f.entries {
				g.entries[name] = d.files[child.ID]
			}
		}
		if f.links != nil {
			g.links = make(map[entry]struct{}, len(f.links))
			for e := range f.links {
				g.links[entry{d.files[e.dir.ID], e.name}] = struct{}{}
			}
		}
	}
	return &d
}

var _ Tree = (*Memory)(nil)
