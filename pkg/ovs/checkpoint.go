package ovs

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
)

// A Checkpoint is what a rollback needs: everything that an apply may change,
// as it was before.
type Checkpoint struct {
	ID         string            `json:"id"`
	Time       time.Time         `json:"time"`
	BootID     string            `json:"boot_id"`
	Deadline   time.Time         `json:"deadline"`    // until when a confirmation counts, for people
	DeadlineUp time.Duration     `json:"deadline_up"` // the same by uptime, which no clock that is set moves
	Hash       string            `json:"hash"`        // of the configuration that was applied
	Config     json.RawMessage   `json:"config"`      // that configuration
	Database   *Snapshot         `json:"database"`
	Links      []*LinkState      `json:"links"`
	Before     json.RawMessage   `json:"before,omitempty"` // the configuration that was in force
	Files      map[string]string `json:"files,omitempty"`  // networkd's files that the apply wrote

	// Flows are those of the bridges that were there, as openflow keeps them:
	// where no configuration was in force, nothing else says what they were.
	Flows map[string][]string `json:"flows,omitempty"`
}

// A Confirmed is the configuration that boots apply.
type Confirmed struct {
	Hash   string            `json:"hash"`
	Time   time.Time         `json:"time"`
	Config json.RawMessage   `json:"config"`
	Files  map[string]string `json:"files,omitempty"` // networkd's, by path, to be written again after a boot
}

// A Store is the directory of checkpoints and of the confirmed configuration.
//
//	ID.json         a checkpoint
//	pending         the ID of the change that awaits its confirmation
//	confirmed.json  the configuration that boots apply
//	refused         hashes of configurations that were rolled back, a line each
type Store struct{ Dir string }

