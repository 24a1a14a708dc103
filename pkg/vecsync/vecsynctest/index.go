// Package vecsynctest has what the ingester's tests need: a log with a history
// of snapshots, the send streams between any two of them, and an index in
// memory that can fail where a test wants it to.
package vecsynctest

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
)

// An Index is an index.Writer in memory. A copy of it by Clone costs nothing:
// what was committed is never changed in place.
type Index struct {
	state  map[string][]byte
	events map[int64]Event

	// Fail is asked before each operation of a transaction; an error of it is
	// that of the operation. May be nil.
	Fail func(op string) error
}

var _ index.Writer = (*Index)(nil)

// NewIndex returns an empty index.
func NewIndex() *Index { return &Index{} }

// Clone returns an index with the same content.
func (x *Index) Clone() *Index { return &Index{state: x.state, events: x.events} }

// Events returns the events that were committed.
func (x *Index) Events() map[int64]Event { return x.events }

// State returns the state that was committed.
func (x *Index) State() map[string][]byte { return x.state }

// An Event is all of an event that an index can know, comparable.
type Event struct {
	Index                                       int64
	At, Time                                    int64 // nanoseconds
	Host, Source, Type, Subject, Actor, Message string
	Severity                                    event.Severity
	Peer                                        event.Peer
	Data                                        string
	Blob                                        event.Blob
}

func stored(e *event.Event) Event {
	s := Event{e.Index, e.At.UnixNano(), e.Time.UnixNano(), e.Host, e.Source, e.Type, e.Subject, e.Actor, e.Message, e.Severity, e.Peer, string(e.Data), event.Blob{}}
	if e.Blob != nil {
		s.Blob = *e.Blob
	}
	return s
}

// Get implements index.Writer.
func (x *Index) Get(key string) ([]byte, error) { return bytes.Clone(x.state[key]), nil }

// Scan implements index.Writer.
func (x *Index) Scan(prefix string) (iter.Seq2[string, []byte], func() error) {
	state := x.state
	return func(yield func(string, []byte) bool) {
		for _, k := range slices.Sorted(maps.Keys(state)) {
			if strings.HasPrefix(k, prefix) && !yield(k, bytes.Clone(state[k])) {
				return
			}
		}
	}, func() error { return nil }
}

// Close implements index.Writer.
func (x *Index) Close() error { return nil }

// Begin implements index.Writer.
func (x *Index) Begin() (index.Tx, error) {
	if err := x.fail("begin"); err != nil {
		return nil, err
	}
	return &tx{x: x, state: maps.Clone(x.state), events: maps.Clone(x.events)}, nil
}

func (x *Index) fail(op string) error {
	if x.Fail == nil {
		return nil
	}
	return x.Fail(op)
}

type tx struct {
	x      *Index
	state  map[string][]byte
	events map[int64]Event
	done   bool
}

func (t *tx) Add(e *event.Event) error {
	if err := t.x.fail("add"); err != nil {
		return err
	}
	if _, twice := t.events[e.Index]; twice {
		return fmt.Errorf("event %d is added twice", e.Index)
	}
	if t.events == nil {
		t.events = make(map[int64]Event)
	}
	t.events[e.Index] = stored(e)
	return nil
}

func (t *tx) Remove(first, end int64) error {
	if err := t.x.fail("remove"); err != nil {
		return err
	}
	maps.DeleteFunc(t.events, func(i int64, _ Event) bool { return first <= i && i < end })
	return nil
}

func (t *tx) Set(key string, value []byte) error {
	if err := t.x.fail("set"); err != nil {
		return err
	}
	if t.state == nil {
		t.state = make(map[string][]byte)
	}
	if value == nil {
		delete(t.state, key)
	} else {
		t.state[key] = bytes.Clone(value)
	}
	return nil
}

// ErrCommitted is what Fail returns for "commit" if the transaction should be
// committed and the caller not learn of it, as when it is killed just then.
var ErrCommitted = errors.New("killed after the commit")

func (t *tx) Commit() error {
	if t.done {
		return errors.New("transaction is done")
	}
	err := t.x.fail("commit")
	if err != nil && !errors.Is(err, ErrCommitted) {
		return err
	}
	t.done = true
	t.x.state, t.x.events = t.state, t.events
	return err
}

func (t *tx) Rollback() error {
	t.done = true
	return nil
}
