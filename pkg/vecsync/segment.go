package vecsync

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
)

const (
	// blockSize is the smallest block that btrfs sends: what a stream brings
	// again begins and ends at a multiple of it, or at the end of the file.
	blockSize = 4096

	// A block's hash is the first 16 bytes of its SHA-256.
	blockHash = 16

	// chunkBlocks is how many hashes stand in one record of the state.
	chunkBlocks = 256

	// maxPending bounds what may stand behind the checkpoint.
	maxPending = 256 << 20
)

// A segment is what the ingester knows of the bytes of one segment of the log.
type segment struct {
	number   int64
	file     sendstream.FileID
	size     int64  // bytes that are known
	consumed int64  // of these, in lines that are in the index
	tail     []byte // the bytes from tailOff on
	blocks   []byte // hashes of the whole blocks
	dirty    int64  // blocks below it are saved already
}

// tailOff is where tail begins: it holds what is not in the index yet and the
// last block if that is not whole.
func (s *segment) tailOff() int64 { return min(s.consumed, s.size&^(blockSize-1)) }

func segmentKey(n int64) string      { return fmt.Sprintf("seg/%012d", n) }
func chunkKey(n, chunk int64) string { return fmt.Sprintf("blk/%012d/%08d", n, chunk) }

func (s *segment) save(tx index.Tx) error {
	head := make([]byte, 24, 24+len(s.tail))
	binary.BigEndian.PutUint64(head, uint64(s.file))
	binary.BigEndian.PutUint64(head[8:], uint64(s.size))
	binary.BigEndian.PutUint64(head[16:], uint64(s.consumed))
	if err := tx.Set(segmentKey(s.number), append(head, s.tail...)); err != nil {
		return err
	}
	for chunk := s.dirty / chunkBlocks; chunk*chunkBlocks*blockHash < int64(len(s.blocks)); chunk++ {
		part := s.blocks[chunk*chunkBlocks*blockHash:]
		part = part[:min(len(part), chunkBlocks*blockHash)]
		if err := tx.Set(chunkKey(s.number, chunk), part); err != nil {
			return err
		}
	}
	s.dirty = int64(len(s.blocks)) / blockHash
	return nil
}

func (s *segment) remove(tx index.Tx) error {
	if err := tx.Set(segmentKey(s.number), nil); err != nil {
		return err
	}
	for chunk := int64(0); chunk*chunkBlocks*blockSize <= s.size; chunk++ {
		if err := tx.Set(chunkKey(s.number, chunk), nil); err != nil {
			return err
		}
	}
	return nil
}

func parseSegment(n int64, data []byte) (*segment, error) {
	if len(data) < 24 {
		return nil, fmt.Errorf("state of %s: cut off", layout.SegmentName(n))
	}
	s := &segment{
		number:   n,
		file:     sendstream.FileID(binary.BigEndian.Uint64(data)),
		size:     int64(binary.BigEndian.Uint64(data[8:])),
		consumed: int64(binary.BigEndian.Uint64(data[16:])),
		tail:     data[24:],
	}
	if s.consumed < 0 || s.consumed > s.size || int64(len(s.tail)) != s.size-s.tailOff() {
		return nil, fmt.Errorf("state of %s: does not fit together", layout.SegmentName(n))
	}
	return s, nil
}

// loadBlocks reads the block hashes, which are only wanted when the segment
// changes.
func (s *segment) loadBlocks(ix index.Writer) error {
	if s.blocks != nil {
		return nil
	}
	want := s.size / blockSize * blockHash
	s.blocks = make([]byte, 0, want)
	for chunk := int64(0); int64(len(s.blocks)) < want; chunk++ {
		part, err := ix.Get(chunkKey(s.number, chunk))
		if err != nil {
			return err
		}
		if len(part) == 0 {
			return fmt.Errorf("state of %s: hashes are missing", layout.SegmentName(s.number))
		}
		s.blocks = append(s.blocks, part...)
	}
	s.blocks = s.blocks[:want]
	s.dirty = want / blockHash
	return nil
}

// compare says whether the bytes b at off, all below size, are those that are
// known. Bytes that share a whole known block with others can't be compared
// without them.
func (s *segment) compare(off int64, b []byte) (same, comparable bool) {
	whole := s.size &^ (blockSize - 1)
	for len(b) > 0 {
		if t := s.tailOff(); off >= t {
			return string(b) == string(s.tail[off-t:off-t+int64(len(b))]), true
		}
		if off%blockSize != 0 || len(b) < blockSize || off >= whole {
			return false, false
		}
		sum := sha256.Sum256(b[:blockSize])
		at := off / blockSize * blockHash
		if string(sum[:blockHash]) != string(s.blocks[at:at+blockHash]) {
			return false, true
		}
		off, b = off+blockSize, b[blockSize:]
	}
	return true, true
}

// grow takes the bytes of the segment from its old size to size, which a reads
// from its beginning, and what is consumed of all now.
func (s *segment) grow(a io.ReaderAt, size, consumed int64) error {
	if size-min(consumed, size&^(blockSize-1)) > maxPending {
		return fmt.Errorf("%s: more than %d bytes stand behind the checkpoint", layout.SegmentName(s.number), maxPending)
	}
	old := s.size
	// The block that was not whole goes on with what is new.
	var block [blockSize]byte
	fill := copy(block[:], s.tail[(old&^(blockSize-1))-s.tailOff():])
	fill = min(fill, int(old%blockSize))
	oldTail, oldOff := s.tail, s.tailOff()
	for off := int64(0); off < size-old; {
		n, err := a.ReadAt(block[fill:min(blockSize, int64(fill)+size-old-off)], off)
		if err != nil && err != io.EOF {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		off += int64(n)
		fill += n
		if fill == blockSize {
			sum := sha256.Sum256(block[:])
			s.blocks = append(s.blocks, sum[:blockHash]...)
			fill = 0
		}
	}
	s.size, s.consumed = size, consumed
	// The new tail, out of the old one and what is new.
	tail := make([]byte, size-s.tailOff())
	from := s.tailOff()
	if from < old {
		copy(tail, oldTail[from-oldOff:])
	}
	if at := max(from, old); at < size {
		if _, err := a.ReadAt(tail[at-from:], at-old); err != nil && err != io.EOF {
			return err
		}
	}
	s.tail = tail
	return nil
}
