package sendstream

import (
	"errors"
	"fmt"
	"iter"
	"strings"
	"syscall"
)

// ErrParent: a snapshot's parent is not the subvolume it is applied to, or a
// clone's source is not there.
var ErrParent = errors.New("the parent is not here")

// The file types in File.Mode, as in st_mode.
const (
	ModeType    = 0o170000
	ModeSocket  = 0o140000
	ModeSymlink = 0o120000
	ModeRegular = 0o100000
	ModeBlock   = 0o060000
	ModeDir     = 0o040000
	ModeChar    = 0o020000
	ModeFifo    = 0o010000
)

// A FileID is the identity of a file or directory in a Namespace. It stays the
// same through renames, links and incremental streams and is never given
// again, unlike an inode number, which btrfs can reuse after a mount.
type FileID uint64

// RootID is the subvolume's own directory.
const RootID FileID = 1

// A File is what a Namespace knows of a file or directory. Only Apply changes
// it.
type File struct {
	ID    FileID
	Ino   uint64 // inode number at the sender, 0 for the subvolume's directory
	Mode  uint32 // type and permissions, as in st_mode
	Nlink uint32 // names; 0 once the file is gone; 1 for a directory
	UID   uint32
	GID   uint32
	Size  uint64 // of a regular file, in bytes
	Rdev  uint64 // of a device, as in Mknod
	Flags uint64 // as in Fileattr
	Dest  []byte // of a symbolic link

	Atime, Mtime, Ctime, Otime Timespec

	xattrs  map[string][]byte
	entries map[string]*File   // of a directory
	link    entry              // one of the names
	links   map[entry]struct{} // the others
}

// An entry is a name of a file: where it stands, and what it is there.
type entry struct {
	dir  *File
	name string
}

// IsDir reports whether f is a directory.
func (f *File) IsDir() bool { return f.Mode&ModeType == ModeDir }

// IsRegular reports whether f is a regular file.
func (f *File) IsRegular() bool { return f.Mode&ModeType == ModeRegular }

// Xattr returns the value of an extended attribute.
func (f *File) Xattr(name string) (value []byte, ok bool) {
	value, ok = f.xattrs[name]
	return value, ok
}

// Xattrs yields the extended attributes in no particular order.
func (f *File) Xattrs() iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for name, value := range f.xattrs {
			if !yield(name, value) {
				return
			}
		}
	}
}

// Entries yields the files of a directory by name, in no particular order.
func (f *File) Entries() iter.Seq2[string, *File] {
	return func(yield func(string, *File) bool) {
		for name, child := range f.entries {
			if !yield(name, child) {
				return
			}
		}
	}
}

// Entry returns the file that has a name in a directory, nil if none has.
func (f *File) Entry(name string) *File { return f.entries[name] }

// Paths returns the paths by which f can be reached now, in no particular
// order: none if it is gone, [""] for the subvolume's directory.
func (f *File) Paths() []string {
	if f.ID == RootID {
		return []string{""}
	}
	if f.Nlink == 0 {
		return nil
	}
	paths := []string{f.link.path()}
	for e := range f.links {
		paths = append(paths, e.path())
	}
	return paths
}

func (e entry) path() string {
	parts := []string{e.name}
	size := len(e.name)
	for d := e.dir; d.ID != RootID; d = d.link.dir {
		parts = append(parts, d.link.name)
		size += 1 + len(d.link.name)
	}
	var b strings.Builder
	b.Grow(size)
	for i := len(parts) - 1; i >= 0; i-- {
		b.WriteString(parts[i])
		if i > 0 {
			b.WriteByte('/')
		}
	}
	return b.String()
}

// An Effect is what a command did to a Namespace.
type Effect struct {
	// File is the file that the command named: made, moved, linked, unlinked
	// or changed. It is nil for a Header, an End and an Unknown.
	File *File
	// Replaced is the file whose name a Rename took over. Its Nlink says
	// whether it has others.
	Replaced *File
}

