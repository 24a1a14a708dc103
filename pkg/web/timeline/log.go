// Package timeline reads a log for people who look at it: any event by its
// index and any page of events in constant time, what is appended as it comes,
// and how many events of which kind there were when.
//
// It finds an event by the indexes that the lines begin with, so that it keeps
// no table of offsets. It verifies nothing: package chain does.
package timeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sort"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
)

// A Log is a log directory. It may be used by several goroutines.
type Log struct{ FS fs.FS }

// A Row is an event as it was read.
type Row struct {
	Index   int64
	Event   *event.Event // nil if it is damaged
	Line    []byte       // as stored
	Damaged error        // why there is no Event
}

// A GoneError says that an event is not in the log: pruned, or not there yet.
type GoneError struct{ Index, First, End int64 }

func (e *GoneError) Error() string {
	switch {
	case e.Index < e.First:
		return fmt.Sprintf("event %d was pruned: the log begins at %d", e.Index, e.First)
	case e.End == 0:
		return "the log is empty"
	}
	return fmt.Sprintf("event %d is not there yet: the newest is %d", e.Index, e.End-1)
}

// segment is one that is open.
type segment struct {
	n    int64
	file io.ReaderAt
	size int64
	c    io.Closer
}

func (s *segment) first() int64 { return s.n * layout.SegmentEvents }

func (l *Log) open(n int64) (*segment, error) {
	f, err := l.FS.Open(layout.SegmentName(n))
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil {
		if at, ok := f.(io.ReaderAt); ok {
			return &segment{n: n, file: at, size: st.Size(), c: f}, nil
		}
		err = fmt.Errorf("%s: the file system cannot read from the middle", layout.SegmentName(n))
	}
	f.Close()
	return nil, err
}

// segments returns the numbers of the first and the last segment that is there;
// ok is false if there is none.
func (l *Log) segments() (first, last int64, ok bool, err error) {
	entries, err := fs.ReadDir(l.FS, ".")
	if err != nil {
		return 0, 0, false, err
	}
	for _, e := range entries {
		if n, is := layout.ParseSegmentName(e.Name()); is {
			if !ok || n < first {
				first = n
			}
			if !ok || n > last {
				last = n
			}
			ok = true
		}
	}
	return first, last, ok, nil
}

// Bounds returns the index of the first event that is there, and the number
// that follows the newest whole one. Both are 0 in a log that holds none.
func (l *Log) Bounds() (first, end int64, err error) {
	a, b, ok, err := l.segments()
	if err != nil || !ok {
		return 0, 0, err
	}
	first = a * layout.SegmentEvents
	for ; b >= a; b-- {
		s, err := l.open(b)
		if err != nil {
			return 0, 0, err
		}
		end, err := s.end()
		s.c.Close()
		if err != nil {
			return 0, 0, err
		}
		if end > s.first() || b == a {
			return first, end, nil
		}
	}
	return first, first, nil
}

// end returns the number after the segment's last line that ends.
func (s *segment) end() (int64, error) {
	for size := int64(8 << 10); ; size *= 4 {
		from := max(s.size-size, 0)
		buf := make([]byte, s.size-from)
		if _, err := s.file.ReadAt(buf, from); err != nil && err != io.EOF {
			return 0, err
		}
		last := bytes.LastIndexByte(buf, '\n')
		if last >= 0 {
			begin := bytes.LastIndexByte(buf[:last], '\n') + 1
			if begin > 0 || from == 0 {
				i, err := event.Index(buf[begin:last])
				if err != nil {
					return 0, fmt.Errorf("%s: the last line: %w", layout.SegmentName(s.n), err)
				}
				return i + 1, nil
			}
		}
		if from == 0 {
			return s.first(), nil
		}
		if size > 4*(event.MaxLine+1) {
			return 0, fmt.Errorf("%s: no line ends within its last %d bytes", layout.SegmentName(s.n), size)
		}
	}
}

// head is how much of a line is read to learn its index.
const head = 32

