//go:build linux

package vecsync_test

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// forge changes the line that holds text, in place and while the daemon has
// the file, and makes its checksum right again.
func (h *host) forge(text string) {
	h.Helper()
	path := filepath.Join(h.log, "000000.jsonl")
	data, err := os.ReadFile(path)
	h.must(err)
	at := bytes.Index(data, []byte(text))
	if at < 0 {
		h.Fatalf("no %q in the log", text)
	}
	begin, end := bytes.LastIndexByte(data[:at], '\n')+1, at+bytes.IndexByte(data[at:], '\n')
	line := bytes.Clone(data[begin:end])
	line[at-begin] ^= 0x20
	sum := bytes.LastIndex(line, []byte(`,"c":"`))
	copy(line[sum+6:], fmt.Sprintf("%08x", crc32.Checksum(line[:sum], crc32.MakeTable(crc32.Castagnoli))))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	h.must(err)
	defer f.Close()
	_, err = f.WriteAt(line, int64(begin))
	h.must(err)
}

// query returns the events of a type. The log says NOT VERIFIED, which is right.
func (h *host) query(kind string) string {
	h.Helper()
	return h.fails(3, "gb-chain", "query", "--type", kind, "--json")
}

func (h *host) shipped() {
	h.Helper()
	if code, words := h.ship(); code != 0 {
		h.Fatalf("exit code %d: %s", code, words)
	}
}

// A byte of an indexed event is changed on the disk, with its checksum made
// right: the next second finds it, says so in the log and in every answer, and
// takes nothing until somebody accepts it, which is an event too.
func TestTamperedLog(t *testing.T) {
	h := newHost(t)
	h.serve()
	h.append("alpha one")
	h.append("beta two")
	h.shipped()
	h.forge("alpha")
	h.append("gamma three")
	before, err := os.ReadFile(h.cursor)
	h.must(err)

	code, words := h.ship()
	if code != 3 || !strings.Contains(words, "tamper finding 1: changed at event 0") {
		t.Fatalf("exit code %d: %s", code, words)
	}
	if after, err := os.ReadFile(h.cursor); err != nil || !bytes.Equal(after, before) {
		t.Fatalf("the cursor was %s, is %s, %v", before, after, err)
	}
	if out := h.query("vecsync.finding"); strings.Count(out, `"kind":"changed"`) != 1 || !strings.Contains(out, `"severity":"crit"`) {
		t.Fatalf("the event of the finding: %s", out)
	}
	if out := h.ok("gb-vecsync", "search", "--json", "beta"); !strings.Contains(out, `"verified":null,"finding":"tamper finding 1`) {
		t.Fatalf("an answer: %s", out)
	}
	h.fails(3, "gb-vecsync", "stats")

	// It stands: what comes is not taken, and makes no event of its own.
	for range 3 {
		if code, words := h.ship(); code != 3 {
			t.Fatalf("exit code %d: %s", code, words)
		}
	}
	if out := h.query("vecsync.finding"); strings.Count(out, `"kind":"changed"`) != 1 {
		t.Fatalf("the event of the finding: %s", out)
	}

	// Accepted, with the reason in the log; what nothing vouches for is left
	// out and named.
	h.fails(3, "gb-vecsync", "rebuild")
	out := h.fails(0, "gb-vecsync", "rebuild", "--accept", "1", "--reason", "known to the operator")
	if !strings.Contains(out, "left out, since nothing vouches for them: events 0 to 2") {
		t.Fatalf("rebuild: %s", out)
	}
	if out := h.query("vecsync.accepted"); !strings.Contains(out, "known to the operator") || !strings.Contains(out, `"left_out":[{"first":0,"last":2}]`) {
		t.Fatalf("the event of the acceptance: %s", out)
	}
	h.append("delta four")
	if code, words := h.ship("--parent", "none"); code != 0 {
		t.Fatalf("exit code %d: %s", code, words)
	}
	h.append("epsilon five")
	h.shipped()
	for word, want := range map[string]bool{"alpha": false, "beta": false, "gamma": true, "delta": true, "epsilon": true} {
		if out := h.ok("gb-vecsync", "search", "--json", word); strings.Contains(out, `"message":"`+word) != want {
			t.Errorf("%s: %s", word, out)
		}
	}
	if out := h.ok("gb-vecsync", "stats"); !strings.Contains(out, "accepted: known to the operator") {
		t.Errorf("stats: %s", out)
	}
}

// What the daemon wrote is cut off or deleted behind its back.
func TestShrunkenAndRemovedSegment(t *testing.T) {
	for name, do := range map[string]func(h *host, path string) error{
		"shrunken": func(h *host, path string) error { return os.Truncate(path, 300) },
		"removed":  func(h *host, path string) error { return os.Remove(path) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.serve()
			h.append("alpha one")
			h.shipped()
			h.must(do(h, filepath.Join(h.log, "000000.jsonl")))
			code, words := h.ship()
			if code != 3 || !strings.Contains(words, "tamper finding 1: "+name) {
				t.Fatalf("exit code %d: %s", code, words)
			}
			if out := h.fails(3, "gb-vecsync", "stats", "--json"); !strings.Contains(out, `"kind":"`+name) {
				t.Fatalf("stats: %s", out)
			}
		})
	}
}

// An index that is lost comes back from the log alone, and from a full stream,
// and is the same each time.
func TestLostIndex(t *testing.T) {
	h := newHost(t)
	h.serve()
	for _, word := range []string{"alpha", "beta", "gamma"} {
		h.append(word + " event")
		h.append(fmt.Sprintf("event number %d of 10.0.0.%d", len(word), len(word)))
		h.shipped()
	}
	hits := func() string { return h.ok("gb-vecsync", "search", "--json", "-n", "100", "event") }
	want, points := hits(), h.points()
	same := func(what string) {
		t.Helper()
		if got := hits(); got != want {
			t.Fatalf("%s:\n%s\nwas:\n%s", what, got, want)
		}
		if got := h.points(); !slices.Equal(got, points) {
			t.Fatalf("%s:\n%s\nwas:\n%s", what, strings.Join(got, "\n"), strings.Join(points, "\n"))
		}
	}
	lose := func() {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			os.Remove(h.index + suffix)
		}
	}
	lose()
	h.ok("gb-vecsync", "rebuild")
	same("rebuilt")
	h.shipped() // the cursor file is gone: a full stream, which brings nothing twice
	same("reconciled")
	// The index is deleted and its cursor file is not: if gb-snap reads that
	// before gb-vecsync takes it away, the next attempt sends all.
	lose()
	for range 2 {
		if code, words := h.ship(); code != 0 && code != 5 {
			t.Fatalf("exit code %d: %s", code, words)
		}
	}
	same("sent again")
}
