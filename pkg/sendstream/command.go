package sendstream

import (
	"encoding/hex"
	"fmt"
	"time"
)

// A Kind is the number of a command on the wire (enum btrfs_send_cmd in the
// kernel's fs/btrfs/send.h), or KindHeader.
type Kind uint32

// The commands of versions 1, 2 and 3.
const (
	KindSubvol       Kind = 1
	KindSnapshot     Kind = 2
	KindMkfile       Kind = 3
	KindMkdir        Kind = 4
	KindMknod        Kind = 5
	KindMkfifo       Kind = 6
	KindMksock       Kind = 7
	KindSymlink      Kind = 8
	KindRename       Kind = 9
	KindLink         Kind = 10
	KindUnlink       Kind = 11
	KindRmdir        Kind = 12
	KindSetXattr     Kind = 13
	KindRemoveXattr  Kind = 14
	KindWrite        Kind = 15
	KindClone        Kind = 16
	KindTruncate     Kind = 17
	KindChmod        Kind = 18
	KindChown        Kind = 19
	KindUtimes       Kind = 20
	KindEnd          Kind = 21
	KindUpdateExtent Kind = 22

	KindFallocate    Kind = 23 // since version 2
	KindFileattr     Kind = 24 // since version 2
	KindEncodedWrite Kind = 25 // since version 2

	KindEnableVerity Kind = 26 // since version 3

	// KindHeader is the kind of a [Header]. It is outside the 16 bits of a
	// command number, so that no stream can carry it.
	KindHeader Kind = 1 << 16
)

// MaxVersion is the newest version of the format that this package knows.
const MaxVersion = 3

var kindNames = [...]string{
	KindSubvol:       "subvol",
	KindSnapshot:     "snapshot",
	KindMkfile:       "mkfile",
	KindMkdir:        "mkdir",
	KindMknod:        "mknod",
	KindMkfifo:       "mkfifo",
	KindMksock:       "mksock",
	KindSymlink:      "symlink",
	KindRename:       "rename",
	KindLink:         "link",
	KindUnlink:       "unlink",
	KindRmdir:        "rmdir",
	KindSetXattr:     "set_xattr",
	KindRemoveXattr:  "remove_xattr",
	KindWrite:        "write",
	KindClone:        "clone",
	KindTruncate:     "truncate",
	KindChmod:        "chmod",
	KindChown:        "chown",
	KindUtimes:       "utimes",
	KindEnd:          "end",
	KindUpdateExtent: "update_extent",
	KindFallocate:    "fallocate",
	KindFileattr:     "fileattr",
	KindEncodedWrite: "encoded_write",
	KindEnableVerity: "enable_verity",
}

// String returns the name that btrfs receive --dump prints for the command,
// "end" and "header", or "command N" for an unknown number.
func (k Kind) String() string {
	if k == KindHeader {
		return "header"
	}
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("command %d", uint32(k))
}

// since returns the version of the format that introduced a command, 0 for a
// number that no version defines.
func (k Kind) since() uint32 {
	switch {
	case k >= KindSubvol && k <= KindUpdateExtent:
		return 1
	case k >= KindFallocate && k <= KindEncodedWrite:
		return 2
	case k == KindEnableVerity:
		return 3
	}
	return 0
}

// A Command is one of the pointer types of this package: *[Header],
// *[Subvol], *[Snapshot], *[Mkfile], *[Mkdir], *[Mknod], *[Mkfifo],
// *[Mksock], *[Symlink], *[Rename], *[Link], *[Unlink], *[Rmdir],
// *[SetXattr], *[RemoveXattr], *[Write], *[Clone], *[Truncate], *[Chmod],
// *[Chown], *[Utimes], *[End], *[UpdateExtent], *[Fallocate], *[Fileattr],
// *[EncodedWrite], *[EnableVerity] and, in lenient reading, *[Unknown].
//
// A command that a [Reader] returned, and every byte slice in it, is valid
// until the next call of the reader's Next; [Copy] makes one that stays.
type Command interface {
	// Kind returns the command's number on the wire.
	Kind() Kind
	// Target returns the path that the command acts on, relative to the
	// subvolume ("" is the subvolume itself), and nil for a Header, an End
	// and an Unknown.
	Target() []byte

	encode(e *encoder)
}

