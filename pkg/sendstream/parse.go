package sendstream

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// The attributes (enum in the kernel's fs/btrfs/send.h).
const (
	attrUUID             = 1  // 16 bytes
	attrCtransid         = 2  // u64
	attrIno              = 3  // u64
	attrSize             = 4  // u64
	attrMode             = 5  // u64
	attrUID              = 6  // u64
	attrGID              = 7  // u64
	attrRdev             = 8  // u64
	attrCtime            = 9  // timespec
	attrMtime            = 10 // timespec
	attrAtime            = 11 // timespec
	attrOtime            = 12 // timespec
	attrXattrName        = 13 // string
	attrXattrData        = 14 // bytes
	attrPath             = 15 // string
	attrPathTo           = 16 // string
	attrPathLink         = 17 // string
	attrFileOffset       = 18 // u64
	attrData             = 19 // bytes; since version 2 without a length, to the end of the command
	attrCloneUUID        = 20 // 16 bytes
	attrCloneCtransid    = 21 // u64
	attrClonePath        = 22 // string
	attrCloneOffset      = 23 // u64
	attrCloneLen         = 24 // u64
	attrFallocateMode    = 25 // u32
	attrFileattr         = 26 // u64
	attrUnencodedFileLen = 27 // u64
	attrUnencodedLen     = 28 // u64
	attrUnencodedOffset  = 29 // u64
	attrCompression      = 30 // u32
	attrEncryption       = 31 // u32
	attrVerityAlgorithm  = 32 // u8
	attrVerityBlockSize  = 33 // u32
	attrVeritySalt       = 34 // bytes
	attrVeritySig        = 35 // bytes
	maxAttr              = 35
)

var attrNames = [maxAttr + 1]string{
	attrUUID: "UUID", attrCtransid: "CTRANSID", attrIno: "INO", attrSize: "SIZE", attrMode: "MODE",
	attrUID: "UID", attrGID: "GID", attrRdev: "RDEV", attrCtime: "CTIME", attrMtime: "MTIME",
	attrAtime: "ATIME", attrOtime: "OTIME", attrXattrName: "XATTR_NAME", attrXattrData: "XATTR_DATA",
	attrPath: "PATH", attrPathTo: "PATH_TO", attrPathLink: "PATH_LINK", attrFileOffset: "FILE_OFFSET",
	attrData: "DATA", attrCloneUUID: "CLONE_UUID", attrCloneCtransid: "CLONE_CTRANSID",
	attrClonePath: "CLONE_PATH", attrCloneOffset: "CLONE_OFFSET", attrCloneLen: "CLONE_LEN",
	attrFallocateMode: "FALLOCATE_MODE", attrFileattr: "FILEATTR",
	attrUnencodedFileLen: "UNENCODED_FILE_LEN", attrUnencodedLen: "UNENCODED_LEN",
	attrUnencodedOffset: "UNENCODED_OFFSET", attrCompression: "COMPRESSION", attrEncryption: "ENCRYPTION",
	attrVerityAlgorithm: "VERITY_ALGORITHM", attrVerityBlockSize: "VERITY_BLOCK_SIZE",
	attrVeritySalt: "VERITY_SALT_DATA", attrVeritySig: "VERITY_SIG_DATA",
}

// attributes indexes the attributes of one command. Its getters record the
// first mistake in err and go on, so that parse reads as a list of fields.
type attributes struct {
	value [maxAttr + 1][]byte // valid where seen has the bit
	seen  uint64
	err   error
}

// index finds the attributes in the payload of a command. Their order is
// free; of two of the same type the last one counts.
func (a *attributes) index(payload []byte, version uint32, lenient bool) error {
	a.seen, a.err = 0, nil
	for rest := payload; len(rest) > 0; {
		if len(rest) < 2 {
			return fmt.Errorf("%w: %d byte after the last one", ErrAttribute, len(rest))
		}
		typ := int(binary.LittleEndian.Uint16(rest))
		var value []byte
		if typ == attrData && version >= 2 {
			value, rest = rest[2:], nil
		} else {
			if len(rest) < 4 {
				return fmt.Errorf("%w: type %d without a length", ErrAttribute, typ)
			}
			n := int(binary.LittleEndian.Uint16(rest[2:]))
			if n > len(rest)-4 {
				return fmt.Errorf("%w: type %d claims %d bytes, %d are left", ErrAttribute, typ, n, len(rest)-4)
			}
			value, rest = rest[4:4+n:4+n], rest[4+n:]
		}
		if typ == 0 || typ > maxAttr {
			if lenient {
				continue
			}
			return fmt.Errorf("%w: unknown type %d", ErrAttribute, typ)
		}
		a.value[typ] = value
		a.seen |= 1 << typ
	}
	return nil
}

