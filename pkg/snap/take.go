package snap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

// A Taker takes snapshots of one source. It is for one goroutine.
type Taker struct {
	Store    *Store
	Source   string
	Policy   Policy
	Cursors  []string // files whose snapshot stays
	Limits   Limits
	Recorder *Spool       // may be nil: nothing is recorded
	Logger   *slog.Logger // may be nil
	Now      func() time.Time

	lock *durable.Lock

	// What the newest snapshot's files looked like, and until when looking
	// again would take too much of the time.
	stampOf   subvol.UUID
	stamp     subvol.Stamp
	stampNow  subvol.Stamp // of the source, at the last look
	stampRest time.Time

	warned   string
	warnedAt time.Time
}

// An Outcome is what one Take has done.
type Outcome struct {
	Source   subvol.Info
	Snapshot *Snapshot // that was taken, nil if nothing has changed
	Newest   *Snapshot // of the source; the one taken, or the one that is still like the source
	Ahead    bool      // the source differed from its newest snapshot, and no snapshot was taken
	Live     int       // snapshots in the store afterwards
	Took     time.Duration
	Pruned   Pruned
}

// Start checks source and store and locks the store, for as long as the
// process lives or until Stop.
func (t *Taker) Start() error {
	if err := t.check(); err != nil {
		return err
	}
	var err error
	t.lock, err = durable.TryLock(t.Store.dir)
	if errors.Is(err, durable.ErrLocked) {
		return &RunningError{t.Store.dir}
	}
	return err
}

// check fills in what was left out and looks at source and store.
func (t *Taker) check() error {
	if t.Now == nil {
		t.Now = time.Now
	}
	if t.Logger == nil {
		t.Logger = slog.New(slog.DiscardHandler)
	}
	if _, err := t.Store.source(t.Source); err != nil {
		return err
	}
	inside, err := t.Store.btrfs.Inside(t.Store.dir, t.Source)
	if err != nil {
		return err
	}
	if inside {
		return &PlaceError{
			fmt.Sprintf("snapshot directory %s lies in the source %s: each snapshot would change what it is taken of", t.Store.dir, t.Source),
			"use a directory on another subvolume of the same file system",
		}
	}
	if p := t.Policy; p.MaxCount == 1 {
		return &PlaceError{"at most 1 snapshot: the next one could never be compared with the one before", "allow at least 2"}
	}
	return nil
}

// Stop releases the store.
func (t *Taker) Stop() error {
	if t.lock == nil {
		return nil
	}
	return t.lock.Unlock()
}

// Take takes a snapshot if the source differs from its newest one, or if force
// is set, and then prunes. An error of pruning comes with the Outcome of
// taking.
func (t *Taker) Take(ctx context.Context, force bool) (Outcome, error) {
	var o Outcome
	var err error
	if o.Source, err = t.Store.source(t.Source); err != nil {
		return o, err
	}
	list, err := t.Store.List()
	if err != nil {
		return o, err
	}
	o.Live = len(list)
	if n, ok := newest(list, o.Source.UUID); ok {
		o.Newest = &n
	}
	due := force || t.Recorder.Due(t.Now())
	if !due {
		if due, err = t.changed(ctx, o.Source, o.Newest); err != nil {
			return o, err
		}
	}
	if due {
		o.Ahead = true
		if err := t.makeRoom(ctx, &o, list); err != nil {
			return o, err
		}
		// Whatever is appended now is in the snapshot that is due anyway.
		if err := t.Recorder.Flush(ctx, t.Now(), Alive(list)); err != nil {
			t.warn("events wait in the spool", err)
		}
		if err := t.snapshot(&o, force); err != nil {
			return o, t.roomAfter(ctx, &o, err)
		}
		o.Ahead = false
	}
	if o.Pruned.done { // room was made, by the same policy
		return o, nil
	}
	if o.Snapshot != nil {
		list = append(list, *o.Snapshot)
	}
	return o, t.prune(ctx, &o, list, 0, false)
}

// Alive returns a function that says whether a snapshot is in list.
func Alive(list []Snapshot) func(subvol.UUID) bool {
	return func(id subvol.UUID) bool {
		_, ok := find(list, id)
		return ok
	}
}

// warn says that something is wrong that does not stop a tick, and not the
// same each second.
func (t *Taker) warn(message string, err error) {
	if text := message + err.Error(); text != t.warned || time.Since(t.warnedAt) > time.Minute {
		t.Logger.Warn(message, "error", err)
		t.warned, t.warnedAt = text, time.Now()
	}
}

// prune prunes and adds what was done to o.
func (t *Taker) prune(ctx context.Context, o *Outcome, list []Snapshot, room int, full bool) error {
	now := t.Now()
	p, err := t.Store.Prune(ctx, Pruning{
		Policy: t.Policy, Cursors: t.Cursors, Room: room, Full: full, Limits: t.Limits, Now: now, list: list,
		Before: func(list []Verdict) error {
			// Where the log can't be written there may be no room for the
			// spool either, and deleting is what makes room.
			if err := t.Recorder.Deleting(now, list); err != nil {
				t.warn("deletions are not recorded", err)
			}
			return nil
		},
	})
	o.Live -= len(p.Deleted)
	o.Pruned.Deleted = append(o.Pruned.Deleted, p.Deleted...)
	o.Pruned.Left, o.Pruned.Why, o.Pruned.Backlog, o.Pruned.done = p.Left, p.Why, p.Backlog, true
	if err != nil {
		return fmt.Errorf("prune: %w", err)
	}
	return nil
}