// A UUID names a subvolume. Its bytes stand in the order in which they are
// printed.
type UUID [16]byte

// String returns the 36 lower-case characters of RFC 9562.
func (u UUID) String() string {
	b := u.appendTo(make([]byte, 0, 36))
	return string(b)
}

func (u UUID) appendTo(b []byte) []byte {
	b = hex.AppendEncode(b, u[0:4])
	b = append(b, '-')
	b = hex.AppendEncode(b, u[4:6])
	b = append(b, '-')
	b = hex.AppendEncode(b, u[6:8])
	b = append(b, '-')
	b = hex.AppendEncode(b, u[8:10])
	b = append(b, '-')
	return hex.AppendEncode(b, u[10:16])
}

// MarshalText returns the same text as String.
func (u UUID) MarshalText() ([]byte, error) {
	return u.appendTo(make([]byte, 0, 36)), nil
}

// UnmarshalText reads what MarshalText wrote; upper case is accepted.
func (u *UUID) UnmarshalText(text []byte) error {
	if len(text) != 36 || text[8] != '-' || text[13] != '-' || text[18] != '-' || text[23] != '-' {
		return fmt.Errorf("uuid %q: not 8-4-4-4-12 hexadecimal digits", text)
	}
	var v UUID
	digits := make([]byte, 0, 32)
	for i, c := range text {
		if i != 8 && i != 13 && i != 18 && i != 23 {
			digits = append(digits, c)
		}
	}
	if _, err := hex.Decode(v[:], digits); err != nil {
		return fmt.Errorf("uuid %q: %w", text, err)
	}
	*u = v
	return nil
}

// ParseUUID reads the 36 characters of a UUID.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	err := u.UnmarshalText([]byte(s))
	return u, err
}

// A Timespec is a point in time as the stream has it. Nsec of a stream from a
// kernel is below 1e9; nothing enforces it.
type Timespec struct {
	Sec  int64  // seconds since 1970-01-01 00:00:00 UTC
	Nsec uint32 // nanoseconds
}

// Time returns t in the local time zone.
func (t Timespec) Time() time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

// A Header opens a stream. On the wire it is 17 bytes that are not a command:
// the magic string "btrfs-stream\0" and the version as a 32-bit number. It
// carries no checksum.
type Header struct {
	Version uint32 // 1 to MaxVersion
}

// A Subvol begins a subvolume that is sent in full. What follows, up to the
// next Subvol, Snapshot or End, builds its content in an empty directory.
type Subvol struct {
	Path     []byte // PATH: the subvolume's name at the sender
	UUID     UUID   // UUID: its received UUID if it has one, else its UUID
	Ctransid uint64 // CTRANSID: transaction of its last change
}

// A Snapshot begins a subvolume that is sent as the difference to another. The
// receiver starts with a writable snapshot of the parent.
type Snapshot struct {
	Path           []byte // PATH: the snapshot's name at the sender
	UUID           UUID   // UUID
	Ctransid       uint64 // CTRANSID
	ParentUUID     UUID   // CLONE_UUID: received UUID (else UUID) of the parent
	ParentCtransid uint64 // CLONE_CTRANSID
}

// A Mkfile creates an empty regular file. The kernel always creates under an
// orphan name, oINODE-GENERATION-N, and renames it afterwards.
type Mkfile struct {
	Path []byte // PATH
	Ino  uint64 // INO: inode number at the sender
}

// A Mkdir creates an empty directory, under an orphan name as Mkfile does.
type Mkdir struct {
	Path []byte // PATH
	Ino  uint64 // INO
}

