//go:build !(linux && amd64)

// Package stepclock starts programs whose wall clock can be stepped while they
// run, without touching the machine's. Here it can't.
package stepclock

import (
	"errors"
	"os/exec"
	"time"
)

// Supported says whether programs' clocks can be stepped here.
const Supported = false

// A Clock is the machine's clock.
type Clock struct{}

// New returns the machine's clock.
func New() *Clock { return &Clock{} }

// Start is cmd.Start.
func (*Clock) Start(cmd *exec.Cmd) error { return cmd.Start() }

// Done does nothing.
func (*Clock) Done(*exec.Cmd) {}

// Step fails.
func (*Clock) Step(time.Duration) error { return errors.ErrUnsupported }

// Offset is 0.
func (*Clock) Offset() time.Duration { return 0 }

// Now is the machine's time.
func (*Clock) Now() time.Time { return time.Now().Round(0) }
