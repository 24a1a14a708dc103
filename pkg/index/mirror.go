package index

import (
	"context"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
)

// A Mirror is another place that gets what a transaction of an index changes,
// before the transaction commits there: what was committed is in the mirror.
// What the mirror has beyond is of a transaction that failed, which comes again;
// everything has an id of what it stands for and absolute values, so that it
// may come as often as it likes.
//
// There is one transaction at a time: Open, any number of Put, then of Drop, and
// Publish.
type Mirror interface {
	// Open says that the index file of some name, of the log with a verifier key
	// ("" if that is not known yet), is about to change the mirror. as is what the last Publish of this file has returned, "" before. whole
	// asks for all that the file holds, since the mirror has nothing of it.
	Open(ctx context.Context, file, log, as string) (whole bool, err error)
	// Put writes a record in the place of the one with its Ref, if there is one.
	Put(ctx context.Context, r Record) error
	// Drop deletes the record with a Ref; one that is not there is no error.
	Drop(ctx context.Context, r Ref) error
	// Publish makes what was put durable, then seen, and returns what was not
	// taken in. as is the name by which readers now see this file, "" if they
	// do not.
	Publish(ctx context.Context, h Head) (refused []Refused, as string, err error)
}

// A Record is one of the kinds below.
type Record interface {
	// Ref says which record of the file it is.
	Ref() Ref
}

// The kinds of records.
const (
	KindTemplate = "template"
	KindGroup    = "group"
	KindBlock    = "block"
	KindSeen     = "seen"
	KindPoint    = "point"
)

// A Ref names a record: by its ID, its number, or both.
type Ref struct {
	Kind string
	ID   ID
	N    int64
}

// A TemplateRecord is a kind of lines.
type TemplateRecord struct {
	ID      ID
	Group   int64
	Source  string
	Type    string
	Masked  string
	Extra   string
	Vector  []float32 // of length 1, nil if there is none
	Pending bool      // the vector is still to come
}

// Ref implements Record.
func (r *TemplateRecord) Ref() Ref { return Ref{Kind: KindTemplate, ID: r.ID} }

// A GroupRecord is what templates are shown as.
type GroupRecord struct {
	N    int64
	Text string
}

// Ref implements Record.
func (r *GroupRecord) Ref() Ref { return Ref{Kind: KindGroup, N: r.N} }

// A BlockRecord is some events that follow one another, known by the index of
// the first.
type BlockRecord struct{ Events []Event }

// Ref implements Record.
func (r *BlockRecord) Ref() Ref { return Ref{Kind: KindBlock, N: r.Events[0].Index} }

// A SeenRecord is some of a point's events, in the order of their indexes, known
// by the index of the first. A point with no more events than Newest has has
// none.
type SeenRecord struct {
	Point ID
	Seen  []Occurrence
}

// Ref implements Record.
func (r *SeenRecord) Ref() Ref { return Ref{Kind: KindSeen, ID: r.Point, N: r.Seen[0].Index} }

// A PointRecord is a point.
type PointRecord struct {
	ID          ID
	Template    ID
	Host        string
	Source      string
	Type        string
	Severity    event.Severity
	Actor       string
	Hour        int64 // since 1970
	Single      int64 // index of its only event, -1 if it may have several
	First, Last time.Time
	Count       int64
	Minutes     int64        // a bit for each of the hour with an event in it
	Values      []uint64     // hashes (FNV-1a) of the values in its events
	More        bool         // there were more values
	Newest      []Occurrence // at most MaxSamples
}

// Ref implements Record.
func (r *PointRecord) Ref() Ref { return Ref{Kind: KindPoint, ID: r.ID} }

// A Head is what an index says of itself.
type Head struct {
	Events   int64
	Newest   time.Time // zero if there is none
	Embedder string
	Pending  int64
	Log      string // verifier key of the log
	State    []byte // what the index has verified, JSON
}

// A Refused is a record that a mirror can't take.
type Refused struct {
	Ref    Ref
	Reason string
}
