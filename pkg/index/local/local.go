// Package local is the index in one SQLite file: events, a full-text index of
// their words ranked by BM25 (FTS5), and the ingester's state.
//
// The file is in write-ahead mode and every commit is synced: what Commit has
// acknowledged survives a power cut. One process may write, any number may
// read meanwhile. A file made by another version of this package is refused;
// gb-vecsync rebuild makes it anew from the log.
package local

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
)

// schemaVersion is kept in the file's user_version.
const schemaVersion = 1

// The times are nanoseconds since 1970. What FTS5 indexes stands in the
// columns of event_text, whose rows are those of event.
const schema = `
CREATE TABLE state (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE event (
	i        INTEGER PRIMARY KEY,
	time     INTEGER NOT NULL,
	severity INTEGER NOT NULL,
	host     TEXT NOT NULL,
	source   TEXT NOT NULL,
	type     TEXT NOT NULL,
	subject  TEXT NOT NULL,
	actor    TEXT NOT NULL,
	message  TEXT NOT NULL,
	data     TEXT NOT NULL
);
CREATE INDEX event_by_time ON event (time, severity, source, type);
CREATE VIRTUAL TABLE event_text USING fts5 (
	message, subject, origin, data,
	content='', contentless_delete=1, tokenize="porter unicode61 remove_diacritics 2"
);
`

// maxData is how many bytes of an event's data are kept and indexed; the rest
// stands in the log.
const maxData = 4096

// A DB is an open index.
type DB struct {
	db   *sql.DB
	path string
}

var (
	_ index.Writer = (*DB)(nil)
	_ index.Reader = (*DB)(nil)
)

// A VersionError says that the file is of another version: exit code 2.
type VersionError struct {
	Path string
	Have int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("index %s has version %d, this program makes %d", e.Path, e.Have, schemaVersion)
}

// ExitCode is that of wrong configuration.
func (e *VersionError) ExitCode() int { return 2 }

// Hint says what to do.
func (e *VersionError) Hint() string { return "gb-vecsync rebuild makes it anew from the log" }

