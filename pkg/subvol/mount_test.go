//go:build linux && cgo

package subvol_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
)

func TestMountBeside(t *testing.T) {
	top := loopbtrfs.Mount(t, loopbtrfs.Options{})
	s := subvol.System{}
	source := filepath.Join(top, "@source")
	if err := s.Create(source); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "a place", "snapshots")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chown(dir, 12, 34), unix.Chmod(dir, 0o2750)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			t.Error(err)
		}
	})

	if made, err := s.MountBeside(source, "@snapshots", dir); err != nil || !made {
		t.Fatal(made, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Ino != 256 || st.Mode&0o7777 != 0o2750 || st.Uid != 12 || st.Gid != 34 {
		t.Errorf("inode %d, mode %o, owner %d:%d", st.Ino, st.Mode, st.Uid, st.Gid)
	}
	// A snapshot of the source can be taken into it, and is there at the top.
	if err := s.Snapshot(source, filepath.Join(dir, "one")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Info(filepath.Join(top, "@snapshots", "one")); err != nil {
		t.Error(err)
	}
	// Again: nothing to do. After an unmount: the same subvolume.
	if made, err := s.MountBeside(source, "@snapshots", dir); err != nil || made {
		t.Error(made, err)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	if made, err := s.MountBeside(source, "@snapshots", dir); err != nil || !made {
		t.Error(made, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "one")); err != nil {
		t.Error(err)
	}

	// What is in the way is not covered, and nothing is taken for a subvolume
	// that is none.
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.MountBeside(source, "@other", full); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a directory with a file in it: %v", err)
	}
	if err := os.Mkdir(filepath.Join(top, "plain"), 0o755); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	if _, err := s.MountBeside(source, "plain", empty); !errors.Is(err, subvol.ErrNotSubvolume) {
		t.Errorf("a plain directory at the top: %v", err)
	}
	if _, err := s.MountBeside("/proc", "@other", empty); !errors.Is(err, subvol.ErrUnsupported) {
		t.Errorf("a source that is not on btrfs: %v", err)
	}
	for _, name := range []string{"", "a/b", "..", "a,subvolid=5"} {
		if _, err := s.MountBeside(source, name, empty); err == nil {
			t.Errorf("name %q was taken", name)
		}
	}
}
