package chain

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"sort"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
)

var (
	errLongLine = errors.New("line longer than any event")
	errTornLine = errors.New("line without an end")
)

// A lineReader reads the lines of a segment.
type lineReader struct {
	r   *bufio.Reader
	off int64 // of the next line in the file
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 128<<10)}
}

// next returns the next line without its newline, valid until the next call.
// It returns io.EOF at the end; errTornLine with what there is for a last line
// without a newline; errLongLine, with the line's beginning, for one longer
// than event.MaxLine, which is skipped.
func (l *lineReader) next() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	l.off += int64(len(line))
	switch {
	case err == nil && len(line)-1 <= event.MaxLine:
		return line[:len(line)-1], nil
	case err == nil:
		return line, errLongLine
	case errors.Is(err, io.EOF) && len(line) == 0:
		return nil, io.EOF
	case errors.Is(err, io.EOF):
		return line, errTornLine
	case !errors.Is(err, bufio.ErrBufferFull):
		return nil, err
	}
	head := bytes.Clone(line[:64])
	for errors.Is(err, bufio.ErrBufferFull) {
		line, err = l.r.ReadSlice('\n')
		l.off += int64(len(line))
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return head, errLongLine
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

// ownMark is in every line of the log's own events; lines of others may have
// it too, in their data.
var ownMark = []byte(`"type":"log.`)

// ownEvent decodes line if it is one of the log's own events.
func ownEvent(line []byte) *event.Event {
	if !bytes.Contains(line, ownMark) {
		return nil
	}
	e, err := event.Decode(line)
	if err != nil || e.Source != "log" || len(e.Type) < 4 || e.Type[:4] != "log." {
		return nil
	}
	return e
}

// readOptional reads a file; one that does not exist is empty.
func readOptional(fsys fs.FS, name string) ([]byte, error) {
	b, err := fs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}