// A Namespace follows which file each path of a subvolume names, and the files'
// attributes, but not their content. It is how a consumer of a stream knows
// that the write to "log" and the write to "log.1" go to the same file. It
// holds the state of one subvolume, and the incremental streams that lead on
// from it: [Namespace.Apply] takes the commands one by one.
//
// It can be kept on disk between streams as key and value pairs, of which each
// stream changes few: see [Namespace.Changes] and [LoadNamespace].
//
// A Namespace is not safe for concurrent use. After an error it is in the
// middle of a stream: load it again from what was kept.
type Namespace struct {
	// MaxBytes bounds the memory that the names and attributes take, as far
	// as this package can count it. 0 means DefaultMaxTree.
	MaxBytes int64

	uuid     UUID
	ctransid uint64
	open     bool // between a Subvol or Snapshot and its End
	nextID   FileID
	files    map[FileID]*File
	used     int64

	changed     map[string]struct{} // keys of records, see records.go
	changedUsed int64               // what they take
	untracked   bool                // no one asks for the changes
}

// DefaultMaxTree bounds the memory of a Namespace and of a Memory.
const DefaultMaxTree = 1 << 30

// NewNamespace returns a Namespace that holds no subvolume. Its first command
// must be a Subvol.
func NewNamespace() *Namespace {
	n := &Namespace{}
	n.reset()
	return n
}

func (n *Namespace) reset() {
	for _, f := range n.files {
		n.forget(f)
	}
	root := &File{ID: RootID, Mode: ModeDir | 0o755, Nlink: 1}
	if n.nextID == 0 {
		n.nextID = RootID + 1
	}
	n.files = map[FileID]*File{RootID: root}
	n.used = fileCost
}

// UUID returns the identity of the state that the Namespace holds: what the
// last Subvol or Snapshot said. It is zero before the first.
func (n *Namespace) UUID() (uuid UUID, ctransid uint64) { return n.uuid, n.ctransid }

// Open reports whether a stream is being applied: a Subvol or Snapshot came,
// and no End.
func (n *Namespace) Open() bool { return n.open }

// File returns the file with an identity, nil if it is gone.
func (n *Namespace) File(id FileID) *File { return n.files[id] }

// Files yields all files and directories, in no particular order.
func (n *Namespace) Files() iter.Seq[*File] {
	return func(yield func(*File) bool) {
		for _, f := range n.files {
			if !yield(f) {
				return
			}
		}
	}
}

// Lookup returns the file that a path names. It does not follow symbolic
// links. Its errors are ENOENT, ENOTDIR or ErrPath.
func (n *Namespace) Lookup(path []byte) (*File, error) {
	f := n.files[RootID]
	for rest, more := path, len(path) > 0; more; {
		var name []byte
		name, rest, more = cutPath(rest)
		if err := f.descend(name); err != nil {
			return nil, err
		}
		if f = f.entries[string(name)]; f == nil {
			return nil, syscall.ENOENT
		}
	}
	return f, nil
}

func cutPath(p []byte) (name, rest []byte, more bool) {
	for i, c := range p {
		if c == '/' {
			return p[:i], p[i+1:], true
		}
	}
	return p, nil, false
}

// descend says whether name can be looked up in f.
func (f *File) descend(name []byte) error {
	switch {
	case !f.IsDir():
		return syscall.ENOTDIR
	case len(name) == 0 || string(name) == "." || string(name) == "..":
		return ErrPath
	}
	return nil
}

// parent returns the directory that holds, or would hold, path, and the last
// component.
func (n *Namespace) parent(path []byte) (dir *File, name []byte, err error) {
	cut := -1
	for i, c := range path {
		if c == '/' {
			cut = i
		}
	}
	dir = n.files[RootID]
	name = path[cut+1:]
	if cut >= 0 {
		if dir, err = n.Lookup(path[:cut]); err != nil {
			return nil, nil, err
		}
	}
	return dir, name, dir.descend(name)
}

// Apply changes the namespace as the command says, with the rules of the
// system call it stands for. What a Write, an EncodedWrite, a Clone, a
// Truncate or a Fallocate changes here is the file's Size; the Effect tells
// the caller which file the content belongs to.
//
// A Snapshot must name as its parent the subvolume that the Namespace holds;
// if it doesn't, the error wraps ErrParent and nothing has changed. Other
// errors are system call errors (syscall.Errno), ErrOrder, ErrTooLarge,
// ErrPath and ErrUnsupported, wrapped with the path.
func (n *Namespace) Apply(c Command) (Effect, error) {
	e, err := n.apply(c)
	if err != nil {
		if path := c.Target(); path != nil {
			return e, fmt.Errorf("%v %q: %w", c.Kind(), clip(path), err)
		}
		return e, fmt.Errorf("%v: %w", c.Kind(), err)
	}
	return e, nil
}

