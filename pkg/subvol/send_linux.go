//go:build linux && cgo

package subvol

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	sendVersion    = 0x8  // BTRFS_SEND_FLAG_VERSION
	sendCompressed = 0x10 // BTRFS_SEND_FLAG_COMPRESSED
	bestVersion    = 2    // 3 only adds fs-verity
)

// Send writes the stream of j to j.Out: version 2, or version 1 where the
// kernel knows no other. In version 2 data is compressed as it is on the disk,
// unless the kernel is one that may crash on that (encodedReads). If ctx ends
// first, Send returns its error at once and the kernel may still be writing:
// the caller closes the reading end or ends the process. The errno is EPIPE if
// the reader has gone.
func (System) Send(ctx context.Context, j SendJob) error {
	target, err := openAs(j.Path, j.UUID)
	if err != nil {
		return err
	}
	var parent Info
	var keep *os.File
	if j.ParentPath != "" {
		if keep, err = openDir(j.ParentPath); err == nil {
			parent, err = infoOf(keep)
		}
		if err == nil && parent.UUID != j.ParentUUID {
			err = &WrongSubvolumeError{j.ParentPath, j.ParentUUID, parent.UUID}
		}
		if err != nil {
			return errors.Join(err, target.Close(), closeIf(keep))
		}
	}
	// After ctx has ended, the kernel may still be at it when the caller closes
	// j.Out, so it writes to a descriptor of its own.
	out, err := duplicate(j.Out)
	if err != nil {
		return errors.Join(pathError("send", j.Path, err), target.Close(), closeIf(keep))
	}
	// What fills the pipe decides how often the kernel has to wait.
	unix.FcntlInt(out.Fd(), unix.F_SETPIPE_SZ, 1<<20)

	version := j.Version
	if version == 0 {
		version = min(kernelVersion(), bestVersion)
	}
	done := make(chan error, 1)
	go func() {
		err := sendUnsignalled(target, out, parent.ID, version)
		if j.Version == 0 && version > 1 && (errors.Is(err, unix.EPROTO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)) {
			// The kernel checks version and flags before it writes anything.
			err = sendUnsignalled(target, out, parent.ID, 1)
		}
		if err != nil {
			err = pathError("send", j.Path, err)
		}
		done <- errors.Join(err, out.Close(), target.Close(), closeIf(keep))
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("send %s: %w", j.Path, context.Cause(ctx))
	}
}

// duplicate returns a second descriptor for f's open file.
func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func closeIf(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

func openAs(path string, want UUID) (*os.File, error) {
	f, err := openDir(path)
	if err != nil {
		return nil, err
	}
	info, err := infoOf(f)
	if err == nil && info.UUID != want {
		err = &WrongSubvolumeError{path, want, info.UUID}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sendUnsignalled runs the ioctl on a thread that takes no signals. A signal
// that met it while it waits for room in the pipe would make the kernel give
// up the write, and, as Go installs its handlers with SA_RESTART, start the
// ioctl, and with it the stream, from the beginning.
func sendUnsignalled(target, out *os.File, parent uint64, version int) error {
	runtime.LockOSThread() // for good: the thread ends with the goroutine that runs only this
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return err
	}
	defer func() {
		unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
		runtime.UnlockOSThread()
	}()

	// The list of clone sources is a pointer inside the argument, so it is
	// memory that Go will not move and keeps alive until after the call.
	source := [1]uint64{parent}
	var pin runtime.Pinner
	pin.Pin(&source)
	defer pin.Unpin()
	var a [72]byte // send_fd, clone_sources_count, clone_sources, parent_root, flags, version
	binary.NativeEndian.PutUint64(a[0:], uint64(out.Fd()))
	if parent != 0 {
		binary.NativeEndian.PutUint64(a[8:], 1)
		binary.NativeEndian.PutUint64(a[16:], uint64(uintptr(unsafe.Pointer(&source))))
		binary.NativeEndian.PutUint64(a[24:], parent)
	}
	if version > 1 {
		flags := uint64(sendVersion)
		if compressed() {
			flags |= sendCompressed
		}
		binary.NativeEndian.PutUint64(a[32:], flags)
		binary.NativeEndian.PutUint32(a[40:], uint32(version))
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, target.Fd(), iocSend, uintptr(unsafe.Pointer(&a)))
	runtime.KeepAlive(&source)
	if errno != 0 {
		return errno
	}
	return nil
}

// compressed says whether this kernel may be asked for compressed data.
var compressed = sync.OnceValue(func() bool {
	var u unix.Utsname
	return unix.Uname(&u) == nil && encodedReads(unix.ByteSliceToString(u.Release[:]))
})

// encodedReads says whether a kernel of that release (uname -r) reads extents
// as they are on the disk without a use after free, which a send of compressed
// data does for each of them. Until "btrfs: fix use-after-free waiting for
// encoded read endios" (d29662695ed7, in 6.13 and 6.12.8; it did not apply to
// 6.6, and 6.1.192 lacks it) who waits for such a read may have gone on and
// left its stack when the end of the read wakes it: seen as a general
// protection fault in 6.1.192, after some hundred sends.
func encodedReads(release string) bool {
	var major, minor, patch int
	if n, _ := fmt.Sscanf(release, "%d.%d.%d", &major, &minor, &patch); n < 2 {
		return false
	}
	return slices.Compare([]int{major, minor, patch}, []int{6, 12, 8}) >= 0
}

// kernelVersion returns the newest version of the send stream that the kernel
// writes.
func kernelVersion() int {
	b, err := os.ReadFile("/sys/fs/btrfs/features/send_stream_version")
	if err != nil {
		return 1
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 1
	}
	return v
}
