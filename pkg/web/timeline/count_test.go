package timeline

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// A countingFS counts the bytes that are read of the files of dir.
type countingFS struct {
	dir   string
	bytes int64
}

func (c *countingFS) Open(name string) (fs.File, error) {
	f, err := os.Open(filepath.Join(c.dir, name))
	if err != nil {
		return nil, err
	}
	return &countingFile{f, c}, nil
}

type countingFile struct {
	*os.File
	c *countingFS
}

func (f *countingFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	f.c.bytes += int64(n)
	return n, err
}

func (f *countingFile) Read(b []byte) (int, error) {
	n, err := f.File.Read(b)
	f.c.bytes += int64(n)
	return n, err
}

var _ io.ReaderAt = (*countingFile)(nil)
