// Package durable replaces and creates files so that they survive a power
// cut, and locks directories.
//
// The order of system calls is the package's whole content. Replace does, for
// a file F in directory D:
//
//	open(F.tmp, O_CREAT|O_EXCL|O_WRONLY) write fsync close
//	rename(F.tmp, F)
//	open(D) fsync close
//
// After it returns nil, F has the new content after a crash; before, F has the
// old or the new content, never a mixture. After an error from fsync the page
// cache may hold pages that are marked clean and were never written: the
// caller must not try again on the same file, it must stop.
//
// BUG: on a file system mounted without barriers, or a disk that lies about
// its cache, none of this holds.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// A SyncError is a failed fsync or fdatasync: what was written may be lost
// although later calls succeed. Whoever gets one stops.
type SyncError struct{ Err error }

func (e *SyncError) Error() string { return e.Err.Error() }
func (e *SyncError) Unwrap() error { return e.Err }

// Replace writes data to path with the permission bits perm, atomically and
// durably. A left-over of an earlier crash at path+".tmp" is overwritten; the
// caller must hold whatever lock makes it the only writer of path.
func Replace(path string, data []byte, perm fs.FileMode) (err error) {
	tmp := path + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp)
		}
	}()
	if _, err = f.Write(data); err != nil {
		f.Close()
		return err
	}
	if err = f.Sync(); err != nil {
		f.Close()
		return &SyncError{err}
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(tmp, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Create makes a new file, empty and durable together with its directory
// entry, and returns it open for appending. It fails with fs.ErrExist if path
// is there already.
func Create(path string, perm fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, perm)
	if err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return nil, &SyncError{err}
	}
	if err := SyncDir(filepath.Dir(path)); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// SyncDir makes the entries of directory dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return &SyncError{err}
	}
	return nil
}

// SyncFS makes everything that was written to the file system of dir durable:
// syncfs(2), for many files at once that nobody waits for one by one.
func SyncFS(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return &SyncError{&fs.PathError{Op: "syncfs", Path: dir, Err: err}}
	}
	return nil
}

// Datasync makes the data of f, and as much of its metadata as is needed to
// read the data back (its size), durable: fdatasync(2).
func Datasync(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return &SyncError{&fs.PathError{Op: "fdatasync", Path: f.Name(), Err: err}}
		}
		return nil
	}
}

// ErrLocked says that another open file description holds the lock.
var ErrLocked = errors.New("locked by another process")

// A Lock is an exclusive flock(2) on a directory or file. It is released by
// Unlock or by the end of the process, however that ends. Being on the
// directory itself, it leaves no lock file behind in a snapshot.
type Lock struct{ f *os.File }

// TryLock takes the lock on path, which must exist, without waiting. It
// returns an error that wraps ErrLocked if somebody else has it.
func TryLock(path string) (*Lock, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := flock(f, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if err == syscall.EWOULDBLOCK {
			err = ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &Lock{f}, nil
}

// WaitLock takes an exclusive flock(2) on f, waiting for it. It is released
// when f is closed.
func WaitLock(f *os.File) error {
	if err := flock(f, syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}

func flock(f *os.File, how int) error {
	for {
		if err := syscall.Flock(int(f.Fd()), how); err != syscall.EINTR {
			return err
		}
	}
}

// Unlock releases the lock.
func (l *Lock) Unlock() error { return l.f.Close() }
