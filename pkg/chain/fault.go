package chain

import "fmt"

// A FaultKind says what is wrong with a log.
type FaultKind string

// The kinds of fault that Verify names.
const (
	FaultChanged     FaultKind = "changed"         // an event is not what was signed
	FaultDeleted     FaultKind = "deleted"         // an event is missing
	FaultInserted    FaultKind = "inserted"        // a line that was never appended
	FaultReordered   FaultKind = "reordered"       // an event is not in its place
	FaultDuplicated  FaultKind = "duplicated"      // an event stands twice
	FaultSegmentGone FaultKind = "segment-missing" // a whole segment is missing
	FaultTruncated   FaultKind = "truncated"       // the log ends before what was signed
	FaultSeal        FaultKind = "seal"            // a line of seals is missing or wrong
	FaultSignature   FaultKind = "signature"       // a checkpoint lacks a good signature of the log key
	FaultEpoch       FaultKind = "epoch"           // a signature by a key of another epoch, or an epoch without its last checkpoint
	FaultCheckpoint  FaultKind = "checkpoint"      // a checkpoint is missing or cannot be read
	FaultTail        FaultKind = "unsealed-tail"   // events that no checkpoint covers, though it should
	FaultTorn        FaultKind = "torn"            // a line that was cut by a crash
	FaultRolledBack  FaultKind = "rolled-back"     // the log is shorter than a pin
	FaultForked      FaultKind = "forked"          // the log differs from a pin
	FaultKey         FaultKind = "wrong-key"       // the log is not the one that was asked for
	FaultBlob        FaultKind = "blob"            // data outside of its line is missing or changed
	FaultCreated     FaultKind = "created"         // the first event cannot be read
)

// A Fault is one thing that is wrong with a log.
type Fault struct {
	Kind FaultKind `json:"kind"`
	// Index is of the first event concerned, or the size of the checkpoint.
	Index int64 `json:"index"`
	// Last is of the last event concerned, where there are several or where
	// the place is only known to be between Index and Last.
	Last   int64  `json:"last"`
	Detail string `json:"detail,omitempty"`
}

func (f Fault) String() string {
	at := fmt.Sprintf("#%d", f.Index)
	if f.Last > f.Index {
		at += fmt.Sprintf("..#%d", f.Last)
	}
	if f.Detail != "" {
		return fmt.Sprintf("%s %s: %s", f.Kind, at, f.Detail)
	}
	return fmt.Sprintf("%s %s", f.Kind, at)
}