// A Mknod creates a character or block device.
type Mknod struct {
	Path []byte // PATH
	Ino  uint64 // INO
	Mode uint64 // MODE: type and permissions, as in st_mode
	Rdev uint64 // RDEV: new_encode_dev, (minor&0xff) | (major<<8) | ((minor&^0xff)<<12)
}

// A Mkfifo creates a named pipe.
type Mkfifo struct {
	Path []byte // PATH
	Ino  uint64 // INO
	Mode uint64 // MODE: optional and redundant, 0 where absent
	Rdev uint64 // RDEV: optional and redundant, 0 where absent
}

// A Mksock creates a socket file.
type Mksock struct {
	Path []byte // PATH
	Ino  uint64 // INO
	Mode uint64 // MODE: optional and redundant, 0 where absent
	Rdev uint64 // RDEV: optional and redundant, 0 where absent
}

// A Symlink creates a symbolic link, under an orphan name as Mkfile does.
type Symlink struct {
	Path []byte // PATH
	Ino  uint64 // INO
	Dest []byte // PATH_LINK: the link's text, any bytes but NUL
}

// A Rename moves a file or a directory with all below it. The destination may
// exist: it is replaced, as by rename(2).
type Rename struct {
	Path []byte // PATH: from
	To   []byte // PATH_TO
}

// A Link gives a file one more name.
type Link struct {
	Path     []byte // PATH: the new name
	Existing []byte // PATH_LINK: a name that the file has
}

// An Unlink removes one name of a file that is not a directory.
type Unlink struct {
	Path []byte // PATH
}

// An Rmdir removes an empty directory.
type Rmdir struct {
	Path []byte // PATH
}

// A SetXattr creates or replaces an extended attribute. POSIX ACLs and file
// capabilities travel as attributes, too.
type SetXattr struct {
	Path  []byte // PATH
	Name  []byte // XATTR_NAME
	Value []byte // XATTR_DATA
}

// A RemoveXattr removes an extended attribute.
type RemoveXattr struct {
	Path []byte // PATH
	Name []byte // XATTR_NAME
}

// A Write writes data into a file. Its offset is that of an extent or a block
// (4 KiB boundary): an append re-sends the block that it began in.
type Write struct {
	Path   []byte // PATH: any one of the file's names
	Offset uint64 // FILE_OFFSET
	Data   []byte // DATA
}

// A Clone copies a range from another file, or from the same, sharing its
// extents where the receiver can. The data is not in the stream.
type Clone struct {
	Path           []byte // PATH: the file that is written
	Offset         uint64 // FILE_OFFSET: where in it
	Len            uint64 // CLONE_LEN
	SourceUUID     UUID   // CLONE_UUID: the subvolume being sent, its parent, or another
	SourceCtransid uint64 // CLONE_CTRANSID
	SourcePath     []byte // CLONE_PATH: path in that subvolume
	SourceOffset   uint64 // CLONE_OFFSET
}

// A Truncate sets a file's size, up (the rest is a hole) or down.
type Truncate struct {
	Path []byte // PATH
	Size uint64 // SIZE
}

// A Chmod sets permission bits. The stream sends it after every Chown, which
// clears set-user-ID.
type Chmod struct {
	Path []byte // PATH
	Mode uint64 // MODE: the low 12 bits count
}

// A Chown sets owner and group, by number.
type Chown struct {
	Path []byte // PATH
	UID  uint64 // UID
	GID  uint64 // GID
}

// A Utimes sets time stamps. Ctime and Otime (creation) can't be set on a
// receiving file system and are for information.
type Utimes struct {
	Path  []byte   // PATH
	Atime Timespec // ATIME
	Mtime Timespec // MTIME
	Ctime Timespec // CTIME
	Otime Timespec // OTIME: since version 2
	// HasOtime reports whether the command carried an OTIME.
	HasOtime bool
}

// An End closes a stream: what came before it is complete. Only the next
// header, or the end of input, can follow.
type End struct{}

