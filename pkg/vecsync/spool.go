package vecsync

import (
	"fmt"
	"io"
	"os"
)

// A spool keeps bytes until they are wanted: a few in memory, more in a file
// that has no name. What it holds is never more than what was read from a
// stream.
type spool struct {
	dir string // for the file
	mem []byte
	f   *os.File
	n   int64 // bytes in f
}

const spoolMemory = 4 << 20

// add stores b and returns where.
func (s *spool) add(b []byte) (off int64, err error) {
	if s.f == nil && len(s.mem)+len(b) <= spoolMemory {
		off = int64(len(s.mem))
		s.mem = append(s.mem, b...)
		return off, nil
	}
	if s.f == nil {
		if s.f, err = tempFile(s.dir); err != nil {
			return 0, err
		}
		if _, err := s.f.Write(s.mem); err != nil {
			return 0, err
		}
		s.n, s.mem = int64(len(s.mem)), nil
	}
	off = s.n
	n, err := s.f.Write(b)
	s.n += int64(n)
	return off, err
}

// read returns the n bytes at off, valid until the next call of add or reset.
func (s *spool) read(off int64, n int, buf []byte) ([]byte, error) {
	if s.f == nil {
		return s.mem[off : off+int64(n)], nil
	}
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := s.f.ReadAt(buf, off); err != nil {
		return nil, err
	}
	return buf, nil
}

// reset forgets everything.
func (s *spool) reset() error {
	s.mem, s.n = s.mem[:0], 0
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
}

const areaMemory = 8 << 20

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

// write puts b at off; what lies outside of the area is left out.
func (a *area) write(b []byte, off int64) error {
	if off < 0 {
		b, off = b[min(-off, int64(len(b))):], 0
	}
	if off >= a.size {
		return nil
	}
	b = b[:min(int64(len(b)), a.size-off)]
	if a.f == nil {
		copy(a.mem[off:], b)
		return nil
	}
	_, err := a.f.WriteAt(b, off)
	return err
}

// zero makes the bytes from off to end zero.
func (a *area) zero(off, end int64) error {
	off, end = max(off, 0), min(end, a.size)
	if off >= end {
		return nil
	}
	if a.f == nil {
		clear(a.mem[off:end])
		return nil
	}
	zeros := make([]byte, 64<<10)
	for off < end {
		n := min(int64(len(zeros)), end-off)
		if _, err := a.f.WriteAt(zeros[:n], off); err != nil {
			return err
		}
		off += n
	}
	return nil
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
			return n, err
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
