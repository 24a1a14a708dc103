package hoststate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/ovs"
)

// An Engine plans, applies and takes back.
type Engine struct {
	Plugins []Plugin
	Store   *Store
	Log     *slog.Logger
	// Tell is called with a copy of a change, after each of its steps with that
	// step's number, and else, when it has come to rest, with -1; may be nil.
	Tell func(c Change, step int)

	mu sync.Mutex // covers one change of the host at a time, in this process
}

// Times that bound what must not hang.
const (
	undoTime    = 2 * time.Minute // for each action that is taken back
	pollEvery   = 200 * time.Millisecond
	MinConfirm  = time.Second
	MaxConfirm  = 24 * time.Hour
	maxSignaled = 4096 // bytes of an error in a change
)

// settleTime is how long the host may take to be as it was told; a test's is
// shorter.
var settleTime = 10 * time.Second

// order returns the plugins so that each comes after those it names.
func (e *Engine) order() []Plugin {
	abouts := make(map[string]About)
	byName := make(map[string]Plugin)
	var names []string
	for _, p := range e.Plugins {
		a := p.About()
		abouts[a.Name], byName[a.Name] = a, p
		names = append(names, a.Name)
	}
	var list []Plugin
	done := make(map[string]bool)
	var add func(name string)
	add = func(name string) {
		p, known := byName[name]
		if done[name] || !known {
			return
		}
		done[name] = true
		for _, before := range abouts[name].After {
			add(before)
		}
		list = append(list, p)
	}
	for _, n := range names {
		add(n)
	}
	return list
}

func (e *Engine) plugin(name string) Plugin {
	for _, p := range e.Plugins {
		if p.About().Name == name {
			return p
		}
	}
	return nil
}

// A Listed is a plugin, and why it can't be used on this host, "" if it can.
type Listed struct {
	About
	Unavailable string `json:"unavailable,omitempty"`
}

// List returns what each plugin says of itself.
func (e *Engine) List(ctx context.Context) []Listed {
	list := make([]Listed, 0, len(e.Plugins))
	for _, p := range e.order() {
		list = append(list, Listed{p.About(), p.Available(ctx)})
	}
	return list
}

// Plan compares a document with the host. It changes nothing.
func (e *Engine) Plan(ctx context.Context, d *Document) (*Plan, error) {
	p := &Plan{Version: 1, Document: d.Hash(), Actions: []Action{}, Differences: []Difference{}, Basis: map[string]json.RawMessage{}}
	for _, plugin := range e.order() {
		if err := plugin.Plan(ctx, d, p); err != nil {
			return nil, fmt.Errorf("%s: %w", plugin.About().Name, err)
		}
	}
	p.seal()
	return p, nil
}

// Read returns the state of the named plugins, or of all that are there, as a
// document has it.
func (e *Engine) Read(ctx context.Context, names []string) (map[string]any, error) {
	out := make(map[string]any)
	for _, n := range names {
		if e.plugin(n) == nil {
			return nil, e.unknownPlugin(n)
		}
	}
	for _, p := range e.order() {
		a := p.About()
		if len(names) > 0 && !slices.Contains(names, a.Name) || len(names) == 0 && p.Available(ctx) != "" {
			continue
		}
		v, err := p.Read(ctx, nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.Name, err)
		}
		out[a.Name] = v
	}
	return out, nil
}

func (e *Engine) unknownPlugin(name string) error {
	var known []string
	for _, p := range e.Plugins {
		known = append(known, p.About().Name)
	}
	err := wrong("", "there is no plugin %.64q", name)
	err.Advice = suggestion(name, known)
	return err
}

// A PlanChangedError says that the host, or the document, is no longer what the
// plan was made of: nothing was done.
type PlanChangedError struct{ Want, Have string }

func (e *PlanChangedError) Error() string {
	return fmt.Sprintf("the plan %.12s is out of date: what it was made of has changed, and it would be %.12s now; nothing was done", e.Want, e.Have)
}

// Hint says what to do.
func (e *PlanChangedError) Hint() string { return "opdbus plan shows what would be done now" }

// DBusName is the error's name on the bus.
func (e *PlanChangedError) DBusName() string { return "org.freedesktop.opdbus.Error.PlanChanged" }

