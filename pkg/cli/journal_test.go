package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestJournalPriorities(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(w.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino))
	l := Logger(w).With("a", 1).WithGroup("g")
	l.Debug("left out")
	l.Info("info", "b", 2)
	l.Warn("warn")
	l.Error("error")
	Report(w, "gb-x", WithHint(errors.New("broken"), "mend it"))
	// Another stream than the journal's has no marks.
	t.Setenv("JOURNAL_STREAM", "1:1")
	Report(w, "gb-x", errors.New("plain"))
	if priority(w, slog.LevelError) != "" || priority(io.Discard, slog.LevelError) != "" {
		t.Error("a mark on what is not the journal")
	}
	w.Close()
	got, err := io.ReadAll(r)
	want := "<6>msg=info a=1 g.b=2\n<4>msg=warn a=1\n<3>msg=error a=1\n<3>gb-x: broken\n<3>hint: mend it\ngb-x: plain\n"
	if err != nil || string(got) != want {
		t.Errorf("got %q, %v\nwant %q", got, err, want)
	}
}
