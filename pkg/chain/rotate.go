package chain

import (
	"fmt"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// RotateKey starts a new epoch. The order makes sure that a crash at any point
// leaves exactly one key that the log knows and that can go on:
//
//	the new key goes into the free slot, synced
//	an event with it, signed by the old key, is appended, synced
//	a checkpoint over that event, signed by the old key, is published
//	the old key's slot is overwritten, synced
//
// Open brings an interrupted rotation to its end.
func (l *Log) RotateKey() error {
	if l.failed != nil {
		return l.failed
	}
	n := l.ring.Epochs() - 1
	cur := l.keys.epoch.find(l.ring.EpochKey(n))
	if cur < 0 {
		return &configError{fmt.Errorf("the secret key of epoch %d is not in %s", n, l.keys.dir),
			"use the recovery key: gb-chain rotate-key --recovery-key FILE"}
	}
	// The checkpoint at the end of an epoch stands alone in the archive.
	if err := l.Checkpoint(); err != nil {
		return err
	}
	return l.newEpoch(l.keys.epoch.slots[cur].key, 1-cur, false)
}

// RotateLostKey opens the log in dir, of which the epoch key is lost, and
// starts a new epoch with the recovery key that Create returned.
func RotateLostKey(dir, keysDir, recoverySecret string, o Options) (*Log, error) {
	by, err := merkle.ParseSecret(recoverySecret)
	if err != nil {
		return nil, &configError{fmt.Errorf("recovery key: %w", err), ""}
	}
	l, err := open(dir, keysDir, o)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*Log, error) {
		l.release()
		return nil, err
	}
	if want := l.ring.Created.RecoveryKey; by.Verifier().String() != want.String() {
		return fail(&configError{fmt.Errorf("recovery key is %s, the log's is %s", by.Verifier(), want), ""})
	}
	if n := l.ring.Epochs() - 1; l.keys.epoch.find(l.ring.EpochKey(n)) >= 0 {
		return fail(&configError{fmt.Errorf("the key of epoch %d is not lost", n), "rotate without --recovery-key"})
	}
	if err := l.newEpoch(by, 0, true); err != nil {
		return fail(err)
	}
	return l, nil
}

// newEpoch starts an epoch with a new key in the given slot, vouched for by
// the key by.
func (l *Log) newEpoch(by *merkle.Signer, slot int, recovery bool) error {
	number := l.ring.Epochs()
	origin := l.ring.Created.Origin
	next, err := l.opts.key(layout.EpochKeyName(origin))
	if err != nil {
		return err
	}
	draft, err := event.Own(layout.TypeEpoch, event.Notice, fmt.Sprintf("epoch %d begins", number), layout.Epoch{
		Number: number, Key: next.Verifier(), Recovery: recovery,
		Signature: by.SignBytes(layout.EpochMessage(origin, number, next.Verifier())),
	})
	if err != nil {
		return err
	}
	if err := l.keys.epoch.write(slot, &epochSlot{number, next}); err != nil {
		return l.note(fmt.Errorf("epoch key: %w", err))
	}
	before := l.Size()
	err = l.appendOwn(draft)
	if err == nil {
		err = l.finishRotation()
	}
	if err != nil && l.Size() > before && l.failed == nil {
		// The new key's event is durable and the checkpoint over it may not
		// be: an event behind it would leave the old epoch without its last
		// checkpoint for ever. The next Open finishes.
		l.failed = fmt.Errorf("rotation of the epoch key of %s was interrupted: %w", l.dir, err)
	}
	return err
}

// finishRotation brings the newest epoch's beginning to its end: the
// checkpoint over its event is published, the old key destroyed, and a key
// that never made it into the log too. It changes nothing where nothing is
// left to do.
func (l *Log) finishRotation() error {
	n := l.ring.Epochs() - 1
	start, signed := l.ring.Start(n)
	covered := l.last.Size >= start
	if n > 0 && !signed {
		covered = l.last.Size > start
	}
	if !covered {
		if signed && l.Size() != start {
			return &DamagedError{l.dir, fmt.Errorf("events stand behind the beginning of epoch %d, of which the last epoch's checkpoint is missing", n)}
		}
		if err := l.checkpoint(true); err != nil {
			return err
		}
	}
	current := l.keys.epoch.find(l.ring.EpochKey(n))
	if current < 0 || l.keys.epoch.slots[1-current] == nil {
		return nil // a lost key is reported when a checkpoint is due
	}
	if err := l.keys.epoch.write(1-current, nil); err != nil {
		return l.note(fmt.Errorf("destroy the old epoch key: %w", err))
	}
	return nil
}
