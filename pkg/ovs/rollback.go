package ovs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/ovsdb"
)

// ErrNothingPending says that no change awaits a confirmation.
var ErrNothingPending = errors.New("no change awaits a confirmation")

// Confirm makes the change called id, or the one that is pending if id is
// empty, permanent.
func (s *Setup) Confirm(ctx context.Context, id string) (string, error) {
	lock, err := s.lock(ctx)
	if err != nil {
		return "", err
	}
	defer lock.Unlock()
	pending, err := s.Store.Pending()
	if err != nil {
		return "", err
	}
	switch {
	case pending == "":
		return "", ErrNothingPending
	case id != "" && id != pending:
		return "", fmt.Errorf("the change %s is not the one that is pending: %s", id, pending)
	}
	point, err := s.Store.Load(pending)
	if err != nil {
		return "", err
	}
	if point.BootID != BootID() {
		return "", fmt.Errorf("the change %s was made before the last boot: it is to be rolled back", pending)
	}
	if time.Now().After(point.Deadline) {
		return "", fmt.Errorf("the change %s had to be confirmed by %s", pending, point.Deadline.Format(time.RFC3339))
	}
	if err := s.record(ctx, false, "ovs.confirm", "notice", "the change "+pending+" is confirmed",
		map[string]any{"id": pending, "hash": point.Hash}); err != nil {
		return "", err
	}
	if err := s.Store.confirm(&Confirmed{Hash: point.Hash, Time: time.Now(), Config: point.Config, Files: point.Files}); err != nil {
		return "", err
	}
	if err := s.Store.done(); err != nil {
		return "", err
	}
	s.Disarm(ctx, pending)
	return pending, nil
}

func (s *Setup) lock(ctx context.Context) (interface{ Unlock() error }, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	return s.Store.Lock(ctx)
}

// Rollback takes the change called id, or the one that is pending if id is
// empty, back. It is ErrNothingPending if that change has been confirmed or
// rolled back.
func (s *Setup) Rollback(ctx context.Context, id string) (string, error) {
	// The process that makes the change may still hold the lock, or hang: it
	// does not keep a host locked out.
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
		return "", err
	}
	if pending == "" || id != "" && id != pending {
		return "", ErrNothingPending
	}
	point, err := s.Store.Load(pending)
	if err != nil {
		return "", err
	}
	if err := s.rollback(ctx, point); err != nil {
		return "", err
	}
	s.Disarm(ctx, pending)
	return pending, nil
}

// rollback brings everything back to a checkpoint. What fails does not keep
// the rest from being tried; the change stays pending then.
func (s *Setup) rollback(ctx context.Context, point *Checkpoint) error {
	s.record(ctx, true, "ovs.rollback.intent", "warning", "the change "+point.ID+" is rolled back",
		map[string]any{"id": point.ID, "hash": point.Hash})
	var errs []error
	errs = append(errs, s.restoreDatabase(ctx, point))
	errs = append(errs, s.forgetNetworkd(ctx, point))
	errs = append(errs, restoreLinks(point.Links))
	if len(point.Before) > 0 {
		errs = append(errs, s.restoreFlows(ctx, point))
	}
	err := errors.Join(errs...)
	if err == nil {
		err = errors.Join(s.Store.refuse(point.Hash), s.Store.done())
	}
	severity, message := "warning", "the change "+point.ID+" was rolled back"
	if err != nil {
		severity, message = "crit", "the change "+point.ID+" could not be rolled back: "+err.Error()
	}
	s.record(ctx, true, "ovs.rollback.outcome", severity, message, map[string]any{"id": point.ID, "hash": point.Hash, "ok": err == nil})
	return err
}

func (s *Setup) restoreDatabase(ctx context.Context, point *Checkpoint) error {
	for try := 0; ; try++ {
		err := s.restoreOnce(ctx, point)
		if err == nil || !errors.Is(err, ovsdb.ErrConflict) || try == 10 {
			return err
		}
	}
}

func (s *Setup) restoreOnce(ctx context.Context, point *Checkpoint) error {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	db, err := s.connect(ctx)
	if err != nil {
		return err
	}
	now, err := TakeSnapshot(ctx, db)
	if err != nil {
		return err
	}
	if bytes.Equal(now.Normalise(), point.Database.Normalise()) {
		return nil
	}
	guard, ops := point.Database.restore(now)
	if len(ops) == 0 {
		return nil // others have added to it, and that stays
	}
	next, err := commit(ctx, db, guard, ops, "gb-ovs-setup rollback "+point.ID)
	if err != nil {
		return err
	}
	// A switch that is dead takes it when it starts: the database is back.
	if err := Settle(ctx, db, next, nil); err != nil {
		s.Log.Warn("the database is back; the switch has not taken it", "error", err)
	}
	return nil
}

func (s *Setup) restoreFlows(ctx context.Context, point *Checkpoint) error {
	before, err := Parse(point.Before)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	db, err := s.connect(ctx)
	if err != nil {
		return err
	}
	state, err := ReadState(ctx, db)
	if err != nil {
		return err
	}
	if err := s.putFlows(ctx, before, state); err != nil {
		s.Log.Warn("flows are not back", "error", err)
	}
	return nil
}

// Boot does what a boot must: it takes back a change that nobody confirmed,
// and applies the confirmed configuration, or fallback where nothing was ever
// confirmed.
func (s *Setup) Boot(ctx context.Context, fallback *Config) (*Outcome, error) {
	pending, err := s.Store.Pending()
	if err != nil {
		return nil, err
	}
	if pending != "" {
		point, err := s.Store.Load(pending)
		if err != nil {
			return nil, err
		}
		if point.BootID == BootID() && time.Now().Before(point.Deadline) {
			return nil, &PendingError{pending} // its own rollback is armed
		}
		if _, err := s.Rollback(ctx, pending); err != nil && !errors.Is(err, ErrNothingPending) {
			return nil, fmt.Errorf("roll back the change %s: %w", pending, err)
		}
		s.Log.Warn("a change that nobody confirmed was rolled back", "id", pending)
	}
	last, err := s.Store.Confirmed()
	if err != nil {
		return nil, err
	}
	if last != nil {
		c, err := Parse(last.Config)
		if err != nil {
			return nil, fmt.Errorf("confirmed configuration: %w", err)
		}
		if fallback != nil && fallback.Hash() != c.Hash() {
			s.Log.Warn("the configuration is not the confirmed one, which is applied", "hint", "gb-ovs-setup apply --confirm-timeout 90s")
		}
		if err := writeNetworkd(last.Files); err != nil {
			return nil, err
		}
		return s.Apply(ctx, c, ApplyOptions{Boot: true})
	}
	if fallback == nil {
		return nil, errors.New("there is neither a confirmed configuration nor another")
	}
	if bad, err := s.Store.Refused(fallback.Hash()); err != nil || bad {
		return nil, errors.Join(err, &RefusedConfigError{fallback.Hash()})
	}
	return s.Apply(ctx, fallback, ApplyOptions{Boot: true})
}
