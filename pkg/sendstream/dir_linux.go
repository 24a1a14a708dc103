package sendstream

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// dirState is what a Dir holds open.
type dirState struct {
	uuid    UUID                  // of the current subvolume
	root    int                   // O_PATH descriptor of its directory
	begun   bool                  // root is valid
	sources map[sourceID]*os.File // directories of other subvolumes

	// The directory looked up last, so that the files of one directory cost
	// one lookup. Renames and rmdirs that touch its path drop it.
	dirPath string
	dirFD   int
	hasDir  bool

	// The file written last. Any command on another path, or that isn't about
	// content, drops it.
	filePath string
	file     *os.File

	copied int64
}

type sourceID struct {
	uuid     UUID
	ctransid uint64
}

const (
	oPath       = 0x200000   // O_PATH
	atNoFollow  = 0x100      // AT_SYMLINK_NOFOLLOW
	atRemoveDir = 0x200      // AT_REMOVEDIR
	ficloneR    = 0x4020940d // FICLONERANGE
	seekData    = 3
	seekHole    = 4
)

// Close closes what the Dir holds open.
func (d *Dir) Close() error {
	err := d.leave()
	for _, f := range d.state.sources {
		err = errors.Join(err, f.Close())
	}
	d.state.sources = nil
	return err
}

// leave ends the current subvolume.
func (d *Dir) leave() error {
	err := d.dropFile()
	d.dropDir()
	if d.state.begun {
		err = errors.Join(err, syscall.Close(d.state.root))
		d.state.begun = false
	}
	return err
}

func (d *Dir) apply(c Command) error {
	switch c := c.(type) {
	case *Header:
		return nil
	case *Subvol:
		return d.enter(c.UUID, c)
	case *Snapshot:
		return d.enter(c.UUID, c)
	}
	if !d.state.begun {
		return fmt.Errorf("%w: no subvolume before it", ErrOrder)
	}
	if _, ok := c.(*End); ok {
		return d.leave()
	}
	path := string(c.Target())
	switch c := c.(type) {
	case *Write:
		return d.write(path, c.Data, c.Offset)
	case *EncodedWrite:
		data, err := d.Decoder.Decode(c)
		if err != nil {
			return err
		}
		return d.write(path, data, c.Offset)
	case *Clone:
		return d.clone(path, c)
	case *Truncate:
		f, err := d.open(path)
		if err != nil {
			return err
		}
		return f.Truncate(int64(c.Size))
	case *Fallocate:
		f, err := d.open(path)
		if err != nil {
			return err
		}
		return retry(func() error { return syscall.Fallocate(int(f.Fd()), c.Mode, int64(c.Offset), int64(c.Len)) })
	case *UpdateExtent, *Fileattr:
		return nil
	}

	if err := d.dropFile(); err != nil {
		return err
	}
	dir, name, err := d.parent(path)
	if err != nil {
		return err
	}
	switch c := c.(type) {
	case *Mkfile:
		fd, err := openat(dir, name, syscall.O_CREAT|syscall.O_EXCL|syscall.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return err
		}
		return syscall.Close(fd)
	case *Mkdir:
		return syscall.Mkdirat(dir, name, 0o700)
	case *Mknod:
		switch c.Mode & ModeType {
		case ModeBlock, ModeChar:
			if !d.Devices {
				return errDevice
			}
		case ModeFifo, ModeSocket, ModeRegular:
		default:
			return syscall.EINVAL
		}
		return syscall.Mknodat(dir, name, uint32(c.Mode&ModeType), int(c.Rdev))
	case *Mkfifo:
		return syscall.Mknodat(dir, name, ModeFifo|0o600, 0)
	case *Mksock:
		return syscall.Mknodat(dir, name, ModeSocket|0o600, 0)
	case *Symlink:
		return symlinkat(string(c.Dest), dir, name)
	case *Unlink:
		return unlinkat(dir, name, 0)
	case *Rmdir:
		d.dropDirWithin(path)
		return unlinkat(dir, name, atRemoveDir)
	case *Rename:
		return d.rename(path, string(c.To))
	case *Link:
		return d.link(string(c.Existing), dir, name)
	case *Chown:
		if c.UID > 1<<32-1 || c.GID > 1<<32-1 {
			return syscall.EINVAL
		}
		return syscall.Fchownat(dir, name, int(c.UID), int(c.GID), atNoFollow)
	case *Utimes:
		return utimensat(dir, name, c.Atime, c.Mtime)
	case *Chmod:
		return onNode(dir, name, func(proc string, mode uint32) error {
			if mode&ModeType == ModeSymlink {
				return syscall.EOPNOTSUPP
			}
			return syscall.Chmod(proc, uint32(c.Mode&0o7777))
		})
	case *SetXattr:
		return onNode(dir, name, func(proc string, _ uint32) error {
			return syscall.Setxattr(proc, string(c.Name), c.Value, 0)
		})
	case *RemoveXattr:
		return onNode(dir, name, func(proc string, _ uint32) error {
			return syscall.Removexattr(proc, string(c.Name))
		})
	case *EnableVerity:
		return d.enableVerity(path, c)
	}
	return ErrUnknownCommand
}

