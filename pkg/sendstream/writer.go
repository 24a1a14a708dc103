package sendstream

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
)

// A Writer writes send streams. The bytes of a command are those that Linux
// would send, attribute order included, so that what a Reader has read from a
// kernel a Writer writes again byte for byte.
//
// Each command is one Write to the underlying writer; wrap that in a
// bufio.Writer where it matters.
type Writer struct {
	w   io.Writer
	enc encoder
	err error
}

// NewWriter returns a Writer to w. The first command must be a *[Header],
// which sets the version.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// WriteCommand writes a header or a command. It writes nothing of a command
// that a strict Reader would refuse: one that the version of the stream
// doesn't define (every *Unknown), with a path that leaves the subvolume, or
// with more data than fits. A header may follow any command: whether the
// stream before it is complete is the caller's affair (kernels can omit END).
// After an error of the underlying writer each call returns that error.
func (w *Writer) WriteCommand(c Command) error {
	if w.err != nil {
		return w.err
	}
	b, err := w.enc.command(c)
	if err != nil {
		return fmt.Errorf("encode %v: %w", c.Kind(), err)
	}
	if _, err := w.w.Write(b); err != nil {
		w.err = fmt.Errorf("write %v: %w", c.Kind(), err)
		return w.err
	}
	if c.Kind() == KindEnd {
		w.enc.version = 0
	}
	return nil
}

// An encoder builds the bytes of one command.
type encoder struct {
	version uint32 // of the stream that is open, 0 if none is
	buf     []byte
	err     error
}

func (e *encoder) command(c Command) ([]byte, error) {
	e.buf, e.err = e.buf[:0], nil
	if h, ok := c.(*Header); ok {
		if h.Version == 0 || h.Version > MaxVersion {
			return nil, fmt.Errorf("%w: %d", ErrVersion, h.Version)
		}
		e.version = h.Version
		e.buf = append(e.buf, magic...)
		e.buf = binary.LittleEndian.AppendUint32(e.buf, h.Version)
		return e.buf, nil
	}
	switch since := c.Kind().since(); {
	case e.version == 0:
		return nil, fmt.Errorf("%w: no header before it", ErrOrder)
	case since == 0 || since > e.version:
		return nil, fmt.Errorf("%w in version %d", ErrUnknownCommand, e.version)
	}
	e.buf = append(e.buf, make([]byte, cmdHeaderSize)...)
	c.encode(e)
	if e.err != nil {
		return nil, e.err
	}
	length := len(e.buf) - cmdHeaderSize
	if uint64(length) > math.MaxUint32 {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, length)
	}
	binary.LittleEndian.PutUint32(e.buf, uint32(length))
	binary.LittleEndian.PutUint16(e.buf[4:], uint16(c.Kind()))
	binary.LittleEndian.PutUint32(e.buf[6:], checksum(e.buf))
	return e.buf, nil
}

func (e *encoder) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

func (e *encoder) head(typ, size int) {
	if size > math.MaxUint16 {
		e.fail(fmt.Errorf("%w: %s of %d bytes, at most 65535 fit", ErrTooLarge, attrNames[typ], size))
		return
	}
	e.buf = binary.LittleEndian.AppendUint16(e.buf, uint16(typ))
	e.buf = binary.LittleEndian.AppendUint16(e.buf, uint16(size))
}

func (e *encoder) u8(typ int, v uint8) {
	e.head(typ, 1)
	e.buf = append(e.buf, v)
}

func (e *encoder) u32(typ int, v uint32) {
	e.head(typ, 4)
	e.buf = binary.LittleEndian.AppendUint32(e.buf, v)
}

func (e *encoder) u64(typ int, v uint64) {
	e.head(typ, 8)
	e.buf = binary.LittleEndian.AppendUint64(e.buf, v)
}

func (e *encoder) bytes(typ int, v []byte) {
	e.head(typ, len(v))
	e.buf = append(e.buf, v...)
}

func (e *encoder) uuid(typ int, v UUID) { e.bytes(typ, v[:]) }

func (e *encoder) timespec(typ int, t Timespec) {
	e.head(typ, 12)
	e.buf = binary.LittleEndian.AppendUint64(e.buf, uint64(t.Sec))
	e.buf = binary.LittleEndian.AppendUint32(e.buf, t.Nsec)
}

// data appends DATA, which must come last.
func (e *encoder) data(v []byte) {
	if e.version == 1 {
		e.bytes(attrData, v)
		return
	}
	e.buf = binary.LittleEndian.AppendUint16(e.buf, attrData)
	e.buf = append(e.buf, v...)
}

func (e *encoder) str(typ int, v []byte) {
	e.check(typ, checkString(v))
	e.bytes(typ, v)
}

func (e *encoder) path(typ int, v []byte) {
	e.check(typ, CheckPath(v))
	e.bytes(typ, v)
}

func (e *encoder) name(typ int, v []byte) {
	e.check(typ, checkName(v))
	e.bytes(typ, v)
}

func (e *encoder) checkRange(offset, length uint64) {
	if err := checkRange(offset, length); err != nil {
		e.fail(err)
	}
}

func (e *encoder) check(typ int, err error) {
	if err != nil {
		e.fail(fmt.Errorf("%s: %w", attrNames[typ], err))
	}
}

func (*Header) encode(*encoder)  {}
func (*Unknown) encode(*encoder) {}
func (*End) encode(*encoder)     {}

func (c *Subvol) encode(e *encoder) {
	e.name(attrPath, c.Path)
	e.uuid(attrUUID, c.UUID)
	e.u64(attrCtransid, c.Ctransid)
}

