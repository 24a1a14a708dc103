package ovs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
)

// Undo takes a change back for somebody who has kept its checkpoint, and what
// was confirmed before it, elsewhere: also one that was confirmed since, and
// also a second time. before is nil if nothing was confirmed.
func (s *Setup) Undo(ctx context.Context, point *Checkpoint, before *Confirmed) error {
	lctx, cancel := context.WithTimeout(ctx, 2*s.Timeout)
	lock, err := s.Store.Lock(lctx)
	cancel()
	if err != nil {
		s.Log.Warn("going on without the lock", "error", err)
	} else {
		defer lock.Unlock()
	}
	pending, err := s.Store.Pending()
	if err != nil {
		return err
	}
	if point == nil {
		if pending != "" {
			return &PendingError{pending}
		}
		return s.Store.restoreConfirmed(before)
	}
	if pending != "" && pending != point.ID {
		return &PendingError{pending}
	}
	if err := s.rollback(ctx, point); err != nil {
		return err
	}
	s.Disarm(ctx, point.ID)
	return s.Store.restoreConfirmed(before)
}

// restoreConfirmed makes c, or nothing, what boots apply.
func (s *Store) restoreConfirmed(c *Confirmed) error {
	if c != nil {
		return s.confirm(c)
	}
	if err := os.Remove(s.path("confirmed.json")); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return fmt.Errorf("confirmed configuration: %w", err)
	}
	return durable.SyncDir(s.Dir)
}
