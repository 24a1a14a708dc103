package local

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"modernc.org/sqlite"
)

// A reader that may not write in the index's directory can use the files of
// the write-ahead log beside it, but not make them (sqlite.org/wal.html,
// "Read-Only Databases"). So the writer leaves them there when it closes.
func init() {
	sqlite.RegisterConnectionHook(func(conn sqlite.ExecQuerierContext, dsn string) error {
		if !strings.Contains(dsn, "?mode="+modeWrite+"&") {
			return nil
		}
		c, ok := conn.(sqlite.FileControl)
		if !ok {
			return fmt.Errorf("the SQLite driver can't keep the write-ahead log")
		}
		_, err := c.FileControlPersistWAL("main", 1)
		return err
	})
}

// Modes of opening, as SQLite's URIs have them.
const (
	modeWrite = "rwc"
	modeRead  = "ro"
)

// alone says whether err says that the index has no write-ahead log beside it
// and that this process may not make one: after rebuild, before the next
// stream. Then nobody writes the index, and the file is all there is.
//
// BUG: a stream that begins while such a reader reads changes the file under
// it. The reader may get an error then, or answer from half of the stream.
func alone(err error, path string) bool {
	const readOnlyDirectory, cantOpen = 1544, 14 // SQLITE_READONLY_DIRECTORY, SQLITE_CANTOPEN
	var e *sqlite.Error
	if !errors.As(err, &e) || e.Code() != readOnlyDirectory && e.Code() != cantOpen {
		return false
	}
	info, serr := os.Stat(path + "-wal")
	return errors.Is(serr, os.ErrNotExist) || serr == nil && info.Size() == 0
}