func (c *Snapshot) encode(e *encoder) {
	e.name(attrPath, c.Path)
	e.uuid(attrUUID, c.UUID)
	e.u64(attrCtransid, c.Ctransid)
	e.uuid(attrCloneUUID, c.ParentUUID)
	e.u64(attrCloneCtransid, c.ParentCtransid)
}

func (e *encoder) inode(path []byte, ino uint64) {
	e.name(attrPath, path)
	e.u64(attrIno, ino)
}

func (e *encoder) special(mode, rdev uint64) {
	e.u64(attrRdev, rdev)
	e.u64(attrMode, mode)
}

func (c *Mkfile) encode(e *encoder) { e.inode(c.Path, c.Ino) }
func (c *Mkdir) encode(e *encoder)  { e.inode(c.Path, c.Ino) }

func (c *Mknod) encode(e *encoder) {
	e.inode(c.Path, c.Ino)
	e.special(c.Mode, c.Rdev)
}

func (c *Mkfifo) encode(e *encoder) {
	e.inode(c.Path, c.Ino)
	if c.Mode != 0 || c.Rdev != 0 {
		e.special(c.Mode, c.Rdev)
	}
}

func (c *Mksock) encode(e *encoder) {
	e.inode(c.Path, c.Ino)
	if c.Mode != 0 || c.Rdev != 0 {
		e.special(c.Mode, c.Rdev)
	}
}

func (c *Symlink) encode(e *encoder) {
	e.inode(c.Path, c.Ino)
	e.str(attrPathLink, c.Dest)
}

func (c *Rename) encode(e *encoder) {
	e.name(attrPath, c.Path)
	e.name(attrPathTo, c.To)
}

func (c *Link) encode(e *encoder) {
	e.name(attrPath, c.Path)
	e.name(attrPathLink, c.Existing)
}

func (c *Unlink) encode(e *encoder) { e.name(attrPath, c.Path) }
func (c *Rmdir) encode(e *encoder)  { e.name(attrPath, c.Path) }

func (c *SetXattr) encode(e *encoder) {
	e.path(attrPath, c.Path)
	e.str(attrXattrName, c.Name)
	e.bytes(attrXattrData, c.Value)
}

func (c *RemoveXattr) encode(e *encoder) {
	e.path(attrPath, c.Path)
	e.str(attrXattrName, c.Name)
}

func (c *Write) encode(e *encoder) {
	e.checkRange(c.Offset, uint64(len(c.Data)))
	e.name(attrPath, c.Path)
	e.u64(attrFileOffset, c.Offset)
	e.data(c.Data)
}

func (c *Clone) encode(e *encoder) {
	e.checkRange(c.Offset, c.Len)
	e.checkRange(c.SourceOffset, c.Len)
	e.u64(attrFileOffset, c.Offset)
	e.u64(attrCloneLen, c.Len)
	e.name(attrPath, c.Path)
	e.uuid(attrCloneUUID, c.SourceUUID)
	e.u64(attrCloneCtransid, c.SourceCtransid)
	e.name(attrClonePath, c.SourcePath)
	e.u64(attrCloneOffset, c.SourceOffset)
}

func (c *Truncate) encode(e *encoder) {
	e.checkRange(c.Size, 0)
	e.name(attrPath, c.Path)
	e.u64(attrSize, c.Size)
}

func (c *Chmod) encode(e *encoder) {
	e.path(attrPath, c.Path)
	e.u64(attrMode, c.Mode)
}

func (c *Chown) encode(e *encoder) {
	e.path(attrPath, c.Path)
	e.u64(attrUID, c.UID)
	e.u64(attrGID, c.GID)
}

func (c *Utimes) encode(e *encoder) {
	e.path(attrPath, c.Path)
	e.timespec(attrAtime, c.Atime)
	e.timespec(attrMtime, c.Mtime)
	e.timespec(attrCtime, c.Ctime)
	if c.HasOtime {
		e.timespec(attrOtime, c.Otime)
	}
}

func (c *UpdateExtent) encode(e *encoder) {
	e.checkRange(c.Offset, c.Len)
	e.name(attrPath, c.Path)
	e.u64(attrFileOffset, c.Offset)
	e.u64(attrSize, c.Len)
}

func (c *Fallocate) encode(e *encoder) {
	e.checkRange(c.Offset, c.Len)
	e.name(attrPath, c.Path)
	e.u32(attrFallocateMode, c.Mode)
	e.u64(attrFileOffset, c.Offset)
	e.u64(attrSize, c.Len)
}

func (c *Fileattr) encode(e *encoder) {
	e.path(attrPath, c.Path)
	e.u64(attrFileattr, c.Flags)
}

func (c *EncodedWrite) encode(e *encoder) {
	e.checkRange(c.Offset, c.UnencodedFileLen)
	e.name(attrPath, c.Path)
	e.u64(attrFileOffset, c.Offset)
	e.u64(attrUnencodedFileLen, c.UnencodedFileLen)
	e.u64(attrUnencodedLen, c.UnencodedLen)
	e.u64(attrUnencodedOffset, c.UnencodedOffset)
	e.u32(attrCompression, uint32(c.Compression))
	if c.HasEncryption || c.Encryption != 0 {
		e.u32(attrEncryption, c.Encryption)
	}
	e.data(c.Data)
}

func (c *EnableVerity) encode(e *encoder) {
	e.name(attrPath, c.Path)
	e.u8(attrVerityAlgorithm, c.Algorithm)
	e.u32(attrVerityBlockSize, c.BlockSize)
	e.bytes(attrVeritySalt, c.Salt)
	e.bytes(attrVeritySig, c.Signature)
}
