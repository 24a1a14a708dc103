package chain

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"sort"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

var (
	errLongLine = errors.New("line longer than any event")
	errTornLine = errors.New("line without an end")
)

// A lineReader reads the lines of a segment.
type lineReader struct {
	r   io.Reader
	off int64 // of the next line in the file

	buf        []byte // a byte in front of each line is free: the newline before, or the first
	start, end int    // what of buf is not read yet
	line, stop int    // the line that next returned
	err        error  // of r

	tree   *merkle.Range // set by its user: where addLeaf adds
	leaves [][]byte      // lines that are not hashed yet, with the free byte in front; in buf
	hashes []merkle.Hash
}

// hashedAtOnce is how many leaves are hashed together.
const hashedAtOnce = 256

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: r, buf: make([]byte, 160<<10), start: 1, end: 1}
}

// next returns the next line without its newline, valid until the next call.
// It returns io.EOF at the end; errTornLine with what there is for a last line
// without a newline; errLongLine, with the line's beginning, for one longer
// than event.MaxLine, which is skipped.
func (l *lineReader) next() ([]byte, error) {
	for searched := 0; ; {
		if nl := bytes.IndexByte(l.buf[l.start+searched:l.end], '\n'); nl >= 0 {
			l.line, l.stop = l.start, l.start+searched+nl
			l.start = l.stop + 1
			l.off += int64(l.start - l.line)
			line := l.buf[l.line:l.stop]
			if len(line) > event.MaxLine {
				return line, errLongLine
			}
			return line, nil
		}
		searched = l.end - l.start
		if searched > event.MaxLine {
			return l.skip()
		}
		if l.err != nil {
			break
		}
		if l.end == len(l.buf) || l.start == l.end {
			l.flush()
			l.end = 1 + copy(l.buf[1:], l.buf[l.start:l.end])
			l.start = 1
		}
		n, err := l.r.Read(l.buf[l.end:])
		l.end, l.err = l.end+n, err
	}
	if l.err != io.EOF {
		return nil, l.err
	}
	if l.start == l.end {
		return nil, io.EOF
	}
	line := l.buf[l.start:l.end]
	l.line, l.stop = l.start, l.end
	l.off += int64(len(line))
	l.start = l.end
	return line, errTornLine
}

// skip passes over a line that does not fit, and returns its beginning.
func (l *lineReader) skip() ([]byte, error) {
	l.flush()
	head := bytes.Clone(l.buf[l.start : l.start+64])
	for {
		if nl := bytes.IndexByte(l.buf[l.start:l.end], '\n'); nl >= 0 {
			l.off += int64(nl + 1)
			l.start += nl + 1
			return head, errLongLine
		}
		l.off += int64(l.end - l.start)
		l.start, l.end = 1, 1
		if l.err != nil {
			if l.err != io.EOF {
				return nil, l.err
			}
			return head, errLongLine
		}
		var n int
		n, l.err = l.r.Read(l.buf[1:])
		l.end = 1 + n
	}
}

// leaf returns the leaf hash of the line that next returned.
func (l *lineReader) leaf() merkle.Hash {
	l.buf[l.line-1] = 0
	return merkle.PrefixedLeaf(l.buf[l.line-1 : l.stop])
}

// addLeaf adds the line that next returned to the tree, which has it after
// flush.
func (l *lineReader) addLeaf() {
	l.buf[l.line-1] = 0
	l.leaves = append(l.leaves, l.buf[l.line-1:l.stop])
	if len(l.leaves) == hashedAtOnce {
		l.flush()
	}
}

// flush hashes the lines that addLeaf was called for.
func (l *lineReader) flush() {
	if len(l.leaves) == 0 {
		return
	}
	if l.hashes == nil {
		l.hashes = make([]merkle.Hash, hashedAtOnce)
	}
	hashes := l.hashes[:len(l.leaves)]
	merkle.PrefixedLeaves(hashes, l.leaves)
	l.tree.AppendLeaves(hashes)
	l.leaves = l.leaves[:0]
}

// segments returns the numbers of the segments in a log directory, in order.
func segments(fsys fs.FS) ([]int64, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoLog()
	}
	if err != nil {
		return nil, err
	}
	var ns []int64
	for _, e := range entries {
		if n, ok := layout.ParseSegmentName(e.Name()); ok {
			ns = append(ns, n)
		}
	}
	sort.Slice(ns, func(i, j int) bool { return ns[i] < ns[j] })
	return ns, nil
}

// ownMark is in every line of the log's own events, which event.Own makes;
// lines of others may have it too, in their data. It begins with a letter and
// not with a quote, so that the search for it is quick.
var ownMark = []byte(`g","type":"log.`)

// ownEvent decodes line if it is one of the log's own events.
func ownEvent(line []byte) *event.Event {
	if !maybeOwn(line) {
		return nil
	}
	e, err := event.Decode(line)
	if err != nil || e.Source != "log" || len(e.Type) < 4 || e.Type[:4] != "log." {
		return nil
	}
	return e
}

// maybeOwn says whether line can be one of the log's own events, which begin
// with their source behind the peer.
func maybeOwn(line []byte) bool {
	brace := bytes.IndexByte(line, '}')
	if brace < 0 || brace+3 > len(line) {
		return false
	}
	if c := line[brace+3-1]; line[brace+1] == ',' && c == '"' && brace+3 < len(line) && line[brace+3] >= 'a' && line[brace+3] <= 'z' {
		return bytes.HasPrefix(line[brace+1:], ownHead)
	}
	return bytes.Contains(line, ownMark) // the name of a unit with a brace, or what is no event of ours
}

var ownHead = []byte(`,"source":"log","type":"log.`)

// readOptional reads a file; one that does not exist is empty.
func readOptional(fsys fs.FS, name string) ([]byte, error) {
	b, err := fs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}
