//go:build linux && cgo

package subvol

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// MountBeside mounts the top-level subvolume called name of source's file
// system on dir, and makes it first if it is not there, so that what is in dir
// is neither part of source nor of the subvolume around dir. A dir that is the
// top of a subvolume already is left as it is. It needs CAP_SYS_ADMIN, and the
// mount is seen in the caller's mount namespace.
//
// The new subvolume gets the owner and mode of dir, which must be empty: what
// is in it would be out of sight.
func (s System) MountBeside(source, name, dir string) (mounted bool, err error) {
	if name == "" || strings.ContainsAny(name, "/,\n\x00") || name == "." || name == ".." {
		return false, fmt.Errorf("subvolume %q: want a name without slashes and commas", name)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return false, err
	}
	if f, err := openSubvolume(dir); err == nil {
		return false, f.Close()
	} else if !errors.Is(err, ErrNotSubvolume) {
		return false, err
	}
	d, err := openDir(dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	if names, err := d.Readdirnames(1); len(names) > 0 {
		return false, pathError("mount "+name, dir, fmt.Errorf("not empty: %w", fs.ErrExist))
	} else if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	device, err := deviceOf(source)
	if err != nil {
		return false, err
	}
	if err := s.createTopLevel(device, name, d); err != nil {
		return false, err
	}
	m, err := detached(device, "subvol=/"+name)
	if err != nil {
		return false, fmt.Errorf("mount %s of %s: %w", name, device, err)
	}
	defer m.Close()
	if err := unix.MoveMount(int(m.Fd()), "", int(d.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return false, pathError("mount "+name+" on", dir, err)
	}
	return true, nil
}

// createTopLevel makes the subvolume name at the top of device's file system,
// with like's owner and mode, unless it is there.
func (s System) createTopLevel(device, name string, like *os.File) error {
	top, err := detached(device, "subvolid=5") // BTRFS_FS_TREE_OBJECTID
	if err != nil {
		return fmt.Errorf("mount the top of %s: %w", device, err)
	}
	defer top.Close()
	var st, have unix.Stat_t
	err = unix.Fstatat(int(top.Fd()), name, &have, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil {
		if have.Ino != rootInode {
			return pathError("subvolume", name, fmt.Errorf("at the top of %s: %w", device, ErrNotSubvolume))
		}
		return nil
	}
	if !errors.Is(err, unix.ENOENT) {
		return pathError("stat", name, err)
	}
	if err := s.Create(fmt.Sprintf("/proc/self/fd/%d/%s", top.Fd(), name)); err != nil {
		return err
	}
	if err := unix.Fstat(int(like.Fd()), &st); err != nil {
		return pathError("stat", like.Name(), err)
	}
	// CAP_CHOWN may be missing; then it stays root's, but for a group that this
	// process is in.
	err = unix.Fchownat(int(top.Fd()), name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.EPERM) {
		err = unix.Fchownat(int(top.Fd()), name, -1, int(st.Gid), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil && !errors.Is(err, unix.EPERM) {
		return pathError("chown", name, err)
	}
	if err := unix.Fchmodat(int(top.Fd()), name, st.Mode&0o7777, 0); err != nil {
		return pathError("chmod", name, err)
	}
	return nil
}

// detached mounts a subvolume of the btrfs on device at no place: it is
// reached through the descriptor alone and goes away with it.
func detached(device, subvolume string) (*os.File, error) {
	ctx, err := unix.Fsopen("btrfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(ctx)
	key, value, _ := strings.Cut(subvolume, "=")
	for _, kv := range [][2]string{{"source", device}, {key, value}} {
		if err := unix.FsconfigSetString(ctx, kv[0], kv[1]); err != nil {
			return nil, os.NewSyscallError("fsconfig "+kv[0]+"="+kv[1], err)
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return nil, os.NewSyscallError("fsconfig", err)
	}
	fd, err := unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOATIME)
	if err != nil {
		return nil, os.NewSyscallError("fsmount", err)
	}
	return os.NewFile(uintptr(fd), device), nil
}

// deviceOf returns the device that mountinfo names for the btrfs that path is
// on.
func deviceOf(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", err
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	device, best := "", -1
	s := bufio.NewScanner(f)
	for s.Scan() {
		point, kind, source, ok := mountInfo(s.Text())
		if in, err := below(path, point); !ok || err != nil || !in || len(point) < best {
			continue
		}
		best, device = len(point), "" // a later mount covers an earlier one
		if kind == "btrfs" {
			device = source
		}
	}
	if err := s.Err(); err != nil {
		return "", err
	}
	if device == "" {
		return "", pathError("find the device of", path, ErrUnsupported)
	}
	return device, nil
}

// mountInfo takes a line of /proc/PID/mountinfo apart (proc(5)).
func mountInfo(line string) (point, kind, source string, ok bool) {
	left, right, ok := strings.Cut(line, " - ")
	l, r := strings.Fields(left), strings.Fields(right)
	if !ok || len(l) < 5 || len(r) < 2 {
		return "", "", "", false
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace
	return unescape(l[4]), r[0], unescape(r[1]), true
}