func (n *Namespace) apply(c Command) (Effect, error) {
	switch c := c.(type) {
	case *Header, *Unknown:
		return Effect{}, nil
	case *Subvol:
		return n.begin(c.UUID, c.Ctransid, true), nil
	case *Snapshot:
		if c.ParentUUID != n.uuid || c.ParentCtransid != n.ctransid || n.uuid == (UUID{}) {
			return Effect{}, fmt.Errorf("%w: it is %v at %d, and here is %v at %d", ErrParent,
				c.ParentUUID, c.ParentCtransid, n.uuid, n.ctransid)
		}
		return n.begin(c.UUID, c.Ctransid, false), nil
	}
	if !n.open {
		return Effect{}, fmt.Errorf("%w: no subvolume before it", ErrOrder)
	}
	switch c := c.(type) {
	case *End:
		n.open = false
		n.touch(stateKey)
		return Effect{}, nil
	case *Mkfile:
		return n.create(c.Path, File{Ino: c.Ino, Mode: ModeRegular | 0o600})
	case *Mkdir:
		return n.create(c.Path, File{Ino: c.Ino, Mode: ModeDir | 0o700})
	case *Mknod:
		switch c.Mode & ModeType {
		case ModeChar, ModeBlock, ModeFifo, ModeSocket, ModeRegular:
		default:
			return Effect{}, syscall.EINVAL
		}
		return n.create(c.Path, File{Ino: c.Ino, Mode: uint32(c.Mode) & ModeType, Rdev: c.Rdev})
	case *Mkfifo:
		return n.create(c.Path, File{Ino: c.Ino, Mode: ModeFifo | 0o600})
	case *Mksock:
		return n.create(c.Path, File{Ino: c.Ino, Mode: ModeSocket | 0o600})
	case *Symlink:
		return n.create(c.Path, File{Ino: c.Ino, Mode: ModeSymlink | 0o777, Dest: append([]byte(nil), c.Dest...)})
	case *Rename:
		return n.rename(c.Path, c.To)
	case *Link:
		return n.addLink(c.Path, c.Existing)
	case *Unlink:
		return n.remove(c.Path, false)
	case *Rmdir:
		return n.remove(c.Path, true)
	}

	f, err := n.Lookup(c.Target())
	if err != nil {
		return Effect{}, err
	}
	if err := n.change(f, c); err != nil {
		return Effect{}, err
	}
	return Effect{File: f}, nil
}

func (n *Namespace) begin(uuid UUID, ctransid uint64, empty bool) Effect {
	if empty {
		n.reset()
	}
	n.uuid, n.ctransid, n.open = uuid, ctransid, true
	n.touch(stateKey)
	n.touch(fileKey(RootID))
	return Effect{File: n.files[RootID]}
}

// change applies a command that alters a file and no name.
func (n *Namespace) change(f *File, c Command) error {
	extend := func(offset, length uint64) error {
		if err := f.content(); err != nil {
			return err
		}
		if err := checkRange(offset, length); err != nil {
			return err
		}
		if length > 0 {
			f.Size = max(f.Size, offset+length)
		}
		return nil
	}
	var err error
	switch c := c.(type) {
	case *Write:
		err = extend(c.Offset, uint64(len(c.Data)))
	case *EncodedWrite:
		err = extend(c.Offset, c.UnencodedFileLen)
	case *Clone:
		err = extend(c.Offset, c.Len)
	case *UpdateExtent:
		err = extend(c.Offset, 0) // a Truncate follows
	case *Fallocate:
		switch {
		case c.Mode&^(FallocKeepSize|FallocPunchHole|FallocZeroRange) != 0:
			err = fmt.Errorf("%w: fallocate mode %#x", ErrUnsupported, c.Mode)
		case c.Mode&FallocKeepSize != 0:
			err = extend(c.Offset, 0)
		default:
			err = extend(c.Offset, c.Len)
		}
	case *Truncate:
		if err = extend(c.Size, 0); err == nil {
			f.Size = c.Size
		}
	case *Chmod:
		if f.Mode&ModeType == ModeSymlink {
			return syscall.EOPNOTSUPP
		}
		f.Mode = f.Mode&ModeType | uint32(c.Mode)&0o7777
	case *Chown:
		f.UID, f.GID = uint32(c.UID), uint32(c.GID)
		if !f.IsDir() { // as Linux does, for root, too
			if f.Mode&0o010 != 0 {
				f.Mode &^= 0o2000
			}
			f.Mode &^= 0o4000
		}
	case *Utimes:
		f.Atime, f.Mtime, f.Ctime = c.Atime, c.Mtime, c.Ctime
		if c.HasOtime {
			f.Otime = c.Otime
		}
	case *Fileattr:
		f.Flags = c.Flags
	case *EnableVerity:
		return f.content() // its Merkle tree is no part of the content
	case *SetXattr:
		return n.setXattr(f, c.Name, c.Value)
	case *RemoveXattr:
		return n.removeXattr(f, c.Name)
	default:
		return fmt.Errorf("%w: %v", ErrUnknownCommand, c.Kind())
	}
	if err == nil {
		n.touch(fileKey(f.ID))
	}
	return err
}

