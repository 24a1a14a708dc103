// Package layout is the shape of a log directory: the names of its files, the
// lines of its seals file, the log's own events, and the chain of its epoch
// keys. It is what a writer, a verifier and a reader of btrfs streams must
// agree on; it computes and touches no file.
//
// A log directory holds
//
//	000000.jsonl ...  segments of SegmentEvents lines, the last one shorter
//	seals             one line of JSON for each full segment, in order
//	checkpoint        the latest signed note
//	checkpoints       one signed note a minute and the last of each epoch,
//	                  each followed by an empty line
//	epochs            the lines of the log's own events that introduce its keys,
//	                  as they stand in the segments
//	blobs/sha256/ab/  data that was too large for a line, by its SHA-256
//	torn/             what recovery cut off after a crash
//	pruned            the line of the newest event that says what was deleted,
//	                  as it stands in its segment
package layout

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

const (
	// SegmentLevel is the height of a segment's tree above its leaves, so
	// that a full segment is a perfect subtree.
	SegmentLevel = 16

	// SegmentEvents is the number of events of a full segment.
	SegmentEvents = 1 << SegmentLevel
)

// Names within a log directory.
const (
	Seals       = "seals"
	Epochs      = "epochs"
	Checkpoint  = "checkpoint"
	Checkpoints = "checkpoints"
	Blobs       = "blobs/sha256"
	Torn        = "torn"
	PrunedFile  = "pruned"
)

const segmentSuffix = ".jsonl"

// SegmentName returns the name of segment n.
func SegmentName(n int64) string { return fmt.Sprintf("%06d%s", n, segmentSuffix) }

// ParseSegmentName returns the number of the segment that is called name.
func ParseSegmentName(name string) (n int64, ok bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) < 6 {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 48)
	return n, err == nil && n >= 0 && SegmentName(n) == name
}

// BlobName returns the path of a blob within the log directory.
func BlobName(sha256hex string) string {
	return Blobs + "/" + sha256hex[:2] + "/" + sha256hex
}

// A Span is the least and the greatest of some times.
type Span struct{ Min, Max time.Time }

// Add widens s to hold t, by the wall clock alone: two readings of time.Now are
// compared by the monotonic one else, which does not see that the clock was set.
func (s *Span) Add(t time.Time) {
	t = t.Round(0)
	if s.Min.IsZero() || t.Before(s.Min) {
		s.Min = t
	}
	if s.Max.IsZero() || t.After(s.Max) {
		s.Max = t
	}
}

// MarshalJSON gives [min, max] in event.TimeFormat.
func (s Span) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, `["%s","%s"]`, s.Min.UTC().Format(event.TimeFormat), s.Max.UTC().Format(event.TimeFormat)), nil
}

// UnmarshalJSON takes what MarshalJSON gives.
func (s *Span) UnmarshalJSON(b []byte) error {
	var t []time.Time
	if err := json.Unmarshal(b, &t); err != nil {
		return err
	}
	if len(t) != 2 {
		return fmt.Errorf("span of %d times", len(t))
	}
	s.Min, s.Max = t[0], t[1]
	return nil
}

// A Seal says what a full segment holds. It outlives the segment.
type Seal struct {
	Segment int64       `json:"segment"`
	Root    merkle.Hash `json:"root"` // of the subtree of its SegmentEvents leaves
	Time    Span        `json:"time"` // of the events' time
	At      Span        `json:"at"`   // of the events' at
}

// Line returns the seal as a line of the seals file, with its newline.
func (s Seal) Line() []byte {
	b, err := json.Marshal(s)
	if err != nil { // no field can fail
		panic(err)
	}
	return append(b, '\n')
}

// ParseSeals parses a seals file. What is no whole line at the end, as a crash
// leaves it, is returned as rest. Seals must stand in order from segment 0.
func ParseSeals(data []byte) (seals []Seal, rest []byte, err error) {
	for len(data) > 0 {
		line, more, whole := strings.Cut(string(data), "\n")
		if !whole {
			return seals, data, nil
		}
		var s Seal
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			return seals, data, fmt.Errorf("seal %d: %w", len(seals), err)
		}
		if s.Segment != int64(len(seals)) {
			return seals, data, fmt.Errorf("seal %d is of segment %d", len(seals), s.Segment)
		}
		seals = append(seals, s)
		data = data[len(data)-len(more):]
	}
	return seals, nil, nil
}
