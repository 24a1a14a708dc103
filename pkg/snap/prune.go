package snap

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"
	"time"
)

// Limits bound what pruning does at once.
type Limits struct {
	Deletes int // at a time; 0 for no bound
	Backlog int // deleted snapshots that the cleaner has not finished with, above which none is deleted; 0 for no bound
}

// DefaultLimits are right for a run each second.
var DefaultLimits = Limits{Deletes: 8, Backlog: 64}

// Pruned is what Prune has done.
type Pruned struct {
	Deleted []Verdict
	Left    int    // verdicts to drop that were not carried out
	Why     string // they were not
	Backlog int    // of the cleaner, before

	done bool // Taker has pruned in this tick
}

// A Pruning is what to prune by.
type Pruning struct {
	Policy  Policy
	Cursors []string // files whose snapshot stays
	Room    int      // snapshots that are about to be taken
	Full    bool     // the file system has no room: the oldest go, whatever the policy
	Limits  Limits
	Now     time.Time

	// Before, if not nil, is told what is about to be deleted. After an error
	// nothing is.
	Before func([]Verdict) error

	// What List has returned a moment ago; nil to ask again. Only who has the
	// lock on the store knows that nothing has come since, and what has gone
	// does no harm.
	list []Snapshot
}

// Plan returns what p says of the store's snapshots, without doing it.
func (s *Store) Plan(p Pruning) ([]Verdict, error) {
	list := p.list
	if list == nil {
		var err error
		if list, err = s.List(); err != nil {
			return nil, err
		}
	}
	holders, err := s.Holders(list, p.Cursors)
	if err != nil {
		return nil, err
	}
	st := State{Now: p.Now, Snapshots: list, Holders: holders, Room: p.Room, Full: p.Full}
	if p.Policy.MinFree > 0 {
		sp, err := s.btrfs.Space(s.dir)
		if err != nil {
			return nil, fmt.Errorf("free space: %w", err)
		}
		st.Available = sp.Available
	}
	return p.Policy.Plan(st), nil
}

// Prune deletes what the policy drops, the oldest first, within the limits.
//
// A snapshot that is being sent stays, as the kernel refuses to delete it.
func (s *Store) Prune(ctx context.Context, p Pruning) (Pruned, error) {
	// A look without the lock: mostly there is nothing to do.
	if p.Room == 0 {
		plan, err := s.Plan(p)
		if err != nil || !slices.ContainsFunc(plan, dropped) {
			return Pruned{}, err
		}
	}
	l, err := s.lockHolds(ctx)
	if err != nil {
		return Pruned{}, err
	}
	defer l.Unlock()
	plan, err := s.Plan(p)
	if err != nil {
		return Pruned{}, err
	}
	return s.carryOut(plan, p)
}

func dropped(v Verdict) bool { return !v.Keep }

// carryOut deletes what plan drops. The caller has the lock on the holds, and
// plan was made under it.
func (s *Store) carryOut(plan []Verdict, p Pruning) (Pruned, error) {
	var done Pruned
	drop := slices.DeleteFunc(plan, func(v Verdict) bool { return v.Keep })
	if done.Left = len(drop); done.Left == 0 {
		return done, nil
	}
	var err error
	if done.Backlog, err = s.btrfs.Backlog(s.dir); err != nil {
		return done, err
	}
	if p.Limits.Backlog > 0 && done.Backlog > p.Limits.Backlog {
		done.Why = fmt.Sprintf("the cleaner has %d deleted snapshots to finish", done.Backlog)
		return done, nil
	}
	if n := p.Limits.Deletes; n > 0 && len(drop) > n {
		done.Why = fmt.Sprintf("no more than %d at a time", n)
		drop = drop[:n]
	}
	if p.Before != nil {
		if err := p.Before(drop); err != nil {
			return done, err
		}
	}
	for _, v := range drop {
		err := s.btrfs.Delete(s.dir, v.Name, v.ID)
		switch {
		case errors.Is(err, syscall.EPERM):
			done.Why = fmt.Sprintf("%s is being sent, or this user may not delete it", v.Name)
			continue
		case errors.Is(err, fs.ErrNotExist): // somebody else did
		case err != nil:
			return done, err
		default:
			done.Deleted = append(done.Deleted, v)
		}
		delete(s.known, v.Name)
		done.Left--
	}
	return done, nil
}
