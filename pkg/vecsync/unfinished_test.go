package vecsync_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync/vecsynctest"
)

// A snapshot may come while a log is being made: it has a first event and its
// checkpoint not yet, or under the name that is not its own yet. The index does
// not begin with it, since the stream that comes after it would give the
// checkpoint a name and not what is in it; which was taken for a log that
// somebody has tampered with, for good.
func TestLogInTheMaking(t *testing.T) {
	for _, row := range []struct {
		name   string
		before func(checkpoint string) error
		after  func(checkpoint string) error
	}{
		{"before its checkpoint has its name", func(c string) error { return os.Rename(c, c+".tmp") }, func(c string) error { return os.Rename(c+".tmp", c) }},
		{"before its checkpoint", func(c string) error { return os.Rename(c, filepath.Dir(filepath.Dir(c))+"/aside") },
			func(c string) error { return os.Rename(filepath.Dir(filepath.Dir(c))+"/aside", c) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := vecsynctest.New(t, 7)
			checkpoint := filepath.Join(h.Dir, layout.Checkpoint)
			if err := row.before(checkpoint); err != nil {
				t.Fatal(err)
			}
			making := h.Snapshot()
			if err := row.after(checkpoint); err != nil {
				t.Fatal(err)
			}
			h.Append(10, 200)
			h.Checkpoint()
			made := h.Snapshot()

			ix := vecsynctest.NewIndex()
			err := ingest(ix, h, nil, making, vecsync.Options{})
			var later interface{ ExitCode() int }
			if !errors.As(err, &later) || later.ExitCode() != 75 {
				t.Errorf("a log in the making: %v, want that it is to be tried again", err)
			}
			if c, err := vecsync.ReadCursor(ix); err != nil || c != nil {
				t.Errorf("the index stands at %+v, %v", c, err)
			}
			if err := ingest(ix, h, nil, made, vecsync.Options{}); err != nil {
				t.Fatal(err)
			}
			if d := made.Diff(ix); d != "" {
				t.Error(d)
			}
		})
	}
}
