package sendstream

import (
	"errors"
	"fmt"
	"strings"
)

// A Dir is a [Tree] on a file system, which need not be btrfs. It changes
// directories that the caller makes ready: Begin is asked for one at each
// Subvol and Snapshot.
//
// A Dir never leaves that directory, whatever the stream and the directory
// hold: it resolves paths one component at a time, follows no symbolic link,
// and opens only regular files. What the stream makes inside it is as the
// sender had it, set-user-ID bits and owners included, so a directory for
// streams from strangers belongs on a file system mounted nosuid and nodev.
//
// A Dir needs Linux with /proc, and root's rights to do all that a stream can
// ask. It does not do what btrfs receive doesn't: inode flags (Fileattr),
// change and creation times. Close must be called in the end. It is not safe
// for concurrent use.
type Dir struct {
	// Begin returns the directory to change for a *Subvol, an empty one, or a
	// *Snapshot, one with the parent's state, which only the caller can make.
	Begin func(c Command) (dir string, err error)
	// Source returns the directory of another subvolume, for clones from it.
	// With a nil Source such a clone is an error that wraps ErrParent.
	Source func(uuid UUID, ctransid uint64) (dir string, err error)
	// Devices allows the stream to make block and character devices.
	Devices bool
	// MaxCopy is how many bytes, in all, clones may copy where the file
	// system can't share them. Without it they fail there.
	MaxCopy int64
	// Decoder decodes EncodedWrite commands.
	Decoder Decoder

	state dirState
}

var errDevice = errors.New("device nodes are not allowed here")

// Apply carries out one command. Its errors wrap the system call's.
func (d *Dir) Apply(c Command) error {
	err := d.apply(c)
	if err != nil {
		if path := c.Target(); path != nil {
			return fmt.Errorf("%v %q: %w", c.Kind(), clip(path), err)
		}
		return fmt.Errorf("%v: %w", c.Kind(), err)
	}
	return nil
}

// splitPath gives the directory and the name in it that a path stands for;
// the subvolume itself is "." in "".
func splitPath(path string) (dir, name string) {
	if path == "" {
		return "", "."
	}
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	return strings.HasPrefix(path, dir) && (len(path) == len(dir) || path[len(dir)] == '/')
}
