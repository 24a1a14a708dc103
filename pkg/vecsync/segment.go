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

	// chunkBlocks is how many hashes stand in one record of the state.
	chunkBlocks = 256

	// maxSegment is the size of the largest segment that a log can have.
	maxSegment = layout.SegmentEvents * (65535 + 1)

	// maxPending bounds what may stand behind the checkpoint: it is kept in
	// memory, and written again with each stream.
	maxPending = 32 << 20
)

// A blockHash is the first half of a block's SHA-256.
type blockHash [16]byte

func hashBlock(b []byte) blockHash {
	sum := sha256.Sum256(b)
	return blockHash(sum[:16])
}

// A segment is what the ingester knows of the bytes of one segment of the log.
// Those that are in the index can't change any more: of them it has a hash of
// each whole block. Those behind, which no checkpoint covers, it has as they
// are; a writer that recovers from a crash may cut them off.
type segment struct {
	number   int64
	file     sendstream.FileID
	size     int64 // bytes that are known
	consumed int64 // of these, in lines that are in the index

	loaded bool
	tail   []byte // the bytes from tailOff on
	blocks blockHashes
}

// tailOff is where tail begins: at the block in which what is in the index
// ends.
func (s *segment) tailOff() int64 { return s.consumed &^ (blockSize - 1) }

const (
	segmentPrefix = "seg/"
	tailPrefix    = "tail/"
	blocksPrefix  = "blk/"
)

func segmentKey(n int64) string      { return fmt.Sprintf("%s%012d", segmentPrefix, n) }
func tailKey(n int64) string         { return fmt.Sprintf("%s%012d", tailPrefix, n) }
func chunkKey(n, chunk int64) string { return fmt.Sprintf("%s%012d/%08d", blocksPrefix, n, chunk) }

func newSegment(n int64, ix getter) *segment {
	return &segment{number: n, loaded: true, blocks: blockHashes{ix: ix, segment: n}}
}

func parseSegment(n int64, data []byte, ix getter) (*segment, error) {
	if len(data) != 24 {
		return nil, fmt.Errorf("state of %s: %d bytes", layout.SegmentName(n), len(data))
	}
	s := &segment{
		number:   n,
		file:     sendstream.FileID(binary.BigEndian.Uint64(data)),
		size:     int64(binary.BigEndian.Uint64(data[8:])),
		consumed: int64(binary.BigEndian.Uint64(data[16:])),
	}
	if s.consumed < 0 || s.consumed > s.size {
		return nil, fmt.Errorf("state of %s: does not fit together", layout.SegmentName(n))
	}
	s.blocks = blockHashes{ix: ix, segment: n, count: s.tailOff() / blockSize}
	return s, nil
}

// load reads the tail.
func (s *segment) load(ix getter) error {
	if s.loaded {
		return nil
	}
	tail, err := ix.Get(tailKey(s.number))
	if err != nil {
		return err
	}
	if int64(len(tail)) != s.size-s.tailOff() {
		return fmt.Errorf("state of %s: does not fit together", layout.SegmentName(s.number))
	}
	s.tail, s.loaded = tail, true
	return nil
}

func (s *segment) save(tx index.Tx) error {
	head := make([]byte, 24)
	binary.BigEndian.PutUint64(head, uint64(s.file))
	binary.BigEndian.PutUint64(head[8:], uint64(s.size))
	binary.BigEndian.PutUint64(head[16:], uint64(s.consumed))
	tail := s.tail
	if tail == nil {
		tail = []byte{}
	}
	if err := tx.Set(segmentKey(s.number), head); err != nil {
		return err
	}
	if err := tx.Set(tailKey(s.number), tail); err != nil {
		return err
	}
	if err := s.blocks.save(tx); err != nil {
		return err
	}
	// With many segments in one stream, only what is in work is in memory.
	s.loaded, s.tail, s.blocks.chunks = false, nil, nil
	return nil
}

