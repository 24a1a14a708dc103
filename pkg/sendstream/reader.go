package sendstream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
)

const (
	magic         = "btrfs-stream\x00"
	headerSize    = len(magic) + 4 // a stream header
	cmdHeaderSize = 10             // a command header: u32 length, u16 command, u32 checksum

	// initialBuffer holds many commands of version 1 and at least one of the
	// largest that kernels up to 6.18 send (144 KiB).
	initialBuffer = 256 << 10
)

// The defaults of Options.
const (
	// DefaultMaxCommand is far above what kernels send (64 KiB in version 1,
	// 144 KiB in version 2), because the format sets no limit in version 2.
	DefaultMaxCommand = 16 << 20
	// DefaultMaxUnencoded is the kernel's own limit, BTRFS_MAX_UNCOMPRESSED.
	DefaultMaxUnencoded = 128 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the CRC-32C of the format: initial value 0 and no final
// inversion, over the command with its checksum field set to 0.
func checksum(b []byte) uint32 {
	return ^crc32.Update(^uint32(0), castagnoli, b)
}

// Options set the limits of a Reader. The zero value is strict and has the
// default limits.
type Options struct {
	// MaxCommand is the size in bytes, header included, of the largest
	// command that is accepted. 0 means DefaultMaxCommand.
	MaxCommand int
	// MaxUnencoded is the largest UnencodedLen that Decode accepts. 0 means
	// DefaultMaxUnencoded.
	MaxUnencoded int
	// Lenient makes Next return commands that the stream's version doesn't
	// define (as the command if a later version defines it, else as
	// *Unknown), and skip attributes of unknown type.
	Lenient bool
}

// A Reader reads the commands of one or more streams that follow each other.
//
// It checks each command's checksum, attributes and paths before it returns
// it. It holds at most about twice Options.MaxCommand bytes, and not more
// than a small multiple of what it has read, whatever lengths the input
// claims. It reads ahead as far as its source gives bytes, but never waits
// for more than the command it returns.
//
// A Reader is not safe for concurrent use.
type Reader struct {
	src  io.Reader
	opts Options

	buf    []byte
	pos    int   // buf[pos:end] is read and not yet consumed
	end    int   //
	base   int64 // offset in the input of buf[0]
	srcErr error // what src returned last, given out when the buffer runs dry

	version  uint32 // of the stream being read, 0 before the first header
	inStream bool   // after a header and before its END
	number   uint64 // commands so far, headers not counted
	offset   int64  // of the command last returned
	err      error  // once set, Next returns it for ever

	attrs attributes
	cmd   commands
	dec   Decoder
}

// commands holds one command of each type, so that returning one allocates
// nothing.
type commands struct {
	header       Header
	subvol       Subvol
	snapshot     Snapshot
	mkfile       Mkfile
	mkdir        Mkdir
	mknod        Mknod
	mkfifo       Mkfifo
	mksock       Mksock
	symlink      Symlink
	rename       Rename
	link         Link
	unlink       Unlink
	rmdir        Rmdir
	setXattr     SetXattr
	removeXattr  RemoveXattr
	write        Write
	clone        Clone
	truncate     Truncate
	chmod        Chmod
	chown        Chown
	utimes       Utimes
	end          End
	updateExtent UpdateExtent
	fallocate    Fallocate
	fileattr     Fileattr
	encodedWrite EncodedWrite
	enableVerity EnableVerity
	unknown      Unknown
}

// NewReader returns a Reader of src. It needs no buffering by the caller.
func NewReader(src io.Reader, opts Options) *Reader {
	if opts.MaxCommand <= 0 {
		opts.MaxCommand = DefaultMaxCommand
	}
	if opts.MaxUnencoded <= 0 {
		opts.MaxUnencoded = DefaultMaxUnencoded
	}
	return &Reader{src: src, opts: opts, dec: Decoder{MaxUnencoded: opts.MaxUnencoded}}
}

// Next returns the next header or command. It returns io.EOF, bare, where the
// input ends after an END, and otherwise an *[Error]; each further call
// returns the same error. [ErrNoEnd] alone says that all commands were whole
// and the END is missing.
func (r *Reader) Next() (Command, error) {
	if r.err != nil {
		return nil, r.err
	}
	cmd, err := r.next()
	if err != nil {
		r.err = err
		return nil, err
	}
	return cmd, nil
}

// All returns an iterator over the headers and commands up to the end of
// input or the first error, which it yields last with a nil command.
func (r *Reader) All() iter.Seq2[Command, error] {
	return func(yield func(Command, error) bool) {
		for {
			cmd, err := r.Next()
			if err == io.EOF {
				return
			}
			if !yield(cmd, err) || err != nil {
				return
			}
		}
	}
}

// Version returns the version of the stream being read, 0 before its header.
func (r *Reader) Version() uint32 { return r.version }

// Number returns how many commands Next has returned, headers not counted: it
// is the number, from 1, of the one returned last.
func (r *Reader) Number() uint64 { return r.number }

// CommandOffset returns the offset, from the beginning of the input, of the
// header or command that Next returned last.
func (r *Reader) CommandOffset() int64 { return r.offset }

// Offset returns the offset of the first byte that Next has not consumed.
func (r *Reader) Offset() int64 { return r.base + int64(r.pos) }

// Buffered returns how many bytes were read from the source and not consumed.
func (r *Reader) Buffered() int { return r.end - r.pos }

// Decode returns the bytes that an EncodedWrite writes at its Offset: exactly
// UnencodedFileLen of them. They are valid until the next call of Decode or
// Next. Its errors are *[Error] that wrap ErrEncoding, ErrTooLarge,
// ErrAttribute or ErrUnsupported; they don't stop the Reader.
func (r *Reader) Decode(c *EncodedWrite) ([]byte, error) {
	b, err := r.dec.Decode(c)
	if err != nil {
		return nil, &Error{Offset: r.offset, Command: r.number, Kind: KindEncodedWrite, Err: err}
	}
	return b, nil
}

func (r *Reader) next() (Command, error) {
	r.offset = r.Offset()
	if !r.inStream {
		return r.readHeader()
	}
	if err := r.fill(cmdHeaderSize); err != nil {
		if err == io.EOF {
			err = ErrNoEnd
			if r.Buffered() > 0 {
				err = ErrTruncated
			}
		}
		return nil, &Error{Offset: r.offset, Command: r.number + 1, Err: err}
	}
	head := r.buf[r.pos:]
	length := binary.LittleEndian.Uint32(head)
	number := binary.LittleEndian.Uint16(head[4:])
	sum := binary.LittleEndian.Uint32(head[6:])

	// A stream whose END was omitted may be followed by another header. Its
	// first bytes can't begin a command: they'd be number 0x2d73.
	if string(head[:cmdHeaderSize]) == magic[:cmdHeaderSize] {
		return r.readHeader()
	}

	kind := Kind(number)
	fail := func(err error) (Command, error) {
		return nil, &Error{Offset: r.offset, Command: r.number + 1, Kind: kind, Err: err}
	}
	if uint64(length)+uint64(cmdHeaderSize) > uint64(r.opts.MaxCommand) {
		return fail(fmt.Errorf("%w: claims %d bytes, the limit is %d", ErrTooLarge, uint64(length)+uint64(cmdHeaderSize), r.opts.MaxCommand))
	}
	size := cmdHeaderSize + int(length)
	if err := r.fill(size); err != nil {
		if err == io.EOF {
			err = ErrTruncated
		}
		return fail(err)
	}
	raw := r.buf[r.pos : r.pos+size : r.pos+size]
	clear(raw[6:cmdHeaderSize])
	if got := checksum(raw); got != sum {
		return fail(fmt.Errorf("%w: computed %08x, stored %08x", ErrChecksum, got, sum))
	}
	cmd, err := r.parse(kind, raw[cmdHeaderSize:])
	if err != nil {
		return fail(err)
	}
	r.pos += size
	r.number++
	if kind == KindEnd {
		r.inStream = false
	}
	return cmd, nil
}

func (r *Reader) readHeader() (Command, error) {
	fail := func(err error) (Command, error) {
		return nil, &Error{Offset: r.offset, Command: r.number, Kind: KindHeader, Err: err}
	}
	if err := r.fill(headerSize); err != nil {
		if err != io.EOF {
			return fail(err)
		}
		have := r.buf[r.pos:r.end]
		switch {
		case len(have) == 0 && r.version == 0:
			return fail(ErrEmpty)
		case len(have) == 0:
			return nil, io.EOF
		case !bytes.HasPrefix([]byte(magic), have[:min(len(have), len(magic))]):
			return fail(ErrMagic)
		}
		return fail(ErrTruncated)
	}
	head := r.buf[r.pos : r.pos+headerSize]
	if string(head[:len(magic)]) != magic {
		return fail(ErrMagic)
	}
	version := binary.LittleEndian.Uint32(head[len(magic):])
	if version == 0 || version > MaxVersion {
		return fail(fmt.Errorf("%w: %d, known are 1 to %d", ErrVersion, version, MaxVersion))
	}
	r.pos += headerSize
	r.version = version
	r.inStream = true
	r.cmd.header.Version = version
	return &r.cmd.header, nil
}

// fill makes buf[pos:pos+n] valid. It returns io.EOF where the source ends
// before, leaving what there is in buf[pos:end].
func (r *Reader) fill(n int) error {
	for empty := 0; r.end-r.pos < n; {
		if r.srcErr != nil {
			return r.srcErr
		}
		r.makeRoom(n)
		m, err := r.src.Read(r.buf[r.end:])
		if m < 0 || m > len(r.buf)-r.end {
			return errors.New("source returned an impossible count")
		}
		r.end += m
		// Kept until the bytes that came with it are used up.
		r.srcErr = err
		if m > 0 {
			empty = 0
		} else if empty++; err == nil && empty >= 100 {
			r.srcErr = io.ErrNoProgress
		}
	}
	return nil
}

// makeRoom makes buf[end:] non-empty on the way to n bytes from pos. The
// buffer grows to double its size only when it is full of bytes that were
// really read, so a length that lies costs nothing.
func (r *Reader) makeRoom(n int) {
	if r.pos == r.end {
		r.base += int64(r.pos)
		r.pos, r.end = 0, 0
	}
	if r.buf == nil {
		r.buf = make([]byte, min(initialBuffer, max(r.opts.MaxCommand, headerSize)))
	}
	if r.pos+n <= len(r.buf) && r.end < len(r.buf) {
		return
	}
	if r.pos > 0 {
		copy(r.buf, r.buf[r.pos:r.end])
		r.base += int64(r.pos)
		r.end -= r.pos
		r.pos = 0
	}
	if r.end == len(r.buf) {
		grown := make([]byte, min(max(2*len(r.buf), headerSize), max(n, headerSize)))
		copy(grown, r.buf[:r.end])
		r.buf = grown
	}
}
