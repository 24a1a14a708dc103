package chain

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// A Tree gives the nodes of a log's Merkle tree up to its latest checkpoint,
// out of the seals and of the segments themselves. It reads a segment once and
// keeps its leaf hashes (2 MiB).
type Tree struct {
	fsys   fs.FS
	seals  []layout.Seal
	ring   *layout.Keyring
	epochs []byte // the file that ring is of
	cache  map[int64]*segmentLeaves

	// Checkpoint is the checkpoint that the tree is of, and Note the note
	// that it came in.
	Checkpoint merkle.Checkpoint
	Note       []byte
}

// OpenTree opens the tree of the log in fsys. The checkpoint's signatures are
// good; that the events have its root shows when a proof is checked.
func OpenTree(fsys fs.FS) (*Tree, error) { return openTree(fsys, nil) }

// openTree is OpenTree; of an earlier tree it takes over the chain of keys, to
// check which takes a signature an epoch, if that is the same.
func openTree(fsys fs.FS, earlier *Tree) (*Tree, error) {
	note, err := fs.ReadFile(fsys, layout.Checkpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoLog()
	}
	if err != nil {
		return nil, err
	}
	epochs, err := readOptional(fsys, layout.Epochs)
	if err != nil {
		return nil, err
	}
	var ring *layout.Keyring
	if earlier != nil && len(epochs) > 0 && bytes.Equal(epochs, earlier.epochs) {
		ring = earlier.ring
	} else if ring, err = readKeyring(fsys); err != nil {
		return nil, err
	}
	c, err := ring.Open(note)
	if err != nil {
		return nil, &unverifiedError{err}
	}
	data, err := readOptional(fsys, layout.Seals)
	if err != nil {
		return nil, err
	}
	seals, _, err := layout.ParseSeals(data)
	if err != nil {
		return nil, &unverifiedError{err}
	}
	return &Tree{fsys: fsys, seals: seals, ring: ring, epochs: epochs, cache: make(map[int64]*segmentLeaves), Checkpoint: c, Note: note}, nil
}

// segmentLeaves is what a Tree keeps of a segment.
type segmentLeaves struct {
	hashes []merkle.Hash
	ends   []int64 // where each line ends in the file, newline included
}

// maxCached bounds the memory of a Tree to about 40 MiB.
const maxCached = 16

// leaves reads a segment as far as the checkpoint goes: what is behind may yet
// change. Of one that was read when it was shorter it reads the rest.
func (t *Tree) leaves(n int64) (*segmentLeaves, error) {
	l, ok := t.cache[n]
	want := int(min(t.Checkpoint.Size-n*layout.SegmentEvents, layout.SegmentEvents))
	if ok && len(l.hashes) >= want {
		return l, nil
	}
	f, err := t.fsys.Open(layout.SegmentName(n))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if l == nil {
		l = new(segmentLeaves)
	}
	start := int64(0)
	if len(l.ends) > 0 {
		start = l.ends[len(l.ends)-1]
		seeker, ok := f.(io.Seeker)
		if !ok {
			return nil, fmt.Errorf("%s: the file system cannot read from the middle", layout.SegmentName(n))
		}
		if _, err := seeker.Seek(start, io.SeekStart); err != nil {
			return nil, err
		}
	}
	r := newLineReader(f)
	for len(l.hashes) < want {
		_, err := r.next()
		if err == io.EOF || errors.Is(err, errTornLine) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", layout.SegmentName(n), err)
		}
		l.hashes = append(l.hashes, r.leaf())
		l.ends = append(l.ends, start+r.off)
	}
	if len(t.cache) >= maxCached {
		clear(t.cache)
	}
	t.cache[n] = l
	return l, nil
}

// Node implements merkle.NodeReader.
func (t *Tree) Node(level int, n int64) (merkle.Hash, error) {
	if level == layout.SegmentLevel && n < int64(len(t.seals)) {
		return t.seals[n].Root, nil
	}
	if level >= layout.SegmentLevel {
		left, err := t.Node(level-1, 2*n)
		if err != nil {
			return left, err
		}
		right, err := t.Node(level-1, 2*n+1)
		return merkle.Node(left, right), err
	}
	first := n << level
	l, err := t.leaves(first / layout.SegmentEvents)
	if err != nil {
		return merkle.Hash{}, err
	}
	at := first % layout.SegmentEvents
	if at+1<<level > int64(len(l.hashes)) {
		return merkle.Hash{}, fmt.Errorf("events %d to %d are not in the log", first, first+1<<level-1)
	}
	var r merkle.Range
	for _, leaf := range l.hashes[at : at+1<<level] {
		r.Append(leaf)
	}
	return r.Root(), nil
}

