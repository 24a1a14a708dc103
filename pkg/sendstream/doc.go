// Package sendstream reads, writes, replays and prints btrfs send streams,
// versions 1, 2 and 3. It needs neither btrfs nor root.
//
// A [Reader] gives the headers and commands of one or more streams, a [Writer]
// writes them. [WriteText] and [WriteJSON] print a stream. [Replay] applies one
// to a directory ([Dir]) or in memory ([Memory]); a [Namespace] follows which
// file each path names while the caller deals with the content.
//
//	r := sendstream.NewReader(os.Stdin, sendstream.Options{})
//	for cmd, err := range r.All() {
//		if err != nil {
//			return err // a *sendstream.Error
//		}
//		switch c := cmd.(type) {
//		case *sendstream.Header: // a stream begins
//		case *sendstream.Snapshot: // a subvolume begins
//		case *sendstream.Write: // c.Path, c.Offset, c.Data
//		case *sendstream.EncodedWrite: // r.Decode(c) gives the data
//		case *sendstream.End: // the stream is complete
//		}
//	}
//
// # The format
//
// What follows describes the format in full. Its sources are the kernel's
// fs/btrfs/send.h and send.c, the page "Send stream format" of the btrfs
// documentation, and the bytes that kernels send.
//
// A send stream is a list of commands that build a subvolume, or change a copy
// of one into another. The kernel makes it from two read-only snapshots (or
// one); any program can make or read one. All numbers are little endian and
// nothing is aligned.
//
// A stream begins with a header of 17 bytes:
//
//	offset  size  value
//	0       13    "btrfs-stream" and a NUL
//	13      4     version: 1, 2 or 3
//
// Commands follow, each with a header of 10 bytes:
//
//	0       4     length of the payload, without these 10 bytes
//	4       2     number of the command
//	6       4     CRC-32C (Castagnoli) of header and payload, with these 4 bytes
//	              taken as 0, initial value 0, no final inversion
//
// The payload is a list of attributes:
//
//	0       2     type
//	2       2     length of the value
//	4       n     value
//
// In versions 2 and 3 the attribute DATA, and only that, has no length: it is
// the last one, and its value, from offset 2 on, goes to the end of the
// payload. This lets a command have more than 64 KiB. The order of the others
// is free. If a type comes twice, the last one counts. Types that a command
// doesn't ask for are passed over; a type that nothing defines is an error, as
// in btrfs receive, unless the reader is lenient.
//
// Types of attributes:
//
//	1 UUID 20 CLONE_UUID                     16 bytes
//	2 CTRANSID 3 INO 4 SIZE 5 MODE 6 UID 7 GID 8 RDEV
//	18 FILE_OFFSET 21 CLONE_CTRANSID 23 CLONE_OFFSET 24 CLONE_LEN
//	26 FILEATTR 27 UNENCODED_FILE_LEN 28 UNENCODED_LEN
//	29 UNENCODED_OFFSET                      64-bit number
//	25 FALLOCATE_MODE 30 COMPRESSION 31 ENCRYPTION
//	33 VERITY_BLOCK_SIZE                     32-bit number
//	32 VERITY_ALGORITHM                      8-bit number
//	9 CTIME 10 MTIME 11 ATIME 12 OTIME       64-bit signed seconds, 32-bit nanoseconds
//	13 XATTR_NAME 15 PATH 16 PATH_TO
//	17 PATH_LINK 22 CLONE_PATH               string: bytes without NUL, not terminated
//	14 XATTR_DATA 19 DATA 34 VERITY_SALT_DATA
//	35 VERITY_SIG_DATA                       bytes
//
// 1 to 24 came with version 1, 25 to 31 with version 2, the others with 3.
// The commands and the attributes of each are the types of this package, from
// [Subvol] to [EnableVerity]; the comments of their fields name the attributes.
//
// # What a stream means
//
// A stream that is sent in full begins with [Subvol] and builds a tree from
// nothing; an incremental one begins with [Snapshot], names its parent by UUID
// and transaction, and changes a copy of it. [End] closes the stream. Without
// an END nothing says that the stream is whole.
//
// Paths are relative to the subvolume and are what they are at this point of
// the stream: a renamed directory takes the paths of all that is in it along.
// The empty path is the subvolume itself. Names are bytes; only NUL and the
// slash can't be part of one.
//
// Every new file is made under an orphan name, oINODE-GENERATION-N, and then
// renamed to its place. Existing files, too, are moved to such names for a
// while, to make way for one that takes their name.
//
// A file is written through any one of its names. So who follows a file must
// follow names: a rotation of logs (rename a to a.1, create a) comes out as a
// link a.1 to a, an unlink of a, and a new file that is renamed to a. This is
// what [Namespace] is for.
//
// A write covers changed extents and not changed bytes: an append to a file
// re-sends the 4 KiB block in which it began.
//
// What is not sent: holes at the end of a file come as a [Truncate]; holes
// within are not mentioned in a new file and come as zeros (version 1) or as a
// [Fallocate] that punches them (version 2) in one that had data; the data of
// a [Clone] is in another file; with NO_FILE_DATA an [UpdateExtent] stands for
// a write. The mtime of a directory in which the stream changes names last can
// be left to the receiver's clock.
//
// An [EncodedWrite] has an extent as the disk has it. Its data can go on with
// zeros after the compressed frame, up to a sector's end; the frame can decode
// to fewer bytes than the extent has, and the rest is zeros. LZO data is
// LZO1X in segments, laid out as [CompressionLZO4K] and its siblings say: a
// 32-bit total length that counts itself, then for each sector of plain data a
// 32-bit length and a block; no such length crosses a boundary of sectors,
// where less than 4 bytes are left they are zeros.
//
// # Several streams
//
// Streams can follow each other directly, each with header and END. A kernel
// can also be told to leave out headers and ENDs, so that "btrfs send -e a b"
// gives one header, all commands of a, all of b, and one END: the next Subvol
// or Snapshot then ends the subvolume before it. A Reader takes all of this,
// and a header in place of an END, too; it returns a *[Header] at each header,
// so that a caller sees where streams begin.
//
// # What a Reader guarantees
//
// A command that it returns has a right checksum, all attributes that its type
// needs, of the right size, paths in canonical form that stay inside the
// subvolume ([CheckPath]), and ranges below 2^63. Whatever a stream says, the
// reader's memory stays below about twice Options.MaxCommand, and below a
// small multiple of what it has read; a command costs time in proportion to
// its size, and an EncodedWrite that is decoded at most Options.MaxUnencoded.
//
// It does not guarantee that commands make sense one after the other: that
// shows when they are replayed. Nor that nobody made or changed the stream: a
// CRC protects against accidents, the version in the header has not even that,
// and a 1 that became a 3 lets the two bytes of a length pass as data.
//
// # Compatibility
//
// The interface of this package is meant for others and stays compatible. New
// versions of the format will add types that implement Command; a type switch
// should have a default.
package sendstream
