//go:build !race

package vecsync_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync/vecsynctest"
)

// A segment has 65,536 events whatever the test, and these go over one some
// thirty times: under the race detector that takes half a minute, and there is
// nothing concurrent in it. make test runs this package without it, too.

// oracleFaults is how many faults TestIndexEqualsLog injects.
const oracleFaults = 500

// large is a log of which the first segment is nearly full, indexed.
func large(t *testing.T) (h *vecsynctest.History, ix *vecsynctest.Index) {
	t.Helper()
	h = vecsynctest.New(t, 22)
	for range 13 {
		h.Append(5000, 0)
	}
	h.Append(layout.SegmentEvents-13*5000-100, 0)
	h.Checkpoint()
	ix = vecsynctest.NewIndex()
	if err := ingest(ix, h, nil, h.Snapshot(), vecsync.Options{}); err != nil {
		t.Fatal(err)
	}
	return h, ix
}

// next takes a snapshot and applies it.
func next(t *testing.T, h *vecsynctest.History, ix *vecsynctest.Index) *vecsynctest.Step {
	t.Helper()
	s := h.Snapshot()
	if err := ingest(ix, h, h.Step(len(h.Steps())-2), s, vecsync.Options{}); err != nil {
		t.Fatal(err)
	}
	if d := s.Diff(ix); d != "" {
		t.Fatal(d)
	}
	return s
}