func (d *Dir) enter(uuid UUID, c Command) error {
	if err := d.leave(); err != nil {
		return err
	}
	if d.Begin == nil {
		return errors.New("no directory to begin in")
	}
	dir, err := d.Begin(c)
	if err != nil {
		return err
	}
	fd, err := openat(atFDCWD, dir, oPath|syscall.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	d.state.uuid, d.state.root, d.state.begun = uuid, fd, true
	return nil
}

// walk opens a directory below root, following no link.
func walk(root int, path string) (int, error) {
	fd := root
	for rest := path; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		next, err := openat(fd, name, oPath|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
		if fd != root {
			syscall.Close(fd)
		}
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

// parent returns a descriptor of the directory that path is in, which stays
// open until the next call, and the name there.
func (d *Dir) parent(path string) (fd int, name string, err error) {
	if err := CheckPath([]byte(path)); err != nil {
		return -1, "", err
	}
	dir, name := splitPath(path)
	if dir == "" {
		return d.state.root, name, nil
	}
	if d.state.hasDir && d.state.dirPath == dir {
		return d.state.dirFD, name, nil
	}
	d.dropDir()
	fd, err = walk(d.state.root, dir)
	if err != nil {
		return -1, "", err
	}
	d.state.dirPath, d.state.dirFD, d.state.hasDir = dir, fd, true
	return fd, name, nil
}

func (d *Dir) dropDir() {
	if d.state.hasDir {
		syscall.Close(d.state.dirFD)
		d.state.hasDir = false
	}
}

func (d *Dir) dropDirWithin(path string) {
	if d.state.hasDir && within(d.state.dirPath, path) {
		d.dropDir()
	}
}

func (d *Dir) dropFile() error {
	f := d.state.file
	d.state.file = nil
	if f == nil {
		return nil
	}
	return f.Close()
}

// open opens a regular file for reading and writing and keeps it for the next
// command. Nothing else is ever opened: a device or a pipe would act or block.
func (d *Dir) open(path string) (*os.File, error) {
	if d.state.file != nil && d.state.filePath == path {
		return d.state.file, nil
	}
	if err := d.dropFile(); err != nil {
		return nil, err
	}
	dir, name, err := d.parent(path)
	if err != nil {
		return nil, err
	}
	f, err := openRegular(dir, name, syscall.O_RDWR)
	if err != nil {
		return nil, err
	}
	d.state.file, d.state.filePath = f, path
	return f, nil
}

func openRegular(dir int, name string, flags int) (f *os.File, err error) {
	err = onNode(dir, name, func(proc string, mode uint32) error {
		switch mode & ModeType {
		case ModeRegular:
		case ModeDir:
			return syscall.EISDIR
		default:
			return syscall.EINVAL
		}
		fd, err := openat(atFDCWD, proc, flags, 0)
		if err == nil {
			f = os.NewFile(uintptr(fd), name)
		}
		return err
	})
	return f, err
}

// onNode calls do with the mode of a file and a path that leads to exactly this
// file, be it a symbolic link, even if its name is given to another meanwhile.
func onNode(dir int, name string, do func(proc string, mode uint32) error) error {
	fd, err := openat(dir, name, oPath|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return err
	}
	return do("/proc/self/fd/"+strconv.Itoa(fd), st.Mode)
}

func (d *Dir) write(path string, data []byte, offset uint64) error {
	if err := checkRange(offset, uint64(len(data))); err != nil {
		return err
	}
	f, err := d.open(path)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, int64(offset))
	return err
}

func (d *Dir) rename(from, to string) error {
	if err := CheckPath([]byte(to)); err != nil {
		return err
	}
	d.dropDirWithin(from)
	d.dropDirWithin(to)
	fromDir, fromName, err := d.parent(from)
	if err != nil {
		return err
	}
	// Not by parent, which would close the directory of the first.
	toParent, toName := splitPath(to)
	toDir, err := walk(d.state.root, toParent)
	if err != nil {
		return err
	}
	if toDir != d.state.root {
		defer syscall.Close(toDir)
	}
	return syscall.Renameat(fromDir, fromName, toDir, toName)
}

func (d *Dir) link(existing string, dir int, name string) error {
	if err := CheckPath([]byte(existing)); err != nil {
		return err
	}
	parent, oldName := splitPath(existing)
	oldDir, err := walk(d.state.root, parent)
	if err != nil {
		return err
	}
	if oldDir != d.state.root {
		defer syscall.Close(oldDir)
	}
	return linkat(oldDir, oldName, dir, name)
}

// source opens the file that a clone comes from.
func (d *Dir) source(c *Clone) (*os.File, error) {
	if err := CheckPath(c.SourcePath); err != nil {
		return nil, err
	}
	root := d.state.root
	if c.SourceUUID != d.state.uuid {
		id := sourceID{c.SourceUUID, c.SourceCtransid}
		f := d.state.sources[id]
		if f == nil {
			if d.Source == nil {
				return nil, fmt.Errorf("%w: %v at %d", ErrParent, c.SourceUUID, c.SourceCtransid)
			}
			dir, err := d.Source(c.SourceUUID, c.SourceCtransid)
			if err != nil {
				return nil, err
			}
			if f, err = os.Open(dir); err != nil {
				return nil, err
			}
			if d.state.sources == nil {
				d.state.sources = make(map[sourceID]*os.File)
			}
			d.state.sources[id] = f
		}
		root = int(f.Fd())
	}
	parent, name := splitPath(string(c.SourcePath))
	dir, err := walk(root, parent)
	if err != nil {
		return nil, err
	}
	if dir != root {
		defer syscall.Close(dir)
	}
	return openRegular(dir, name, syscall.O_RDONLY)
}

func (d *Dir) clone(path string, c *Clone) error {
	if err := errors.Join(checkRange(c.Offset, c.Len), checkRange(c.SourceOffset, c.Len)); err != nil {
		return err
	}
	dst, err := d.open(path)
	if err != nil {
		return err
	}
	src, err := d.source(c)
	if err != nil {
		return fmt.Errorf("from %q: %w", clip(c.SourcePath), err)
	}
	defer src.Close()
	if c.Len == 0 { // would mean up to the end of the file
		return nil
	}
	err = cloneRange(dst, src, c)
	if err == nil || d.MaxCopy <= 0 {
		return err
	}
	switch err {
	case syscall.EOPNOTSUPP, syscall.ENOTTY, syscall.EXDEV, syscall.EINVAL:
		return d.copyRange(dst, src, c)
	}
	return err
}

// copyRange copies what a clone would share. Holes stay holes.
func (d *Dir) copyRange(dst, src *os.File, c *Clone) error {
	info, err := src.Stat()
	if err != nil {
		return err
	}
	if c.SourceOffset+c.Len > uint64(info.Size()) {
		return fmt.Errorf("%w: the source has %d bytes", syscall.EINVAL, info.Size())
	}
	// First a hole, since where the source has one the target may have data.
	const punch = FallocKeepSize | FallocPunchHole
	end := int64(c.Offset + c.Len)
	if info, err := dst.Stat(); err != nil {
		return err
	} else if info.Size() < end {
		if err := dst.Truncate(end); err != nil {
			return err
		}
	}
	self := c.SourceUUID == d.state.uuid && string(c.SourcePath) == string(c.Path)
	if overlap := c.SourceOffset < c.Offset+c.Len && c.Offset < c.SourceOffset+c.Len; self && overlap {
		return fmt.Errorf("%w: ranges of one file that overlap", syscall.EINVAL)
	}
	if err := retry(func() error { return syscall.Fallocate(int(dst.Fd()), punch, int64(c.Offset), int64(c.Len)) }); err != nil {
		return err
	}
	pos, last := int64(c.SourceOffset), int64(c.SourceOffset+c.Len)
	for pos < last {
		data, err := src.Seek(pos, seekData)
		if errors.Is(err, syscall.ENXIO) || err == nil && data >= last {
			return nil
		} else if err != nil {
			return err
		}
		hole, err := src.Seek(data, seekHole)
		if err != nil {
			return err
		}
		size := min(hole, last) - data
		if d.state.copied += size; d.state.copied > d.MaxCopy {
			return fmt.Errorf("%w: clones copy more than %d bytes", ErrTooLarge, d.MaxCopy)
		}
		to := io.NewOffsetWriter(dst, int64(c.Offset)+data-int64(c.SourceOffset))
		if n, err := io.Copy(to, io.NewSectionReader(src, data, size)); err != nil || n != size {
			return errors.Join(err, fmt.Errorf("copied %d of %d bytes", n, size))
		}
		pos = data + size
	}
	return nil
}
