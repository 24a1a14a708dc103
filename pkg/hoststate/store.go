package hoststate

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/ovs"
)

// Results of a change.
const (
	ResultApplying   = "applying"     // under way, or cut off
	ResultPending    = "pending"      // done; it goes back unless somebody confirms it
	ResultCommitting = "committing"   // about to be applied for good, or cut off
	ResultApplied    = "applied"      // done, and stays
	ResultNothing    = "nothing"      // there was nothing to do
	ResultUndoing    = "rolling-back" // under way, or cut off
	ResultRolledBack = "rolled-back"  // all is as it was before
	ResultFailed     = "failed"       // the way back failed in part: see its steps
)

// States of a step.
const (
	StepWaiting    = "waiting"
	StepStarted    = "started" // under way, or cut off: it may have been done
	StepDone       = "done"
	StepFailed     = "failed"
	StepUndone     = "undone"
	StepStays      = "stays" // was done and can't be taken back
	StepUndoFailed = "undo-failed"
)

// A Step is what became of an action.
type Step struct {
	Title        string          `json:"title"`
	State        string          `json:"state"`
	Error        string          `json:"error,omitempty"`
	UndoError    string          `json:"undo_error,omitempty"`
	Milliseconds float64         `json:"milliseconds,omitempty"`
	Kept         json.RawMessage `json:"kept,omitempty"` // for Undo
}

// A Change is an apply, from its first action to its end, and what is needed to
// take it back.
type Change struct {
	ID       string          `json:"id"`
	Time     time.Time       `json:"time"`
	By       string          `json:"by"`     // actor of the events
	Intent   string          `json:"intent"` // id of the event that everything else is part of
	Result   string          `json:"result"`
	Error    string          `json:"error,omitempty"`  // why it failed
	Reason   string          `json:"reason,omitempty"` // why it was taken back
	Plan     *Plan           `json:"plan,omitempty"`
	Steps    []Step          `json:"steps"`
	Document json.RawMessage `json:"document,omitempty"`
	// InForce is what was in force before, nothing if nothing was.
	InForce json.RawMessage `json:"in_force,omitempty"`

	Ended      time.Time     `json:"ended,omitzero"`
	BootID     string        `json:"boot_id"`
	ConfirmBy  time.Time     `json:"confirm_by,omitzero"`
	DeadlineUp time.Duration `json:"deadline_up,omitempty"` // ConfirmBy by the clock that counts from the boot, in ns
}

// overdue says whether the time for a confirmation is over.
func (c *Change) overdue() bool { return !ovs.ThisBoot(c.BootID, c.Time) || uptime() > c.DeadlineUp }

// left is how long it may still be confirmed.
func (c *Change) left() time.Duration { return c.DeadlineUp - uptime() }

// uptime is the time since the boot, that of suspends included.
func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // Linux has it since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// newID makes an id that sorts after all that are there, whatever the clock
// says: a number, and letters that tell it from one of an earlier journal.
func (s *Store) newID() (string, error) {
	ids, err := s.ids()
	if err != nil {
		return "", err
	}
	last := 0
	if len(ids) > 0 {
		if last, err = strconv.Atoi(strings.Split(ids[len(ids)-1], "-")[0]); err != nil {
			return "", fmt.Errorf("%s: %q is not the name of a change", s.path("changes"), ids[len(ids)-1])
		}
	}
	var b [2]byte
	rand.Read(b[:])
	return fmt.Sprintf("%06d-%x", last+1, b), nil
}

// An InForce is the document that was applied last and stayed.
type InForce struct {
	Change   string          `json:"change"`
	Document json.RawMessage `json:"document"`
}

// A Store is the directory of the journal: the change under way in
// current.json, those that ended in changes/ID.json, and what is in force.
// Every file is replaced whole, and durable before its writer goes on.
type Store struct {
	Dir string

	step func() // a test's: called between all that is made durable
}

