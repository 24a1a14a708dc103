// Package local is the index in one SQLite file: templates with their words and
// vectors, points and their occurrences, the values in them (FTS5), the events
// in compressed blocks, and the ingester's state. See schema.
//
// The file is in write-ahead mode and every commit is synced: what Commit has
// acknowledged survives a power cut. One process may write, any number may
// read meanwhile. A file made by another version of this package is refused;
// gb-vecsync rebuild makes it anew from the log.
//
// A reader holds words and vectors of all templates in memory: an inverted
// index, and for each vector a sketch of one bit and a byte a dimension. They
// are few, since a template stands for all lines that differ in values only.
// Points stay in the file.
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
	"sync"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/index"
)

// schemaVersion is kept in the file's user_version.
const schemaVersion = 2

// Times are nanoseconds since 1970, hours are hours since then. A template is
// known by its ordinal within this file, from 0, which is never used again.
const schema = `
CREATE TABLE state (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE origin (
	id INTEGER PRIMARY KEY, host TEXT NOT NULL, source TEXT NOT NULL, type TEXT NOT NULL, severity INTEGER NOT NULL, actor TEXT NOT NULL,
	UNIQUE (host, source, type, severity, actor)
);
CREATE TABLE template (
	ordinal INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, source TEXT NOT NULL, type TEXT NOT NULL,
	masked TEXT NOT NULL, extra TEXT NOT NULL, grp INTEGER NOT NULL
);
CREATE TABLE pending (ordinal INTEGER PRIMARY KEY); -- templates without a vector yet
CREATE TABLE drain (id INTEGER PRIMARY KEY, key TEXT NOT NULL, template TEXT NOT NULL);
CREATE TABLE pack (id INTEGER PRIMARY KEY, data BLOB NOT NULL); -- see pack.go
CREATE TABLE used (origin INTEGER, template INTEGER, PRIMARY KEY (origin, template)) WITHOUT ROWID;
CREATE TABLE point (
	template INTEGER, hour INTEGER, origin INTEGER, single INTEGER, id INTEGER NOT NULL,
	first INTEGER NOT NULL, last INTEGER NOT NULL, count INTEGER NOT NULL, minutes INTEGER NOT NULL, -- a bit for each of the hour
	more INTEGER NOT NULL, held BLOB NOT NULL, -- values: hashes of those in value; whether there were more
	PRIMARY KEY (template, hour, origin, single)
) WITHOUT ROWID;
CREATE UNIQUE INDEX point_by_id ON point (id);
CREATE INDEX point_by_hour ON point (hour, origin, template);
CREATE INDEX point_more ON point (hour) WHERE more;
CREATE TABLE occurrence (point INTEGER, i INTEGER, data BLOB NOT NULL, PRIMARY KEY (point, i DESC)) WITHOUT ROWID; -- see occurrence.go
CREATE TABLE block (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, n INTEGER NOT NULL, data BLOB NOT NULL); -- see block.go
CREATE VIRTUAL TABLE value USING fts5 (hash, content='', contentless_delete=1, detail=none, tokenize="ascii"); -- rowid: point's id * 128 + n
`

// Options are the writer's.
type Options struct {
	// Embedder gives the vectors; without one the index has none.
	Embedder index.Embedder
	// Unembedded is told why vectors are left for later; may be nil.
	Unembedded func(error)
	// Enrich adds to what a template is found by; may be nil.
	Enrich index.Enricher
	// Redact blacks out secrets; may be nil.
	Redact func(string) string

	// Mirror gets all that is committed, before it is; may be nil.
	Mirror index.Mirror
	// Unmirrored is told why a change of the state alone could not be told the
	// mirror. If it returns nil the change is kept all the same, and the mirror is
	// told with the next one. May be nil.
	Unmirrored func(error) error
	// State makes what the mirror tells of the state, and the log's verifier key;
	// may be nil.
	State func(interface {
		Get(key string) ([]byte, error)
	}) (state []byte, log string, err error)
	// Progress is called now and then while a commit is mirrored; may be nil.
	Progress func(done, of int)
}

// A DB is an open index.
type DB struct {
	db   *sql.DB
	path string
	file fs.FileInfo // of path when it was opened, nil if that is not known
	o    Options
	w    *writer // what the writer remembers, nil if that is to be loaded

	mu     sync.RWMutex // covers the two below, mem also while a reader brings it forward
	mem    *memory
	passed *passed
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
func Open(path string, o Options) (*DB, error) {
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
	if err == nil {
		d.o = o
		err = d.settleEmbedder()
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
	// A write-ahead log that is left of a file that somebody has deleted would be
	// taken for the new file's, and bring the old one back.
	for _, of := range []string{tmp, path} {
		for _, suffix := range []string{"-wal", "-shm"} {
			if err := os.Remove(of + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
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
	file, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("index: %w", err)
	}
	d, err := open(path, modeRead, "_pragma=query_only(1)")
	if err != nil {
		return nil, 0, err
	}
	d.file = file
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
	return &DB{db: db, path: path}, nil
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
	meta := "INSERT INTO meta VALUES ('file', hex(randomblob(8))), ('templates', 0), ('events', 0), ('epoch', 0), ('newest', NULL), ('embedder', '/0');\n"
	if _, err := tx.Exec(schema + meta + fmt.Sprintf("PRAGMA user_version = %d", schemaVersion)); err != nil {
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

// Current says whether a reader would see in a file opened anew what it sees in
// this one: nothing took the file's place, and it is open so that changes are
// seen.
func (d *DB) Current() bool {
	now, err := os.Stat(d.path)
	return err == nil && d.file != nil && os.SameFile(now, d.file)
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