func TestSegments(t *testing.T) {
	base, baseIndex := large(t)

	// A segment becomes full before, with, and after the checkpoint over it.
	t.Run("full", func(t *testing.T) {
		t.Parallel()
		h, ix := base.Fork(t), baseIndex.Clone()
		for _, n := range []int{90, 5, 10, 200} {
			h.Append(n, 50)
			next(t, h, ix) // not covered yet
			h.Checkpoint()
			next(t, h, ix)
		}
		rebuilt, _, err := rebuild(t, h, vecsync.RebuildOptions{})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "two segments", rebuilt, ix)
		// In one stream, from before.
		ix = baseIndex.Clone()
		if err := ingest(ix, h, h.Step(0), h.Step(len(h.Steps())-1), vecsync.Options{}); err != nil {
			t.Fatal(err)
		}
		same(t, "two segments", rebuilt, ix)
	})

	full, fullIndex := base.Fork(t), baseIndex.Clone()
	full.Append(300, 50)
	full.Checkpoint()
	next(t, full, fullIndex)
	full.Fork(t) // ends its writer, so that the tests below can fork it side by side

	t.Run("pruned", func(t *testing.T) {
		t.Parallel()
		for _, between := range []bool{false, true} {
			h, ix := full.Fork(t), fullIndex.Clone()
			h.AnnouncePrune(0, 0)
			if between {
				next(t, h, ix)
				announced, _, err := rebuild(t, h, vecsync.RebuildOptions{})
				if err != nil {
					t.Fatal(err)
				}
				same(t, "announced", announced, ix)
			}
			h.Remove(segment0)
			s := next(t, h, ix)
			if len(ix.Events()) != int(s.Size)-layout.SegmentEvents {
				t.Fatalf("%d events", len(ix.Events()))
			}
			rebuilt, _, err := rebuild(t, h, vecsync.RebuildOptions{})
			if err != nil {
				t.Fatal(err)
			}
			same(t, "pruned", rebuilt, ix)
			fresh := vecsynctest.NewIndex()
			if err := ingest(fresh, h, nil, s, vecsync.Options{}); err != nil {
				t.Fatal(err)
			}
			same(t, "a new index of a pruned log", rebuilt, fresh)
			h.Append(10, 10)
			h.RotateKey()
			next(t, h, ix)
			if err := ingest(rebuilt, h, nil, h.Step(len(h.Steps())-1), vecsync.Options{}); err != nil {
				t.Fatal(err)
			}
			same(t, "goes on", rebuilt, ix)
		}
	})

	// An index that is behind what was pruned takes the rest.
	t.Run("pruned past the index", func(t *testing.T) {
		t.Parallel()
		h, ix := full.Fork(t), baseIndex.Clone()
		h.RotateKey()
		h.AnnouncePrune(0, 0)
		h.Remove(segment0)
		s := h.Snapshot()
		if err := ingest(ix, h, h.Step(0), s, vecsync.Options{}); err != nil {
			t.Fatal(err)
		}
		if d := s.Diff(ix); d != "" {
			t.Fatal(d)
		}
	})

	t.Run("removed", func(t *testing.T) {
		t.Parallel()
		h, ix := full.Fork(t), fullIndex.Clone()
		h.Remove(segment0)
		s := h.Snapshot()
		var f *vecsync.Finding
		for what, x := range map[string]*vecsynctest.Index{"the index": ix, "a new index": vecsynctest.NewIndex()} {
			from := h.Step(1)
			if len(x.Events()) == 0 {
				from = nil
			}
			if err := ingest(x, h, from, s, vecsync.Options{}); !errors.As(err, &f) || f.Kind != vecsync.FindingRemoved || f.Index != 0 {
				t.Fatalf("%s: %v", what, err)
			}
		}
		if _, _, err := rebuild(t, h, vecsync.RebuildOptions{}); !errors.As(err, &f) || f.Kind != vecsync.FindingRemoved {
			t.Fatal(err)
		}
		// Accepted, it stays accepted, and nothing else with it.
		got, left, err := rebuild(t, h, vecsync.RebuildOptions{Old: ix, Accept: true})
		if err != nil || !slices.Equal(left, []vecsync.Span{{First: 0, Last: layout.SegmentEvents - 1}}) || len(got.Events()) != int(s.Size)-layout.SegmentEvents {
			t.Fatal(left, err)
		}
		if err := ingest(got, h, nil, s, vecsync.Options{}); err != nil {
			t.Fatal(err)
		}
		h.Append(5, 5)
		h.Checkpoint()
		s2 := h.Snapshot()
		if err := ingest(got, h, s, s2, vecsync.Options{}); err != nil {
			t.Fatal(err)
		}
		again, _, err := rebuild(t, h, vecsync.RebuildOptions{Old: got})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "accepted", again, got)
	})

	t.Run("a seal forged", func(t *testing.T) {
		t.Parallel()
		h, ix := full.Fork(t), fullIndex.Clone()
		edit(t, h, layout.Seals, func(b []byte) []byte { return bytes.Replace(b, []byte(`"time":["2026`), []byte(`"time":["2025`), 1) })
		var f *vecsync.Finding
		if err := ingest(ix, h, h.Step(1), h.Snapshot(), vecsync.Options{}); !errors.As(err, &f) || f.Kind != vecsync.FindingSeal {
			t.Fatal(err)
		}
	})

	t.Run("an event of a sealed segment forged", func(t *testing.T) {
		t.Parallel()
		h, ix := full.Fork(t), fullIndex.Clone()
		edit(t, h, segment0, forge(1000))
		s := h.Snapshot()
		var f *vecsync.Finding
		if err := ingest(ix, h, h.Step(1), s, vecsync.Options{}); !errors.As(err, &f) || f.Kind != vecsync.FindingChanged {
			t.Fatal(err)
		}
		if _, _, err := rebuild(t, h, vecsync.RebuildOptions{Old: ix}); !errors.As(err, &f) {
			t.Fatal(err)
		}
		got, left, err := rebuild(t, h, vecsync.RebuildOptions{Old: ix, Accept: true})
		if err != nil || !slices.Equal(left, []vecsync.Span{{First: 0, Last: layout.SegmentEvents - 1}}) {
			t.Fatal(left, err)
		}
		if len(got.Events()) != int(s.Size)-layout.SegmentEvents {
			t.Fatalf("%d events", len(got.Events()))
		}
		if err := ingest(got, h, nil, s, vecsync.Options{}); err != nil {
			t.Fatal(err)
		}
		// What was accepted is all that was accepted.
		if _, _, err := rebuild(t, h, vecsync.RebuildOptions{Old: got}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := rebuild(t, h, vecsync.RebuildOptions{Old: fullIndex}); !errors.As(err, &f) {
			t.Fatal(err)
		}
		// Another byte of the same segment is another finding.
		edit(t, h, segment0, forge(2000))
		if err := ingest(got, h, s, h.Snapshot(), vecsync.Options{}); !errors.As(err, &f) || f.Kind != vecsync.FindingChanged {
			t.Fatal(err)
		}
	})

	t.Run("an indexed event of the last segment forged", func(t *testing.T) {
		t.Parallel()
		h, ix := full.Fork(t), fullIndex.Clone()
		size := h.Step(1).Size
		h.Append(50, 50)
		h.Checkpoint()
		edit(t, h, layout.SegmentName(1), forge(10))
		s := h.Snapshot()
		var f *vecsync.Finding
		if err := ingest(ix, h, h.Step(1), s, vecsync.Options{}); !errors.As(err, &f) || f.Kind != vecsync.FindingChanged {
			t.Fatal(err)
		}
		got, left, err := rebuild(t, h, vecsync.RebuildOptions{Old: ix, Accept: true})
		if err != nil || !slices.Equal(left, []vecsync.Span{{First: layout.SegmentEvents, Last: size - 1}}) {
			t.Fatal(left, err)
		}
		if len(got.Events()) != layout.SegmentEvents+50 {
			t.Fatalf("%d events", len(got.Events()))
		}
		if err := ingest(got, h, nil, s, vecsync.Options{}); err != nil {
			t.Fatal(err)
		}
		// Without the index there is nothing that could vouch for the rest.
		if _, _, err := rebuild(t, h, vecsync.RebuildOptions{Accept: true}); !errors.As(err, &f) {
			t.Fatal(err)
		}
	})
}