// between is where a process may be killed.
func (s *Store) between() {
	if s.step != nil {
		s.step()
	}
}

const keptChanges = 50

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.Dir}, elem...)...)
}

// lock makes this the only process that changes the store. It fails with
// durable.ErrLocked if another one is.
func (s *Store) lock() (*durable.Lock, error) {
	if err := os.MkdirAll(s.path("changes"), 0o700); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	return durable.TryLock(s.Dir)
}

func readJSON(path string, v any) (bool, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return true, nil
}

// CurrentFile is there while a change is under way or awaits its confirmation.
func (s *Store) CurrentFile() string { return s.path("current.json") }

// Current returns the change that is under way or awaits its confirmation, nil
// if there is none.
func (s *Store) Current() (*Change, error) {
	c := new(Change)
	if ok, err := readJSON(s.path("current.json"), c); !ok {
		return nil, err
	}
	return c, nil
}

// InForce returns the document that is in force, nil if none is.
func (s *Store) InForce() (*InForce, error) {
	f := new(InForce)
	if ok, err := readJSON(s.path("in-force.json"), f); !ok {
		return nil, err
	}
	return f, nil
}

func (s *Store) save(c *Change) error {
	s.between()
	defer s.between()
	return durable.Replace(s.path("current.json"), append(mustJSON(c), '\n'), 0o600)
}

func (s *Store) setInForce(f *InForce) error {
	s.between()
	if f == nil || len(f.Document) == 0 || string(f.Document) == "null" {
		err := os.Remove(s.path("in-force.json"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return errors.Join(err, durable.SyncDir(s.Dir))
	}
	return durable.Replace(s.path("in-force.json"), append(mustJSON(f), '\n'), 0o600)
}

// settle moves the current change to those that ended.
func (s *Store) settle(c *Change) error {
	s.between()
	defer s.between()
	if err := durable.Replace(s.path("changes", c.ID+".json"), append(mustJSON(c), '\n'), 0o600); err != nil {
		return err
	}
	s.between()
	if err := os.Remove(s.path("current.json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := durable.SyncDir(s.Dir); err != nil {
		return err
	}
	ids, err := s.ids()
	if err != nil {
		return err
	}
	for len(ids) > keptChanges {
		if err := os.Remove(s.path("changes", ids[0]+".json")); err != nil {
			return err
		}
		ids = ids[1:]
	}
	return nil
}

// ids returns those of the changes that ended, oldest first.
func (s *Store) ids() ([]string, error) {
	entries, err := os.ReadDir(s.path("changes"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids, err
}

// A NoChangeError says that there is no such change.
type NoChangeError struct{ ID, Reason string }

func (e *NoChangeError) Error() string {
	if e.ID == "" {
		return e.Reason
	}
	return fmt.Sprintf("change %.64q: %s", e.ID, e.Reason)
}

// DBusName is the error's name on the bus.
func (e *NoChangeError) DBusName() string { return "org.freedesktop.opdbus.Error.NoChange" }

// Get returns a change by its id.
func (s *Store) Get(id string) (*Change, error) {
	c, err := s.Current()
	if err != nil || c != nil && c.ID == id {
		return c, err
	}
	if id == "" || strings.ContainsAny(id, "/.\x00") {
		return nil, &NoChangeError{id, "there is none of that name"}
	}
	c = new(Change)
	ok, err := readJSON(s.path("changes", id+".json"), c)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, &NoChangeError{id, "there is none of that name"}
	}
	return c, nil
}

// Changes returns all that are kept, newest first.
func (s *Store) Changes() ([]*Change, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	slices.Reverse(ids)
	var list []*Change
	current, err := s.Current()
	if err != nil {
		return nil, err
	}
	if current != nil {
		list = append(list, current)
	}
	for _, id := range ids {
		if current != nil && id == current.ID {
			continue
		}
		c, err := s.Get(id)
		var gone *NoChangeError
		if errors.As(err, &gone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}