// makeRoom prunes where one more snapshot would be more than allowed. If there
// were more than that to begin with, deleting one is room for one: the number
// never rises.
func (t *Taker) makeRoom(ctx context.Context, o *Outcome, list []Snapshot) error {
	if t.Policy.MaxCount == 0 || o.Live < t.Policy.MaxCount {
		return nil
	}
	live, gone := o.Live, len(o.Pruned.Deleted)
	if err := t.prune(ctx, o, list, 1, false); err != nil {
		return err
	}
	if len(o.Pruned.Deleted) == gone && o.Live >= t.Policy.MaxCount {
		why := o.Pruned.Why
		if why == "" {
			why = "all are held or the newest of their source"
		}
		return &FullError{live, t.Policy.MaxCount, why}
	}
	return nil
}

// roomAfter deletes the oldest snapshots if the file system is full, so that a
// later tick may succeed. It returns err.
func (t *Taker) roomAfter(ctx context.Context, o *Outcome, err error) error {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return errors.Join(err, t.prune(ctx, o, nil, 0, true))
}

// changed says whether the source differs from its newest snapshot. The
// transaction id moves with everything that has reached the disk or its log;
// a look at all files finds what has not. That look may take a twentieth of
// the time: the more files, the longer until the next one.
func (t *Taker) changed(ctx context.Context, src subvol.Info, newest *Snapshot) (bool, error) {
	if newest == nil || src.CTransID != newest.CTransID {
		return true, nil
	}
	begin := time.Now()
	if begin.Before(t.stampRest) {
		return false, nil
	}
	if t.stampOf != newest.UUID {
		stamp, err := t.Store.btrfs.Stamp(ctx, t.Store.Path(*newest))
		if err != nil {
			return false, fmt.Errorf("snapshot %s: %w", newest.Name, err)
		}
		t.stampOf, t.stamp = newest.UUID, stamp
	}
	stamp, err := t.Store.btrfs.Stamp(ctx, t.Source)
	if err != nil {
		return false, fmt.Errorf("source: %w", err)
	}
	end := time.Now()
	t.stampRest = end.Add(19*end.Sub(begin) - 20*time.Millisecond)
	t.stampNow = stamp
	return stamp != t.stamp, nil
}

// snapshot takes one and puts it into o. One that turns out to be like the one
// before is deleted at once, unless it was asked for.
func (t *Taker) snapshot(o *Outcome, force bool) error {
	now := t.Now()
	begin := time.Now()
	name := Name(now)
	for {
		err := t.Store.btrfs.Snapshot(t.Source, filepath.Join(t.Store.dir, name))
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) {
			return t.explain(err)
		}
		now = now.Add(1) // the clock stood still, or was set back to this very nanosecond
		name = Name(now)
	}
	o.Took = time.Since(begin)
	info, err := t.Store.btrfs.Info(filepath.Join(t.Store.dir, name))
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", name, err)
	}
	at, _ := ParseName(name)
	sn := Snapshot{name, at, info}
	if o.Newest != nil && info.CTransID == o.Newest.CTransID && !force {
		if err := t.Store.btrfs.Delete(t.Store.dir, name, info.ID); err != nil && !errors.Is(err, syscall.EPERM) {
			return fmt.Errorf("snapshot %s: nothing has changed: %w", name, err)
		} else if err == nil {
			// What the stamp saw was no change of content. Not to see it
			// again, compare with the source as it was then.
			t.stampOf, t.stamp = o.Newest.UUID, t.stampNow
			return nil
		}
	}
	t.Store.known[name] = sn
	o.Snapshot, o.Newest = &sn, &sn
	o.Live++
	if err := t.Recorder.Taken(now, sn); err != nil {
		t.warn("snapshot is not recorded", err)
	}
	return nil
}

// explain adds what a person can do about an errno of taking a snapshot.
func (t *Taker) explain(err error) error {
	hint := ""
	switch {
	case errors.Is(err, syscall.EXDEV):
		hint = fmt.Sprintf("%s and %s must be on the same btrfs file system", t.Source, t.Store.dir)
	case errors.Is(err, syscall.ENOSPC):
		hint = "the file system is full; gb-snap prune --keep N, or --min-free, makes room"
	case errors.Is(err, syscall.EROFS):
		hint = "the file system is mounted read-only; dmesg may say why"
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		hint = "snapshots of what another user owns need root"
	}
	return &hintedError{err, hint}
}

type hintedError struct {
	error
	hint string
}

func (e *hintedError) Unwrap() error { return e.error }
func (e *hintedError) Hint() string  { return e.hint }

// Plan says whether Take would take a snapshot now, and what it would keep and
// delete, without doing it.
func (t *Taker) Plan(ctx context.Context, force bool) (due bool, plan []Verdict, err error) {
	if err := t.check(); err != nil {
		return false, nil, err
	}
	src, err := t.Store.source(t.Source)
	if err != nil {
		return false, nil, err
	}
	list, err := t.Store.List()
	if err != nil {
		return false, nil, err
	}
	due = force
	if !due {
		var last *Snapshot
		if n, ok := newest(list, src.UUID); ok {
			last = &n
		}
		if due, err = t.changed(ctx, src, last); err != nil {
			return false, nil, err
		}
	}
	p := Pruning{Policy: t.Policy, Cursors: t.Cursors, Now: t.Now()}
	if due {
		p.Room = 1
	}
	plan, err = t.Store.Plan(p)
	return due, plan, err
}
