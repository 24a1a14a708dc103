package chain

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// A Created log is what Create made.
type Created struct {
	layout.Created
	KeysDir  string // where its secret keys are
	Recovery string // the secret recovery key: stored nowhere
}

// ErrExists says that there is a log already.
var ErrExists = errors.New("a log is there already")

// Create makes a new log in dir, which it makes too if need be, and its keys
// below keysDir. Its first event holds its public keys. The log is there for
// others only when its first checkpoint is: a Create that was interrupted is
// begun anew by the next one. For a dir that holds a log the error wraps
// ErrExists.
func Create(dir, origin, keysDir string, o Options) (*Created, error) {
	if err := merkle.CheckName(origin); err != nil {
		return nil, &configError{err, ""}
	}
	if _, err := CheckKeysDir(keysDir, dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := durable.TryLock(dir)
	if err != nil {
		return nil, err
	}
	defer lock.Unlock()
	if _, err := os.Stat(filepath.Join(dir, layout.Checkpoint)); err == nil {
		return nil, fmt.Errorf("log %s: %w", dir, ErrExists)
	}
	st := newDirStore(dir)
	if err := clearUnfinished(st); err != nil {
		return nil, fmt.Errorf("log %s: %w", dir, err)
	}

	var keys [3]*merkle.Signer
	for i, name := range []string{origin, layout.EpochKeyName(origin), layout.RecoveryKeyName(origin)} {
		if keys[i], err = o.key(name); err != nil {
			return nil, err
		}
	}
	k, err := createKeys(keysDir, keys[0], keys[1])
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	c := layout.Created{
		Format: layout.FormatVersion, Origin: origin,
		LogKey: keys[0].Verifier(), EpochKey: keys[1].Verifier(), RecoveryKey: keys[2].Verifier(),
	}
	l := newLog(dir, st, k, o)
	defer l.release()
	if err := l.create(c); err != nil {
		return nil, err
	}
	return &Created{Created: c, KeysDir: k.dir, Recovery: keys[2].Secret()}, nil
}

// create writes the first event and signs it.
func (l *Log) create(c layout.Created) (err error) {
	if l.f, err = l.st.Create(layout.SegmentName(0)); err != nil {
		return err
	}
	draft, err := event.Own(layout.TypeCreated, event.Notice, "log "+c.Origin+" created", c)
	if err != nil {
		return err
	}
	if err := l.appendOwn(draft); err != nil {
		return err
	}
	return l.checkpoint(true)
}

// clearUnfinished removes what an interrupted Create left: a first segment of
// at most one line, without a checkpoint. It refuses anything else.
func clearUnfinished(st dirStore) error {
	ns, err := segments(st)
	if err != nil {
		return err
	}
	if len(ns) == 0 {
		return nil
	}
	f, err := st.Open(layout.SegmentName(ns[0]))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	r := newLineReader(f)
	r.next()
	if len(ns) > 1 || ns[0] != 0 || r.off != info.Size() {
		return errors.New("there are events but no checkpoint; nothing was changed")
	}
	if err := st.Remove(layout.SegmentName(0)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return st.SyncDir(".")
}

// now returns the log's clock.
func (o Options) now() time.Time {
	if o.Now != nil {
		return o.Now()
	}
	return time.Now()
}
