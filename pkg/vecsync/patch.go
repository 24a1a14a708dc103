package vecsync

import (
	"errors"

	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
)

// A patch is what a stream does to the content of one file, in order. Its
// pieces are in the spool.
type patch struct {
	made        bool // the file was made by this stream
	skipped     bool // something was written that was not kept
	first, last int64
	bytes       int64 // of all pieces
}

// add appends a piece.
func (p *patch) add(s *spool, e *piece, data []byte) error {
	at, err := s.add(e, data)
	if err != nil {
		return err
	}
	if p.first == 0 {
		p.first = at
	} else if err := s.link(p.last, at); err != nil {
		return err
	}
	p.last = at
	p.bytes += int64(len(data))
	return nil
}

var (
	errClone = errors.New("a file of the log is a clone of other data, or was sent without its data: the stream does not say what is in it")
	errHoles = errors.New("a file of the log has more holes than content")
	errName  = errors.New("a file of the log was written under a name that is none of the log's")
)

// A target takes the pieces of a patch, decoded.
type target interface {
	data(off int64, b []byte) error
	// zero takes a truncation or a hole: the bytes from off to end, which is -1
	// for all there are, become zero. It returns how much work that was.
	zero(off, end int64) (work int64, err error)
}

// apply gives all pieces to t. What holes cost is bounded by what the stream
// brought for it.
func (p *patch) apply(s *spool, t target) error {
	if p.skipped {
		return &StreamError{errName}
	}
	var d sendstream.Decoder
	var scratch []byte
	left := 64<<20 + 8*p.bytes
	for at := p.first; at != 0; {
		e, b, sc, err := s.read(at, scratch)
		if err != nil {
			return err
		}
		scratch, at = sc, e.next
		var work int64
		switch e.kind {
		case pieceEncoded:
			b, err = d.Decode(&sendstream.EncodedWrite{UnencodedFileLen: uint64(e.len), UnencodedLen: uint64(e.unencoded),
				UnencodedOffset: uint64(e.skip), Compression: e.compression, Data: b})
			if err != nil {
				return &StreamError{err}
			}
			err = t.data(e.off, b)
		case pieceData:
			err = t.data(e.off, b)
		case pieceTruncate:
			work, err = t.zero(e.off, -1)
		case pieceHole:
			work, err = t.zero(e.off, e.off+e.len)
		default:
			err = &StreamError{errClone}
		}
		if err != nil {
			return err
		}
		if left -= work; left < 0 {
			return &StreamError{errHoles}
		}
	}
	return nil
}

// maxSmall bounds what the files of the log that are kept whole may have
// together: it is enough for the seals of 100,000 segments.
const maxSmall = 32 << 20

// small applies a patch to the content of a small file.
func (p *patch) small(content []byte, size int64, s *spool) ([]byte, error) {
	t := make(smallTarget, size)
	if !p.made {
		copy(t, content)
	}
	return t, p.apply(s, t)
}

type smallTarget []byte

func (t smallTarget) data(off int64, b []byte) error {
	if off < int64(len(t)) {
		copy(t[off:], b)
	}
	return nil
}

func (t smallTarget) zero(off, end int64) (int64, error) {
	if end < 0 || end > int64(len(t)) {
		end = int64(len(t))
	}
	if off >= end {
		return 0, nil
	}
	clear(t[off:end])
	return end - off, nil
}

// A segmentTarget is a segment that a patch is applied to. What the patch does
// below the segment's tail is compared with the hashes of the blocks there;
// from the tail on the bytes go into an area, and those of them that are in
// the index are compared when all pieces have been applied.
type segmentTarget struct {
	seg   *segment
	tail  int64 // where the area begins
	fresh *area
	open  bitmap // blocks below tail that must come again
}

func (t *segmentTarget) changed(off int64, how string) error {
	return found(FindingChanged, t.seg.number*layout.SegmentEvents, "%s: %s at byte %d of %d that are in the index",
		layout.SegmentName(t.seg.number), how, off, t.seg.consumed)
}

func (t *segmentTarget) data(off int64, b []byte) error {
	if below := min(t.tail-off, int64(len(b))); below > 0 {
		if err := t.compare(off, b[:below]); err != nil {
			return err
		}
	}
	return t.fresh.write(b, off-t.tail)
}

// compare compares whole blocks below the tail with their hashes.
func (t *segmentTarget) compare(off int64, b []byte) error {
	if off%blockSize != 0 || len(b)%blockSize != 0 {
		return t.changed(off, "a part of a block was written")
	}
	for ; len(b) > 0; off, b = off+blockSize, b[blockSize:] {
		want, err := t.seg.blocks.at(off / blockSize)
		if err != nil {
			return err
		}
		if hashBlock(b[:blockSize]) != want {
			return t.changed(off, "other bytes were written")
		}
		t.open.clear(off / blockSize)
	}
	return nil
}

func (t *segmentTarget) zero(off, end int64) (int64, error) {
	var work int64
	if off < t.tail {
		last := t.tail
		if end >= 0 {
			last = min(last, end)
		}
		if off < last {
			from, to := off/blockSize, (last+blockSize-1)/blockSize
			t.open.set(from, to)
			work = (to - from) / 8
		}
	}
	if end < 0 {
		end = t.fresh.size + t.tail
	}
	n, err := t.fresh.zero(off-t.tail, end-t.tail)
	return work + n, err
}

// apply applies a patch to a segment of which the file has size bytes now, and
// returns them from the tail on. another says that the file is not the one
// that had the segment's name before: then all of it must come again.
func (s *segment) apply(p *patch, size int64, another bool, sp *spool) (*area, error) {
	t := &segmentTarget{seg: s, tail: s.tailOff()}
	t.open = make(bitmap, (t.tail/blockSize+63)/64)
	var err error
	if t.fresh, err = newArea(sp.dir, size-t.tail); err != nil {
		return nil, err
	}
	if another {
		t.open.set(0, t.tail/blockSize)
	} else {
		err = t.fresh.write(s.tail, 0)
	}
	if err == nil {
		err = p.apply(sp, t)
	}
	if err == nil {
		err = t.check()
	}
	if err != nil {
		t.fresh.close()
		return nil, err
	}
	return t.fresh, nil
}

// check compares what is in the index with what the patch made of it.
func (t *segmentTarget) check() error {
	if block, some := t.open.first(); some {
		return t.changed(block*blockSize, "bytes were taken away")
	}
	known := t.seg.tail[:t.seg.consumed-t.tail]
	now := make([]byte, len(known))
	if n, err := t.fresh.ReadAt(now, 0); n < len(now) {
		return err
	}
	for i := range known {
		if known[i] != now[i] {
			return t.changed(t.tail+int64(i), "other bytes were written")
		}
	}
	return nil
}

// A bitmap is a set of numbers from 0 on.
type bitmap []uint64

// set adds the numbers [from, to).
func (b bitmap) set(from, to int64) {
	for ; from < to && from%64 != 0; from++ {
		b[from/64] |= 1 << (from % 64)
	}
	for ; from+64 <= to; from += 64 {
		b[from/64] = ^uint64(0)
	}
	for ; from < to; from++ {
		b[from/64] |= 1 << (from % 64)
	}
}

func (b bitmap) clear(i int64) { b[i/64] &^= 1 << (i % 64) }

func (b bitmap) first() (i int64, some bool) {
	for w, word := range b {
		for bit := range 64 {
			if word&(1<<bit) != 0 {
				return int64(w)*64 + int64(bit), true
			}
		}
	}
	return 0, false
}
