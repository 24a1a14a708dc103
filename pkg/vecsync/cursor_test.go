package vecsync_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync/vecsynctest"
)

// The index had committed and the cursor file could not be written, or the
// process was killed in between: the sender, who had read the file, is told to
// try again, and need not send all.
func TestCursorFileBehindTheIndex(t *testing.T) {
	h := vecsynctest.New(t, 31)
	for range 4 {
		h.Append(20, 100)
		h.Checkpoint()
		h.Snapshot()
	}
	ix := vecsynctest.NewIndex()
	o := vecsync.Options{Cursor: filepath.Join(t.TempDir(), "cursor")}
	if err := ingest(ix, h, nil, h.Step(0), o); err != nil {
		t.Fatal(err)
	}
	behind, err := os.ReadFile(o.Cursor)
	if err != nil {
		t.Fatal(err)
	}
	if err := ingest(ix, h, h.Step(0), h.Step(1), o); err != nil {
		t.Fatal(err)
	}
	right, err := os.ReadFile(o.Cursor)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.Cursor, behind, 0o644); err != nil {
		t.Fatal(err)
	}
	var stale *vecsync.StaleCursorError
	if err := ingest(ix, h, h.Step(0), h.Step(2), o); !errors.As(err, &stale) || stale.ExitCode() != 75 {
		t.Fatal(err)
	}
	if now, err := os.ReadFile(o.Cursor); err != nil || string(now) != string(right) {
		t.Errorf("the file says %s, %v", now, err)
	}
	if d := h.Step(1).Diff(ix); d != "" {
		t.Error(d)
	}
	// The same stream once more is not to be had with patience: the file has been
	// right since.
	var lost *vecsync.LostParentError
	if err := ingest(ix, h, h.Step(0), h.Step(2), o); !errors.As(err, &lost) || lost.ExitCode() != 5 {
		t.Fatal(err)
	}
	if err := ingest(ix, h, h.Step(1), h.Step(2), o); err != nil {
		t.Fatal(err)
	}
	// A file that names yet another snapshot excuses nobody.
	if err := os.WriteFile(o.Cursor, behind, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := ingest(ix, h, h.Step(1), h.Step(3), o); !errors.As(err, &lost) {
		t.Fatal(err)
	}
	if d := h.Step(2).Diff(ix); d != "" {
		t.Error(d)
	}
}
