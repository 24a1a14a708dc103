//go:build !linux || !cgo

package subvol

import "context"

// Info returns ErrUnsupported.
func (System) Info(string) (Info, error) { return Info{}, ErrUnsupported }

// Names returns ErrUnsupported.
func (System) Names(string) ([]string, error) { return nil, ErrUnsupported }

// Create returns ErrUnsupported.
func (System) Create(string) error { return ErrUnsupported }

// Snapshot returns ErrUnsupported.
func (System) Snapshot(_, _ string) error { return ErrUnsupported }

// Delete returns ErrUnsupported.
func (System) Delete(_, _ string, _ uint64) error { return ErrUnsupported }

// Backlog returns ErrUnsupported.
func (System) Backlog(string) (int, error) { return 0, ErrUnsupported }

// Space returns ErrUnsupported.
func (System) Space(string) (Space, error) { return Space{}, ErrUnsupported }

// FSID returns ErrUnsupported.
func (System) FSID(string) (UUID, error) { return UUID{}, ErrUnsupported }

// Qgroups returns ErrUnsupported.
func (System) Qgroups(string) (bool, error) { return false, ErrUnsupported }

// Written returns ErrUnsupported.
func (System) Written(string) (uint64, error) { return 0, ErrUnsupported }

// Changed returns ErrUnsupported.
func (System) Changed(string, uint64) (uint64, error) { return 0, ErrUnsupported }

// Compression returns ErrUnsupported.
func (System) Compression(string) (Compression, error) { return Compression{}, ErrUnsupported }

// Stamp returns ErrUnsupported.
func (System) Stamp(context.Context, string) (Stamp, error) { return Stamp{}, ErrUnsupported }

// Send returns ErrUnsupported.
func (System) Send(context.Context, SendJob) error { return ErrUnsupported }

// Inside returns ErrUnsupported.
func (System) Inside(_, _ string) (bool, error) { return false, ErrUnsupported }

// MountBeside returns ErrUnsupported.
func (System) MountBeside(_, _, _ string) (bool, error) { return false, ErrUnsupported }

// A Property is what new files in a directory inherit from it.
type Property struct {
	Compression string
	NoCopy      bool
}

// Property returns ErrUnsupported.
func (System) Property(string) (Property, error) { return Property{}, ErrUnsupported }
