// Package streamtest makes send streams for tests and benchmarks.
package streamtest

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
)

// Bulk writes a full stream of about size bytes to w, with the commands in the
// order and the sizes of a kernel's: nine tenths of it are files of 64 MiB in
// writes of 48 KiB (version 1) or 128 KiB, the rest small files. Its bytes
// depend on the arguments alone.
func Bulk(w io.Writer, version uint32, size int64) error {
	bw := bufio.NewWriterSize(w, 1<<20)
	count := &counter{w: bw}
	b := &bulk{w: sendstream.NewWriter(count), r: rand.New(rand.NewPCG(1, uint64(version)))}
	b.chunk = 128 << 10
	if version == 1 {
		b.chunk = 48 << 10
	}
	b.noise = make([]byte, 1<<20)
	for i := range b.noise {
		b.noise[i] = byte(b.r.Uint32())
	}
	b.put(&sendstream.Header{Version: version})
	b.put(&sendstream.Subvol{Path: []byte("bulk"), UUID: sendstream.UUID{1}, Ctransid: 7})
	for ; b.ino < 16; b.ino++ {
		b.put(&sendstream.Mkdir{Path: b.dir(), Ino: firstIno + b.ino})
	}
	for ; b.err == nil && count.n < size; b.ino++ {
		if b.ino%1024 == 16 {
			b.file(int(min(64<<20, size/2)))
		} else {
			b.file(1 + b.r.IntN(12000))
		}
	}
	b.put(&sendstream.End{})
	if b.err != nil {
		return b.err
	}
	return bw.Flush()
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

type bulk struct {
	w     *sendstream.Writer
	r     *rand.Rand
	noise []byte
	chunk int
	ino   uint64
	err   error
}

func (b *bulk) put(c sendstream.Command) {
	if b.err == nil {
		b.err = b.w.WriteCommand(c)
	}
}

// firstIno is that of the first file of a subvolume, 256 being its root.
const firstIno = 257

func (b *bulk) dir() []byte { return fmt.Appendf(nil, "dir%d", b.ino%16) }

func (b *bulk) file(size int) {
	orphan := fmt.Appendf(nil, "o%d-7-0", firstIno+b.ino)
	path := fmt.Appendf(b.dir(), "/file%d", b.ino)
	b.put(&sendstream.Mkfile{Path: orphan, Ino: firstIno + b.ino})
	b.put(&sendstream.Rename{Path: orphan, To: path})
	for offset := 0; offset < size && b.err == nil; offset += b.chunk {
		n := min(b.chunk, size-offset)
		from := b.r.IntN(len(b.noise) - n)
		b.put(&sendstream.Write{Path: path, Offset: uint64(offset), Data: b.noise[from : from+n]})
	}
	b.put(&sendstream.Chown{Path: path})
	b.put(&sendstream.Chmod{Path: path, Mode: 0o644})
	t := sendstream.Timespec{Sec: 1700000000 + int64(b.ino)}
	b.put(&sendstream.Utimes{Path: path, Atime: t, Mtime: t, Ctime: t})
}
