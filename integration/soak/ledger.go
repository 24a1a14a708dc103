//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// A ledger is what producers were told, and what the log holds. An event is known
// by its number among all that were produced, from 1, which is its subject.
//
// What it keeps is of the segments that are not checked yet and of a few behind
// them, so that a run of any length takes the same memory.
type ledger struct {
	mu        sync.Mutex
	segments  map[int64]*page // by number
	next      int64           // the first segment that is not checked
	root      merkle.Range    // of all events in checked segments
	acked     int64           // events
	confirmed int64           // of them, those that were seen in the log
	stored    int64           // events in checked segments
	ours      int64           // of them, those of our producers
	end       int64           // one past the last event that was acknowledged
}

// A page has what is known of the events of a segment, by their place in it: the
// first 8 bytes of their leaf hash, and their number. 0 is not known.
type page struct {
	acked, stored [layout.SegmentEvents]receipt
	checked       bool
}

type receipt struct{ leaf, number uint64 }

// keptPages is how many checked segments an acknowledgement may still be of: one
// that was on its way when the segment was full.
const keptPages = 3

func newLedger() *ledger { return &ledger{segments: make(map[int64]*page)} }

// ack notes that the event number was acknowledged at index with a leaf hash.
func (l *ledger) ack(index int64, leaf merkle.Hash, number uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, at := index/layout.SegmentEvents, index%layout.SegmentEvents
	p := l.segments[n]
	if p == nil {
		if n < l.next {
			return fmt.Errorf("event %d is acknowledged long after segment %d was full", index, n)
		}
		p = new(page)
		l.segments[n] = p
	}
	r := receipt{binary.BigEndian.Uint64(leaf[:8]), number}
	if have := p.acked[at]; have != (receipt{}) {
		return fmt.Errorf("event %d is acknowledged twice: as number %d with leaf %x…, and as %d with %x…", index, have.number, have.leaf, r.number, r.leaf)
	}
	p.acked[at] = r
	l.acked++
	l.end = max(l.end, index+1)
	if p.checked {
		return l.compare(p, n, at)
	}
	return nil
}

// compare holds an acknowledgement to what the log has there.
func (l *ledger) compare(p *page, n, at int64) error {
	a, have := p.acked[at], p.stored[at]
	if a == (receipt{}) {
		return nil
	}
	index := n*layout.SegmentEvents + at
	switch {
	case have.leaf == 0:
		return fmt.Errorf("event %d, number %d, was acknowledged and is not in the log", index, a.number)
	case have != a:
		return fmt.Errorf("event %d was acknowledged as number %d with leaf %016x…, and is number %d with leaf %016x…", index, a.number, a.leaf, have.number, have.leaf)
	}
	l.confirmed++
	return nil
}

// check reads the segments of a log that are full, or with all the last one too,
// and were not read yet. It returns what contradicts the acknowledgements.
func (l *ledger) check(dir string, all bool) error {
	var errs []error
	for {
		n := l.next // which only check changes
		if !all {
			if _, err := os.Stat(filepath.Join(dir, layout.SegmentName(n+1))); errors.Is(err, fs.ErrNotExist) {
				return errors.Join(errs...)
			} else if err != nil {
				return err
			}
		}
		stored, leaves, err := readSegment(filepath.Join(dir, layout.SegmentName(n)))
		if all && errors.Is(err, fs.ErrNotExist) {
			return errors.Join(errs...)
		}
		if err != nil {
			return err
		}
		if !all && len(leaves) != layout.SegmentEvents {
			return fmt.Errorf("segment %d has %d events, and there is one behind it", n, len(leaves))
		}
		errs = append(errs, l.take(n, stored, leaves))
	}
}

func (l *ledger) take(n int64, stored []receipt, leaves []merkle.Hash) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.segments[n]
	if p == nil {
		p = new(page)
		l.segments[n] = p
	}
	copy(p.stored[:], stored)
	p.checked = true
	var errs []error
	for at := range int64(layout.SegmentEvents) {
		if err := l.compare(p, n, at); err != nil && len(errs) < 5 {
			errs = append(errs, err)
		}
	}
	for i, leaf := range leaves {
		l.root.Append(leaf)
		if stored[i].number != 0 {
			l.ours++
		}
	}
	l.stored += int64(len(leaves))
	l.next = n + 1
	delete(l.segments, n-keptPages)
	return errors.Join(errs...)
}

var subject = []byte(`"subject":"event/`)

// readSegment returns the events of a segment file, and the leaf hashes.
func readSegment(path string) (list []receipt, leaves []merkle.Hash, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	var hasher merkle.Hasher
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		leaf := hasher.Leaf(s.Bytes())
		r := receipt{leaf: binary.BigEndian.Uint64(leaf[:8])}
		if _, rest, ok := bytes.Cut(s.Bytes(), subject); ok {
			for _, c := range rest {
				if c < '0' || c > '9' {
					break
				}
				r.number = r.number*10 + uint64(c-'0')
			}
		}
		list, leaves = append(list, r), append(leaves, leaf)
	}
	return list, leaves, s.Err()
}

// counts are what a line of progress says.
func (l *ledger) counts() (acked, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked, l.end
}
