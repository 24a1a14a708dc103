package vecsync_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync/vecsynctest"
)

func rebuild(t *testing.T, h *vecsynctest.History, o vecsync.RebuildOptions) (*vecsynctest.Index, []vecsync.Span, error) {
	t.Helper()
	ix := vecsynctest.NewIndex()
	_, left, err := vecsync.Rebuild(ix, h.Dir, o)
	return ix, left, err
}

// same compares all that a rebuilt index has with one that streams have made:
// not the names of files, which it can't know.
func same(t *testing.T, what string, rebuilt, streamed *vecsynctest.Index) {
	t.Helper()
	a, b := rebuilt.Events(), streamed.Events()
	if len(a) != len(b) {
		t.Fatalf("%s: %d events, streams have brought %d", what, len(a), len(b))
	}
	for i := range b {
		if a[i] != b[i] {
			t.Fatalf("%s: event %d is %+v, streams have brought %+v", what, i, a[i], b[i])
		}
	}
	derived := func(x *vecsynctest.Index) map[string]string {
		m := make(map[string]string)
		for k, v := range x.State() {
			switch {
			case strings.HasPrefix(k, "seg/"):
				m[k] = string(v[8:]) // without the identity of the file
			case strings.HasPrefix(k, "tail/"), strings.HasPrefix(k, "blk/"), k == "follower":
				m[k] = string(v)
			}
		}
		return m
	}
	sa, sb := derived(rebuilt), derived(streamed)
	if len(sa) != len(sb) {
		t.Fatalf("%s: %d records of state, streams have left %d", what, len(sa), len(sb))
	}
	for k := range sb {
		if sa[k] != sb[k] {
			t.Fatalf("%s: state %q differs:\n%.300q\n%.300q", what, k, sa[k], sb[k])
		}
	}
}

func TestRebuildIsIdentical(t *testing.T) {
	h := vecsynctest.New(t, 21)
	r := rand.New(rand.NewPCG(21, 1))
	streamed := vecsynctest.NewIndex()
	var last *vecsynctest.Step
	for k := range 12 {
		grow(t, h, r, 1) // two snapshots
		for _, s := range h.Steps()[2*k:] {
			if err := ingest(streamed, h, last, s, vecsync.Options{}); err != nil {
				t.Fatal(err)
			}
			last = s
		}
		rebuilt, left, err := rebuild(t, h, vecsync.RebuildOptions{})
		if err != nil || len(left) > 0 {
			t.Fatal(left, err)
		}
		same(t, fmt.Sprint("snapshot ", k), rebuilt, streamed)

		// An incremental stream is refused: nobody knows its names.
		var lost *vecsync.LostParentError
		if err := ingest(rebuilt, h, h.Step(2*k), last, vecsync.Options{}); !errors.As(err, &lost) || !strings.Contains(lost.Hint(), "--parent none") {
			t.Fatal(err)
		}
		// A full one is compared and brings nothing twice.
		events := -1
		o := vecsync.Options{Applied: func(c vecsync.Cursor, n int64) { events = int(n) }}
		if err := ingest(rebuilt, h, nil, last, o); err != nil || events != 0 {
			t.Fatal(events, err)
		}
		same(t, fmt.Sprint("reconciled, snapshot ", k), rebuilt, streamed)
		streamed = rebuilt // and it goes on from there
	}
}

// The first snapshot that arrives after a rebuild may have been taken before
// it. That is nobody's fault for a minute, and a log that was rolled back after
// that.
func TestSnapshotFromBeforeTheRebuild(t *testing.T) {
	h := vecsynctest.New(t, 23)
	for range 2 {
		h.Append(20, 100)
		h.Checkpoint()
		h.Snapshot()
	}
	ix, _, err := rebuild(t, h, vecsync.RebuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var late *vecsync.BeforeRebuildError
	if err := ingest(ix, h, nil, h.Step(0), vecsync.Options{}); !errors.As(err, &late) || late.ExitCode() != 75 {
		t.Fatal(err)
	}
	if err := ingest(ix, h, nil, h.Step(1), vecsync.Options{}); err != nil {
		t.Fatal(err)
	}
	if d := h.Step(1).Diff(ix); d != "" {
		t.Error(d)
	}
	// One that was rebuilt longer ago.
	ix, _, err = rebuild(t, h, vecsync.RebuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	tx, err := ix.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if err := tx.Set("rebuilt", time.Now().Add(-2*time.Minute).AppendFormat(nil, time.RFC3339Nano)); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	var f *vecsync.Finding
	if err := ingest(ix, h, nil, h.Step(0), vecsync.Options{}); !errors.As(err, &f) || f.Kind != vecsync.FindingRolledBack {
		t.Fatal(err)
	}
}