// A BlockedError says that a plan has what can't be done here: nothing was done.
type BlockedError struct{ List []Blocked }

func (e *BlockedError) Error() string {
	var s []string
	for _, b := range e.List {
		s = append(s, fmt.Sprintf("%s.%s: %s", b.Plugin, b.Path, b.Reason))
	}
	return "can't be done here, so nothing was: " + strings.Join(s, "; ")
}

// Hint is what to do instead.
func (e *BlockedError) Hint() string {
	var s []string
	for _, b := range e.List {
		if b.Nix != "" {
			s = append(s, "in the NixOS configuration: "+b.Nix)
		} else if b.Hint != "" {
			s = append(s, b.Hint)
		}
	}
	return strings.Join(append(s, "--partial does the rest"), "\n")
}

// DBusName is the error's name on the bus.
func (e *BlockedError) DBusName() string { return "org.freedesktop.opdbus.Error.Blocked" }

// A BusyError says that another change is under way or awaits its confirmation.
type BusyError struct {
	ID      string // "" if another process has the lock
	Pending bool
}

func (e *BusyError) Error() string {
	switch {
	case e.Pending:
		return "the change " + e.ID + " awaits its confirmation"
	case e.ID != "":
		return "the change " + e.ID + " is under way"
	}
	return "another change is under way"
}

// ExitCode says that the same may work later.
func (e *BusyError) ExitCode() int { return 75 }

// Hint says what to do.
func (e *BusyError) Hint() string {
	if e.Pending {
		return fmt.Sprintf("opdbus confirm %s, or opdbus rollback %[1]s", e.ID)
	}
	return ""
}

// DBusName is the error's name on the bus.
func (e *BusyError) DBusName() string { return "org.freedesktop.opdbus.Error.Busy" }

// A RolledBackError says that a change failed and was taken back.
type RolledBackError struct {
	Change *Change
	Err    error
}

func (e *RolledBackError) Error() string {
	if e.Change.Result == ResultFailed {
		return fmt.Sprintf("change %s failed, and could not be taken back in full: %v", e.Change.ID, e.Err)
	}
	return fmt.Sprintf("change %s failed and was rolled back: %v", e.Change.ID, e.Err)
}
func (e *RolledBackError) Unwrap() error { return e.Err }

// Hint says where the report is.
func (e *RolledBackError) Hint() string { return "opdbus changes " + e.Change.ID + " has the report" }

// DBusName is the error's name on the bus.
func (e *RolledBackError) DBusName() string {
	if e.Change.Result == ResultFailed {
		return "org.freedesktop.opdbus.Error.RollbackFailed"
	}
	return "org.freedesktop.opdbus.Error.RolledBack"
}

// DoOptions are for a plugin's action.
type DoOptions struct {
	// Deadline is when the whole change goes back unless somebody confirms it;
	// zero if it is not to be confirmed.
	Deadline time.Time
	// Keep makes durable what Undo will get, should this process end before Do
	// returns it.
	Keep func(kept json.RawMessage) error
}

// ApplyOptions are for Apply.
type ApplyOptions struct {
	Plan    string        // hash of the plan that is meant; "" for whatever it is
	Confirm time.Duration // if not 0, it goes back unless it is confirmed in this time
	Partial bool          // do what can be done although some can't
	By      string        // actor
	Intent  string        // id of the event that the change is part of
}

// acquire makes this the only change under way. With the lock it returns the
// change that awaits its confirmation, or was cut off.
func (e *Engine) acquire() (current *Change, release func(), err error) {
	if !e.mu.TryLock() {
		return nil, nil, &BusyError{}
	}
	lock, err := e.Store.lock()
	if errors.Is(err, durable.ErrLocked) {
		err = &BusyError{}
	}
	if err == nil {
		if current, err = e.Store.Current(); err == nil {
			return current, func() { lock.Unlock(); e.mu.Unlock() }, nil
		}
		lock.Unlock()
	}
	e.mu.Unlock()
	return nil, nil, err
}

