// Package merkle is the log's tree and its signed checkpoints.
//
// The tree is RFC 6962's with SHA-256 (section 2.1): a leaf hashes
// 0x00 || line, a node 0x01 || left || right. A checkpoint is a C2SP
// tlog-checkpoint (c2sp.org/tlog-checkpoint), a signed note
// (c2sp.org/signed-note) with Ed25519 keys, so that programs which know
// nothing of this project can check it.
//
// The package computes; it reads and writes no files.
package merkle

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// HashSize is the length of a Hash in bytes.
const HashSize = 32

// A Hash is the hash of a leaf or of a tree.
type Hash [HashSize]byte

// String returns h in standard base64, as a checkpoint has it.
func (h Hash) String() string { return base64.StdEncoding.EncodeToString(h[:]) }

// MarshalText encodes h like String.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText decodes what MarshalText gives, and nothing else.
func (h *Hash) UnmarshalText(text []byte) error {
	p, err := ParseHash(string(text))
	if err != nil {
		return err
	}
	*h = p
	return nil
}

// ParseHash decodes a Hash in standard base64.
func ParseHash(s string) (Hash, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != HashSize {
		return Hash{}, fmt.Errorf("%.60q is not the base64 of a SHA-256 hash", s)
	}
	return Hash(b), nil
}

// EmptyRoot is the root of the tree of size 0: SHA-256 of nothing.
var EmptyRoot = Hash(sha256.Sum256(nil))

// A Hasher hashes leaves without allocating. It is for one goroutine; the zero
// value is ready.
type Hasher struct{ buf []byte }

// Leaf returns the hash of a leaf with the given content.
func (h *Hasher) Leaf(content []byte) Hash {
	h.buf = append(append(h.buf[:0], 0), content...)
	return sha256.Sum256(h.buf)
}

// PrefixedLeaf is Leaf of content[1:], without a copy; content[0] must be 0.
func PrefixedLeaf(content []byte) Hash { return sha256.Sum256(content) }

// Node returns the hash of an inner node.
func Node(left, right Hash) Hash {
	var buf [1 + 2*HashSize]byte
	buf[0] = 1
	copy(buf[1:], left[:])
	copy(buf[1+HashSize:], right[:])
	return sha256.Sum256(buf[:])
}

// A Range is the compact form of a tree's first Size leaves: the roots of its
// perfect subtrees, largest first, one for each bit that is set in Size. The
// zero value is the empty tree.
type Range struct {
	size  int64
	roots []Hash
}

// Size returns the number of leaves.
func (r *Range) Size() int64 { return r.size }

// Append adds a leaf.
func (r *Range) Append(leaf Hash) {
	r.push(leaf, r.size)
	r.size++
}

// push adds the root of a perfect subtree as the count'th of its size.
func (r *Range) push(h Hash, count int64) {
	for ; count&1 == 1; count >>= 1 {
		last := len(r.roots) - 1
		h = Node(r.roots[last], h)
		r.roots = r.roots[:last]
	}
	r.roots = append(r.roots, h)
}

// AppendSubtree adds a perfect subtree of 1<<level leaves. The tree's size
// must be a multiple of that.
func (r *Range) AppendSubtree(root Hash, level int) error {
	n := int64(1) << level
	if r.size%n != 0 {
		return fmt.Errorf("subtree of %d leaves at size %d", n, r.size)
	}
	r.push(root, r.size>>level)
	r.size += n
	return nil
}

// Root returns the tree's root.
func (r *Range) Root() Hash {
	if r.size == 0 {
		return EmptyRoot
	}
	h := r.roots[len(r.roots)-1]
	for i := len(r.roots) - 2; i >= 0; i-- {
		h = Node(r.roots[i], h)
	}
	return h
}

// Clone returns a copy that changes independently.
func (r *Range) Clone() *Range {
	return &Range{r.size, append([]Hash(nil), r.roots...)}
}

