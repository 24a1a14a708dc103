// Package index is the contract of an index of events: what the ingester
// writes and what a search asks. Package local is the one in a single file.
//
// An index is derived from the log and can be made again from it. It keeps,
// beside the events, the ingester's own state as keys and values, so that both
// change in one transaction: an event is in the index exactly if the state
// says so.
package index

import (
	"encoding/json"
	"iter"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
)

// A Writer is an index that an ingester may change. There is one at a time.
type Writer interface {
	// Get returns the value of a state key, nil if there is none.
	Get(key string) ([]byte, error)
	// Scan yields the state keys that start with prefix, in order, with their
	// values. The error function is to be asked after the loop.
	Scan(prefix string) (iter.Seq2[string, []byte], func() error)
	// Begin starts a transaction. There is one at a time.
	Begin() (Tx, error)
	Close() error
}

// A Tx changes events and state together. After Commit returned without an
// error the change survives a power cut; without Commit nothing of it is seen.
type Tx interface {
	// Add adds an event. Adding one that is there already is an error.
	Add(e *event.Event) error
	// Remove removes the events with the indexes [first, end).
	Remove(first, end int64) error
	// Set sets a state key; a nil value deletes it.
	Set(key string, value []byte) error
	Commit() error
	// Rollback ends a transaction that was not committed; after Commit it
	// does nothing.
	Rollback() error
}

// A Term is a word or, with several words, a phrase of a question.
type Term struct {
	Text   string
	Phrase bool
}

// A Query asks for the events that fit some terms best.
type Query struct {
	Terms        []Term // any of them; none: the newest events
	Since, Until time.Time
	Sources      []string
	Types        []string
	Hosts        []string
	Actors       []string
	Severity     event.Severity // this grave or graver, if HasSeverity
	HasSeverity  bool
	Limit        int
}

// A Match is an event that fits a query.
type Match struct {
	Score    float64 // the greater the better; 0 without terms
	Index    int64
	Time     time.Time
	Host     string
	Source   string
	Type     string
	Subject  string
	Severity event.Severity
	Actor    string
	Message  string
	Data     json.RawMessage // may be cut off
}

// A Reader is an index that is searched. It may be used by several goroutines,
// and while a Writer changes the index; it sees what was last committed.
type Reader interface {
	Get(key string) ([]byte, error)
	Search(q Query) ([]Match, error)
	// Count returns the number of events and the time of the newest one.
	Count() (events int64, newest time.Time, err error)
	Close() error
}