// Apply brings the host to the document. It returns the change, with a
// *RolledBackError if it failed and was taken back.
func (e *Engine) Apply(ctx context.Context, g Gate, d *Document, o ApplyOptions) (*Change, error) {
	if o.Confirm != 0 && (o.Confirm < MinConfirm || o.Confirm > MaxConfirm) {
		return nil, wrong("", "a time to confirm of %s: want %s to %s", o.Confirm, MinConfirm, MaxConfirm)
	}
	current, release, err := e.acquire()
	if err != nil {
		return nil, err
	}
	defer release()
	if current != nil {
		return nil, &BusyError{current.ID, current.Result == ResultPending}
	}
	plan, err := e.Plan(ctx, d)
	if err != nil {
		return nil, err
	}
	if o.Plan != "" && o.Plan != plan.Hash {
		return nil, &PlanChangedError{o.Plan, plan.Hash}
	}
	if len(plan.Blocked) > 0 && !o.Partial {
		return nil, &BlockedError{plan.Blocked}
	}
	inForce, err := e.Store.InForce()
	if err != nil {
		return nil, err
	}
	id, err := e.Store.newID()
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	c := &Change{ID: id, Time: now, By: o.By, Intent: o.Intent, Result: ResultApplying, Plan: plan, Steps: make([]Step, len(plan.Actions)),
		Document: d.Bytes(), BootID: ovs.BootID()}
	if inForce != nil {
		c.InForce = mustJSON(inForce)
	}
	for i := range c.Steps {
		c.Steps[i] = Step{Title: plan.Actions[i].Title(), State: StepWaiting}
	}
	if len(plan.Actions) == 0 {
		c.Result, c.Ended = ResultNothing, now
		if inForce != nil && string(inForce.Document) == string(c.Document) {
			c.ID = inForce.Change
			return c, nil
		}
		if err := errors.Join(e.Store.setInForce(&InForce{c.ID, c.Document}), e.Store.settle(c)); err != nil {
			return c, err
		}
		e.tell(c, -1)
		return c, nil
	}
	if o.Confirm != 0 {
		c.ConfirmBy, c.DeadlineUp = now.Add(o.Confirm), uptime()+o.Confirm
	}
	if err := e.Store.save(c); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if err := e.run(ctx, g, d, c); err != nil {
		c.Error = clip(err.Error())
		return c, &RolledBackError{c, errors.Join(err, e.undo(ctx, g, c, "it failed"))}
	}
	if o.Confirm != 0 {
		c.Result = ResultPending
		if err := e.Store.save(c); err != nil {
			c.Error = clip(err.Error())
			return c, &RolledBackError{c, errors.Join(err, e.undo(ctx, g, c, "it failed"))}
		}
		e.tell(c, -1)
		return c, nil
	}
	if err := e.commit(ctx, c); err != nil {
		c.Error = clip(err.Error())
		return c, &RolledBackError{c, errors.Join(err, e.undo(ctx, g, c, "it failed"))}
	}
	return c, nil
}

func clip(s string) string {
	if len(s) > maxSignaled {
		s = strings.ToValidUTF8(s[:maxSignaled], "") + "..."
	}
	return s
}

func (e *Engine) tell(c *Change, step int) {
	if e.Tell != nil {
		copied := *c
		copied.Steps = slices.Clone(c.Steps)
		e.Tell(copied, step)
	}
}

// run does the actions and looks whether all is as it should be.
func (e *Engine) run(ctx context.Context, g Gate, d *Document, c *Change) error {
	for i := range c.Plan.Actions {
		a, s := &c.Plan.Actions[i], &c.Steps[i]
		if err := ctx.Err(); err != nil {
			return err
		}
		s.State = StepStarted
		if err := e.Store.save(c); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		start := time.Now()
		kept, err := e.plugin(a.Plugin).Do(ctx, g, a, DoOptions{Deadline: c.ConfirmBy, Keep: func(kept json.RawMessage) error {
			s.Kept = kept
			return e.Store.save(c)
		}})
		s.Milliseconds = float64(time.Since(start).Microseconds()) / 1000
		if kept != nil {
			s.Kept = kept
		}
		s.State = StepDone
		if err != nil {
			// It may have been done in part: taking it back is tried too.
			s.State, s.Error = StepFailed, clip(err.Error())
		}
		if serr := e.Store.save(c); serr != nil {
			err = errors.Join(err, fmt.Errorf("journal: %w", serr))
		}
		e.tell(c, i)
		if err != nil {
			return fmt.Errorf("%s: %w", a.Title(), err)
		}
	}
	return e.verify(ctx, d)
}