// Open opens the index at path for writing, and makes it if it is not there.
// The caller holds the lock that makes it the only writer.
func Open(path string) (*DB, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(path); err != nil {
			return nil, fmt.Errorf("index %s: %w", path, err)
		}
	}
	d, err := openWriter(path)
	if err != nil {
		return nil, err
	}
	v, err := d.version()
	if err == nil && v != schemaVersion {
		err = &VersionError{path, v}
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func openWriter(path string) (*DB, error) {
	return open(path, modeWrite, "_pragma=journal_mode(WAL)", "_pragma=synchronous(FULL)", "_txlock=immediate")
}

// create makes an empty index under another name and moves it to path. Were it
// made in place, a crash could leave a database that is not in write-ahead mode
// yet, with a journal that a reader may not roll back.
func create(path string) error {
	tmp := path + ".new"
	for _, suffix := range []string{"", "-journal", "-wal", "-shm"} { // what a crash left
		if err := os.Remove(tmp + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	d, err := openWriter(tmp)
	if err != nil {
		return err
	}
	// The last connection to close brings the write-ahead log into the file.
	if err := errors.Join(d.create(), d.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

// OpenReader opens the index at path for searching.
func OpenReader(path string) (*DB, error) {
	d, v, err := openReader(path)
	if err == nil && v != schemaVersion {
		d.Close()
		return nil, &VersionError{path, v}
	}
	return d, err
}

// OpenState opens the index at path, of whatever version, for Get alone: the
// table of the state is the same in all versions.
func OpenState(path string) (*DB, error) {
	d, _, err := openReader(path)
	return d, err
}

// openReader returns the version too.
func openReader(path string) (*DB, int, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("index: %w", err)
	}
	d, err := open(path, modeRead, "_pragma=query_only(1)")
	if err != nil {
		return nil, 0, err
	}
	v, err := d.version()
	if alone(err, path) {
		d.Close()
		if d, err = open(path, modeRead, "_pragma=query_only(1)", "immutable=1"); err != nil {
			return nil, 0, err
		}
		v, err = d.version()
	}
	if err != nil {
		d.Close()
		return nil, 0, err
	}
	return d, v, nil
}

func open(path, mode string, pragmas ...string) (*DB, error) {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}
	db, err := sql.Open("sqlite", u.String()+"?mode="+mode+"&_pragma=busy_timeout(5000)&"+strings.Join(pragmas, "&"))
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", path, err)
	}
	return &DB{db, path}, nil
}

func (d *DB) version() (v int, err error) {
	if err := d.db.QueryRow("PRAGMA user_version").Scan(&v); err != nil {
		return 0, fmt.Errorf("index %s: %w", d.path, err)
	}
	return v, nil
}

func (d *DB) create() error {
	tx, err := d.db.Begin()
	if err != nil {
		return fmt.Errorf("index %s: %w", d.path, err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec(schema + fmt.Sprintf("PRAGMA user_version = %d", schemaVersion)); err != nil {
		return fmt.Errorf("index %s: %w", d.path, err)
	}
	return tx.Commit()
}

// Settle brings all that was committed into the index's one file, so that it
// is whole without the write-ahead log beside it.
func (d *DB) Settle() error {
	if _, err := d.db.Exec("PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
		return fmt.Errorf("index %s: %w", d.path, err)
	}
	return nil
}

// Close closes the index.
func (d *DB) Close() error { return d.db.Close() }

// Get implements index.Writer and index.Reader.
func (d *DB) Get(key string) ([]byte, error) {
	var v []byte
	err := d.db.QueryRow("SELECT value FROM state WHERE key = ?", []byte(key)).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", d.path, err)
	}
	return v, nil
}

// Scan implements index.Writer.
func (d *DB) Scan(prefix string) (iter.Seq2[string, []byte], func() error) {
	var failed error
	seq := func(yield func(string, []byte) bool) {
		// Keys are compared as bytes. Prefixes are chosen so that no key behind
		// one starts with two bytes 0xff.
		rows, err := d.db.Query("SELECT key, value FROM state WHERE key >= ? AND key < ? ORDER BY key", []byte(prefix), []byte(prefix+"\xff\xff"))
		if err != nil {
			failed = err
			return
		}
		defer rows.Close()
		for rows.Next() {
			var k, v []byte
			if failed = rows.Scan(&k, &v); failed != nil {
				return
			}
			if !yield(string(k), v) {
				return
			}
		}
		failed = rows.Err()
	}
	return seq, func() error {
		if failed != nil {
			return fmt.Errorf("index %s: %w", d.path, failed)
		}
		return nil
	}
}

// Count implements index.Reader.
func (d *DB) Count() (events int64, newest time.Time, err error) {
	var ns sql.NullInt64
	if err := d.db.QueryRow("SELECT (SELECT count(*) FROM event), (SELECT max(time) FROM event)").Scan(&events, &ns); err != nil {
		return 0, newest, fmt.Errorf("index %s: %w", d.path, err)
	}
	if ns.Valid {
		newest = time.Unix(0, ns.Int64).UTC()
	}
	return events, newest, nil
}

// A tx is a transaction on a DB.
type tx struct {
	path     string
	tx       *sql.Tx
	add      *sql.Stmt
	addText  *sql.Stmt
	set, del *sql.Stmt
}

// Begin implements index.Writer.
func (d *DB) Begin() (index.Tx, error) {
	t, err := d.db.Begin()
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", d.path, err)
	}
	x := &tx{path: d.path, tx: t}
	for _, p := range []struct {
		s   **sql.Stmt
		sql string
	}{
		{&x.add, "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"},
		{&x.addText, "INSERT INTO event_text (rowid, message, subject, origin, data) VALUES (?, ?, ?, ?, ?)"},
		{&x.set, "INSERT OR REPLACE INTO state VALUES (?, ?)"},
		{&x.del, "DELETE FROM state WHERE key = ?"},
	} {
		if *p.s, err = t.Prepare(p.sql); err != nil {
			t.Rollback()
			return nil, fmt.Errorf("index %s: %w", d.path, err)
		}
	}
	return x, nil
}

func (x *tx) wrap(err error) error {
	if err != nil {
		return fmt.Errorf("index %s: %w", x.path, err)
	}
	return nil
}

func (x *tx) Add(e *event.Event) error {
	data := string(e.Data)
	if len(data) > maxData {
		data = strings.ToValidUTF8(data[:maxData], "")
	}
	_, err := x.add.Exec(e.Index, e.Time.UnixNano(), int(e.Severity), e.Host, e.Source, e.Type, e.Subject, e.Actor, e.Message, data)
	if err == nil {
		_, err = x.addText.Exec(e.Index, e.Message, e.Subject, strings.Join([]string{e.Source, e.Type, e.Host, e.Actor}, " "), data)
	}
	return x.wrap(err)
}

func (x *tx) Remove(first, end int64) error {
	if _, err := x.tx.Exec("DELETE FROM event_text WHERE rowid >= ? AND rowid < ?", first, end); err != nil {
		return x.wrap(err)
	}
	_, err := x.tx.Exec("DELETE FROM event WHERE i >= ? AND i < ?", first, end)
	return x.wrap(err)
}

func (x *tx) Set(key string, value []byte) error {
	var err error
	if value == nil {
		_, err = x.del.Exec([]byte(key))
	} else {
		_, err = x.set.Exec([]byte(key), value)
	}
	return x.wrap(err)
}

func (x *tx) Commit() error { return x.wrap(x.tx.Commit()) }

func (x *tx) Rollback() error {
	if err := x.tx.Rollback(); !errors.Is(err, sql.ErrTxDone) {
		return x.wrap(err)
	}
	return nil
}
