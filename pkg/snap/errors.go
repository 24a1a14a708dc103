package snap

import (
	"errors"
	"fmt"

	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

// ErrNothing says that there is nothing to send.
var ErrNothing = errors.New("nothing to send")

// A PlaceError says that a path is not what is needed there: exit code 2.
type PlaceError struct {
	text, hint string
}

func (e *PlaceError) Error() string { return e.text }

// ExitCode is that of wrong configuration.
func (e *PlaceError) ExitCode() int { return 2 }

// Hint says what to do.
func (e *PlaceError) Hint() string { return e.hint }

// A NotFoundError says that the store has no such snapshot.
type NotFoundError struct{ Dir, Text string }

func (e *NotFoundError) Error() string { return fmt.Sprintf("%s: no snapshot %q", e.Dir, e.Text) }

// Hint says what to do.
func (e *NotFoundError) Hint() string {
	return "name it as gb-snap list prints it, by its UUID, or newest"
}

// A RunningError says that another process takes snapshots there: exit code
// 75.
type RunningError struct{ Dir string }

func (e *RunningError) Error() string {
	return fmt.Sprintf("another gb-snap takes snapshots in %s", e.Dir)
}

// ExitCode is EX_TEMPFAIL.
func (e *RunningError) ExitCode() int { return 75 }

// A FullError says that no snapshot was taken, for there would be more than
// allowed and none can be deleted.
type FullError struct {
	Live, Max int
	Why       string // none was deleted
}

func (e *FullError) Error() string {
	return fmt.Sprintf("%d snapshots, at most %d allowed, and none could be deleted: %s", e.Live, e.Max, e.Why)
}

// Hint says what to do.
func (e *FullError) Hint() string {
	return "gb-snap prune -n says what keeps them; a hold goes with gb-snap hold rm"
}

// A CursorError says that a cursor file can't be read: exit code 2.
type CursorError struct {
	File string
	Err  error
}

func (e *CursorError) Error() string { return fmt.Sprintf("cursor file %s: %v", e.File, e.Err) }
func (e *CursorError) Unwrap() error { return e.Err }

// ExitCode is that of wrong configuration.
func (e *CursorError) ExitCode() int { return 2 }

// Hint says what to do.
func (e *CursorError) Hint() string {
	return "the index writes it anew: gb-vecsync cursor, or remove it to begin with a full stream"
}

// A LostParentError says that the snapshot that a stream has to start from is
// gone: exit code 5.
type LostParentError struct {
	Parent subvol.UUID
	Dir    string
	Cursor string // the file that names it, "" if a person did
}

func (e *LostParentError) Error() string {
	by := ""
	if e.Cursor != "" {
		by = ", which " + e.Cursor + " names,"
	}
	return fmt.Sprintf("parent snapshot %s%s is not in %s", e.Parent, by, e.Dir)
}

// ExitCode is that of a lost parent.
func (e *LostParentError) ExitCode() int { return 5 }

// Hint says what to do.
func (e *LostParentError) Hint() string {
	return "an increment can't be sent any more; send all of the newest snapshot with --parent none"
}

// A NotAppliedError says that the receiver closed and its cursor does not name
// what was sent: exit code 75.
type NotAppliedError struct {
	Cursor string
	Target Snapshot
	Err    error // of sending, nil if all was sent
}

func (e *NotAppliedError) Error() string {
	text := fmt.Sprintf("snapshot %s (%s) was not applied: %s does not name it", e.Target.Name, e.Target.UUID, e.Cursor)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}
func (e *NotAppliedError) Unwrap() error { return e.Err }

// ExitCode is EX_TEMPFAIL.
func (e *NotAppliedError) ExitCode() int { return 75 }

// Hint says what to do.
func (e *NotAppliedError) Hint() string { return "the receiver's own messages say why; try again" }

// A TemporaryError may go away by itself: exit code 75.
type TemporaryError struct {
	Err  error
	hint string
}

func (e *TemporaryError) Error() string { return e.Err.Error() }
func (e *TemporaryError) Unwrap() error { return e.Err }

// ExitCode is EX_TEMPFAIL.
func (e *TemporaryError) ExitCode() int { return 75 }

// Hint says what to do.
func (e *TemporaryError) Hint() string { return e.hint }