// content says whether f can be written to.
func (f *File) content() error {
	switch {
	case f.IsDir():
		return syscall.EISDIR
	case !f.IsRegular():
		return syscall.EINVAL
	}
	return nil
}

func (n *Namespace) setXattr(f *File, name, value []byte) error {
	old, had := f.xattrs[string(name)]
	cost := bytesCost(len(value)) - bytesCost(len(old))
	if !had {
		cost += xattrCost + bytesCost(2*len(name))
	}
	if err := n.charge(cost); err != nil {
		return err
	}
	if f.xattrs == nil {
		f.xattrs = make(map[string][]byte)
	}
	f.xattrs[string(name)] = append([]byte{}, value...)
	n.touch(xattrKey(f.ID, string(name)))
	return nil
}

func (n *Namespace) removeXattr(f *File, name []byte) error {
	old, had := f.xattrs[string(name)]
	if !had {
		return syscall.ENODATA
	}
	delete(f.xattrs, string(name))
	n.used -= xattrCost + bytesCost(2*len(name)) + bytesCost(len(old))
	n.touch(xattrKey(f.ID, string(name)))
	return nil
}

// What a map entry with its structures takes, roughly; names, values and
// destinations come on top. Changes are kept as keys, so names count twice.
const (
	fileCost  = 400
	entryCost = 160
	xattrCost = 160
)

// bytesCost is what n bytes take: the allocator rounds up, to whole pages of
// 8 KiB above 32 KiB.
func bytesCost(n int) int64 {
	if n > 32<<10 {
		return int64(n+8191) &^ 8191
	}
	return int64(n + n/8)
}

func (n *Namespace) charge(cost int64) error {
	limit := n.MaxBytes
	if limit <= 0 {
		limit = DefaultMaxTree
	}
	if n.used+n.changedUsed+cost > limit {
		return fmt.Errorf("%w: names and attributes of more than %d bytes", ErrTooLarge, limit)
	}
	n.used += cost
	return nil
}

func (n *Namespace) create(path []byte, model File) (Effect, error) {
	dir, name, err := n.parent(path)
	if err != nil {
		return Effect{}, err
	}
	if dir.entries[string(name)] != nil {
		return Effect{}, syscall.EEXIST
	}
	if err := n.charge(fileCost + entryCost + bytesCost(2*len(name)) + bytesCost(len(model.Dest))); err != nil {
		return Effect{}, err
	}
	f := &model
	f.ID = n.nextID
	n.nextID++
	n.files[f.ID] = f
	n.attach(entry{dir, string(name)}, f)
	n.touch(stateKey)
	n.touch(fileKey(f.ID))
	return Effect{File: f}, nil
}

func (n *Namespace) addLink(path, existing []byte) (Effect, error) {
	f, err := n.Lookup(existing)
	if err != nil {
		return Effect{}, fmt.Errorf("link to %q: %w", clip(existing), err)
	}
	if f.IsDir() {
		return Effect{}, syscall.EPERM
	}
	dir, name, err := n.parent(path)
	if err != nil {
		return Effect{}, err
	}
	if dir.entries[string(name)] != nil {
		return Effect{}, syscall.EEXIST
	}
	if err := n.charge(entryCost + bytesCost(2*len(name))); err != nil {
		return Effect{}, err
	}
	n.attach(entry{dir, string(name)}, f)
	return Effect{File: f}, nil
}

