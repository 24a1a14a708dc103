package vecsync

import (
	"errors"
	"fmt"

	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
)

// A patch is what a stream does to the content of one file, in order.
type patch struct {
	made   bool // the file was made by this stream
	pieces []piece
}

// A piece is one command of a patch. Its bytes are in the spool.
type piece struct {
	kind     pieceKind
	off, len int64
	at       int64 // in the spool
	n        int
	encoded  sendstream.EncodedWrite // without its data
}

type pieceKind int

const (
	pieceData pieceKind = iota
	pieceEncoded
	pieceTruncate // to off
	pieceHole
	pieceClone
	pieceUnknown // the stream says that it changed, not how
)

// bytes returns what a piece writes.
func (p *piece) bytes(s *spool, d *sendstream.Decoder, buf []byte) (data, scratch []byte, err error) {
	data, err = s.read(p.at, p.n, buf)
	if err != nil {
		return nil, buf, err
	}
	scratch = buf
	if s.f != nil {
		scratch = data[:0]
	}
	if p.kind == pieceEncoded {
		c := p.encoded
		c.Data = data
		if data, err = d.Decode(&c); err != nil {
			return nil, scratch, &StreamError{err}
		}
	}
	return data, scratch, nil
}

var errClone = errors.New("a file of the log is a clone of other data, which is not in the stream")

// small applies a patch to the content of a small file.
func (p *patch) small(content []byte, size int64, s *spool) ([]byte, error) {
	const limit = 32 << 20
	if size > limit {
		return nil, &StreamError{fmt.Errorf("a file of %d bytes where a small one should be", size)}
	}
	if p.made {
		content = nil
	}
	out := make([]byte, size)
	copy(out, content)
	var d sendstream.Decoder
	var scratch []byte
	for i := range p.pieces {
		e := &p.pieces[i]
		switch e.kind {
		case pieceData, pieceEncoded:
			data, sc, err := e.bytes(s, &d, scratch)
			if err != nil {
				return nil, err
			}
			scratch = sc
			if e.off < size {
				copy(out[e.off:], data)
			}
		case pieceTruncate:
			if e.off < size {
				clear(out[e.off:])
			}
		case pieceHole:
			if e.off < size {
				clear(out[e.off:min(size, e.off+e.len)])
			}
		default:
			return nil, &StreamError{errClone}
		}
	}
	return out, nil
}

// segment applies a patch to a segment: what it does below the known size is
// compared with what is known, what it brings above is returned as an area
// that begins there. moved says that another file than before has the
// segment's name.
func (p *patch) segment(seg *segment, size int64, moved bool, s *spool) (*area, error) {
	changed := func(off int64, how string) error {
		return found(FindingChanged, seg.number*layout.SegmentEvents, "%s: %s at byte %d of %d that are known", layout.SegmentName(seg.number), how, off, seg.size)
	}
	// open are the known bytes that must come again before they can be
	// believed to be what they were: all of a new file, and what was cut off.
	var open intervals
	if moved {
		open.add(0, seg.size)
	}
	fresh, err := newArea(s.dir, size-seg.size)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*area, error) {
		fresh.close()
		return nil, err
	}
	var d sendstream.Decoder
	var scratch []byte
	for i := range p.pieces {
		e := &p.pieces[i]
		switch e.kind {
		case pieceData, pieceEncoded:
			data, sc, err := e.bytes(s, &d, scratch)
			if err != nil {
				return fail(err)
			}
			scratch = sc
			if below := min(seg.size-e.off, int64(len(data))); below > 0 {
				same, comparable := seg.compare(e.off, data[:below])
				if !comparable {
					return fail(changed(e.off, "a part of a block was written"))
				}
				if !same {
					return fail(changed(e.off, "other bytes were written"))
				}
				open.remove(e.off, e.off+below)
			}
			if err := fresh.write(data, e.off-seg.size); err != nil {
				return fail(err)
			}
		case pieceTruncate:
			if e.off < seg.size {
				open.add(e.off, seg.size)
			}
			if err := fresh.zero(e.off-seg.size, fresh.size); err != nil {
				return fail(err)
			}
		case pieceHole:
			if e.off < seg.size && e.len > 0 {
				open.add(e.off, min(seg.size, e.off+e.len))
			}
			if err := fresh.zero(e.off-seg.size, e.off+e.len-seg.size); err != nil {
				return fail(err)
			}
		default:
			return fail(&StreamError{errClone})
		}
	}
	if off, some := open.first(); some {
		return fail(changed(off, "bytes were taken away"))
	}
	return fresh, nil
}

// intervals is a set of bytes, as disjoint intervals in order.
type intervals []struct{ from, to int64 }

func (s *intervals) add(from, to int64) {
	if from >= to {
		return
	}
	s.remove(from, to)
	i := 0
	for i < len(*s) && (*s)[i].from < from {
		i++
	}
	*s = append(*s, struct{ from, to int64 }{})
	copy((*s)[i+1:], (*s)[i:])
	(*s)[i] = struct{ from, to int64 }{from, to}
}

func (s *intervals) remove(from, to int64) {
	var left intervals
	for _, v := range *s {
		if v.from < min(v.to, from) {
			left = append(left, struct{ from, to int64 }{v.from, min(v.to, from)})
		}
		if max(v.from, to) < v.to {
			left = append(left, struct{ from, to int64 }{max(v.from, to), v.to})
		}
	}
	*s = left
}

func (s intervals) first() (off int64, some bool) {
	if len(s) == 0 {
		return 0, false
	}
	return s[0].from, true
}