// Join returns the range of r's leaves followed by those of next, of which r
// must be a whole number of subtrees at least as large as next.
func (r *Range) Join(next *Range) (*Range, error) {
	if next.size > 0 && r.size&(1<<bits.Len64(uint64(next.size-1))-1) != 0 {
		return nil, fmt.Errorf("range of %d leaves behind one of %d", next.size, r.size)
	}
	j := r.Clone()
	if next.size&(next.size-1) == 0 && next.size > 0 { // one perfect subtree: it may close larger ones
		return j, j.AppendSubtree(next.roots[0], bits.TrailingZeros64(uint64(next.size)))
	}
	j.roots = append(j.roots, next.roots...)
	j.size += next.size
	return j, nil
}

// Roots returns the subtree roots, largest first. The caller must not change
// them.
func (r *Range) Roots() []Hash { return r.roots }

// NewRange returns the range of size leaves with the given subtree roots, as
// Roots returned them.
func NewRange(size int64, roots []Hash) (*Range, error) {
	if size < 0 || bits.OnesCount64(uint64(size)) != len(roots) {
		return nil, fmt.Errorf("%d subtree roots for size %d", len(roots), size)
	}
	return &Range{size, append([]Hash(nil), roots...)}, nil
}

// A NodeReader returns the root of the perfect subtree that holds the leaves
// [n<<level, (n+1)<<level).
type NodeReader func(level int, n int64) (Hash, error)

// reader gives x/mod's proof code the nodes it asks for.
func (nr NodeReader) reader() tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			level, n := tlog.SplitStoredHashIndex(x)
			h, err := nr(level, n)
			if err != nil {
				return nil, err
			}
			out[i] = tlog.Hash(h)
		}
		return out, nil
	})
}

// ErrProof says that a proof does not prove what it should.
var ErrProof = errors.New("proof does not verify")

// ProveInclusion returns the RFC 6962 audit path of leaf index in the tree of
// the given size.
func ProveInclusion(size, index int64, nodes NodeReader) ([]Hash, error) {
	if index < 0 || index >= size {
		return nil, fmt.Errorf("index %d is not in a tree of size %d", index, size)
	}
	p, err := tlog.ProveRecord(size, index, nodes.reader())
	return fromTlog(p), err
}

// CheckInclusion checks an audit path. The error wraps ErrProof.
func CheckInclusion(proof []Hash, size int64, root Hash, index int64, leaf Hash) error {
	if index < 0 || index >= size {
		return fmt.Errorf("%w: index %d is not in a tree of size %d", ErrProof, index, size)
	}
	if err := tlog.CheckRecord(toTlog(proof), size, tlog.Hash(root), index, tlog.Hash(leaf)); err != nil {
		return fmt.Errorf("%w: index %d in size %d", ErrProof, index, size)
	}
	return nil
}

// ProveConsistency returns the RFC 6962 proof that the tree of size old is a
// prefix of the tree of the given size.
func ProveConsistency(size, old int64, nodes NodeReader) ([]Hash, error) {
	if old < 0 || old > size {
		return nil, fmt.Errorf("size %d is not within size %d", old, size)
	}
	if old == 0 || old == size {
		return nil, nil
	}
	p, err := tlog.ProveTree(size, old, nodes.reader())
	return fromTlog(p), err
}

// CheckConsistency checks a consistency proof. The error wraps ErrProof.
func CheckConsistency(proof []Hash, size int64, root Hash, old int64, oldRoot Hash) error {
	switch {
	case old < 0 || old > size:
		return fmt.Errorf("%w: size %d is not within size %d", ErrProof, old, size)
	case old == 0 && len(proof) == 0 && oldRoot == EmptyRoot:
		return nil
	case old == size && len(proof) == 0 && oldRoot == root:
		return nil
	case old == 0 || old == size:
		return fmt.Errorf("%w: size %d against size %d", ErrProof, old, size)
	}
	if err := tlog.CheckTree(toTlog(proof), size, tlog.Hash(root), old, tlog.Hash(oldRoot)); err != nil {
		return fmt.Errorf("%w: size %d against size %d", ErrProof, old, size)
	}
	return nil
}

func fromTlog(p []tlog.Hash) []Hash {
	out := make([]Hash, len(p))
	for i, h := range p {
		out[i] = Hash(h)
	}
	return out
}

func toTlog(p []Hash) []tlog.Hash {
	out := make([]tlog.Hash, len(p))
	for i, h := range p {
		out[i] = tlog.Hash(h)
	}
	return out
}