func (n *Namespace) remove(path []byte, rmdir bool) (Effect, error) {
	dir, name, err := n.parent(path)
	if err != nil {
		return Effect{}, err
	}
	f := dir.entries[string(name)]
	switch {
	case f == nil:
		return Effect{}, syscall.ENOENT
	case rmdir && !f.IsDir():
		return Effect{}, syscall.ENOTDIR
	case rmdir && len(f.entries) > 0:
		return Effect{}, syscall.ENOTEMPTY
	case !rmdir && f.IsDir():
		return Effect{}, syscall.EISDIR
	}
	n.detach(entry{dir, string(name)}, f)
	return Effect{File: f}, nil
}

func (n *Namespace) rename(from, to []byte) (Effect, error) {
	dir, name, err := n.parent(from)
	if err != nil {
		return Effect{}, err
	}
	f := dir.entries[string(name)]
	if f == nil {
		return Effect{}, syscall.ENOENT
	}
	toDir, toName, err := n.parent(to)
	if err != nil {
		return Effect{}, fmt.Errorf("to %q: %w", clip(to), err)
	}
	if f.IsDir() {
		for d := toDir; ; d = d.link.dir { // a directory can't move into itself
			if d == f {
				return Effect{}, fmt.Errorf("to %q: %w", clip(to), syscall.EINVAL)
			}
			if d.ID == RootID {
				break
			}
		}
	}
	old := toDir.entries[string(toName)]
	switch {
	case old == f:
		// The same name, or two names of one file: rename(2) does nothing.
		return Effect{File: f}, nil
	case old == nil:
	case f.IsDir() && !old.IsDir():
		return Effect{}, fmt.Errorf("to %q: %w", clip(to), syscall.ENOTDIR)
	case !f.IsDir() && old.IsDir():
		return Effect{}, fmt.Errorf("to %q: %w", clip(to), syscall.EISDIR)
	case len(old.entries) > 0:
		return Effect{}, fmt.Errorf("to %q: %w", clip(to), syscall.ENOTEMPTY)
	}
	if err := n.charge(entryCost + bytesCost(2*len(toName))); err != nil {
		return Effect{}, err
	}
	if old != nil {
		n.detach(entry{toDir, string(toName)}, old)
	}
	f.Nlink++ // so that f outlives the time between its names
	n.detach(entry{dir, string(name)}, f)
	f.Nlink--
	n.attach(entry{toDir, string(toName)}, f)
	return Effect{File: f, Replaced: old}, nil
}

// attach gives f a name.
func (n *Namespace) attach(e entry, f *File) {
	if e.dir.entries == nil {
		e.dir.entries = make(map[string]*File)
	}
	e.dir.entries[e.name] = f
	if f.link.dir == nil {
		f.link = e
	} else {
		if f.links == nil {
			f.links = make(map[entry]struct{})
		}
		f.links[e] = struct{}{}
	}
	f.Nlink++
	n.touch(entryKey(e.dir.ID, e.name))
}

// detach takes a name from f, and forgets f if it was the last.
func (n *Namespace) detach(e entry, f *File) {
	delete(e.dir.entries, e.name)
	if f.link == e {
		f.link = entry{}
		for other := range f.links {
			f.link = other
			delete(f.links, other)
			break
		}
	} else {
		delete(f.links, e)
	}
	f.Nlink--
	n.used -= entryCost + bytesCost(2*len(e.name))
	n.touch(entryKey(e.dir.ID, e.name))
	if f.Nlink == 0 {
		n.forget(f)
	}
}

// forget drops a file that has no name.
func (n *Namespace) forget(f *File) {
	delete(n.files, f.ID)
	n.used -= fileCost + bytesCost(len(f.Dest))
	n.touch(fileKey(f.ID))
	for name, value := range f.xattrs {
		n.used -= xattrCost + bytesCost(2*len(name)) + bytesCost(len(value))
		n.touch(xattrKey(f.ID, name))
	}
	for name := range f.entries { // of the whole tree, in reset
		n.touch(entryKey(f.ID, name))
	}
}
