package ovs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/ovsdb"
)

// Commit does what the plan says to the database, in one transaction, and
// returns the configuration number that the switch reaches when it has taken
// it. If the database is no longer as the plan read it, nothing is done and
// the error is ovsdb.ErrConflict. It must not be called with a plan that has
// no change of the database.
func (p *Plan) Commit(ctx context.Context, db DB, comment string) (int64, error) {
	return commit(ctx, db, p.guard, p.ops, comment)
}

// ChangesDatabase says whether Commit has something to do.
func (p *Plan) ChangesDatabase() bool { return len(p.ops) > 0 }

func commit(ctx context.Context, db DB, guard, ops []ovsdb.Operation, comment string) (int64, error) {
	all := slices.Concat(guard, ops, []ovsdb.Operation{
		ovsdb.Mutate(Database, "", "next_cfg", "+=", int64(1)),
		ovsdb.Select(Database, "", "next_cfg"),
		ovsdb.Comment(comment),
	})
	res, err := db.Transact(ctx, Database, all...)
	if err != nil {
		return 0, fmt.Errorf("change the switch's database: %w", err)
	}
	rows := res[len(all)-2].Rows
	if len(rows) != 1 {
		return 0, ErrEmptyDatabase
	}
	next, _ := rows[0].Int("next_cfg")
	return next, nil
}

// A Fault is an interface that the switch could not bring up.
type Fault struct {
	Interface string `json:"interface"`
	Reason    string `json:"reason"`
}

func (f Fault) String() string { return f.Interface + ": " + f.Reason }

// A FaultsError is a change that the switch took, but could not do in full.
type FaultsError struct{ Faults []Fault }

func (e *FaultsError) Error() string {
	var s []string
	for _, f := range e.Faults {
		s = append(s, f.String())
	}
	return "the switch could not bring up " + strings.Join(s, "; ")
}

// A DeadSwitchError says that ovs-vswitchd did not take a change in time.
type DeadSwitchError struct {
	Waited time.Duration
	Err    error
}

func (e *DeadSwitchError) Error() string {
	return fmt.Sprintf("ovs-vswitchd has not taken the change after %s", e.Waited.Round(100*time.Millisecond))
}
func (e *DeadSwitchError) Unwrap() error { return e.Err }

// Hint says what to look at.
func (e *DeadSwitchError) Hint() string {
	return "is ovs-vswitchd running? systemctl status openvswitch-switch; the change is in the database and is taken when it starts"
}

// Settle waits until the switch has taken configuration next, and judges each
// interface by what the switch has written about it.
func Settle(ctx context.Context, db DB, next int64, interfaces []string) error {
	state, err := settled(ctx, db, next)
	if err != nil {
		return err
	}
	return judge(sortedRows(state.Interfaces), interfaces)
}

// settleLimit is how long the switch may take where ctx has no deadline.
const settleLimit = time.Minute

// settled waits until the switch has taken configuration next, and returns
// what the database holds at that moment. The server does the waiting: it
// answers as soon as cur_cfg is there.
func settled(ctx context.Context, db DB, next int64) (*State, error) {
	begin, limit := time.Now(), settleLimit
	if deadline, ok := ctx.Deadline(); ok {
		// A server that is well says so before ctx ends, and it is the switch
		// that is dead.
		left := time.Until(deadline)
		limit = left - min(left/4, 500*time.Millisecond)
	}
	state, err := readState(ctx, db, ovsdb.Await(Database, "cur_cfg", next, limit))
	if errors.Is(err, ovsdb.ErrConflict) {
		return nil, &DeadSwitchError{time.Since(begin), context.DeadlineExceeded}
	}
	return state, err
}

// judge returns a *FaultsError if an interface is not up.
func judge(rows []ovsdb.Row, interfaces []string) error {
	var faults []Fault
	for _, name := range interfaces {
		i := slices.IndexFunc(rows, func(r ovsdb.Row) bool { return r.String("name") == name })
		if i < 0 {
			faults = append(faults, Fault{name, "is gone from the database"})
			continue
		}
		if f := faultOf(rows[i]); f != "" {
			faults = append(faults, Fault{name, f})
		}
	}
	if len(faults) > 0 {
		return &FaultsError{faults}
	}
	return nil
}

// faultOf says what is wrong with an interface, "" if nothing is.
func faultOf(r ovsdb.Row) string {
	if e := r.String("error"); e != "" {
		return e
	}
	if port, ok := r.Int("ofport"); !ok {
		return "has no OpenFlow port: the switch has not made it"
	} else if port < 0 {
		return "has no OpenFlow port: the switch could not make it"
	}
	return ""
}
