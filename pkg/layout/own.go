package layout

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// FormatVersion is the version of the log's format, written in its first
// event. A reader refuses a log with another one.
const FormatVersion = 1

// Types of the log's own events.
const (
	TypeCreated   = "log.created"   // always event 0; data is Created
	TypeEpoch     = "log.epoch"     // a new epoch key; data is Epoch
	TypeRecovered = "log.recovered" // a torn tail was cut; data is Recovered
	TypePruned    = "log.pruned"    // segments were deleted; data is Pruned
	TypeLost      = "log.lost"      // a producer that can't wait lost events; data is Lost
)

// Created is the data of event 0.
type Created struct {
	Format      int             `json:"format"`
	Origin      string          `json:"origin"`
	LogKey      merkle.Verifier `json:"log_key"`      // named Origin
	EpochKey    merkle.Verifier `json:"epoch_key"`    // of epoch 0, named Origin/epoch
	RecoveryKey merkle.Verifier `json:"recovery_key"` // named Origin/recovery
}

// Epoch is the data of the event that starts epoch Number.
type Epoch struct {
	Number    int64           `json:"epoch"`
	Key       merkle.Verifier `json:"key"`
	Signature []byte          `json:"signature"`          // of EpochMessage, by the key before it
	Recovery  bool            `json:"recovery,omitempty"` // Signature is by the recovery key instead
}

// Recovered is the data of the event that reports a torn tail.
type Recovered struct {
	Segment int64  `json:"segment"`
	Offset  int64  `json:"offset"` // of the first byte that was cut off
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"`
	Kept    string `json:"kept"` // where the bytes are, within the log directory
}

// Pruned is the data of the event that stands before a deletion.
type Pruned struct {
	First  int64       `json:"first"` // first and last segment deleted
	Last   int64       `json:"last"`
	Events int64       `json:"events"`
	Root   merkle.Hash `json:"root"`   // of the tree of all events before the end of Last
	Epochs merkle.Hash `json:"epochs"` // SHA-256 of the lines of the file of epochs that are of events before the end of Last
	Reason string      `json:"reason"`
}

// Lost is the data of the event that stands for lost ones.
type Lost struct {
	Count  int64  `json:"count"`
	From   string `json:"from"` // event.TimeFormat
	To     string `json:"to"`
	Source string `json:"source,omitempty"`
}

// EpochKeyName is the name of an origin's epoch keys.
func EpochKeyName(origin string) string { return origin + "/epoch" }

// RecoveryKeyName is the name of an origin's recovery key.
func RecoveryKeyName(origin string) string { return origin + "/recovery" }

// EpochMessage is what the key before signs of a new epoch key.
func EpochMessage(origin string, number int64, key merkle.Verifier) []byte {
	return fmt.Appendf(nil, "ghostbridge epoch key\n%s\n%d\n%s\n", origin, number, key)
}

// A Keyring is the chain of a log's keys, built from its own events in order.
//
// Epoch e covers the checkpoints of sizes (start(e), start(e+1)], where
// start(0) is 0 and start(e) is one more than the index of the event that
// introduced it: the checkpoint that makes a new key's event durable is the
// last one that the old key signs. Where the old key was lost and the recovery
// key introduced the new one, start(e) is the index itself, and the new key
// signs that checkpoint.
type Keyring struct {
	Created Created
	epochs  []epoch
}

type epoch struct {
	start    int64 // size of the tree above which the key signs
	key      merkle.Verifier
	recovery bool // introduced by the recovery key
}

// NewKeyring starts a chain from event 0.
func NewKeyring(e *event.Event) (*Keyring, error) {
	if e.Index != 0 || e.Type != TypeCreated {
		return nil, fmt.Errorf("event %d is a %s, a log starts with %s as event 0", e.Index, e.Type, TypeCreated)
	}
	var c Created
	if err := json.Unmarshal(e.Data, &c); err != nil {
		return nil, fmt.Errorf("event 0: %w", err)
	}
	if c.Format != FormatVersion {
		return nil, fmt.Errorf("log format %d, this program knows %d", c.Format, FormatVersion)
	}
	if err := merkle.CheckName(c.Origin); err != nil {
		return nil, fmt.Errorf("event 0: %w", err)
	}
	for _, k := range []struct {
		key  merkle.Verifier
		name string
	}{{c.LogKey, c.Origin}, {c.EpochKey, EpochKeyName(c.Origin)}, {c.RecoveryKey, RecoveryKeyName(c.Origin)}} {
		if k.key.IsZero() || k.key.Name() != k.name {
			return nil, fmt.Errorf("event 0 has no key named %s", k.name)
		}
	}
	return &Keyring{Created: c, epochs: []epoch{{key: c.EpochKey}}}, nil
}

// Observe takes an event of the log. Those that do not concern keys change
// nothing; one that introduces an epoch key must carry a good signature by the
// key before it or by the recovery key.
func (k *Keyring) Observe(e *event.Event) error {
	if e.Type != TypeEpoch || e.Index == 0 {
		return nil
	}
	var d Epoch
	if err := json.Unmarshal(e.Data, &d); err != nil {
		return fmt.Errorf("event %d: %w", e.Index, err)
	}
	last := k.epochs[len(k.epochs)-1]
	if e.Index < last.start {
		return fmt.Errorf("event %d: epoch keys out of order", e.Index)
	}
	if d.Number != int64(len(k.epochs)) {
		return fmt.Errorf("event %d starts epoch %d after epoch %d", e.Index, d.Number, len(k.epochs)-1)
	}
	if d.Key.IsZero() || d.Key.Name() != EpochKeyName(k.Created.Origin) {
		return fmt.Errorf("event %d: epoch key has another name than %s", e.Index, EpochKeyName(k.Created.Origin))
	}
	by, start := last.key, e.Index+1
	if d.Recovery {
		by, start = k.Created.RecoveryKey, e.Index
	}
	if !by.VerifyBytes(EpochMessage(k.Created.Origin, d.Number, d.Key), d.Signature) {
		return fmt.Errorf("event %d: key of epoch %d is not signed by %s+%s", e.Index, d.Number, by.Name(), by.ID())
	}
	k.epochs = append(k.epochs, epoch{start, d.Key, d.Recovery})
	return nil
}

