package local_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
)

// TestMain lets this binary be another user's process that reads an index.
func TestMain(m *testing.M) {
	if path := os.Getenv("GB_TEST_READ"); path != "" {
		db, err := local.OpenReader(path)
		if err == nil {
			defer db.Close()
			var found []index.Event
			found, _, err = db.Holding(context.Background(), []string{"bridge"}, index.Filter{}, 10)
			for range found {
				os.Stdout.WriteString("hit\n")
			}
		}
		if err != nil {
			os.Stdout.WriteString(err.Error() + "\n")
		}
		return
	}
	os.Exit(m.Run())
}

// A reader needs no right to write: the search runs as another user than the
// ingester.
func TestReadOnlyUser(t *testing.T) {
	require.Root(t)
	dir, err := os.MkdirTemp("", "gb-index-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "reader")
	if err := os.WriteFile(binary, self, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "index.db")
	read := func(when, want string) {
		t.Helper()
		cmd := exec.Command(binary)
		cmd.Env = []string{"GB_TEST_READ=" + path}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		var said strings.Builder // a test that counts what it covers warns there
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil || string(out) != want {
			t.Errorf("%s: got %q, %v, want %q\n%s", when, out, err, want, said.String())
		}
	}
	add := func(db *local.DB, i int64) {
		t.Helper()
		tx, err := db.Begin()
		if err == nil {
			err = tx.Add(&event.Event{Index: i, Source: "demo", Type: "note", Message: "the bridge"})
		}
		if err == nil {
			err = tx.Commit()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	open := func() *local.DB {
		t.Helper()
		db, err := local.Open(path, local.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := open()
	add(db, 0)
	read("while a writer has it open", "hit\n")
	add(db, 1)
	read("after another commit", "hit\nhit\n")
	db.Close()
	read("closed", "hit\nhit\n")
	db = open()
	read("opened again", "hit\nhit\n")
	add(db, 2)
	read("and written", "hit\nhit\nhit\n")
	db.Close()
	// A rebuild leaves the file alone.
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil {
			t.Fatal(err)
		}
	}
	read("without a write-ahead log", "hit\nhit\nhit\n")
	db = open()
	add(db, 3)
	read("and written again", "hit\nhit\nhit\nhit\n")
	db.Close()
}