// Line returns the stored line of an event, without its newline. For one of a
// segment that was pruned the error wraps fs.ErrNotExist.
func (t *Tree) Line(index int64) ([]byte, error) {
	lines, err := t.lines(index, 1)
	if err != nil {
		return nil, err
	}
	return lines[0], nil
}

// lines returns the stored lines of count events of one segment.
func (t *Tree) lines(index int64, count int) ([][]byte, error) {
	n, at := index/layout.SegmentEvents, index%layout.SegmentEvents
	l, err := t.leaves(n)
	if err != nil {
		return nil, err
	}
	if index < 0 || at+int64(count) > int64(len(l.ends)) {
		return nil, fmt.Errorf("event %d is not in the log", max(index, n*layout.SegmentEvents+int64(len(l.ends))))
	}
	start := int64(0)
	if at > 0 {
		start = l.ends[at-1]
	}
	f, err := t.fsys.Open(layout.SegmentName(n))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ra, ok := f.(io.ReaderAt)
	if !ok {
		return nil, fmt.Errorf("%s: the file system cannot read from the middle", layout.SegmentName(n))
	}
	buf := make([]byte, l.ends[at+int64(count)-1]-start)
	if _, err := ra.ReadAt(buf, start); err != nil {
		return nil, fmt.Errorf("%s: %w", layout.SegmentName(n), err)
	}
	lines := make([][]byte, count)
	from := start
	for k := range lines {
		end := l.ends[at+int64(k)]
		lines[k] = buf[from-start : end-start-1]
		from = end
	}
	return lines, nil
}

const proofHead = "c2sp.org/tlog-proof@v1"

// Prove returns a C2SP tlog-proof (c2sp.org/tlog-proof) that the event with an
// index is in the log. The event's line is the proof's extra data, so that the
// file stands alone.
// An index that the checkpoint does not cover is an error of usage, exit code 2;
// for one that was pruned the error wraps fs.ErrNotExist.
func (t *Tree) Prove(index int64) ([]byte, error) {
	if index < 0 || index >= t.Checkpoint.Size {
		return nil, &configError{fmt.Errorf("event %d is not below the checkpoint, which covers %d", index, t.Checkpoint.Size), ""}
	}
	line, err := t.Line(index)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("event %d is not there any more: %w", index, err)
	}
	if err != nil {
		return nil, err
	}
	path, err := merkle.ProveInclusion(t.Checkpoint.Size, index, t.Node)
	if err != nil {
		return nil, err
	}
	var h merkle.Hasher
	if err := merkle.CheckInclusion(path, t.Checkpoint.Size, t.Checkpoint.Root, index, h.Leaf(line)); err != nil {
		return nil, &unverifiedError{fmt.Errorf("the log's events do not have the root that was signed: %w", err)}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nextra %s\nindex %d\n", proofHead, base64.StdEncoding.EncodeToString(line), index)
	for _, h := range path {
		fmt.Fprintln(&b, h)
	}
	b.WriteByte('\n')
	b.Write(t.Note)
	return b.Bytes(), nil
}

const consistencyHead = "ghostbridge/consistency-proof@v1"

// ProveConsistency returns a proof that the log's first old events are those
// of a checkpoint over that many. There is no C2SP file for this; ours has the
// same shape:
//
//	ghostbridge/consistency-proof@v1
//	old SIZE ROOT
//	<hashes, base64, one a line>
//	<empty line>
//	<signed checkpoint>
func (t *Tree) ProveConsistency(old int64) ([]byte, error) {
	if old < 1 || old > t.Checkpoint.Size {
		return nil, &configError{fmt.Errorf("size %d is not within 1 and the checkpoint's %d", old, t.Checkpoint.Size), ""}
	}
	root, err := t.RootAt(old)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("size %d lies within what was pruned: %w", old, err)
	}
	if err != nil {
		return nil, err
	}
	path, err := merkle.ProveConsistency(t.Checkpoint.Size, old, t.Node)
	if err != nil {
		return nil, err
	}
	if err := merkle.CheckConsistency(path, t.Checkpoint.Size, t.Checkpoint.Root, old, root); err != nil {
		return nil, &unverifiedError{fmt.Errorf("the log's events do not have the root that was signed: %w", err)}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nold %d %s\n", consistencyHead, old, root)
	for _, h := range path {
		fmt.Fprintln(&b, h)
	}
	b.WriteByte('\n')
	b.Write(t.Note)
	return b.Bytes(), nil
}

