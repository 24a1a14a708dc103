package vecsync_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync/vecsynctest"
)

// ingest sends an index what leads from its cursor to step to.
func ingest(ix *vecsynctest.Index, h *vecsynctest.History, from, to *vecsynctest.Step, o vecsync.Options) error {
	_, err := vecsync.Ingest(ix, bytes.NewReader(vecsynctest.Stream(from, to, vecsynctest.Form{Version: 2})), o)
	return err
}

// edit changes a file of the log in place.
func edit(t *testing.T, h *vecsynctest.History, name string, change func([]byte) []byte) {
	t.Helper()
	path := filepath.Join(h.Dir, name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// forge changes the text of an event and makes its checksum right again.
func forge(i int64) func([]byte) []byte {
	return func(data []byte) []byte {
		lines := bytes.SplitAfter(bytes.Clone(data), []byte("\n"))
		line := lines[i]
		at := bytes.Index(line, []byte("event number ")) // a letter that every event has
		line[at] = 'E'
		sum := bytes.LastIndex(line, []byte(`,"c":"`))
		copy(line[sum+6:], fmt.Sprintf("%08x", crc32.Checksum(line[:sum], crc32.MakeTable(crc32.Castagnoli))))
		return bytes.Join(lines, nil)
	}
}

const segment0 = "000000.jsonl"

// Each row does something to the log that nobody may do, after events were
// indexed and before more are. The checkpoint that follows is signed by the
// real writer where it goes on writing.
func TestTampering(t *testing.T) {
	rows := []struct {
		name   string
		do     func(t *testing.T, h *vecsynctest.History)
		kind   string // of the finding; "" for none
		detail string
	}{
		{"nothing", func(t *testing.T, h *vecsynctest.History) {}, "", ""},
		{"an old event forged", func(t *testing.T, h *vecsynctest.History) { edit(t, h, segment0, forge(5)) }, vecsync.FindingChanged, "byte"},
		{"the newest indexed event forged", func(t *testing.T, h *vecsynctest.History) { edit(t, h, segment0, forge(300)) }, vecsync.FindingChanged, "byte"},
		{"an event forged that is not indexed yet", func(t *testing.T, h *vecsynctest.History) { edit(t, h, segment0, forge(302)) }, vecsync.FindingRoot, "checkpoint"},
		{"a checksum wrong in what is not indexed yet", func(t *testing.T, h *vecsynctest.History) {
			edit(t, h, segment0, func(b []byte) []byte {
				lines := bytes.SplitAfter(b, []byte("\n"))
				lines[302][30] ^= 1
				return bytes.Join(lines, nil)
			})
		}, vecsync.FindingLine, ""},
		{"two events exchanged", func(t *testing.T, h *vecsynctest.History) {
			edit(t, h, segment0, func(b []byte) []byte {
				lines := bytes.SplitAfter(b, []byte("\n"))
				lines[302], lines[303] = lines[303], lines[302]
				return bytes.Join(lines, nil)
			})
		}, vecsync.FindingLine, "stands in its place"},
		{"an event deleted", func(t *testing.T, h *vecsynctest.History) {
			edit(t, h, segment0, func(b []byte) []byte {
				lines := bytes.SplitAfter(b, []byte("\n"))
				return bytes.Join(append(lines[:7:7], lines[8:]...), nil)
			})
		}, vecsync.FindingChanged, ""},
		{"shrunken", func(t *testing.T, h *vecsynctest.History) {
			edit(t, h, segment0, func(b []byte) []byte { return b[:20000] })
		}, vecsync.FindingShrunk, "20000 bytes"},
		{"emptied and filled again", func(t *testing.T, h *vecsynctest.History) {
			edit(t, h, segment0, func(b []byte) []byte { return append(make([]byte, 5000), b[5000:]...) })
		}, vecsync.FindingChanged, ""},
		{"removed", func(t *testing.T, h *vecsynctest.History) { h.Remove(segment0) }, vecsync.FindingRemoved, ""},
		{"replaced by a copy", func(t *testing.T, h *vecsynctest.History) {
			data, err := os.ReadFile(filepath.Join(h.Dir, segment0))
			if err != nil {
				t.Fatal(err)
			}
			h.Remove(segment0)
			if err := os.WriteFile(filepath.Join(h.Dir, segment0), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}, "", ""}, // byte for byte the same: nothing was changed
		{"everything removed", func(t *testing.T, h *vecsynctest.History) {
			if err := os.RemoveAll(h.Dir); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(h.Dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}, vecsync.FindingRemoved, "no log"},
		{"signature broken", func(t *testing.T, h *vecsynctest.History) {
			edit(t, h, layout.Checkpoint, func(b []byte) []byte { b[len(b)-8] ^= 1; return b })
		}, vecsync.FindingSignature, ""},
		{"checkpoint unreadable", func(t *testing.T, h *vecsynctest.History) {
			edit(t, h, layout.Checkpoint, func(b []byte) []byte { return b[:10] })
		}, vecsync.FindingSignature, ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			h := vecsynctest.New(t, 7)
			h.Append(300, 200)
			h.Checkpoint()
			one := h.Snapshot()
			h.Append(10, 200)
			h.Checkpoint()
			row.do(t, h)
			two := h.Snapshot()

			ix := vecsynctest.NewIndex()
			if err := ingest(ix, h, nil, one, vecsync.Options{}); err != nil {
				t.Fatal(err)
			}
			clean := ix.Clone()
			for _, full := range []bool{false, true} {
				from := one
				if full {
					from = nil
				}
				ix := clean.Clone()
				recorded := 0
				o := vecsync.Options{Record: func(*vecsync.Finding) error { recorded++; return nil }}
				err := ingest(ix, h, from, two, o)
				var f *vecsync.Finding
				if row.kind == "" {
					if err != nil || two.Diff(ix) != "" {
						t.Fatalf("full %t: %v %s", full, err, two.Diff(ix))
					}
					continue
				}
				if full && row.name == "everything removed" { // a stream of anything looks like that
					var s *vecsync.StreamError
					if !errors.As(err, &s) {
						t.Fatalf("full %t: %v", full, err)
					}
					continue
				}
				if !errors.As(err, &f) || f.Kind != row.kind || !strings.Contains(f.Detail, row.detail) || f.Number != 1 {
					t.Fatalf("full %t: %v, want a finding %q %q", full, err, row.kind, row.detail)
				}
				if d := one.Diff(ix); d != "" {
					t.Fatal(d)
				}
				if c, _ := vecsync.ReadCursor(ix); c == nil || c.SnapshotUUID != one.UUID {
					t.Fatalf("the cursor has moved: %+v", c)
				}
				// It stands, whatever comes, and is recorded once.
				for range 2 {
					if err := ingest(ix, h, one, two, o); !errors.As(err, &f) || f.Number != 1 {
						t.Fatal(err)
					}
				}
				if list, err := vecsync.Findings(ix); len(list) != 1 || err != nil || recorded != 1 {
					t.Fatalf("%d findings, %v, recorded %d times", len(list), err, recorded)
				}
			}
		})
	}
}

// A log that is put back to an earlier state of itself is found; an old
// snapshot of the log that is sent late is none of that.
func TestRolledBack(t *testing.T) {
	h := vecsynctest.New(t, 13)
	for range 2 {
		h.Append(10, 100)
		h.Checkpoint()
		h.Snapshot()
	}
	one, two := h.Step(0), h.Step(1)
	for name, data := range map[string][]byte{segment0: one.Files["log/"+segment0].Data, layout.Checkpoint: one.Files["log/"+layout.Checkpoint].Data} {
		edit(t, h, name, func([]byte) []byte { return data })
	}
	three := h.Snapshot()
	ix := vecsynctest.NewIndex()
	for _, s := range [][2]*vecsynctest.Step{{nil, one}, {one, two}} {
		if err := ingest(ix, h, s[0], s[1], vecsync.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	var late *vecsync.StreamError
	if err := ingest(ix, h, nil, one, vecsync.Options{}); !errors.As(err, &late) || !strings.Contains(err.Error(), "older") {
		t.Fatal(err)
	}
	for _, from := range []*vecsynctest.Step{nil, two} {
		ix := ix.Clone()
		var f *vecsync.Finding
		if err := ingest(ix, h, from, three, vecsync.Options{}); !errors.As(err, &f) || f.Kind != vecsync.FindingRolledBack || f.Index != one.Size {
			t.Fatal(err)
		}
		if d := two.Diff(ix); d != "" {
			t.Fatal(d)
		}
	}
}

// A finding that the log could not take is recorded later.
func TestFindingIsRecordedLater(t *testing.T) {
	h := vecsynctest.New(t, 8)
	h.Append(20, 100)
	h.Checkpoint()
	one := h.Snapshot()
	edit(t, h, segment0, forge(3))
	two := h.Snapshot()
	ix := vecsynctest.NewIndex()
	if err := ingest(ix, h, nil, one, vecsync.Options{}); err != nil {
		t.Fatal(err)
	}
	down := errors.New("the daemon is down")
	var f *vecsync.Finding
	if err := ingest(ix, h, one, two, vecsync.Options{Record: func(*vecsync.Finding) error { return down }}); !errors.As(err, &f) || !errors.Is(err, down) {
		t.Fatal(err)
	}
	var got []string
	for range 3 {
		err := ingest(ix, h, one, two, vecsync.Options{Record: func(f *vecsync.Finding) error { got = append(got, f.Error()); return nil }})
		if !errors.As(err, &f) || errors.Is(err, down) {
			t.Fatal(err)
		}
	}
	if len(got) != 1 || !strings.Contains(got[0], "tamper finding 1: changed at event 0") {
		t.Fatalf("recorded: %q", got)
	}
}

// What no checkpoint covers may go again: a writer that was killed in the
// middle of a write cuts it off.
func TestTornTailIsNoFinding(t *testing.T) {
	h := vecsynctest.New(t, 9)
	ix := vecsynctest.NewIndex()
	var last *vecsynctest.Step
	for k := range 40 {
		if k%2 == 0 {
			h.Append(5, 900)
			h.Checkpoint()
			h.Crash(bytes.Repeat([]byte("torn "), 1+k*300))
		} else {
			h.Append(1, 10)
			h.Checkpoint()
		}
		s := h.Snapshot()
		if err := ingest(ix, h, last, s, vecsync.Options{}); err != nil {
			t.Fatalf("snapshot %d: %v", k, err)
		}
		if d := s.Diff(ix); d != "" {
			t.Fatalf("snapshot %d: %s", k, d)
		}
		last = s
	}
}

// btrfs writes to a file by any one of its names.
func TestWritesByAnotherName(t *testing.T) {
	h := vecsynctest.New(t, 10)
	h.Append(20, 100)
	h.Checkpoint()
	one := h.Snapshot()
	h.Append(20, 100)
	h.Checkpoint()
	two := h.Snapshot()
	h.Append(20, 100)
	h.Checkpoint()
	three := h.Snapshot()
	ix := vecsynctest.NewIndex()
	if err := ingest(ix, h, nil, one, vecsync.Options{}); err != nil {
		t.Fatal(err)
	}
	seg := []byte("log/" + segment0)
	// write puts before in front of the first write to the segment, which then
	// goes to another path, and after behind the last.
	write := func(commands []sendstream.Command, to string, before, after sendstream.Command) []byte {
		var out []sendstream.Command
		for _, c := range commands {
			e, ok := c.(*sendstream.Write)
			if !ok || !bytes.Equal(e.Path, seg) {
				out = append(out, c)
				continue
			}
			for _, c := range []sendstream.Command{before, &sendstream.Write{Path: []byte(to), Offset: e.Offset, Data: e.Data}, after} {
				if c != nil {
					out = append(out, c)
				}
			}
			before, after = nil, nil
		}
		var b bytes.Buffer
		w := sendstream.NewWriter(&b)
		for _, c := range out {
			if err := w.WriteCommand(c); err != nil {
				t.Fatal(err)
			}
		}
		return b.Bytes()
	}
	form := vecsynctest.Form{Version: 2, Seed: 3}
	clean := ix.Clone()
	linked := write(vecsynctest.Commands(one, two, form), "copy", &sendstream.Link{Path: []byte("copy"), Existing: seg}, nil)
	again := write(vecsynctest.Commands(two, three, form), "copy", nil, nil)
	if n, err := vecsync.Ingest(ix, bytes.NewReader(append(linked, again...)), vecsync.Options{}); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if d := three.Diff(ix); d != "" {
		t.Fatal(d)
	}
	// Or moves it meanwhile.
	ix = clean.Clone()
	elsewhere := []byte("elsewhere")
	moved := write(vecsynctest.Commands(one, two, form), "elsewhere", &sendstream.Rename{Path: seg, To: elsewhere}, &sendstream.Rename{Path: elsewhere, To: seg})
	if _, err := vecsync.Ingest(ix, bytes.NewReader(moved), vecsync.Options{}); err != nil {
		t.Fatal(err)
	}
	if d := two.Diff(ix); d != "" {
		t.Fatal(d)
	}
	// Of a file that never had a name of the log's or of btrfs' own it can't be
	// known that the data is wanted: an error, but no finding.
	ix = clean.Clone()
	other := write(vecsynctest.Commands(one, two, form), "elsewhere", &sendstream.Mkfile{Path: elsewhere, Ino: 9999}, &sendstream.Rename{Path: elsewhere, To: seg})
	var s *vecsync.StreamError
	if _, err := vecsync.Ingest(ix, bytes.NewReader(other), vecsync.Options{}); !errors.As(err, &s) || !strings.Contains(err.Error(), "name") {
		t.Fatal(err)
	}
	if f, err := vecsync.Standing(ix); f != nil || err != nil {
		t.Fatal(f, err)
	}
}

func TestForeignStreams(t *testing.T) {
	h, other := vecsynctest.New(t, 11), vecsynctest.New(t, 12)
	for _, x := range []*vecsynctest.History{h, other} {
		x.Append(20, 100)
		x.Checkpoint()
		x.Snapshot()
	}
	ix := vecsynctest.NewIndex()
	if err := ingest(ix, h, nil, h.Step(0), vecsync.Options{}); err != nil {
		t.Fatal(err)
	}
	var lost *vecsync.LostParentError
	var stream *vecsync.StreamError
	other.Append(1, 1)
	other.Checkpoint()
	parent := *other.Step(0)
	parent.UUID = sendstream.UUID{0xbb}
	if err := ingest(ix, h, &parent, other.Snapshot(), vecsync.Options{}); !errors.As(err, &lost) || lost.ExitCode() != 5 || !strings.Contains(lost.Hint(), h.Step(0).UUID.String()) {
		t.Fatal(err)
	}
	for what, input := range map[string][]byte{
		"no stream": []byte("GIF89a, and more"), "a stream of version 9": []byte("btrfs-stream\x00\x09\x00\x00\x00"), "zeros": make([]byte, 100000),
	} {
		if _, err := vecsync.Ingest(ix, bytes.NewReader(input), vecsync.Options{}); !errors.As(err, &stream) || stream.ExitCode() != 3 {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n, err := vecsync.Ingest(ix, bytes.NewReader(nil), vecsync.Options{}); n != 0 || err != nil {
		t.Errorf("nothing: %d, %v", n, err)
	}
	if d := h.Step(0).Diff(ix); d != "" {
		t.Fatal(d)
	}
	if f, err := vecsync.Standing(ix); f != nil || err != nil {
		t.Fatal(f, err)
	}
}