// An UpdateExtent says that a range changed, in a stream that was sent without
// data (BTRFS_SEND_FLAG_NO_FILE_DATA).
type UpdateExtent struct {
	Path   []byte // PATH
	Offset uint64 // FILE_OFFSET
	Len    uint64 // SIZE
}

// A Fallocate changes the allocation of a range; since version 2.
type Fallocate struct {
	Path   []byte // PATH
	Mode   uint32 // FALLOCATE_MODE: FALLOC_FL_*, as in fallocate(2)
	Offset uint64 // FILE_OFFSET
	Len    uint64 // SIZE
}

// The bits of Fallocate.Mode that Linux defines (linux/falloc.h). Kernels up
// to 6.18 send only FallocKeepSize|FallocPunchHole.
const (
	FallocKeepSize      = 0x01
	FallocPunchHole     = 0x02
	FallocCollapseRange = 0x08
	FallocZeroRange     = 0x10
	FallocInsertRange   = 0x20
	FallocUnshareRange  = 0x40
)

// A Fileattr carries inode flags; since version 2. btrfs receive ignores it.
type Fileattr struct {
	Path  []byte // PATH
	Flags uint64 // FILEATTR: BTRFS_INODE_* of the inode item (not FS_*_FL)
}

// An EncodedWrite writes an extent as it stands on the sender's disk; since
// version 2, in streams sent with BTRFS_SEND_FLAG_COMPRESSED. [Reader.Decode]
// gives the bytes that it stands for.
//
// The decoded extent has UnencodedLen bytes. Of these, UnencodedFileLen bytes
// from UnencodedOffset on are written to the file at Offset. The encoded data
// can be longer than its frame (zero padding up to a sector), and the frame
// can decode to fewer bytes than UnencodedLen: the rest is zeros.
type EncodedWrite struct {
	Path             []byte      // PATH
	Offset           uint64      // FILE_OFFSET
	UnencodedFileLen uint64      // UNENCODED_FILE_LEN
	UnencodedLen     uint64      // UNENCODED_LEN
	UnencodedOffset  uint64      // UNENCODED_OFFSET
	Compression      Compression // COMPRESSION: none where absent
	Encryption       uint32      // ENCRYPTION: 0, none, where absent; nothing else is defined
	Data             []byte      // DATA
	// HasEncryption reports whether the command carried an ENCRYPTION. Linux
	// leaves it out for extents that are stored inline.
	HasEncryption bool
}

// An EnableVerity turns fs-verity on for a file; since version 3.
type EnableVerity struct {
	Path      []byte // PATH
	Algorithm uint8  // VERITY_ALGORITHM: FS_VERITY_HASH_ALG_*, 1 SHA-256, 2 SHA-512
	BlockSize uint32 // VERITY_BLOCK_SIZE, in bytes
	Salt      []byte // VERITY_SALT_DATA
	Signature []byte // VERITY_SIG_DATA
}

// An Unknown is a command whose number the stream's version doesn't define.
// Only a reader with Options.Lenient returns it.
type Unknown struct {
	Number  uint16
	Payload []byte // the attributes, not looked at
}

// A Compression says how the data of an EncodedWrite is compressed
// (BTRFS_ENCODED_IO_COMPRESSION_* in the kernel's linux/btrfs.h).
type Compression uint32

// The five LZO kinds differ in the sector size that the data is cut into.
const (
	CompressionNone   Compression = 0
	CompressionZlib   Compression = 1
	CompressionZstd   Compression = 2
	CompressionLZO4K  Compression = 3
	CompressionLZO8K  Compression = 4
	CompressionLZO16K Compression = 5
	CompressionLZO32K Compression = 6
	CompressionLZO64K Compression = 7
)

