package sendstream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// A Namespace as records. The first byte of a key says what the record is:
//
//	s                      the state: UUID, ctransid, next FileID
//	f FileID               a file's attributes
//	e FileID name          an entry of a directory: the FileID of the file
//	x FileID name          an extended attribute: its value
//
// A FileID in a key has 8 bytes, big endian; the numbers in values are
// variable-length ones of encoding/binary.
const stateKey = "s"

func fileKey(id FileID) string {
	return string(binary.BigEndian.AppendUint64([]byte{'f'}, uint64(id)))
}

func entryKey(dir FileID, name string) string {
	return string(append(binary.BigEndian.AppendUint64([]byte{'e'}, uint64(dir)), name...))
}

func xattrKey(id FileID, name string) string {
	return string(append(binary.BigEndian.AppendUint64([]byte{'x'}, uint64(id)), name...))
}

func (n *Namespace) touch(key string) {
	if n.untracked {
		return
	}
	if n.changed == nil {
		n.changed = make(map[string]struct{})
	}
	if _, ok := n.changed[key]; !ok {
		n.changed[key] = struct{}{}
		n.changedUsed += 100 + bytesCost(len(key))
	}
}

// Changes yields, in the order of their keys, the records that changed since
// the last call of Kept, or since the Namespace was made: a key and its value,
// or a nil value for a record to delete. Both are opaque bytes; a key is at
// most 65,544 of them.
//
// To keep a Namespace, apply a stream up to its End, store all changes in one
// transaction, and call Kept. LoadNamespace makes it again from all records
// stored.
func (n *Namespace) Changes() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for _, key := range slices.Sorted(maps.Keys(n.changed)) {
			if !yield([]byte(key), n.record(key)) {
				return
			}
		}
	}
}

// Kept says that what Changes yielded is stored.
func (n *Namespace) Kept() { n.changed, n.changedUsed = nil, 0 }

// record returns the value that belongs to a key now, nil if none does.
func (n *Namespace) record(key string) []byte {
	if key == stateKey {
		b := append([]byte{}, n.uuid[:]...)
		b = binary.AppendUvarint(b, n.ctransid)
		return binary.AppendUvarint(b, uint64(n.nextID))
	}
	f := n.files[FileID(binary.BigEndian.Uint64([]byte(key[1:])))]
	if f == nil {
		return nil
	}
	name := key[9:]
	switch key[0] {
	case 'e':
		if child := f.entries[name]; child != nil {
			return binary.AppendUvarint(nil, uint64(child.ID))
		}
		return nil
	case 'x':
		return f.xattrs[name] // never nil if it is there
	}
	b := make([]byte, 0, 64+len(f.Dest))
	for _, v := range []uint64{f.Ino, uint64(f.Mode), uint64(f.UID), uint64(f.GID), f.Size, f.Rdev, f.Flags} {
		b = binary.AppendUvarint(b, v)
	}
	for _, t := range []Timespec{f.Atime, f.Mtime, f.Ctime, f.Otime} {
		b = binary.AppendVarint(b, t.Sec)
		b = binary.AppendUvarint(b, uint64(t.Nsec))
	}
	return append(b, f.Dest...)
}

// ErrRecord: what LoadNamespace was given is not what Changes yielded.
var ErrRecord = errors.New("bad namespace record")

