//go:build linux && cgo

package subvol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"github.com/containerd/btrfs/v2"
	"golang.org/x/sys/unix"
)

// ioctl numbers of <linux/btrfs.h> and the size of their arguments.
const (
	iocTreeSearchV2  = 0xC0709411 // struct btrfs_ioctl_search_args_v2, 112 bytes and the buffer
	iocSpaceInfo     = 0xC0109414 // struct btrfs_ioctl_space_args, 16 bytes and the slots
	iocFSInfo        = 0x8400941F // struct btrfs_ioctl_fs_info_args, 1024 bytes
	iocSend          = 0x40489426 // struct btrfs_ioctl_send_args, 72 bytes
	iocSnapDestroy   = 0x5000940F // struct btrfs_ioctl_vol_args, 4096 bytes
	iocSubvolInfo    = 0x81F8943C // struct btrfs_ioctl_get_subvol_info_args, 504 bytes
	iocSnapDestroyV2 = 0x5000943F // struct btrfs_ioctl_vol_args_v2, 4096 bytes
	iocSyncWait      = 0x40109441 // struct btrfs_ioctl_subvol_wait, 16 bytes; Linux 6.13
)

const (
	subvolReadOnly = 1 << 0 // BTRFS_ROOT_SUBVOL_RDONLY
	specByID       = 1 << 4 // BTRFS_SUBVOL_SPEC_BY_ID
	syncWaitCount  = 2      // BTRFS_SUBVOL_SYNC_COUNT
	rootInode      = 256    // BTRFS_FIRST_FREE_OBJECTID, a subvolume's top directory
)

