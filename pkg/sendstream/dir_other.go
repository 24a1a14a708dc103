//go:build !linux

package sendstream

import "errors"

type dirState struct{}

// Close does nothing: a Dir works on Linux only.
func (d *Dir) Close() error { return nil }

func (d *Dir) apply(Command) error { return errors.ErrUnsupported }