// A VerifyError says that all was done, and yet not all is as it should be.
type VerifyError struct{ Left []string }

func (e *VerifyError) Error() string {
	return "still not as it should be: " + strings.Join(e.Left, ", ")
}

// verify reads again. What is still on its way gets a moment.
func (e *Engine) verify(ctx context.Context, d *Document) error {
	for deadline := time.Now().Add(settleTime); ; {
		p, err := e.Plan(ctx, d)
		if err != nil {
			return fmt.Errorf("verify: %w", err)
		}
		if len(p.Actions) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			left := &VerifyError{}
			for i := range p.Actions {
				left.Left = append(left.Left, p.Actions[i].Title())
			}
			return left
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}

// commit makes a change permanent. Once it is written down that it is to be,
// the way is forward: Recover commits it again.
func (e *Engine) commit(ctx context.Context, c *Change) error {
	ctx = context.WithoutCancel(ctx)
	c.Result = ResultCommitting
	if err := e.Store.save(c); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	for i := range c.Plan.Actions {
		if p, ok := e.plugin(c.Plan.Actions[i].Plugin).(committer); ok {
			if err := p.Commit(ctx, &c.Plan.Actions[i], c.Steps[i].Kept); err != nil {
				return fmt.Errorf("commit %s: %w", c.Steps[i].Title, err)
			}
		}
	}
	c.Result, c.Ended = ResultApplied, time.Now().UTC()
	if err := e.Store.setInForce(&InForce{c.ID, c.Document}); err != nil {
		return err
	}
	if err := e.Store.settle(c); err != nil {
		return err
	}
	e.tell(c, -1)
	return nil
}

// undo takes back what was done of c, last first. What fails does not keep the
// rest from being tried.
func (e *Engine) undo(ctx context.Context, g Gate, c *Change, reason string) error {
	ctx = context.WithoutCancel(ctx) // also after a Ctrl-C
	c.Result, c.Reason = ResultUndoing, reason
	var errs []error
	if err := e.Store.save(c); err != nil {
		// The journal that is there still says that it was begun.
		errs = append(errs, fmt.Errorf("journal: %w", err))
	}
	booted := !ovs.ThisBoot(c.BootID, c.Time)
	undone := make(map[string][]*Action) // by plugin
	failed := false
	for i := len(c.Steps) - 1; i >= 0; i-- {
		a, s := &c.Plan.Actions[i], &c.Steps[i]
		switch s.State {
		case StepWaiting, StepUndone, StepStays:
			continue
		}
		switch {
		case a.Irreversible != "":
			s.State = StepStays
			s.UndoError = a.Irreversible
			failed = failed || s.Error == "" || s.Kept != nil
		case a.Runtime && booted, a.Undo == nil:
			s.State = StepUndone
		default:
			p := e.plugin(a.Plugin)
			if p == nil {
				failed, s.State, s.UndoError = true, StepUndoFailed, "this program has no such plugin"
				break
			}
			uctx, cancel := context.WithTimeout(ctx, undoTime)
			err := p.Undo(uctx, g, a, s.Kept)
			cancel()
			undone[a.Plugin] = append(undone[a.Plugin], a)
			s.State = StepUndone
			if err != nil {
				failed, s.State, s.UndoError = true, StepUndoFailed, clip(err.Error())
				errs = append(errs, fmt.Errorf("take back %s: %w", s.Title, err))
			}
		}
		if err := e.Store.save(c); err != nil {
			errs = append(errs, fmt.Errorf("journal: %w", err))
		}
		e.tell(c, i)
	}
	for _, name := range keys(undone) {
		if p, ok := e.plugin(name).(settler); ok {
			uctx, cancel := context.WithTimeout(ctx, undoTime)
			if err := p.Settle(uctx, g, undone[name]); err != nil {
				failed = true
				errs = append(errs, err)
			}
			cancel()
		}
	}
	c.Result, c.Ended = ResultRolledBack, time.Now().UTC()
	if failed {
		c.Result = ResultFailed
	}
	var before *InForce
	if len(c.InForce) > 0 {
		before = new(InForce)
		if err := json.Unmarshal(c.InForce, before); err != nil {
			errs = append(errs, err)
			before = nil
		}
	}
	errs = append(errs, e.Store.setInForce(before), e.Store.settle(c))
	e.tell(c, -1)
	return errors.Join(errs...)
}

// Confirm makes the change that awaits it permanent. id may be empty. If that
// fails it is taken back.
func (e *Engine) Confirm(ctx context.Context, g Gate, id string) (*Change, error) {
	c, release, err := e.acquire()
	if err != nil {
		return nil, err
	}
	defer release()
	switch {
	case c == nil || c.Result != ResultPending:
		return nil, &NoChangeError{id, "no change awaits a confirmation"}
	case id != "" && id != c.ID:
		return nil, &NoChangeError{id, "it does not await a confirmation; " + c.ID + " does"}
	case c.overdue():
		return nil, &NoChangeError{c.ID, "it had to be confirmed by " + c.ConfirmBy.Format(time.RFC3339)}
	}
	if err := e.commit(ctx, c); err != nil {
		c.Error = clip(err.Error())
		return c, &RolledBackError{c, errors.Join(err, e.undo(ctx, g, c, "it could not be made permanent"))}
	}
	return c, nil
}

// Finish makes a change permanent whose commit was cut off.
func (e *Engine) Finish(ctx context.Context) (*Change, error) {
	c, release, err := e.acquire()
	if err != nil {
		return nil, err
	}
	defer release()
	if c == nil || c.Result != ResultCommitting {
		return nil, nil
	}
	return c, e.commit(ctx, c)
}

// Target returns the change that Rollback of id would take back: the one that
// is under way, or else the last one that stayed. id may be empty; another
// one's is refused, since later changes stand on it.
func (e *Engine) Target(id string) (*Change, error) {
	c, err := e.Store.Current()
	if err != nil {
		return nil, err
	}
	if c == nil {
		all, err := e.Store.Changes()
		if err != nil {
			return nil, err
		}
		for _, x := range all {
			again := x.Result == ResultFailed && slices.ContainsFunc(x.Steps, func(s Step) bool { return s.State == StepUndoFailed })
			if x.Result == ResultApplied || again {
				c = x
				break
			}
		}
	}
	switch {
	case c == nil:
		return nil, &NoChangeError{id, "there is no change to take back"}
	case id != "" && id != c.ID:
		if _, err := e.Store.Get(id); err != nil {
			return nil, err
		}
		return nil, &NoChangeError{id, "only the latest change, " + c.ID + ", can be taken back"}
	}
	return c, nil
}

// Rollback takes a change back: the one called id, see Target.
func (e *Engine) Rollback(ctx context.Context, g Gate, id, reason string) (*Change, error) {
	_, release, err := e.acquire()
	if err != nil {
		return nil, err
	}
	defer release()
	c, err := e.Target(id)
	if err != nil {
		return nil, err
	}
	if err := e.undo(ctx, g, c, reason); err != nil {
		return c, fmt.Errorf("change %s: %w", c.ID, err)
	}
	return c, nil
}

// Due returns the change that was cut off, or that nobody confirmed in time,
// and else how long the one that awaits it may still be confirmed; both are
// nothing if there is no change.
func (e *Engine) Due() (c *Change, left time.Duration, err error) {
	c, release, err := e.acquire()
	if err != nil {
		var busy *BusyError
		if errors.As(err, &busy) {
			return nil, 0, nil // it is under way
		}
		return nil, 0, err
	}
	defer release()
	if c == nil {
		return nil, 0, nil
	}
	if c.Result == ResultPending && !c.overdue() {
		return nil, c.left(), nil
	}
	return c, 0, nil
}

func suggestion(s string, known []string) string {
	if n := ovs.Nearest(s, known); n != "" {
		return fmt.Sprintf("did you mean %q?", n)
	}
	return "known are: " + strings.Join(known, ", ")
}