// String returns none, zlib, zstd, lzo-4k to lzo-64k, or "compression N".
func (c Compression) String() string {
	switch c {
	case CompressionNone:
		return "none"
	case CompressionZlib:
		return "zlib"
	case CompressionZstd:
		return "zstd"
	case CompressionLZO4K, CompressionLZO8K, CompressionLZO16K, CompressionLZO32K, CompressionLZO64K:
		return fmt.Sprintf("lzo-%dk", 4<<(c-CompressionLZO4K))
	}
	return fmt.Sprintf("compression %d", uint32(c))
}

func (*Header) Kind() Kind       { return KindHeader }
func (*Subvol) Kind() Kind       { return KindSubvol }
func (*Snapshot) Kind() Kind     { return KindSnapshot }
func (*Mkfile) Kind() Kind       { return KindMkfile }
func (*Mkdir) Kind() Kind        { return KindMkdir }
func (*Mknod) Kind() Kind        { return KindMknod }
func (*Mkfifo) Kind() Kind       { return KindMkfifo }
func (*Mksock) Kind() Kind       { return KindMksock }
func (*Symlink) Kind() Kind      { return KindSymlink }
func (*Rename) Kind() Kind       { return KindRename }
func (*Link) Kind() Kind         { return KindLink }
func (*Unlink) Kind() Kind       { return KindUnlink }
func (*Rmdir) Kind() Kind        { return KindRmdir }
func (*SetXattr) Kind() Kind     { return KindSetXattr }
func (*RemoveXattr) Kind() Kind  { return KindRemoveXattr }
func (*Write) Kind() Kind        { return KindWrite }
func (*Clone) Kind() Kind        { return KindClone }
func (*Truncate) Kind() Kind     { return KindTruncate }
func (*Chmod) Kind() Kind        { return KindChmod }
func (*Chown) Kind() Kind        { return KindChown }
func (*Utimes) Kind() Kind       { return KindUtimes }
func (*End) Kind() Kind          { return KindEnd }
func (*UpdateExtent) Kind() Kind { return KindUpdateExtent }
func (*Fallocate) Kind() Kind    { return KindFallocate }
func (*Fileattr) Kind() Kind     { return KindFileattr }
func (*EncodedWrite) Kind() Kind { return KindEncodedWrite }
func (*EnableVerity) Kind() Kind { return KindEnableVerity }
func (c *Unknown) Kind() Kind    { return Kind(c.Number) }

func (*Header) Target() []byte         { return nil }
func (c *Subvol) Target() []byte       { return c.Path }
func (c *Snapshot) Target() []byte     { return c.Path }
func (c *Mkfile) Target() []byte       { return c.Path }
func (c *Mkdir) Target() []byte        { return c.Path }
func (c *Mknod) Target() []byte        { return c.Path }
func (c *Mkfifo) Target() []byte       { return c.Path }
func (c *Mksock) Target() []byte       { return c.Path }
func (c *Symlink) Target() []byte      { return c.Path }
func (c *Rename) Target() []byte       { return c.Path }
func (c *Link) Target() []byte         { return c.Path }
func (c *Unlink) Target() []byte       { return c.Path }
func (c *Rmdir) Target() []byte        { return c.Path }
func (c *SetXattr) Target() []byte     { return c.Path }
func (c *RemoveXattr) Target() []byte  { return c.Path }
func (c *Write) Target() []byte        { return c.Path }
func (c *Clone) Target() []byte        { return c.Path }
func (c *Truncate) Target() []byte     { return c.Path }
func (c *Chmod) Target() []byte        { return c.Path }
func (c *Chown) Target() []byte        { return c.Path }
func (c *Utimes) Target() []byte       { return c.Path }
func (*End) Target() []byte            { return nil }
func (c *UpdateExtent) Target() []byte { return c.Path }
func (c *Fallocate) Target() []byte    { return c.Path }
func (c *Fileattr) Target() []byte     { return c.Path }
func (c *EncodedWrite) Target() []byte { return c.Path }
func (c *EnableVerity) Target() []byte { return c.Path }
func (*Unknown) Target() []byte        { return nil }
