//go:build linux

package vecsync_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/layout"
)

// What gb-chain prune deletes leaves the index with the next stream, and an
// index that is made anew, from the log or a stream, is the same.
func TestPrunedLog(t *testing.T) {
	h := newHost(t)
	h.serve()
	var lines bytes.Buffer
	for n := range layout.SegmentEvents + 200 {
		fmt.Fprintf(&lines, `{"source":"test","type":"test.note","message":"filler number %d"}`+"\n", n)
	}
	fill := h.command("gb-chain", "append", "-")
	fill.Stdin = &lines
	if out, err := fill.CombinedOutput(); err != nil {
		t.Fatalf("append: %v: %s", err, out)
	}
	h.append("the last one")
	h.shipped()
	count := func() int {
		t.Helper()
		var s struct{ Events int }
		if err := json.Unmarshal([]byte(h.ok("gb-vecsync", "stats", "--json")), &s); err != nil {
			t.Fatal(err)
		}
		return s.Events
	}
	if n := count(); n != h.events() {
		t.Fatalf("%d events in the index, %d in the log", n, h.events())
	}
	h.ok("gb-chain", "prune", "--keep-bytes", "1", "--reason", "there were enough", "--cursor", h.cursor)
	if _, err := os.Stat(filepath.Join(h.log, layout.SegmentName(0))); !os.IsNotExist(err) {
		t.Fatalf("the first segment is there: %v", err)
	}
	h.append("after the pruning")
	h.shipped()
	hits := func() string {
		return h.ok("gb-vecsync", "search", "--json", "filler") + h.ok("gb-vecsync", "search", "--json", "after the pruning")
	}
	want, events := hits(), h.events()-layout.SegmentEvents
	if n := count(); n != events || !strings.Contains(want, fmt.Sprintf(`"count":%d,`, 201)) || !strings.Contains(want, `"message":"after the pruning"`) {
		t.Fatalf("%d events in the index, want %d; an answer: %s", n, events, want)
	}
	points := h.points()
	for what, anew := range map[string]func(){
		"rebuilt": func() { h.ok("gb-vecsync", "rebuild") },
		"sent in full": func() {
			for _, path := range []string{h.index, h.index + "-wal", h.index + "-shm", h.cursor} {
				os.Remove(path)
			}
			h.shipped()
		},
	} {
		anew()
		if n, got := count(), hits(); n != events || got != want || !slices.Equal(h.points(), points) {
			t.Errorf("%s: %d events in the index, want %d; the same answer: %t, the same points: %t", what, n, events, got == want, slices.Equal(h.points(), points))
		}
	}
}
