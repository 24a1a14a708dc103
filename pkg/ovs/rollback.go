package ovs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/ovsdb"
	"github.com/ghostbridge/ghostbridge/pkg/rtnetlink"
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
	if !point.thisBoot() {
		return "", fmt.Errorf("the change %s was made before the last boot: it is to be rolled back", pending)
	}
	if point.overdue() {
		return "", fmt.Errorf("the change %s had to be confirmed by %s", pending, point.Deadline.Format(time.RFC3339))
	}
	if err := s.record(ctx, false, "ovs.confirm", "notice", "the change "+pending+" is confirmed",
		map[string]any{"id": pending, "hash": point.Hash}); err != nil {
		return "", err
	}
	c, err := Parse(point.Config)
	if err != nil {
		return "", err
	}
	if err := s.confirmed(c, point.Files); err != nil {
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
	errs = append(errs, s.restoreFlows(ctx, point))
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

// restoreFlows puts back what flows there were, and over them those of the
// configuration that was in force, which know the ports as they are now.
func (s *Setup) restoreFlows(ctx context.Context, point *Checkpoint) error {
	if len(point.Flows) == 0 && len(point.Before) == 0 {
		return nil
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
	for _, bridge := range names(point.Flows) {
		if byName(state.Bridges, bridge) == nil {
			continue
		}
		if err := s.flows().Restore(ctx, bridge, point.Flows[bridge]); err != nil {
			s.Log.Warn("flows are not back", "error", err)
		}
	}
	if len(point.Before) == 0 {
		return nil
	}
	before, err := Parse(point.Before)
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
		if err := s.bootPending(ctx, pending); err != nil {
			return nil, err
		}
	}
	c, last, err := s.Store.confirmedConfig()
	if err != nil {
		return nil, err
	}
	if c != nil {
		if fallback != nil && fallback.Hash() != c.Hash() {
			s.Log.Warn("the configuration is not the confirmed one, which is applied", "hint", "gb-ovs-setup apply --confirm-timeout 90s")
		}
		out, err := s.Apply(ctx, c, ApplyOptions{Boot: true})
		return out, errors.Join(err, s.bootFiles(ctx, c, last.Files))
	}
	if fallback == nil {
		return nil, errors.New("there is neither a confirmed configuration nor another")
	}
	if bad, err := s.Store.Refused(fallback.Hash()); err != nil || bad {
		return nil, errors.Join(err, &RefusedConfigError{fallback.Hash()})
	}
	for _, name := range names(fallback.Bridges) {
		if up := fallback.Bridges[name].uplink(); up != "" && !addressed(name) {
			return nil, &UnaddressedError{name, up}
		}
	}
	return s.Apply(ctx, fallback, ApplyOptions{Boot: true})
}

// bootPending takes a change back that nobody confirmed before the boot.
func (s *Setup) bootPending(ctx context.Context, id string) error {
	point, err := s.Store.Load(id)
	if err != nil {
		// Nothing brings back what was there before it. What was confirmed last
		// is what comes nearest.
		s.Log.Error("a change that nobody confirmed can't be rolled back", "id", id, "error", err)
		s.record(ctx, true, "ovs.rollback.outcome", "crit", "the change "+clip(id)+" could not be rolled back: "+clip(err.Error()),
			map[string]any{"id": clip(id), "ok": false})
		return s.Store.done()
	}
	if !point.overdue() {
		return &PendingError{id} // its own rollback is armed
	}
	if _, err := s.Rollback(ctx, id); err != nil && !errors.Is(err, ErrNothingPending) {
		return fmt.Errorf("roll back the change %s: %w", id, err)
	}
	s.Log.Warn("a change that nobody confirmed was rolled back", "id", id)
	return nil
}

// bootFiles tells networkd, before it starts, to run the bridges instead of
// their uplinks: those bridges that the switch has brought up. The uplink of
// another keeps its own file, and the host its address.
func (s *Setup) bootFiles(ctx context.Context, c *Config, files map[string]string) error {
	if len(files) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	db, err := s.connect(ctx)
	if err != nil {
		return nil // what Apply has said
	}
	state, err := ReadState(ctx, db)
	if err != nil {
		return err
	}
	links, err := rtnetlink.Links()
	if err != nil {
		return err
	}
	write := make(map[string]string)
	var told []string
	for _, name := range names(c.Bridges) {
		up := c.Bridges[name].uplink()
		if up == "" {
			continue
		}
		// The rows are those of the boot before if the switch is dead; the
		// bridge's link is not.
		_, made := links[name]
		if !made || judge(sortedRows(state.Interfaces), []string{name, up}) != nil {
			s.Log.Warn("the uplink keeps its addresses, since its bridge is not up", "bridge", name, "uplink", up)
			continue
		}
		for _, link := range []string{name, up} {
			text, ok := files[fileOf(link)]
			if have, err := os.ReadFile(fileOf(link)); !ok || err == nil && string(have) == text && networkdFile(link) == fileOf(link) {
				continue // a restart takes no lease away
			}
			write[fileOf(link)] = text
			told = append(told, link)
		}
	}
	if len(told) == 0 {
		return nil
	}
	if err := writeNetworkd(write); err != nil {
		return err
	}
	return reloadNetworkd(ctx, s, told...)
}

// An UnaddressedError says that a boot leaves the host as it is, since a
// configuration that nobody ever confirmed would take it off the network.
type UnaddressedError struct{ Bridge, Uplink string }

func (e *UnaddressedError) Error() string {
	return fmt.Sprintf("this configuration was never confirmed, and nothing would give %s the addresses that %s has", e.Bridge, e.Uplink)
}

// ExitCode is that of wrong configuration.
func (e *UnaddressedError) ExitCode() int { return 2 }

// Hint says what to do.
func (e *UnaddressedError) Hint() string {
	return fmt.Sprintf("gb-ovs-setup apply --confirm-timeout 90s && gb-ovs-setup confirm; or gb-ovs-setup render networkd %s > /etc/systemd/network/20-%[1]s.network", e.Bridge)
}