// LoadNamespace makes a Namespace from all its records, in any order. None
// make the Namespace that NewNamespace returns. The error wraps ErrRecord if
// they don't fit together.
func LoadNamespace(records iter.Seq2[[]byte, []byte]) (*Namespace, error) {
	n := NewNamespace()
	type link struct {
		dir, file FileID
		name      string
	}
	type xattr struct {
		file        FileID
		name, value string
	}
	var links []link
	var xattrs []xattr
	count := 0
	for key, value := range records {
		count++
		if string(key) == stateKey {
			d := decoder{b: value}
			copy(n.uuid[:], d.next(len(n.uuid)))
			n.ctransid = d.uvarint()
			n.nextID = FileID(d.uvarint())
			if d.bad || len(d.b) != 0 {
				return nil, fmt.Errorf("%w: state", ErrRecord)
			}
			continue
		}
		if len(key) < 9 {
			return nil, fmt.Errorf("%w: key %q", ErrRecord, clip(key))
		}
		id := FileID(binary.BigEndian.Uint64(key[1:]))
		name := string(key[9:])
		switch {
		case key[0] == 'f' && name == "":
			f, err := loadFile(id, value)
			if err != nil {
				return nil, err
			}
			n.files[id] = f
		case key[0] == 'e' && name != "":
			d := decoder{b: value}
			links = append(links, link{id, FileID(d.uvarint()), name})
			if d.bad || len(d.b) != 0 {
				return nil, fmt.Errorf("%w: entry %q", ErrRecord, clip(key))
			}
		case key[0] == 'x':
			xattrs = append(xattrs, xattr{id, name, string(value)})
		default:
			return nil, fmt.Errorf("%w: key %q", ErrRecord, clip(key))
		}
	}
	if count == 0 {
		return n, nil
	}
	n.used = 0
	for _, f := range n.files {
		n.used += fileCost + bytesCost(len(f.Dest))
	}
	for _, x := range xattrs {
		f := n.files[x.file]
		if f == nil {
			return nil, fmt.Errorf("%w: attribute of file %d, which is not there", ErrRecord, x.file)
		}
		if err := n.setXattr(f, []byte(x.name), []byte(x.value)); err != nil {
			return nil, err
		}
	}
	for _, l := range links {
		dir, f := n.files[l.dir], n.files[l.file]
		if dir == nil || f == nil || f.ID == RootID || strings.Contains(l.name, "/") || dir.descend([]byte(l.name)) != nil ||
			dir.entries[l.name] != nil || f.IsDir() && f.Nlink > 0 {
			return nil, fmt.Errorf("%w: entry %q of %d for %d", ErrRecord, clip([]byte(l.name)), l.dir, l.file)
		}
		n.used += entryCost + bytesCost(2*len(l.name))
		n.attach(entry{dir, l.name}, f)
	}
	if err := n.checkWhole(); err != nil {
		return nil, err
	}
	n.Kept()
	return n, nil
}

// checkWhole makes sure that each file can be reached from the root.
func (n *Namespace) checkWhole() error {
	root := n.files[RootID]
	if root == nil || !root.IsDir() {
		return fmt.Errorf("%w: no directory at the root", ErrRecord)
	}
	seen := map[*File]bool{root: true}
	for queue := []*File{root}; len(queue) > 0; {
		dir := queue[0]
		queue = queue[1:]
		for _, f := range dir.entries {
			if !seen[f] {
				seen[f] = true
				queue = append(queue, f)
			}
		}
	}
	if len(seen) != len(n.files) {
		return fmt.Errorf("%w: %d files of %d have no path", ErrRecord, len(n.files)-len(seen), len(n.files))
	}
	for id := range n.files {
		if id == 0 || id >= n.nextID {
			return fmt.Errorf("%w: file %d, the next is %d", ErrRecord, id, n.nextID)
		}
	}
	return nil
}

func loadFile(id FileID, value []byte) (*File, error) {
	d := decoder{b: value}
	f := &File{ID: id, Ino: d.uvarint(), Mode: uint32(d.uvarint()), UID: uint32(d.uvarint()), GID: uint32(d.uvarint()),
		Size: d.uvarint(), Rdev: d.uvarint(), Flags: d.uvarint()}
	for _, t := range []*Timespec{&f.Atime, &f.Mtime, &f.Ctime, &f.Otime} {
		t.Sec = d.varint()
		t.Nsec = uint32(d.uvarint())
	}
	if d.bad {
		return nil, fmt.Errorf("%w: file %d", ErrRecord, id)
	}
	if id == RootID {
		f.Nlink = 1
	}
	f.Dest = slices.Clone(d.b)
	return f, nil
}

// A decoder takes values off the front of b.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) next(size int) []byte {
	if len(d.b) < size {
		d.bad = true
		return make([]byte, size)
	}
	v := d.b[:size]
	d.b = d.b[size:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, size := binary.Uvarint(d.b)
	if size <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[size:]
	return v
}

func (d *decoder) varint() int64 {
	v, size := binary.Varint(d.b)
	if size <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[size:]
	return v
}