func (s *segment) remove(tx index.Tx) error {
	if err := tx.Set(segmentKey(s.number), nil); err != nil {
		return err
	}
	if err := tx.Set(tailKey(s.number), nil); err != nil {
		return err
	}
	for chunk := int64(0); chunk*chunkBlocks < s.blocks.count; chunk++ {
		if err := tx.Set(chunkKey(s.number, chunk), nil); err != nil {
			return err
		}
	}
	return nil
}

// grow takes over a, the segment's bytes from the tail on, of which now all up
// to consumed are in the index.
func (s *segment) grow(a *area, consumed int64) error {
	old := s.tailOff()
	s.size, s.consumed = old+a.size, consumed
	var block [blockSize]byte
	for off := old; off < s.tailOff(); off += blockSize {
		if n, err := a.ReadAt(block[:], off-old); n < len(block) {
			return err
		}
		if err := s.blocks.append(hashBlock(block[:])); err != nil {
			return err
		}
	}
	s.tail = make([]byte, s.size-s.tailOff())
	if n, err := a.ReadAt(s.tail, s.tailOff()-old); n < len(s.tail) {
		return err
	}
	return nil
}

// A pendingError says that too much stands behind the checkpoint: exit code 75.
type pendingError struct{ bytes int64 }

func (e *pendingError) Error() string {
	return fmt.Sprintf("%d bytes of events stand behind the log's checkpoint, at most %d can wait there", e.bytes, int64(maxPending))
}

// ExitCode is EX_TEMPFAIL: the next checkpoint covers them.
func (e *pendingError) ExitCode() int { return 75 }

// Hint says what to do.
func (e *pendingError) Hint() string {
	return "nothing was taken; try again when the log's writer has signed a checkpoint"
}

// A getter reads the state of an index.
type getter interface {
	Get(key string) ([]byte, error)
}

// blockHashes are the hashes of a segment's blocks, of which only those that
// are asked for are read from the state.
type blockHashes struct {
	ix      getter
	segment int64
	count   int64
	chunks  map[int64]*hashChunk
}

type hashChunk struct {
	hashes []byte
	dirty  bool
}

const hashSize = int64(len(blockHash{}))

func (h *blockHashes) chunk(n int64) (*hashChunk, error) {
	if c := h.chunks[n]; c != nil {
		return c, nil
	}
	c := new(hashChunk)
	if want := min(h.count-n*chunkBlocks, chunkBlocks) * hashSize; want > 0 {
		data, err := h.ix.Get(chunkKey(h.segment, n))
		if err != nil {
			return nil, err
		}
		if int64(len(data)) != want {
			return nil, fmt.Errorf("state of %s: hashes are missing", layout.SegmentName(h.segment))
		}
		c.hashes = data
	}
	if h.chunks == nil {
		h.chunks = make(map[int64]*hashChunk)
	}
	h.chunks[n] = c
	return c, nil
}

// at returns the hash of block i.
func (h *blockHashes) at(i int64) (blockHash, error) {
	c, err := h.chunk(i / chunkBlocks)
	if err != nil {
		return blockHash{}, err
	}
	return blockHash(c.hashes[i%chunkBlocks*hashSize:][:hashSize]), nil
}

func (h *blockHashes) append(b blockHash) error {
	c, err := h.chunk(h.count / chunkBlocks)
	if err != nil {
		return err
	}
	c.hashes, c.dirty = append(c.hashes, b[:]...), true
	h.count++
	return nil
}

func (h *blockHashes) save(tx index.Tx) error {
	for n, c := range h.chunks {
		if !c.dirty {
			continue
		}
		if err := tx.Set(chunkKey(h.segment, n), c.hashes); err != nil {
			return err
		}
		c.dirty = false
	}
	return nil
}

// section reads a from the byte at off of the segment on.
func (s *segment) section(a *area, off int64) io.Reader {
	at := off - s.tailOff()
	return io.NewSectionReader(a, at, a.size-at)
}
