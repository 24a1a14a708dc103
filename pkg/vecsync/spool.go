package vecsync

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
)

// A spool keeps what a stream does to the files that may be the log's until it
// is known which are: a few MiB in memory, more in a file without a name. It
// holds no more than what was read from the stream, and what it takes of
// memory does not depend on that.
//
// It is a sequence of pieces, each a header and its bytes. A piece names the
// one that follows it in the same file, so that a file's pieces are found
// again in order.
type spool struct {
	dir  string // for the file
	f    *os.File
	base int64  // how many bytes are in f
	buf  []byte // those behind it
}

// spoolMemory is how much a spool keeps in memory.
const spoolMemory = 4 << 20

// A piece is one command that changed the content of a file.
type piece struct {
	next     int64 // position of the next piece of the same file, 0 if none
	kind     pieceKind
	off, len int64 // in the file
	n        int   // bytes that stand behind the header in the spool

	compression sendstream.Compression // of pieceEncoded, with the two below
	unencoded   int64
	skip        int64
}

type pieceKind uint8

const (
	pieceData pieceKind = iota
	pieceEncoded
	pieceTruncate // to off
	pieceHole
	pieceClone
	pieceUnknown // the stream says that it changed, not how
)

const pieceHeader = 8 + 1 + 1 + 8 + 8 + 4 + 8 + 8

func (p *piece) header() []byte {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, pieceHeader), uint64(p.next))
	b = append(b, byte(p.kind), byte(p.compression))
	b = binary.LittleEndian.AppendUint64(b, uint64(p.off))
	b = binary.LittleEndian.AppendUint64(b, uint64(p.len))
	b = binary.LittleEndian.AppendUint32(b, uint32(p.n))
	b = binary.LittleEndian.AppendUint64(b, uint64(p.unencoded))
	return binary.LittleEndian.AppendUint64(b, uint64(p.skip))
}

// add stores a piece and returns its position, which is never 0.
func (s *spool) add(p *piece, data []byte) (at int64, err error) {
	if len(s.buf) > 0 && len(s.buf)+pieceHeader+len(data) > spoolMemory {
		if err := s.flush(); err != nil {
			return 0, err
		}
	}
	if s.base == 0 && len(s.buf) == 0 {
		s.buf = append(s.buf, 0) // so that no piece is at 0
	}
	p.n = len(data)
	at = s.base + int64(len(s.buf))
	s.buf = append(append(s.buf, p.header()...), data...)
	return at, nil
}

func (s *spool) flush() error {
	if s.f == nil {
		f, err := tempFile(s.dir)
		if err != nil {
			return err
		}
		s.f = f
	}
	n, err := s.f.WriteAt(s.buf, s.base)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	s.base, s.buf = s.base+int64(n), s.buf[:0]
	return nil
}

// link makes next the piece that follows the one at the position at.
func (s *spool) link(at, next int64) error {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(next))
	if at >= s.base {
		copy(s.buf[at-s.base:], b[:])
		return nil
	}
	if _, err := s.f.WriteAt(b[:], at); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// read returns the piece at a position, and its bytes, valid until the next
// call of add or reset, in buf if they were not in memory.
func (s *spool) read(at int64, buf []byte) (p piece, data, scratch []byte, err error) {
	var head [pieceHeader]byte
	if err := s.readAt(head[:], at); err != nil {
		return p, nil, buf, err
	}
	b := head[:]
	p = piece{next: int64(binary.LittleEndian.Uint64(b)), kind: pieceKind(b[8]), compression: sendstream.Compression(b[9]),
		off: int64(binary.LittleEndian.Uint64(b[10:])), len: int64(binary.LittleEndian.Uint64(b[18:])), n: int(binary.LittleEndian.Uint32(b[26:])),
		unencoded: int64(binary.LittleEndian.Uint64(b[30:])), skip: int64(binary.LittleEndian.Uint64(b[38:]))}
	at += pieceHeader
	if at >= s.base {
		return p, s.buf[at-s.base:][:p.n], buf, nil
	}
	if cap(buf) < p.n {
		buf = make([]byte, p.n)
	}
	buf = buf[:p.n]
	return p, buf, buf, s.readAt(buf, at)
}

// readAt reads a header or the bytes of a piece, which lie either in the file
// or in memory, never in both.
func (s *spool) readAt(b []byte, at int64) error {
	if at >= s.base {
		copy(b, s.buf[at-s.base:])
		return nil
	}
	if _, err := s.f.ReadAt(b, at); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// reset forgets everything.
func (s *spool) reset() error {
	s.base, s.buf = 0, s.buf[:0]
	if s.f == nil {
		return nil
	}
	err := s.f.Close()
	s.f = nil
	return err
}

// tempFile makes a file without a name.
func tempFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".gb-vecsync-*")
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("spool: %w", err)
	}
	return f, nil
}

// An area is a writable range of bytes, zero at first, that is read later:
// memory if it is small, else a file without a name.
type area struct {
	mem  []byte
	f    *os.File
	size int64
	high int64 // behind it nothing was written
}

const areaMemory = 4 << 20

func newArea(dir string, size int64) (*area, error) {
	if size <= areaMemory {
		return &area{mem: make([]byte, size), size: size}, nil
	}
	f, err := tempFile(dir)
	if err != nil {
		return nil, err
	}
	return &area{f: f, size: size}, nil
}

// fileArea is the content of a file, to be read only.
func fileArea(f *os.File, size int64) *area { return &area{f: f, size: size, high: size} }

// write puts b at off; what lies outside of the area is left out.
func (a *area) write(b []byte, off int64) error {
	if off < 0 {
		b, off = b[min(-off, int64(len(b))):], 0
	}
	if off >= a.size || len(b) == 0 {
		return nil
	}
	b = b[:min(int64(len(b)), a.size-off)]
	a.high = max(a.high, off+int64(len(b)))
	if a.f == nil {
		copy(a.mem[off:], b)
		return nil
	}
	if _, err := a.f.WriteAt(b, off); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// zero makes the bytes from off to end zero and returns how many it had to
// write for that.
func (a *area) zero(off, end int64) (written int64, err error) {
	off, end = max(off, 0), min(end, a.high)
	if off >= end {
		return 0, nil
	}
	if a.f == nil {
		clear(a.mem[off:end])
	} else if end == a.high {
		if err := a.f.Truncate(off); err != nil {
			return 0, fmt.Errorf("spool: %w", err)
		}
		a.high = off
		return 0, nil
	} else {
		zeros := make([]byte, 64<<10)
		for at := off; at < end; {
			n := min(int64(len(zeros)), end-at)
			if _, err := a.f.WriteAt(zeros[:n], at); err != nil {
				return 0, fmt.Errorf("spool: %w", err)
			}
			at += n
		}
	}
	if end == a.high {
		a.high = off
	}
	return end - off, nil
}

// ReadAt implements io.ReaderAt.
func (a *area) ReadAt(p []byte, off int64) (int, error) {
	if off >= a.size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), a.size-off)]
	n := len(want)
	if a.f == nil {
		copy(want, a.mem[off:])
	} else {
		var err error
		n, err = a.f.ReadAt(want, off)
		if err == io.EOF { // behind what was written there are zeros
			clear(want[n:])
			n, err = len(want), nil
		}
		if err != nil {
			return n, fmt.Errorf("spool: %w", err)
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (a *area) close() error {
	if a.f != nil {
		return a.f.Close()
	}
	return nil
}