// ReadKeyring builds the chain from the lines of a file of epochs. The chain
// vouches for itself: each key is signed by the one before it. A last line that
// cannot be read, as a crash leaves it, is passed over.
func ReadKeyring(data []byte) (*Keyring, error) { return ReadKeyringBelow(data, math.MaxInt64) }

// ReadKeyringBelow is ReadKeyring of the events with indexes below size only.
func ReadKeyringBelow(data []byte, size int64) (*Keyring, error) {
	var k *Keyring
	read := 0
	for line := range bytes.Lines(data) {
		read += len(line)
		e, err := event.Decode(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil && read == len(data) && k != nil {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("epochs: %w", err)
		}
		if e.Index >= size {
			break
		}
		if k == nil {
			if k, err = NewKeyring(e); err != nil {
				return nil, err
			}
			continue
		}
		before := k.Epochs()
		if err := k.Observe(e); err != nil {
			return nil, err
		}
		if k.Epochs() == before {
			return nil, fmt.Errorf("epochs: event %d is a %s", e.Index, e.Type)
		}
	}
	if k == nil {
		return nil, fmt.Errorf("epochs: empty")
	}
	return k, nil
}

// Epochs returns how many epochs there have been.
func (k *Keyring) Epochs() int64 { return int64(len(k.epochs)) }

// Start returns the size of the tree at which epoch n began, and whether there
// must be a checkpoint of just that size, signed by the key of epoch n-1: that
// is so but for epoch 0 and after the loss of a key.
func (k *Keyring) Start(n int64) (size int64, signed bool) {
	return k.epochs[n].start, n > 0 && !k.epochs[n].recovery
}

// EpochOf returns the epoch whose key signs checkpoints of the given size.
func (k *Keyring) EpochOf(size int64) int64 {
	for n := len(k.epochs) - 1; n > 0; n-- {
		if size > k.epochs[n].start {
			return int64(n)
		}
	}
	return 0
}

// EpochKey returns the key of epoch n.
func (k *Keyring) EpochKey(n int64) merkle.Verifier { return k.epochs[n].key }

// Open opens a signed checkpoint of this log: the log's key and the key of the
// epoch that its size falls in must both have signed it. The keyring must have
// observed every event below the checkpoint's size.
func (k *Keyring) Open(msg []byte) (merkle.Checkpoint, error) {
	c, err := merkle.ParseNote(msg)
	if err != nil {
		return c, err
	}
	epoch := k.EpochOf(c.Size)
	opened, err := merkle.Open(msg, k.Created.LogKey, k.EpochKey(epoch))
	switch {
	case err == nil && opened != c: // the unverified reading was another one
		return opened, fmt.Errorf("checkpoint can be read in two ways")
	case err == nil && c.Origin != k.Created.Origin:
		return c, fmt.Errorf("checkpoint is of %q, the log of %q", c.Origin, k.Created.Origin)
	case err == nil:
		return c, nil
	}
	if _, err := merkle.Open(msg, k.Created.LogKey); err != nil {
		return c, err
	}
	return c, fmt.Errorf("epoch %d: %w", epoch, err)
}

// Extends says whether k is of the same log as other and has all its epochs.
func (k *Keyring) Extends(other *Keyring) bool {
	a, b := k.Created, other.Created
	if a.Origin != b.Origin || a.LogKey.String() != b.LogKey.String() || a.RecoveryKey.String() != b.RecoveryKey.String() || len(k.epochs) < len(other.epochs) {
		return false
	}
	for i, e := range other.epochs {
		if e.start != k.epochs[i].start || e.recovery != k.epochs[i].recovery || e.key.String() != k.epochs[i].key.String() {
			return false
		}
	}
	return true
}

// Clone returns a copy that changes independently.
func (k *Keyring) Clone() *Keyring {
	return &Keyring{k.Created, append([]epoch(nil), k.epochs...)}
}

// keyringJSON is how a keyring is kept by those who follow a log.
type keyringJSON struct {
	Created Created     `json:"created"`
	Epochs  []epochJSON `json:"epochs"`
}

type epochJSON struct {
	Start    int64           `json:"start"`
	Key      merkle.Verifier `json:"key"`
	Recovery bool            `json:"recovery,omitempty"`
}

// MarshalJSON encodes the keyring.
func (k *Keyring) MarshalJSON() ([]byte, error) {
	j := keyringJSON{Created: k.Created}
	for _, e := range k.epochs {
		j.Epochs = append(j.Epochs, epochJSON{e.start, e.key, e.recovery})
	}
	return json.Marshal(j)
}

// UnmarshalJSON decodes what MarshalJSON gave; it checks no signatures.
func (k *Keyring) UnmarshalJSON(b []byte) error {
	var j keyringJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	if len(j.Epochs) == 0 {
		return fmt.Errorf("keyring without epochs")
	}
	k.Created, k.epochs = j.Created, nil
	for _, e := range j.Epochs {
		k.epochs = append(k.epochs, epoch{e.Start, e.Key, e.Recovery})
	}
	return nil
}
