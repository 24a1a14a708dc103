package sendstream

import "math/rand/v2"

// An extent is a node of a binary tree whose in-order sequence is the content
// of a file. Nodes never change, so files share them: cloning a range, or
// taking a snapshot, copies no data, and any change makes O(log n) new nodes.
//
// The tree is balanced by chance, weighed by the number of nodes, rather than
// by priorities kept in the nodes: a range that was cloned again and again
// would bring the same priorities many times, and a stream could use that to
// make a list of the tree.
type extent struct {
	left, right *extent
	size        uint64 // bytes of the whole tree
	count       uint64 // nodes of the whole tree

	length uint64 // of this node's own bytes
	data   []byte // length bytes, or nil for a hole
	chunk  *chunk // what data is a part of

	epoch uint64 // see extentPool.live; the one field that changes
}

// A chunk is data as it came from the stream. It lives as long as an extent
// that has a byte of it.
type chunk struct {
	data  []byte
	epoch uint64
}

const (
	extentCost = 112 // bytes of an extent
	chunkCost  = 64  // bytes of a chunk besides its data
)

// An extentPool makes extents and counts what they take. Freed memory is not
// noticed, so allocated is an upper bound; live gives the true number.
type extentPool struct {
	allocated int64
	epoch     uint64
	random    *rand.Rand // nil for the global, unpredictable one; tests set it
}

func (x *extent) len() uint64 {
	if x == nil {
		return 0
	}
	return x.size
}

func (x *extent) nodes() uint64 {
	if x == nil {
		return 0
	}
	return x.count
}

func (p *extentPool) node(left, right *extent, length uint64, data []byte, c *chunk) *extent {
	p.allocated += extentCost
	return &extent{
		left: left, right: right,
		size:   left.len() + right.len() + length,
		count:  left.nodes() + right.nodes() + 1,
		length: length, data: data, chunk: c,
	}
}

// with returns x with other subtrees.
func (p *extentPool) with(x, left, right *extent) *extent {
	return p.node(left, right, x.length, x.data, x.chunk)
}

func (p *extentPool) hole(length uint64) *extent {
	if length == 0 {
		return nil
	}
	return p.node(nil, nil, length, nil, nil)
}

// of returns an extent with a copy of data.
func (p *extentPool) of(data []byte) *extent {
	if len(data) == 0 {
		return nil
	}
	c := &chunk{data: append(make([]byte, 0, len(data)), data...)}
	p.allocated += chunkCost + bytesCost(len(data))
	return p.node(nil, nil, uint64(len(data)), c.data, c)
}

// join returns a followed by b.
func (p *extentPool) join(a, b *extent) *extent {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case p.choose(a.count, b.count):
		return p.with(a, a.left, p.join(a.right, b))
	}
	return p.with(b, p.join(a, b.left), b.right)
}

// choose returns true with the probability a/(a+b).
func (p *extentPool) choose(a, b uint64) bool {
	if p.random != nil {
		return p.random.Uint64N(a+b) < a
	}
	return rand.Uint64N(a+b) < a
}

// split returns the first at bytes of x, and the rest.
func (p *extentPool) split(x *extent, at uint64) (a, b *extent) {
	switch {
	case at == 0:
		return nil, x
	case at >= x.len():
		return x, nil
	}
	begin := x.left.len()
	end := begin + x.length
	switch {
	case at <= begin:
		a, b = p.split(x.left, at)
		return a, p.with(x, b, x.right)
	case at >= end:
		a, b = p.split(x.right, at-end)
		return p.with(x, x.left, a), b
	}
	at -= begin
	var before, after []byte
	if x.data != nil {
		before, after = x.data[:at], x.data[at:]
	}
	first := p.node(nil, nil, at, before, x.chunk)
	second := p.node(nil, nil, x.length-at, after, x.chunk)
	return p.join(x.left, first), p.join(second, x.right)
}

// slice returns length bytes of x from offset on, with a hole for what is
// beyond its end.
func (p *extentPool) slice(x *extent, offset, length uint64) *extent {
	_, x = p.split(x, offset)
	x, _ = p.split(x, length)
	return p.join(x, p.hole(length-x.len()))
}

// replace returns x with the bytes from offset on replaced by those of y. A
// gap between the end of x and offset becomes a hole.
func (p *extentPool) replace(x *extent, offset uint64, y *extent) *extent {
	if y == nil {
		return x
	}
	before, rest := p.split(x, offset)
	_, after := p.split(rest, y.size)
	before = p.join(before, p.hole(offset-before.len()))
	return p.join(p.join(before, y), after)
}

// resize returns x cut, or extended by a hole, to a size.
func (p *extentPool) resize(x *extent, size uint64) *extent {
	return p.slice(x, 0, size)
}

// read copies the bytes of x from offset on into dst and returns how many.
func (x *extent) read(dst []byte, offset uint64) int {
	n := 0
	for x != nil && n < len(dst) && offset < x.size {
		begin := x.left.len()
		if offset < begin {
			m := x.left.read(dst[n:], offset)
			n += m
			offset += uint64(m)
			continue // to this node's own bytes, or dst is full
		}
		if end := begin + x.length; offset < end {
			var m int
			if x.data != nil {
				m = copy(dst[n:], x.data[offset-begin:])
			} else {
				m = int(min(uint64(len(dst)-n), end-offset))
				clear(dst[n : n+m])
			}
			n += m
			offset += uint64(m)
			continue
		}
		offset -= begin + x.length
		x = x.right
	}
	return n
}

// live counts the bytes that the given trees take, each shared part once.
func (p *extentPool) live(roots func(yield func(*extent))) int64 {
	p.epoch++
	var total int64
	var visit func(x *extent)
	visit = func(x *extent) {
		for ; x != nil && x.epoch != p.epoch; x = x.right {
			x.epoch = p.epoch
			total += extentCost
			if x.chunk != nil && x.chunk.epoch != p.epoch {
				x.chunk.epoch = p.epoch
				total += chunkCost + bytesCost(len(x.chunk.data))
			}
			visit(x.left)
		}
	}
	roots(visit)
	return total
}
