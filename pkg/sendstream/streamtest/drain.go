package streamtest

import (
	"hash/crc32"
	"io"

	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
)

// Drain reads all commands of the streams in src and returns how many bytes
// these were. It is what a benchmark of the reader times.
func Drain(src io.Reader) (int64, error) {
	r := sendstream.NewReader(src, sendstream.Options{})
	for {
		if _, err := r.Next(); err == io.EOF {
			return r.Offset(), nil
		} else if err != nil {
			return r.Offset(), err
		}
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum reads src and computes the CRC-32C of its bytes, in pieces of
// 256 KiB, and returns how many there were. No reader can do with less: it is
// what Drain is measured by.
func Checksum(src io.Reader) (int64, error) {
	buf := make([]byte, 256<<10)
	sum, total := uint32(0), int64(0)
	for {
		n, err := src.Read(buf)
		sum = crc32.Update(sum, castagnoli, buf[:n])
		total += int64(n)
		if err == io.EOF {
			return total, nil
		} else if err != nil {
			return total, err
		}
	}
}
