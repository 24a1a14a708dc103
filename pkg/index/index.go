// Package index is the contract of an index of events: what the ingester
// writes and what a search asks. Package local is the one in a single file,
// package qdrant the one in a Qdrant server or cluster.
//
// An index is derived from the log and can be made again from it. It keeps,
// beside the events, the ingester's own state as keys and values, so that both
// change in one transaction: an event is in the index exactly if the state
// says so.
//
// Events are kept as points: what one kind of line said on one host in one
// hour. A search finds kinds of lines first, by their words or the vector of
// their meaning, then the points of these that its filter lets through.
package index

import (
	"context"
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
	// Close ends the use of the index; what was committed stays.
	Close() error
}

// A Tx changes events and state together. After Commit returned without an
// error the change survives a power cut; without Commit nothing of it is seen.
type Tx interface {
	// Add adds an event. Adding one that is there already is an error. Events
	// come in the order of their indexes.
	Add(e *event.Event) error
	// Remove removes the events with the indexes [first, end).
	Remove(first, end int64) error
	// Set sets a state key; a nil value deletes it.
	Set(key string, value []byte) error
	// Commit makes the changes durable, then seen. After an error nothing of
	// them is seen.
	Commit() error
	// Rollback ends a transaction that was not committed; after Commit it
	// does nothing.
	Rollback() error
}

// An Embedder gives the vectors of templates; package embed has some.
type Embedder interface {
	// ID names the vector space.
	ID() string
	// Dim is how many numbers a vector has.
	Dim() int
	// EmbedDocuments returns for each text a vector of length 1, or nil where
	// there is none. An error says that it can't now: the index goes on
	// without these vectors and fills them in later.
	EmbedDocuments(ctx context.Context, texts []string) ([][]float32, error)
}

// A Filter says which events count. Each list lets its values through, all if
// it is empty.
type Filter struct {
	Since, Until time.Time // of the events' time; Until is not included
	Sources      []string
	Types        []string
	Hosts        []string
	Actors       []string
	Severity     event.Severity // this grave or graver, if HasSeverity
	HasSeverity  bool
}

// Time says whether t is within the filter's window.
func (f *Filter) Time(t time.Time) bool {
	return (f.Since.IsZero() || !t.Before(f.Since)) && (f.Until.IsZero() || t.Before(f.Until))
}

// A Term is a stem of package words that is looked for, and how much it
// counts.
type Term struct {
	Stem   string
	Weight float64
}

// A Candidate is a template that a search considers.
type Candidate struct {
	ID     ID // of the template
	Score  float64
	Source string
	Type   string
	Masked string
	Group  string // the template of the group that it is shown in
	Extra  string // what is known of such events beyond their words
}

// A Summary is what the filter lets through of one template on one host.
type Summary struct {
	Template    ID
	Log         string // see Event
	Host        string
	Source      string
	Type        string
	Severity    event.Severity // the gravest
	Actor       string         // of the newest
	Count       int64
	First, Last time.Time
	Newest      Event        // of Occurrences the first, whole
	Occurrences []Occurrence // the newest first, at most MaxSamples
}

// An Occurrence is one event.
type Occurrence struct {
	Index int64
	Time  time.Time
}

// An Event is what an index keeps of an event. Secrets in it are blacked out.
type Event struct {
	Index    int64
	Time     time.Time
	Log      string // that Index counts in, where the index is of several
	Host     string
	Source   string
	Type     string
	Subject  string
	Severity event.Severity
	Actor    string
	Message  string
	Data     json.RawMessage // may be cut off
	Template ID
}

// MaxSamples is how many events a point or a summary names.
const MaxSamples = 8

// Totals say what an index holds.
type Totals struct {
	Events    int64
	Points    int64
	Templates int64
	Pending   int64     // templates whose vector is still to come
	Newest    time.Time // of the newest event; zero if there is none
	Embedder  string    // ID of the vectors' space
}

// A Reader is an index that is searched. It may be used by several goroutines,
// and while a Writer changes the index; it sees what was last committed.
type Reader interface {
	// Get returns the value of a state key, nil if there is none.
	Get(key string) ([]byte, error)
	// Totals counts what the index holds.
	Totals() (Totals, error)
	// Space returns the ID of the vectors' space, "" if there are none.
	Space(ctx context.Context) (string, error)

	// Frequencies returns in how many templates each stem is, and how many
	// templates there are.
	Frequencies(ctx context.Context, stems []string) (in []int64, of int64, err error)
	// Lexical returns the templates with the greatest scores by BM25 of which
	// the filter lets an event through, best first, at most limit.
	Lexical(ctx context.Context, terms []Term, f Filter, limit int) ([]Candidate, error)
	// Dense likewise by the cosine between their vector and v, which is of
	// the space that Space names.
	Dense(ctx context.Context, v []float32, f Filter, limit int) ([]Candidate, error)
	// Newest returns templates by the time of their newest event.
	Newest(ctx context.Context, f Filter, limit int) ([]Candidate, error)
	// Summaries returns what the filter lets through of templates, in no
	// order.
	Summaries(ctx context.Context, templates []ID, f Filter) ([]Summary, error)
	// Holding returns the newest events that hold all of the values, each as
	// a word of its own or as part of a quoted text or path, in any case.
	// more says that there may be others.
	Holding(ctx context.Context, values []string, f Filter, limit int) (events []Event, more bool, err error)
	// Events returns the events from first to before end that are in the index.
	Events(ctx context.Context, first, end int64) ([]Event, error)
	// Templates returns templates by their ids; Score is 0.
	Templates(ctx context.Context, ids []ID) ([]Candidate, error)
	// Close ends the use of the index.
	Close() error
}