// lineFrom returns where the first line starts that begins at or behind off,
// and its index; at is the segment's size if there is none.
func (s *segment) lineFrom(off int64) (at, index int64, err error) {
	if off == 0 {
		at = 0
	} else {
		// The byte before off tells whether a line begins at off.
		off--
		buf := make([]byte, 1<<10)
		for at = -1; at < 0; {
			n, err := s.file.ReadAt(buf, off)
			if nl := bytes.IndexByte(buf[:n], '\n'); nl >= 0 {
				at = off + int64(nl) + 1
				break
			}
			if err == io.EOF {
				return s.size, 0, nil
			}
			if err != nil {
				return 0, 0, err
			}
			off += int64(n)
			if len(buf) < 64<<10 {
				buf = make([]byte, 4*len(buf))
			}
		}
	}
	var h [head]byte
	n, err := s.file.ReadAt(h[:], at)
	if err != nil && err != io.EOF {
		return 0, 0, err
	}
	if n == 0 {
		return s.size, 0, nil
	}
	if index, err = event.Index(h[:n]); err != nil {
		if n < head {
			return s.size, 0, nil // a torn line
		}
		return 0, 0, fmt.Errorf("%s: at byte %d: %w", layout.SegmentName(s.n), at, err)
	}
	return at, index, nil
}

// near is when locate stops halving and reads.
const near = 32 << 10

// locate returns a place in the segment at or before the line of event i, at
// which a line begins, and that line's index. The lines of a segment have equal
// lengths but for a factor, so a guess is close; every other step halves.
func (s *segment) locate(i, end int64) (off, index int64, err error) {
	lo, loIndex := int64(0), s.first()
	hi, hiIndex := s.size, end
	for step := 0; hi-lo > near && hiIndex-loIndex > 1; step++ {
		mid := lo + (hi-lo)/2
		if step%2 == 0 {
			share := float64(i-loIndex) / float64(hiIndex-loIndex)
			// A little before, so that what follows is read in one go.
			mid = lo + int64(share*float64(hi-lo)) - near/2
			mid = min(max(mid, lo+1), hi-1)
		}
		at, index, err := s.lineFrom(mid)
		if err != nil {
			return 0, 0, err
		}
		switch {
		case at >= hi:
			hi = mid
			// The line before mid is the last one below hi; its index is not known.
			if hi-lo <= near {
				return lo, loIndex, nil
			}
		case index <= i:
			lo, loIndex = at, index
		default:
			hi, hiIndex = at, index
		}
	}
	return lo, loIndex, nil
}

// Read calls each with the events from index from to below to, in order. A
// damaged line is a row too. It ends early, without an error, where the log
// does. Rows and their lines may be kept.
func (l *Log) Read(ctx context.Context, from, to int64, each func(Row) error) error {
	return l.read(ctx, from, to, nil, each)
}

// read is Read; of lines that c does not choose it calls each with those alone
// that it had to decode to see that, and with those that are damaged.
func (l *Log) read(ctx context.Context, from, to int64, c *Choice, each func(Row) error) error {
	for from < to {
		n := from / layout.SegmentEvents
		s, err := l.open(n)
		if errors.Is(err, fs.ErrNotExist) {
			first, end, berr := l.Bounds()
			if berr != nil {
				return berr
			}
			if from < first {
				from = min(first, to)
				continue
			}
			if from >= end {
				return nil
			}
		}
		if err != nil {
			return err
		}
		next, err := s.read(ctx, from, to, c, each)
		s.c.Close()
		if err != nil {
			return err
		}
		if next < min(to, (n+1)*layout.SegmentEvents) {
			return nil
		}
		from = next
	}
	return nil
}

func (s *segment) read(ctx context.Context, from, to int64, c *Choice, each func(Row) error) (next int64, err error) {
	end, err := s.end()
	if err != nil {
		return from, err
	}
	to = min(to, end)
	if from >= to {
		return from, nil
	}
	off, index, err := s.locate(from, end)
	if err != nil {
		return from, err
	}
	r := io.NewSectionReader(s.file, off, s.size-off)
	buf := make([]byte, 0, 64<<10)
	want := int64(0)
	var scratch []byte
	for index < to {
		nl := bytes.IndexByte(buf[want:], '\n')
		if nl < 0 {
			if len(buf)-int(want) > event.MaxLine+1 {
				return index, fmt.Errorf("%s: event %d: a line of more than %d bytes", layout.SegmentName(s.n), index, event.MaxLine)
			}
			// A line that was returned may be kept: never write into what it is in.
			grown := make([]byte, len(buf)-int(want), max(64<<10, 2*(len(buf)-int(want))))
			copy(grown, buf[want:])
			buf, want = grown, 0
			n, err := r.Read(buf[len(buf):cap(buf)])
			buf = buf[:len(buf)+n]
			if n == 0 {
				if err == io.EOF || err == nil {
					return index, nil
				}
				return index, err
			}
			continue
		}
		line := buf[want : want+int64(nl) : want+int64(nl)]
		want += int64(nl) + 1
		if index >= from {
			row := Row{Index: index, Line: line}
			if i, err := event.Check(line); err != nil {
				row.Damaged = err
			} else if i != index {
				row.Damaged = fmt.Errorf("it says that it is event %d", i)
			} else if c != nil && c.skips(line, &scratch) {
				index++
				continue
			} else if row.Event, err = event.Decode(line); err != nil {
				row.Damaged = err
			}
			if err := each(row); err != nil {
				return index, err
			}
		}
		index++
		if index&0xff == 0 && ctx.Err() != nil {
			return index, ctx.Err()
		}
	}
	return index, nil
}

