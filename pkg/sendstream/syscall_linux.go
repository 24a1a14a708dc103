package sendstream

import (
	"math"
	"os"
	"syscall"
	"unsafe"
)

// System calls that package syscall lacks.

const atFDCWD = -100

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != syscall.EINTR {
			return err
		}
	}
}

func openat(dir int, name string, flags int, mode uint32) (fd int, err error) {
	err = retry(func() error {
		fd, err = syscall.Openat(dir, name, flags|syscall.O_CLOEXEC|syscall.O_LARGEFILE, mode)
		return err
	})
	return fd, err
}

func errnoErr(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

func symlinkat(dest string, dir int, name string) error {
	d, err := syscall.BytePtrFromString(dest)
	if err != nil {
		return err
	}
	n, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	_, _, e := syscall.Syscall(syscall.SYS_SYMLINKAT, uintptr(unsafe.Pointer(d)), uintptr(dir), uintptr(unsafe.Pointer(n)))
	return errnoErr(e)
}

func linkat(oldDir int, oldName string, newDir int, newName string) error {
	o, err := syscall.BytePtrFromString(oldName)
	if err != nil {
		return err
	}
	n, err := syscall.BytePtrFromString(newName)
	if err != nil {
		return err
	}
	_, _, e := syscall.Syscall6(syscall.SYS_LINKAT, uintptr(oldDir), uintptr(unsafe.Pointer(o)),
		uintptr(newDir), uintptr(unsafe.Pointer(n)), 0, 0)
	return errnoErr(e)
}

func unlinkat(dir int, name string, flags int) error {
	n, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	_, _, e := syscall.Syscall(syscall.SYS_UNLINKAT, uintptr(dir), uintptr(unsafe.Pointer(n)), uintptr(flags))
	return errnoErr(e)
}

func utimensat(dir int, name string, atime, mtime Timespec) error {
	if atime.Nsec > 999_999_999 || mtime.Nsec > 999_999_999 {
		return syscall.EINVAL // some of these would mean "now" or "leave it"
	}
	n, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	var times [2]syscall.Timespec
	for i, t := range []Timespec{atime, mtime} {
		times[i] = syscall.NsecToTimespec(int64(t.Nsec))
		if setSec(&times[i].Sec, t.Sec); int64(times[i].Sec) != t.Sec {
			return syscall.EOVERFLOW // a system with 32-bit times
		}
	}
	_, _, e := syscall.Syscall6(syscall.SYS_UTIMENSAT, uintptr(dir), uintptr(unsafe.Pointer(n)),
		uintptr(unsafe.Pointer(&times)), atNoFollow, 0, 0)
	return errnoErr(e)
}

// setSec sets a field whose size depends on the system.
func setSec[T int32 | int64](field *T, sec int64) { *field = T(sec) }

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	return retry(func() error {
		_, _, e := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), request, uintptr(arg))
		return errnoErr(e)
	})
}

// cloneRange is FICLONERANGE of linux/fs.h, which is BTRFS_IOC_CLONE_RANGE.
func cloneRange(dst, src *os.File, c *Clone) error {
	arg := struct {
		src                          int64
		srcOffset, length, dstOffset uint64
	}{int64(src.Fd()), c.SourceOffset, c.Len, c.Offset}
	return ioctl(dst, ficloneR, unsafe.Pointer(&arg))
}

// enableVerity is FS_IOC_ENABLE_VERITY of linux/fsverity.h. The file must not
// be open for writing.
func (d *Dir) enableVerity(path string, c *EnableVerity) error {
	const request = 0x40806685
	dir, name, err := d.parent(path)
	if err != nil {
		return err
	}
	f, err := openRegular(dir, name, syscall.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	if len(c.Salt) > math.MaxUint16 || len(c.Signature) > math.MaxUint16 {
		return syscall.EINVAL
	}
	arg := struct {
		version, algorithm, blockSize, saltSize uint32
		salt                                    unsafe.Pointer // 64 bits wide on 64-bit systems
		sigSize, reserved1                      uint32
		sig                                     unsafe.Pointer
		reserved2                               [11]uint64
	}{
		version: 1, algorithm: uint32(c.Algorithm), blockSize: c.BlockSize,
		saltSize: uint32(len(c.Salt)), salt: unsafe.Pointer(unsafe.SliceData(c.Salt)),
		sigSize: uint32(len(c.Signature)), sig: unsafe.Pointer(unsafe.SliceData(c.Signature)),
	}
	if unsafe.Sizeof(arg) != 128 {
		return syscall.ENOSYS // a 32-bit system
	}
	return ioctl(f, request, unsafe.Pointer(&arg))
}