// Lock makes the caller the only one that applies, confirms or rolls back. It
// waits until ctx ends.
func (s *Store) Lock(ctx context.Context) (*durable.Lock, error) {
	for {
		l, err := s.tryLock()
		if err == nil || !errors.Is(err, durable.ErrLocked) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("another gb-ovs-setup is at work: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// NewID returns an ID that sorts by time.
func NewID(now time.Time) string {
	var b [3]byte
	rand.Read(b[:])
	return now.UTC().Format("20060102T150405Z") + "-" + hex.EncodeToString(b[:])
}

func validID(id string) bool {
	return id != "" && len(id) < 64 && strings.Trim(id, "0123456789abcdefTZ-") == ""
}

func (s *Store) path(name string) string { return filepath.Join(s.Dir, name) }

// Save stores a checkpoint, and then the fact that it is pending.
func (s *Store) Save(c *Checkpoint) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := durable.Replace(s.path(c.ID+".json"), b, 0o600); err != nil {
		return fmt.Errorf("checkpoint %s: %w", c.ID, err)
	}
	if err := durable.Replace(s.path("pending"), []byte(c.ID+"\n"), 0o600); err != nil {
		return fmt.Errorf("checkpoint %s: %w", c.ID, err)
	}
	return s.forget(c.ID)
}

// keptCheckpoints is how many old checkpoints are kept, to look at.
const keptCheckpoints = 10

// forget removes the oldest checkpoints but the one called id.
func (s *Store) forget(id string) error {
	list, err := filepath.Glob(s.path("2*.json"))
	if err != nil {
		return err
	}
	slices.Sort(list)
	for len(list) > keptCheckpoints {
		if list[0] != s.path(id+".json") {
			if err := os.Remove(list[0]); err != nil {
				return err
			}
		}
		list = list[1:]
	}
	return nil
}

// A LostCheckpointError is a checkpoint that can't be read.
type LostCheckpointError struct {
	ID  string
	Err error
}

func (e *LostCheckpointError) Error() string { return fmt.Sprintf("checkpoint %q: %v", e.ID, e.Err) }
func (e *LostCheckpointError) Unwrap() error { return e.Err }

// Hint says how to go on without it.
func (e *LostCheckpointError) Hint() string {
	return "what was there before is lost; gb-ovs-setup apply --boot goes on with the configuration confirmed last"
}

// Load reads a checkpoint. An error is a *LostCheckpointError.
func (s *Store) Load(id string) (*Checkpoint, error) {
	lost := func(err error) (*Checkpoint, error) { return nil, &LostCheckpointError{id, err} }
	if !validID(id) {
		return lost(errors.New("no such name"))
	}
	b, err := os.ReadFile(s.path(id + ".json"))
	if err != nil {
		return lost(err)
	}
	c := new(Checkpoint)
	if err := json.Unmarshal(b, c); err != nil {
		return lost(err)
	}
	if c.Database == nil {
		return lost(errors.New("holds no database"))
	}
	return c, nil
}

// Pending returns the ID of the change that awaits its confirmation, "" if
// none does.
func (s *Store) Pending() (string, error) {
	b, err := os.ReadFile(s.path("pending"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(b)), err
}

// done ends the wait for a confirmation.
func (s *Store) done() error {
	if err := os.Remove(s.path("pending")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.SyncDir(s.Dir)
}

// Confirmed returns the configuration that boots apply, nil if there is none.
func (s *Store) Confirmed() (*Confirmed, error) {
	b, err := os.ReadFile(s.path("confirmed.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	c := new(Confirmed)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("%s: %w", s.path("confirmed.json"), err)
	}
	return c, nil
}

// A LostConfirmedError is a confirmed configuration that can't be read.
type LostConfirmedError struct{ Err error }

func (e *LostConfirmedError) Error() string { return fmt.Sprintf("confirmed configuration: %v", e.Err) }
func (e *LostConfirmedError) Unwrap() error { return e.Err }

// Hint says how to make it anew.
func (e *LostConfirmedError) Hint() string {
	return "gb-ovs-setup apply makes it anew of the file; see gb-ovs-setup plan first"
}

// confirmedConfig returns the configuration that boots apply, and what else is
// known of it; nil if there is none. An error is a *LostConfirmedError.
func (s *Store) confirmedConfig() (c *Config, last *Confirmed, err error) {
	if last, err = s.Confirmed(); err == nil && last != nil {
		c, err = Parse(last.Config)
	}
	if err != nil {
		return nil, nil, &LostConfirmedError{err}
	}
	return c, last, nil
}

// confirm makes c what boots apply, and takes its hash off the refused.
func (s *Store) confirm(c *Confirmed) error {
	have, err := s.Confirmed()
	if err == nil && have != nil && have.Hash == c.Hash && maps.Equal(have.Files, c.Files) {
		return nil
	}
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := durable.Replace(s.path("confirmed.json"), b, 0o600); err != nil {
		return fmt.Errorf("confirmed configuration: %w", err)
	}
	list, err := s.refused()
	if err != nil || !slices.Contains(list, c.Hash) {
		return err
	}
	return s.writeRefused(slices.DeleteFunc(list, func(h string) bool { return h == c.Hash }))
}

func (s *Store) refused() ([]string, error) {
	b, err := os.ReadFile(s.path("refused"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(string(b)), err
}

func (s *Store) writeRefused(list []string) error {
	if len(list) > 100 {
		list = list[len(list)-100:]
	}
	return durable.Replace(s.path("refused"), []byte(strings.Join(list, "\n")+"\n"), 0o600)
}

// refuse remembers that a configuration was rolled back.
func (s *Store) refuse(hash string) error {
	list, err := s.refused()
	if err != nil || slices.Contains(list, hash) {
		return err
	}
	return s.writeRefused(append(list, hash))
}

// Refused says whether a configuration was rolled back.
func (s *Store) Refused(hash string) (bool, error) {
	list, err := s.refused()
	return slices.Contains(list, hash), err
}

// thisBoot says whether the checkpoint was made since the host has booted.
func (c *Checkpoint) thisBoot() bool { return ThisBoot(c.BootID, c.Time) }

// ThisBoot says whether what was made at a time, in the boot that BootID called
// id, was made since the host has booted. Where /proc/sys is hidden, as from a
// unit with ProcSubset=pid, or was then, the clock says it.
func ThisBoot(id string, made time.Time) bool {
	if here := BootID(); here != "" && id != "" {
		return id == here
	}
	return made.After(time.Now().Add(-uptime()))
}

// overdue says whether the time for a confirmation is over.
func (c *Checkpoint) overdue() bool { return !c.thisBoot() || uptime() > c.DeadlineUp }

// forgotten says, at an uptime, whether its rollback should have come long ago,
// or the host has booted since. It does without BootID, which a unit's or a
// container's view of /proc/sys may change.
func (c *Checkpoint) forgotten(up time.Duration) bool {
	made := c.DeadlineUp - c.Deadline.Sub(c.Time)
	return up < made || up >= c.DeadlineUp+rollbackLate
}

// uptime is the time since the boot, that of suspends included.
func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // Linux has it since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// BootID returns the kernel's name of this boot, "" where /proc/sys is hidden.
func BootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// busy says whether somebody applies, confirms or rolls back. It needs no right
// to write.
func (s *Store) busy() (bool, error) {
	l, err := durable.TryLock(s.Dir)
	switch {
	case errors.Is(err, durable.ErrLocked):
		return true, nil
	case errors.Is(err, fs.ErrNotExist): // nobody ever has
		return false, nil
	case err != nil:
		return false, fmt.Errorf("state directory: %w", err)
	}
	return false, l.Unlock()
}

// tryLock is Lock without waiting: durable.ErrLocked if somebody has it.
func (s *Store) tryLock() (*durable.Lock, error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return durable.TryLock(s.Dir)
}
