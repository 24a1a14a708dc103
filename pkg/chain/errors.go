package chain

import (
	"errors"
	"fmt"

	"github.com/ghostbridge/ghostbridge/pkg/names"
)

// A configError is wrong usage or configuration: exit code 2.
type configError struct {
	err  error
	hint string
}

func (e *configError) Error() string { return e.err.Error() }
func (e *configError) Unwrap() error { return e.err }
func (e *configError) ExitCode() int { return 2 }
func (e *configError) Hint() string  { return e.hint }

// errNoLog says that a directory holds no log.
func errNoLog() error {
	return &configError{errors.New("there is no log here"), "gb-chain init --log DIR --origin NAME makes one"}
}

// A DamagedError says that a log contradicts its own checkpoint or the last
// one signed here: exit code 3. The writer refuses such a log.
type DamagedError struct {
	Dir string
	Err error
}

func (e *DamagedError) Error() string { return fmt.Sprintf("log %s: %v", e.Dir, e.Err) }
func (e *DamagedError) Unwrap() error { return e.Err }

// ExitCode is that of a failed verification.
func (e *DamagedError) ExitCode() int { return 3 }

// Hint says what to do.
func (e *DamagedError) Hint() string {
	return fmt.Sprintf("%s verify --log %s names what is wrong; nothing was written", names.GBChain, e.Dir)
}

// A busyError is one that passes: exit code 75.
type busyError struct {
	err  error
	hint string
}

func (e *busyError) Error() string { return e.err.Error() }
func (e *busyError) Unwrap() error { return e.err }
func (e *busyError) ExitCode() int { return 75 }
func (e *busyError) Hint() string  { return e.hint }

// A LineError says which line of the input was refused, and why.
type LineError struct {
	Line int64 // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

// An unverifiedError is a failed verification: exit code 3.
type unverifiedError struct{ err error }

func (e *unverifiedError) Error() string { return e.err.Error() }
func (e *unverifiedError) Unwrap() error { return e.err }
func (e *unverifiedError) ExitCode() int { return 3 }
