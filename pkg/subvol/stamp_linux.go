//go:build linux && cgo

package subvol

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Stamp walks the subvolume at path. It does not follow symbolic links, does
// not enter other subvolumes and moves no access times. What vanishes while it
// walks is left out.
func (System) Stamp(ctx context.Context, path string) (Stamp, error) {
	f, err := openDir(path)
	if err != nil {
		return Stamp{}, err
	}
	w := walker{sum: sha256.New()}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return Stamp{}, pathError("stat", path, err)
	}
	w.dev = st.Dev
	w.add("", &st)
	if err := w.walk(ctx, f); err != nil {
		return Stamp{}, pathError("walk", path, err)
	}
	return Stamp{[32]byte(w.sum.Sum(nil)), w.n}, nil
}

type walker struct {
	sum hash.Hash
	dev uint64
	n   int
	buf []byte
}

// walk adds what is in dir, and closes it. Its depth is that of the tree, with
// a descriptor for each level.
func (w *walker) walk(ctx context.Context, dir *os.File) error {
	defer dir.Close()
	if err := ctx.Err(); err != nil {
		return err
	}
	entries, err := dir.ReadDir(-1) // as the directory gives them, unsorted
	if err != nil {
		return err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	slices.Sort(names)
	fd := int(dir.Fd())
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			if err == unix.ENOENT {
				continue
			}
			return pathError("stat", name, err)
		}
		// Another subvolume is in a snapshot an empty directory with inode 2
		// and the snapshot's own device number; neither is looked at.
		if st.Dev != w.dev || st.Ino == 2 {
			continue
		}
		w.add(name, &st)
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		sub, err := w.open(fd, name)
		if err == unix.ENOENT || err == unix.ENOTDIR {
			continue
		}
		if err != nil {
			return pathError("open", name, err)
		}
		if err := w.walk(ctx, os.NewFile(uintptr(sub), name)); err != nil {
			return err
		}
		w.sum.Write([]byte{0xff}) // end of directory
	}
	return nil
}

func (w *walker) open(dir int, name string) (int, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NOFOLLOW
	fd, err := unix.Openat(dir, name, flags|unix.O_NOATIME, 0)
	if err == unix.EPERM {
		fd, err = unix.Openat(dir, name, flags, 0)
	}
	return fd, err
}

func (w *walker) add(name string, st *unix.Stat_t) {
	b := append(w.buf[:0], name...)
	b = append(b, 0)
	for _, v := range [...]uint64{
		st.Ino, uint64(st.Mode), uint64(st.Nlink), uint64(st.Uid), uint64(st.Gid), uint64(st.Size), uint64(st.Rdev),
		uint64(st.Mtim.Sec), uint64(st.Mtim.Nsec), uint64(st.Ctim.Sec), uint64(st.Ctim.Nsec),
	} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	w.buf = b
	w.sum.Write(b)
	w.n++
}