func (a *attributes) has(typ int) bool { return a.seen&(1<<typ) != 0 }

func (a *attributes) fail(err error) {
	if a.err == nil {
		a.err = err
	}
}

// sized returns the value of an attribute of fixed size, nil after a mistake.
func (a *attributes) sized(typ, size int) []byte {
	v := a.bytes(typ)
	if a.has(typ) && len(v) != size {
		a.fail(fmt.Errorf("%w: %s has %d bytes instead of %d", ErrAttribute, attrNames[typ], len(v), size))
		return nil
	}
	return v
}

func (a *attributes) bytes(typ int) []byte {
	if !a.has(typ) {
		a.fail(fmt.Errorf("%w: %s is missing", ErrAttribute, attrNames[typ]))
		return nil
	}
	return a.value[typ]
}

func (a *attributes) u8(typ int) uint8 {
	if v := a.sized(typ, 1); v != nil {
		return v[0]
	}
	return 0
}

func (a *attributes) u32(typ int) uint32 {
	if v := a.sized(typ, 4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (a *attributes) u64(typ int) uint64 {
	if v := a.sized(typ, 8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

func (a *attributes) optionalU32(typ int) uint32 {
	if !a.has(typ) {
		return 0
	}
	return a.u32(typ)
}

func (a *attributes) optionalU64(typ int) uint64 {
	if !a.has(typ) {
		return 0
	}
	return a.u64(typ)
}

func (a *attributes) uuid(typ int) (u UUID) {
	if v := a.sized(typ, len(u)); v != nil {
		copy(u[:], v)
	}
	return u
}

func (a *attributes) timespec(typ int) (t Timespec) {
	if v := a.sized(typ, 12); v != nil {
		t.Sec = int64(binary.LittleEndian.Uint64(v))
		t.Nsec = binary.LittleEndian.Uint32(v[8:])
	}
	return t
}

// str returns a string: bytes without NUL.
func (a *attributes) str(typ int) []byte { return a.checked(typ, checkString) }

// path returns a path that stays inside the subvolume.
func (a *attributes) path(typ int) []byte { return a.checked(typ, CheckPath) }

// name returns a path that is not the subvolume itself.
func (a *attributes) name(typ int) []byte { return a.checked(typ, checkName) }

func (a *attributes) checked(typ int, check func([]byte) error) []byte {
	v := a.bytes(typ)
	if a.has(typ) {
		if err := check(v); err != nil {
			a.fail(fmt.Errorf("%s: %w", attrNames[typ], err))
		}
	}
	return v
}

func checkString(v []byte) error {
	if bytes.IndexByte(v, 0) >= 0 {
		return fmt.Errorf("%w: NUL in %q", ErrPath, clip(v))
	}
	return nil
}

func checkName(v []byte) error {
	if len(v) == 0 {
		return fmt.Errorf("%w: empty", ErrPath)
	}
	return CheckPath(v)
}

// CheckPath returns an error that wraps ErrPath unless p is a path that a
// stream may name: relative, its components separated by single slashes, none
// of them empty, "." or "..", no NUL. The empty path is the subvolume itself.
func CheckPath(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	start := 0
	for i := 0; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' {
			if p[i] == 0 {
				return fmt.Errorf("%w: NUL in %q", ErrPath, clip(p))
			}
			continue
		}
		switch n := i - start; {
		case n == 0 && start == 0:
			return fmt.Errorf("%w: %q is absolute", ErrPath, clip(p))
		case n == 0:
			return fmt.Errorf("%w: empty component in %q", ErrPath, clip(p))
		case n == 1 && p[start] == '.':
			return fmt.Errorf("%w: \".\" in %q", ErrPath, clip(p))
		case n == 2 && p[start] == '.' && p[start+1] == '.':
			return fmt.Errorf("%w: \"..\" in %q", ErrPath, clip(p))
		}
		start = i + 1
	}
	return nil
}

// clip keeps what a stream says short in messages.
func clip(b []byte) []byte {
	const most = 128
	if len(b) > most {
		return append(append([]byte(nil), b[:most]...), "..."...)
	}
	return b
}

// parse decodes the payload of a command into r.cmd.
func (r *Reader) parse(kind Kind, payload []byte) (Command, error) {
	if since := kind.since(); since == 0 || since > r.version {
		if !r.opts.Lenient {
			return nil, fmt.Errorf("%w in version %d", ErrUnknownCommand, r.version)
		}
		if since == 0 {
			r.cmd.unknown = Unknown{Number: uint16(kind), Payload: payload}
			return &r.cmd.unknown, nil
		}
	}
	a := &r.attrs
	if err := a.index(payload, r.version, r.opts.Lenient); err != nil {
		return nil, err
	}
	cmd := r.assign(kind, a)
	if a.err != nil {
		return nil, a.err
	}
	return cmd, nil
}

func (r *Reader) assign(kind Kind, a *attributes) Command {
	switch kind {
	case KindWrite:
		c := &r.cmd.write
		c.Path, c.Offset, c.Data = a.name(attrPath), a.u64(attrFileOffset), a.bytes(attrData)
		a.checkRange(c.Offset, uint64(len(c.Data)))
		return c
	case KindEncodedWrite:
		c := &r.cmd.encodedWrite
		c.Path, c.Offset = a.name(attrPath), a.u64(attrFileOffset)
		c.UnencodedFileLen = a.u64(attrUnencodedFileLen)
		c.UnencodedLen = a.u64(attrUnencodedLen)
		c.UnencodedOffset = a.u64(attrUnencodedOffset)
		c.Compression = Compression(a.optionalU32(attrCompression))
		c.Encryption, c.HasEncryption = a.optionalU32(attrEncryption), a.has(attrEncryption)
		c.Data = a.bytes(attrData)
		a.checkRange(c.Offset, c.UnencodedFileLen)
		return c
	case KindSubvol:
		c := &r.cmd.subvol
		c.Path, c.UUID, c.Ctransid = a.name(attrPath), a.uuid(attrUUID), a.u64(attrCtransid)
		return c
	case KindSnapshot:
		c := &r.cmd.snapshot
		c.Path, c.UUID, c.Ctransid = a.name(attrPath), a.uuid(attrUUID), a.u64(attrCtransid)
		c.ParentUUID, c.ParentCtransid = a.uuid(attrCloneUUID), a.u64(attrCloneCtransid)
		return c
	case KindMkfile:
		c := &r.cmd.mkfile
		c.Path, c.Ino = a.name(attrPath), a.u64(attrIno)
		return c
	case KindMkdir:
		c := &r.cmd.mkdir
		c.Path, c.Ino = a.name(attrPath), a.u64(attrIno)
		return c
	case KindMknod:
		c := &r.cmd.mknod
		c.Path, c.Ino, c.Mode, c.Rdev = a.name(attrPath), a.u64(attrIno), a.u64(attrMode), a.u64(attrRdev)
		return c
	case KindMkfifo:
		c := &r.cmd.mkfifo
		c.Path, c.Ino = a.name(attrPath), a.u64(attrIno)
		c.Mode, c.Rdev = a.optionalU64(attrMode), a.optionalU64(attrRdev)
		return c
	case KindMksock:
		c := &r.cmd.mksock
		c.Path, c.Ino = a.name(attrPath), a.u64(attrIno)
		c.Mode, c.Rdev = a.optionalU64(attrMode), a.optionalU64(attrRdev)
		return c
	case KindSymlink:
		c := &r.cmd.symlink
		c.Path, c.Ino, c.Dest = a.name(attrPath), a.u64(attrIno), a.str(attrPathLink)
		return c
	case KindRename:
		c := &r.cmd.rename
		c.Path, c.To = a.name(attrPath), a.name(attrPathTo)
		return c
	case KindLink:
		c := &r.cmd.link
		c.Path, c.Existing = a.name(attrPath), a.name(attrPathLink)
		return c
	case KindUnlink:
		c := &r.cmd.unlink
		c.Path = a.name(attrPath)
		return c
	case KindRmdir:
		c := &r.cmd.rmdir
		c.Path = a.name(attrPath)
		return c
	case KindSetXattr:
		c := &r.cmd.setXattr
		c.Path, c.Name, c.Value = a.path(attrPath), a.str(attrXattrName), a.bytes(attrXattrData)
		return c
	case KindRemoveXattr:
		c := &r.cmd.removeXattr
		c.Path, c.Name = a.path(attrPath), a.str(attrXattrName)
		return c
	case KindClone:
		c := &r.cmd.clone
		c.Path, c.Offset, c.Len = a.name(attrPath), a.u64(attrFileOffset), a.u64(attrCloneLen)
		c.SourceUUID, c.SourceCtransid = a.uuid(attrCloneUUID), a.u64(attrCloneCtransid)
		c.SourcePath, c.SourceOffset = a.name(attrClonePath), a.u64(attrCloneOffset)
		a.checkRange(c.Offset, c.Len)
		a.checkRange(c.SourceOffset, c.Len)
		return c
	case KindTruncate:
		c := &r.cmd.truncate
		c.Path, c.Size = a.name(attrPath), a.u64(attrSize)
		a.checkRange(c.Size, 0)
		return c
	case KindChmod:
		c := &r.cmd.chmod
		c.Path, c.Mode = a.path(attrPath), a.u64(attrMode)
		return c
	case KindChown:
		c := &r.cmd.chown
		c.Path, c.UID, c.GID = a.path(attrPath), a.u64(attrUID), a.u64(attrGID)
		return c
	case KindUtimes:
		c := &r.cmd.utimes
		c.Path = a.path(attrPath)
		c.Atime, c.Mtime, c.Ctime = a.timespec(attrAtime), a.timespec(attrMtime), a.timespec(attrCtime)
		c.HasOtime, c.Otime = a.has(attrOtime), Timespec{}
		if c.HasOtime {
			c.Otime = a.timespec(attrOtime)
		}
		return c
	case KindEnd:
		return &r.cmd.end
	case KindUpdateExtent:
		c := &r.cmd.updateExtent
		c.Path, c.Offset, c.Len = a.name(attrPath), a.u64(attrFileOffset), a.u64(attrSize)
		a.checkRange(c.Offset, c.Len)
		return c
	case KindFallocate:
		c := &r.cmd.fallocate
		c.Path, c.Mode = a.name(attrPath), a.u32(attrFallocateMode)
		c.Offset, c.Len = a.u64(attrFileOffset), a.u64(attrSize)
		a.checkRange(c.Offset, c.Len)
		return c
	case KindFileattr:
		c := &r.cmd.fileattr
		c.Path, c.Flags = a.path(attrPath), a.u64(attrFileattr)
		return c
	case KindEnableVerity:
		c := &r.cmd.enableVerity
		c.Path, c.Algorithm, c.BlockSize = a.name(attrPath), a.u8(attrVerityAlgorithm), a.u32(attrVerityBlockSize)
		c.Salt, c.Signature = a.bytes(attrVeritySalt), a.bytes(attrVeritySig)
		return c
	}
	panic("sendstream: no case for " + kind.String()) // since() names only the kinds above
}

func (a *attributes) checkRange(offset, length uint64) {
	if err := checkRange(offset, length); err != nil {
		a.fail(err)
	}
}

// checkRange refuses a range that a file can't have: its end is beyond 2^63-1,
// the largest file offset of Linux.
func checkRange(offset, length uint64) error {
	if end, carry := bits.Add64(offset, length, 0); carry != 0 || end > 1<<63-1 {
		return fmt.Errorf("%w: %d bytes at offset %d reach beyond 2^63-1", ErrAttribute, length, offset)
	}
	return nil
}