// RootAt returns the root of the log's first size events, 0 to the checkpoint's
// size.
func (t *Tree) RootAt(size int64) (merkle.Hash, error) {
	var roots []merkle.Hash
	for at := int64(0); at < size; {
		level := 0
		for at&(1<<level) == 0 && at+2<<level <= size {
			level++
		}
		h, err := t.Node(level, at>>level)
		if err != nil {
			return h, err
		}
		roots = append(roots, h)
		at += 1 << level
	}
	r, err := merkle.NewRange(size, roots)
	if err != nil {
		return merkle.Hash{}, err
	}
	return r.Root(), nil
}

// A Proof is a proof that was checked.
type Proof struct {
	Checkpoint merkle.Checkpoint
	Index      int64  // of an inclusion proof
	Line       []byte // of an inclusion proof: the event's stored line
	Old        int64  // of a consistency proof: the smaller size
	OldRoot    merkle.Hash
}

// CheckProof checks a file that Prove or ProveConsistency made, offline: key is
// the log's key. line is the event that an inclusion proof is for; nil takes
// the one in the proof. The error has exit code 3 if the proof is not good.
func CheckProof(data []byte, key merkle.Verifier, line []byte) (*Proof, error) {
	p, err := checkProof(data, key, line)
	if err != nil {
		return nil, &unverifiedError{err}
	}
	return p, nil
}

func checkProof(data []byte, key merkle.Verifier, line []byte) (*Proof, error) {
	head, note, ok := strings.Cut(string(data), "\n\n")
	if !ok {
		return nil, errors.New("not a proof: no checkpoint in it")
	}
	c, err := merkle.Open([]byte(note), key)
	if err != nil {
		return nil, err
	}
	if c.Origin != key.Name() {
		return nil, fmt.Errorf("the checkpoint is of %q, the key of %q", c.Origin, key.Name())
	}
	rows := strings.Split(head, "\n")
	p := &Proof{Checkpoint: c}
	switch rows[0] {
	case proofHead:
		return p, p.inclusion(rows[1:], line)
	case consistencyHead:
		return p, p.consistency(rows[1:])
	}
	return nil, fmt.Errorf("not a proof: it begins with %.40q", rows[0])
}

func (p *Proof) inclusion(rows []string, line []byte) error {
	if extra, ok := strings.CutPrefix(first(rows), "extra "); ok {
		b, err := base64.StdEncoding.Strict().DecodeString(extra)
		if err != nil {
			return fmt.Errorf("proof: extra data: %w", err)
		}
		p.Line = b
		rows = rows[1:]
	}
	if line != nil {
		p.Line = line
	}
	if p.Line == nil {
		return errors.New("proof: it does not hold the event, and none was given")
	}
	digits, ok := strings.CutPrefix(first(rows), "index ")
	index, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || strconv.FormatInt(index, 10) != digits {
		return errors.New("proof: no index")
	}
	p.Index = index
	path, err := parseHashes(rows[1:])
	if err != nil {
		return err
	}
	var h merkle.Hasher
	return merkle.CheckInclusion(path, p.Checkpoint.Size, p.Checkpoint.Root, index, h.Leaf(p.Line))
}

func (p *Proof) consistency(rows []string) error {
	fields := strings.Fields(first(rows))
	if len(fields) != 3 || fields[0] != "old" {
		return errors.New("proof: no old size")
	}
	var err error
	if p.Old, err = strconv.ParseInt(fields[1], 10, 64); err != nil || p.Old < 1 {
		return errors.New("proof: no old size")
	}
	if p.OldRoot, err = merkle.ParseHash(fields[2]); err != nil {
		return err
	}
	path, err := parseHashes(rows[1:])
	if err != nil {
		return err
	}
	return merkle.CheckConsistency(path, p.Checkpoint.Size, p.Checkpoint.Root, p.Old, p.OldRoot)
}

func first(rows []string) string {
	if len(rows) == 0 {
		return ""
	}
	return rows[0]
}

func parseHashes(rows []string) ([]merkle.Hash, error) {
	if len(rows) > 64 {
		return nil, errors.New("proof: too long")
	}
	path := make([]merkle.Hash, len(rows))
	for i, r := range rows {
		var err error
		if path[i], err = merkle.ParseHash(r); err != nil {
			return nil, err
		}
	}
	return path, nil
}
