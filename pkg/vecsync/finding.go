package vecsync

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/index"
)

// A Finding says how a stream contradicts what the index knows of the log.
type Finding struct {
	Number   int       `json:"finding"`
	At       time.Time `json:"at"` // when it was found
	Kind     string    `json:"kind"`
	Index    int64     `json:"index"` // of the first event concerned, as nearly as known
	Detail   string    `json:"detail"`
	Snapshot string    `json:"snapshot,omitempty"` // UUID of the snapshot that showed it
	Recorded bool      `json:"recorded,omitempty"` // an event of the log says it
	Accepted string    `json:"accepted,omitempty"` // the reason, once somebody has accepted it
}

// The kinds of finding.
const (
	FindingChanged    = "changed"    // bytes that are in the index were changed
	FindingShrunk     = "shrunken"   // a segment has become shorter
	FindingRemoved    = "removed"    // a segment is gone
	FindingRoot       = "root"       // the events do not have the root that was signed
	FindingLine       = "line"       // a line has a wrong checksum or index
	FindingSignature  = "signature"  // the checkpoint is not signed as it must be
	FindingRolledBack = "rolledback" // the checkpoint is of an earlier state
	FindingKeys       = "keys"       // the log has another key, or its chain of keys is broken
	FindingSeal       = "seal"       // a seal is not that of its segment
)

// Error makes a Finding an error: exit code 3.
func (f *Finding) Error() string {
	return fmt.Sprintf("tamper finding %d: %s at event %d: %s", f.Number, f.Kind, f.Index, f.Detail)
}

// ExitCode is that of a failed verification.
func (f *Finding) ExitCode() int { return 3 }

// Hint says what to do.
func (f *Finding) Hint() string {
	return fmt.Sprintf("gb-chain verify names what is wrong with the log; gb-vecsync rebuild --accept %d --reason TEXT starts anew from it", f.Number)
}

func found(kind string, i int64, format string, args ...any) *Finding {
	return &Finding{Kind: kind, Index: i, Detail: fmt.Sprintf(format, args...)}
}

const findingPrefix = "finding/"

func findingKey(n int) string { return fmt.Sprintf("%s%06d", findingPrefix, n) }

// Findings returns all findings in an index, oldest first.
func Findings(ix getter) ([]Finding, error) {
	var list []Finding
	for n := 1; ; n++ {
		data, err := ix.Get(findingKey(n))
		if err != nil || data == nil {
			return list, err
		}
		var f Finding
		if err := json.Unmarshal(data, &f); err != nil {
			return nil, fmt.Errorf("finding %d: %w", n, err)
		}
		list = append(list, f)
	}
}

// Standing returns the first finding that nobody has accepted, nil if none.
func Standing(ix getter) (*Finding, error) {
	list, err := Findings(ix)
	for i := range list {
		if list[i].Accepted == "" {
			return &list[i], nil
		}
	}
	return nil, err
}

// KeepFinding stores a new finding and numbers it, unless the same one stands
// already: then f becomes that one.
func KeepFinding(ix index.Writer, f *Finding) error {
	list, err := Findings(ix)
	if err != nil {
		return err
	}
	for _, old := range list {
		if old.Accepted == "" && old.Kind == f.Kind && old.Index == f.Index && old.Detail == f.Detail {
			*f = old
			return nil
		}
	}
	f.Number = len(list) + 1
	return KeepFindings(ix, []Finding{*f})
}

// RecordFinding makes an event of a finding, once. Where the log does not take
// it now, the next call of Ingest tries again.
func RecordFinding(ix index.Writer, f *Finding, record func(*Finding) error) error {
	if record == nil || f.Recorded {
		return nil
	}
	if err := record(f); err != nil {
		return fmt.Errorf("record the finding: %w", err)
	}
	f.Recorded = true
	return KeepFindings(ix, []Finding{*f})
}

// KeepFindings stores findings under their numbers.
func KeepFindings(ix index.Writer, list []Finding) error {
	if len(list) == 0 {
		return nil
	}
	tx, err := ix.Begin()
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for i := range list {
		data, err := json.Marshal(list[i])
		if err != nil {
			return err
		}
		if err := tx.Set(findingKey(list[i].Number), data); err != nil {
			return err
		}
	}
	return tx.Commit()
}
