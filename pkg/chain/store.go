package chain

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
)

// A store is the directory of a log as its writer uses it. Names are relative
// to it. dirStore is the real one; tests have one in memory that loses what
// was not synced.
type store interface {
	fs.FS

	// Create makes a new file, durable with its directory entry.
	Create(name string) (appender, error)
	// Append opens a file for appending and returns its size; it makes the
	// file if that is not there, durable with its directory entry.
	Append(name string) (f appender, size int64, err error)
	// Replace gives a file new content, atomically and durably, and makes the
	// directory that it is in.
	Replace(name string, data []byte) error
	// Remove removes a file; SyncDir makes that durable.
	Remove(name string) error
	// SyncDir makes the entries of a directory durable.
	SyncDir(name string) error
}

// An appender is a file that is only written at its end.
type appender interface {
	io.Writer
	// Datasync makes what was written durable. After an error nothing may be
	// written any more.
	Datasync() error
	// Truncate cuts the file to size bytes.
	Truncate(size int64) error
	io.Closer
}

// dirStore is a directory on a file system.
type dirStore struct {
	fs.FS
	dir string
}

func newDirStore(dir string) dirStore { return dirStore{os.DirFS(dir), dir} }

func (d dirStore) path(name string) string { return filepath.Join(d.dir, filepath.FromSlash(name)) }

func (d dirStore) Create(name string) (appender, error) {
	f, err := durable.Create(d.path(name), 0o644)
	if err != nil {
		return nil, err
	}
	return fileAppender{f}, nil
}

func (d dirStore) Append(name string) (appender, int64, error) {
	f, err := os.OpenFile(d.path(name), os.O_WRONLY|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		a, err := d.Create(name)
		return a, 0, err
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return fileAppender{f}, info.Size(), nil
}

func (d dirStore) Replace(name string, data []byte) error {
	path := d.path(name)
	err := durable.Replace(path, data, 0o644)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Make the directories that lack, each durable in its parent.
	var missing []string
	for dir := filepath.Dir(path); len(dir) > len(d.dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		missing = append(missing, dir)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := os.Mkdir(missing[i], 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := durable.SyncDir(filepath.Dir(missing[i])); err != nil {
			return err
		}
	}
	return durable.Replace(path, data, 0o644)
}

func (d dirStore) Remove(name string) error  { return os.Remove(d.path(name)) }
func (d dirStore) SyncDir(name string) error { return durable.SyncDir(d.path(name)) }

type fileAppender struct{ *os.File }

func (f fileAppender) Datasync() error { return durable.Datasync(f.File) }

// appendWhole appends data to the file called name and makes it durable. If it
// can't be written whole, nothing of it stays; if what was written can't be
// taken back, the error is as final as that of a sync.
func appendWhole(st store, name string, data []byte) error {
	f, size, err := st.Append(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		if terr := f.Truncate(size); terr != nil {
			return &durable.SyncError{Err: fmt.Errorf("%w, and the part that was written could not be taken back: %w", err, terr)}
		}
		return err
	}
	return f.Datasync()
}