func ioctl(f *os.File, number uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), number, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// openDir opens a directory without moving its access time, which would be a
// change of the subvolume.
func openDir(path string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	// Not os.OpenFile: it tries to have the poller watch what it opens.
	fd, err := retry(path, flags|unix.O_NOATIME)
	if errors.Is(err, unix.EPERM) { // neither root nor the owner
		fd, err = retry(path, flags)
	}
	if err != nil {
		return nil, pathError("open", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func retry(path string, flags int) (fd int, err error) {
	for {
		if fd, err = unix.Open(path, flags, 0); err != unix.EINTR {
			return fd, err
		}
	}
}

// Info returns what the kernel knows of the subvolume whose top directory is
// path. The error wraps ErrNotSubvolume if it is something else.
func (System) Info(path string) (Info, error) {
	f, err := openSubvolume(path)
	if err != nil {
		return Info{}, err
	}
	defer f.Close()
	return infoOf(f)
}

// openSubvolume opens a subvolume's top directory.
func openSubvolume(path string) (*os.File, error) {
	f, err := openDir(path)
	if errors.Is(err, unix.ENOTDIR) {
		if _, serr := os.Stat(path); serr == nil { // it is path itself that is no directory
			err = pathError("subvolume", path, ErrNotSubvolume)
		}
	}
	if err != nil {
		return nil, err
	}
	// As containerd's IsSubvolume, but of what is open, and through symbolic
	// links.
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err = unix.Fstat(int(f.Fd()), &st); err == nil {
		err = unix.Fstatfs(int(f.Fd()), &fs)
	}
	if err == nil && (fs.Type != unix.BTRFS_SUPER_MAGIC || st.Ino != rootInode) {
		err = ErrNotSubvolume
	}
	if err != nil {
		f.Close()
		return nil, pathError("subvolume", path, err)
	}
	return f, nil
}

func infoOf(f *os.File) (Info, error) {
	var a [504]byte
	if err := ioctl(f, iocSubvolInfo, unsafe.Pointer(&a)); err != nil {
		return Info{}, pathError("get subvolume info", f.Name(), err)
	}
	u64 := func(at int) uint64 { return binary.NativeEndian.Uint64(a[at:]) }
	at := func(at int) time.Time {
		return time.Unix(int64(u64(at)), int64(binary.NativeEndian.Uint32(a[at+8:]))).UTC()
	}
	return Info{
		ID: u64(0), Generation: u64(280), ReadOnly: u64(288)&subvolReadOnly != 0,
		UUID: UUID(a[296:312]), ParentUUID: UUID(a[312:328]), Received: UUID(a[328:344]),
		CTransID: u64(344), OTransID: u64(352), CTime: at(376), OTime: at(392),
	}, nil
}

// Names returns the names of the subvolumes directly in directory dir, in no
// order. What else is there is left out.
func (System) Names(dir string) ([]string, error) {
	f, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Create makes an empty subvolume.
func (System) Create(path string) error {
	if err := btrfs.SubvolCreate(path); err != nil {
		return pathError("create subvolume", path, lastCause(err))
	}
	return nil
}

// Snapshot makes a read-only snapshot dst of the subvolume src. The error
// wraps fs.ErrExist if dst is there, and the kernel's errno otherwise.
func (System) Snapshot(src, dst string) error {
	if _, err := os.Lstat(dst); err == nil {
		// The ioctl would make the snapshot inside of it.
		return pathError("snapshot", dst, fs.ErrExist)
	}
	if err := btrfs.SubvolSnapshot(dst, src, true); err != nil {
		return pathError("snapshot", dst, lastCause(err))
	}
	return nil
}

// lastCause is the errno in err, without the library's words around it.
func lastCause(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// Delete deletes the subvolume called name in directory dir, if its id is id.
// It returns at once; the cleaner frees the space later. The errno is EPERM
// while the subvolume is being sent.
func (s System) Delete(dir, name string, id uint64) error {
	path := filepath.Join(dir, name)
	if name == "" || name != filepath.Base(name) || name == ".." || name == "." {
		return pathError("delete snapshot", path, unix.EINVAL)
	}
	info, err := s.Info(path)
	if err != nil {
		return err
	}
	if info.ID != id {
		return pathError("delete snapshot", path, fmt.Errorf("it is subvolume %d, not %d", info.ID, id))
	}
	d, err := openDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	var byID [4096]byte // fd, transid, flags, 4 unused words, subvolid
	binary.NativeEndian.PutUint64(byID[16:], specByID)
	binary.NativeEndian.PutUint64(byID[56:], id)
	err = ioctl(d, iocSnapDestroyV2, unsafe.Pointer(&byID))
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) { // before Linux 5.7
		var byName [4096]byte // fd, name
		copy(byName[8:len(byName)-1], name)
		err = ioctl(d, iocSnapDestroy, unsafe.Pointer(&byName))
	}
	if err != nil {
		return pathError("delete snapshot", path, err)
	}
	return nil
}

// Backlog returns how many deleted subvolumes of the file system of dir the
// cleaner has not finished with. Their space is not free yet.
func (System) Backlog(dir string) (int, error) {
	f, err := openDir(dir)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var a [16]byte // subvolid, mode, count
	binary.NativeEndian.PutUint32(a[8:], syncWaitCount)
	err = ioctl(f, iocSyncWait, unsafe.Pointer(&a))
	switch {
	case err == nil:
		return int(binary.NativeEndian.Uint32(a[12:])), nil
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EOPNOTSUPP):
		n, err := countOrphans(f)
		if err != nil {
			return 0, pathError("count deleted subvolumes", dir, err)
		}
		return n, nil
	}
	return 0, pathError("count deleted subvolumes", dir, err)
}

// Space returns how full the file system of dir is.
func (System) Space(dir string) (Space, error) {
	f, err := openDir(dir)
	if err != nil {
		return Space{}, err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return Space{}, pathError("statfs", dir, err)
	}
	if st.Type != unix.BTRFS_SUPER_MAGIC {
		return Space{}, pathError("statfs", dir, ErrNotSubvolume)
	}
	sp := Space{Size: st.Blocks * uint64(st.Bsize), Available: st.Bavail * uint64(st.Bsize)}
	const slots = 16              // kinds and profiles; more than a file system has
	var a [16 + slots*24]byte     // space_slots, total_spaces; flags, total, used each
	const data, metadata = 1, 4   // BTRFS_BLOCK_GROUP_*
	const globalReserve = 1 << 49 // BTRFS_SPACE_INFO_GLOBAL_RSV
	binary.NativeEndian.PutUint64(a[:], slots)
	if err := ioctl(f, iocSpaceInfo, unsafe.Pointer(&a)); err != nil {
		return sp, nil
	}
	n := min(binary.NativeEndian.Uint64(a[8:]), slots)
	for i := range int(n) {
		slot := a[16+24*i:]
		flags, total, used := binary.NativeEndian.Uint64(slot), binary.NativeEndian.Uint64(slot[8:]), binary.NativeEndian.Uint64(slot[16:])
		if flags&globalReserve != 0 {
			continue
		}
		if flags&data != 0 {
			sp.DataTotal, sp.DataUsed = sp.DataTotal+total, sp.DataUsed+used
		} else if flags&metadata != 0 {
			sp.MetadataTotal, sp.MetadataUsed = sp.MetadataTotal+total, sp.MetadataUsed+used
		}
	}
	return sp, nil
}

// FSID returns the UUID of the file system of dir.
func (System) FSID(dir string) (UUID, error) {
	f, err := openDir(dir)
	if err != nil {
		return UUID{}, err
	}
	defer f.Close()
	var a [1024]byte // max_id, num_devices, fsid
	if err := ioctl(f, iocFSInfo, unsafe.Pointer(&a)); err != nil {
		if errors.Is(err, unix.ENOTTY) {
			err = ErrNotSubvolume
		}
		return UUID{}, pathError("file system info", dir, err)
	}
	return UUID(a[16:32]), nil
}

// Qgroups says whether quota groups are on in the file system of dir. They
// make the deletion of each snapshot expensive.
func (s System) Qgroups(dir string) (bool, error) {
	id, err := s.FSID(dir)
	if err != nil {
		return false, err
	}
	_, err = os.Stat("/sys/fs/btrfs/" + id.String() + "/qgroups") // since Linux 5.9, only while on
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Written returns the bytes written to the devices of the file system of dir
// since they appeared.
func (s System) Written(dir string) (uint64, error) {
	id, err := s.FSID(dir)
	if err != nil {
		return 0, err
	}
	stats, err := filepath.Glob("/sys/fs/btrfs/" + id.String() + "/devices/*/stat")
	if err != nil {
		return 0, err
	}
	if len(stats) == 0 {
		return 0, pathError("device statistics", dir, ErrUnsupported)
	}
	var sum uint64
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		// Documentation/block/stat.rst: the seventh number is sectors of 512
		// bytes written.
		fields := strings.Fields(string(b))
		if len(fields) < 7 {
			return 0, pathError("device statistics", path, errors.New("too few fields"))
		}
		var sectors uint64
		if _, err := fmt.Sscan(fields[6], &sectors); err != nil {
			return 0, pathError("device statistics", path, err)
		}
		sum += sectors * 512
	}
	return sum, nil
}

// Inside says whether directory dir lies in the subvolume at path source, or
// below it in another.
func (System) Inside(dir, source string) (bool, error) {
	var d, s unix.Stat_t
	if err := unix.Stat(dir, &d); err != nil {
		return false, pathError("stat", dir, err)
	}
	if err := unix.Stat(source, &s); err != nil {
		return false, pathError("stat", source, err)
	}
	if d.Dev == s.Dev { // each subvolume has a device number of its own
		return true, nil
	}
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false, err
	}
	if source, err = filepath.EvalSymlinks(source); err != nil {
		return false, err
	}
	return below(dir, source)
}
