package merkle

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
)

// Hashing many leaves or nodes at once is built on blocks2, in assembly, where
// the processor has the SHA extensions, and on crypto/sha256 elsewhere. Both
// are SHA-256 of FIPS 180-4, and FuzzManyHashesAreSHA256 holds one to the
// other.

const blockSize = sha256.BlockSize

var initialState = [8]uint32{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}

// PrefixedLeaves sets hashes[i] to the hash of the leaf messages[i][1:];
// messages[i][0] must be 0. It is quicker than a PrefixedLeaf for each.
func PrefixedLeaves(hashes []Hash, messages [][]byte) {
	hashes = hashes[:len(messages)]
	if !twoLanes || len(messages) < 2 {
		for i, m := range messages {
			hashes[i] = sha256.Sum256(m)
		}
		return
	}
	var state [2][8]uint32
	var lanes [2]lane
	for x := range lanes {
		lanes[x].start(messages, x)
		state[x] = initialState
	}
	for next := len(lanes); ; {
		a, b := lanes[0].block(), lanes[1].block()
		n := min(len(a), len(b)) / blockSize
		blocks2(&state, &a[0], &b[0], n)
		for x := range lanes {
			l := &lanes[x]
			if l.advance(n); !l.finished() {
				continue
			}
			hashes[l.message] = sum(&state[x])
			if next == len(messages) { // what the other lane has is alone: from its beginning
				alone := lanes[1-x].message
				hashes[alone] = sha256.Sum256(messages[alone])
				return
			}
			l.start(messages, next)
			state[x] = initialState
			next++
		}
	}
}

// A lane is how far one message is hashed.
type lane struct {
	message int    // its number
	whole   []byte // whole blocks of it that are left
	end     []byte // of padded: what is left of the last block or two
	padded  [2 * blockSize]byte
}

func (l *lane) start(messages [][]byte, k int) {
	m := messages[k]
	whole := len(m) &^ (blockSize - 1)
	l.message, l.whole = k, m[:whole]
	n := copy(l.padded[:], m[whole:])
	clear(l.padded[n:])
	l.padded[n] = 0x80
	size := blockSize
	if n+1+8 > blockSize {
		size = 2 * blockSize
	}
	binary.BigEndian.PutUint64(l.padded[size-8:], uint64(len(m))*8)
	l.end = l.padded[:size]
}

func (l *lane) finished() bool { return len(l.end) == 0 }

// block returns what is to be hashed next, at least a block.
func (l *lane) block() []byte {
	if len(l.whole) > 0 {
		return l.whole
	}
	return l.end
}

func (l *lane) advance(blocks int) {
	if len(l.whole) > 0 {
		l.whole = l.whole[blocks*blockSize:]
	} else {
		l.end = l.end[blocks*blockSize:]
	}
}

func sum(state *[8]uint32) (h Hash) {
	for i, v := range state {
		binary.BigEndian.PutUint32(h[4*i:], v)
	}
	return h
}

// paddedNode is a message of 1+2*HashSize bytes, a node's, in whole blocks.
type paddedNode [2 * blockSize]byte

func newPaddedNode() (p paddedNode) {
	p[0] = 1
	p[1+2*HashSize] = 0x80
	binary.BigEndian.PutUint64(p[len(p)-8:], (1+2*HashSize)*8)
	return p
}

// reduce replaces the hashes of one level of a tree, an even number of them,
// by those of the next one, and returns them.
func reduce(hashes []Hash) []Hash {
	n := len(hashes) / 2
	k := 0
	if twoLanes && n >= 2 {
		p, q := newPaddedNode(), newPaddedNode()
		for ; k+1 < n; k += 2 {
			four := hashes[2*k : 2*k+4]
			copy(p[1:], four[0][:])
			copy(p[1+HashSize:], four[1][:])
			copy(q[1:], four[2][:])
			copy(q[1+HashSize:], four[3][:])
			state := [2][8]uint32{initialState, initialState}
			blocks2(&state, &p[0], &q[0], len(p)/blockSize)
			hashes[k], hashes[k+1] = sum(&state[0]), sum(&state[1])
		}
	}
	for ; k < n; k++ {
		hashes[k] = Node(hashes[2*k], hashes[2*k+1])
	}
	return hashes[:n]
}

// AppendLeaves adds leaves. It is quicker than Append for each, and uses the
// slice for what it computes on the way: the hashes in it are lost.
func (r *Range) AppendLeaves(leaves []Hash) {
	for len(leaves) > 0 {
		level := bits.Len(uint(len(leaves))) - 1
		if r.size > 0 {
			level = min(level, bits.TrailingZeros64(uint64(r.size)))
		}
		n := 1 << level
		subtree := leaves[:n]
		for len(subtree) > 1 {
			subtree = reduce(subtree)
		}
		r.push(subtree[0], r.size>>level)
		r.size += int64(n)
		leaves = leaves[n:]
	}
}