// Get returns one event.
func (l *Log) Get(ctx context.Context, index int64) (Row, error) {
	var row Row
	found := false
	if index >= 0 {
		err := l.Read(ctx, index, index+1, func(r Row) error {
			if r.Index == index {
				row, found = r, true
			}
			return nil
		})
		if err != nil {
			return row, err
		}
	}
	if !found {
		first, end, err := l.Bounds()
		if err != nil {
			return row, err
		}
		return row, &GoneError{index, first, end}
	}
	return row, nil
}

// Find returns the first index whose event the log took at or after t. The
// log's own clock is taken to go forward.
func (l *Log) Find(ctx context.Context, t time.Time) (int64, error) {
	first, end, err := l.Bounds()
	if err != nil {
		return 0, err
	}
	n := sort.Search(int(end-first), func(k int) bool {
		if err != nil {
			return true
		}
		at := time.Time{}
		err = l.Read(ctx, first+int64(k), first+int64(k)+1, func(r Row) error {
			if r.Event != nil {
				at = r.Event.At
			}
			return nil
		})
		return !at.Before(t)
	})
	return first + int64(n), err
}

// A Page is a stretch of a log.
type Page struct {
	Rows    []Row // newest first
	First   int64 // of the log
	End     int64 // of the log
	From    int64 // what was looked at: from From
	To      int64 // to below To
	Partial bool  // looking stopped before it was full, at From
}

// Budget is how many events a page with a filter looks at, at most.
const Budget = 20_000

// Before returns the newest n events below index end, and not below index low,
// that c chooses, nil for all; end < 0 is the log's end. It looks at no more
// than budget events: a page may be Partial, and the next one ends at From.
func (l *Log) Before(ctx context.Context, low, end int64, n int, c *Choice, budget int64) (*Page, error) {
	first, logEnd, err := l.Bounds()
	if err != nil {
		return nil, err
	}
	if end < 0 || end > logEnd {
		end = logEnd
	}
	low = max(low, first)
	end = max(end, low)
	p := &Page{First: first, End: logEnd, From: end, To: end}
	block := int64(n)
	for len(p.Rows) < n && p.From > low {
		if p.To-p.From >= budget {
			p.Partial = true
			return p, nil
		}
		from := max(p.From-block, low, p.To-budget)
		var rows []Row
		if err := l.read(ctx, from, p.From, c, func(r Row) error {
			if c == nil || r.Event == nil || c.chooses(r) {
				rows = append(rows, r)
			}
			return nil
		}); err != nil {
			return nil, err
		}
		p.From = from
		for k := len(rows) - 1; k >= 0 && len(p.Rows) < n; k-- {
			p.Rows = append(p.Rows, rows[k])
			if len(p.Rows) == n {
				p.From = rows[k].Index
			}
		}
		block = 2048 // few match: larger steps
	}
	return p, nil
}

// After returns the oldest n events from index from on that c chooses, newest
// first, as Before does; a Partial page stopped at To.
func (l *Log) After(ctx context.Context, from int64, n int, c *Choice, budget int64) (*Page, error) {
	first, end, err := l.Bounds()
	if err != nil {
		return nil, err
	}
	from = min(max(from, first), end)
	p := &Page{First: first, End: end, From: from, To: from}
	err = l.read(ctx, from, min(end, from+budget), c, func(r Row) error {
		if len(p.Rows) == n {
			return errFull
		}
		p.To = max(p.To, r.Index+1)
		if c == nil || r.Event == nil || c.chooses(r) {
			p.Rows = append(p.Rows, r)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFull) {
		return nil, err
	}
	if err == nil {
		p.To = min(end, from+budget)
	}
	p.Partial = len(p.Rows) < n && p.To < end
	slices.Reverse(p.Rows)
	return p, nil
}

var errFull = errors.New("the page is full")
