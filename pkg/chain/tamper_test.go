package chain

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// A victim is a log in memory, with every key that it ever had: what an
// intruder could do with some of them.
type victim struct {
	fs   fstest.MapFS
	keys map[string][]*merkle.Signer // by name, in the order of making
	now  time.Time
}

const victimOrigin = "victim.example/log"

func (v *victim) logKey() *merkle.Signer       { return v.keys[victimOrigin][0] }
func (v *victim) epoch(n int) *merkle.Signer   { return v.keys[layout.EpochKeyName(victimOrigin)][n] }
func (v *victim) data(name string) []byte      { return v.fs[name].Data }
func (v *victim) set(name string, data []byte) { v.fs[name] = &fstest.MapFile{Data: data} }

func (v *victim) clone() *victim {
	c := &victim{fs: make(fstest.MapFS), keys: v.keys, now: v.now}
	for name, f := range v.fs {
		c.set(name, bytes.Clone(f.Data))
	}
	return c
}

// lines returns the stored lines of a segment, without their newlines.
func (v *victim) lines(n int64) [][]byte {
	return bytes.Split(bytes.TrimSuffix(v.data(layout.SegmentName(n)), []byte("\n")), []byte("\n"))
}

func (v *victim) setLines(n int64, lines [][]byte) {
	v.set(layout.SegmentName(n), append(bytes.Join(lines, []byte("\n")), '\n'))
}

// notes returns the archived checkpoints.
func (v *victim) notes() [][]byte {
	notes, rest := merkle.SplitNotes(v.data(layout.Checkpoints))
	if len(rest) > 0 {
		panic("archive is torn")
	}
	return notes
}

func (v *victim) setNotes(notes [][]byte) {
	var b []byte
	for _, n := range notes {
		b = append(append(b, n...), '\n')
	}
	v.set(layout.Checkpoints, b)
}

// root is that of the first size lines, as they stand.
func (v *victim) root(size int64) merkle.Hash {
	var r merkle.Range
	var h merkle.Hasher
	for n := int64(0); r.Size() < size; n++ {
		for _, l := range v.lines(n) {
			if r.Size() < size {
				r.Append(h.Leaf(l))
			}
		}
	}
	return r.Root()
}

// sign signs the first size lines, as they stand.
func (v *victim) sign(size int64, keys ...*merkle.Signer) []byte {
	note, err := merkle.Sign(merkle.Checkpoint{Origin: victimOrigin, Size: size, Root: v.root(size)}, keys...)
	if err != nil {
		panic(err)
	}
	return note
}

// reseal writes a line's checksum anew.
func reseal(line string) []byte {
	k := strings.LastIndex(line, `,"c":"`)
	return event.Close([]byte(line[:k]))
}

// alter changes what an event says and makes its checksum fit.
func (v *victim) alter(index int64, from, to string) {
	n, at := index/layout.SegmentEvents, index%layout.SegmentEvents
	lines := v.lines(n)
	if !bytes.Contains(lines[at], []byte(from)) {
		panic(fmt.Sprintf("event %d does not hold %s", index, from))
	}
	lines[at] = reseal(strings.Replace(string(lines[at]), from, to, 1))
	v.setLines(n, lines)
}

// verify verifies with the log key known, and nobody writing.
func (v *victim) verify(t testing.TB, o VerifyOptions) *Report {
	t.Helper()
	if o.Key.IsZero() {
		o.Key = v.logKey().Verifier()
	}
	if o.Now.IsZero() {
		o.Now = v.now
	}
	r, err := Verify(context.Background(), v.fs, o)
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	return r
}

// query says whether a query of all events is verified.
func (v *victim) query(t testing.TB) Verdict {
	t.Helper()
	verdict, err := Query(context.Background(), v.fs, QueryOptions{Key: v.logKey().Verifier()}, func(*event.Event, []byte) error { return nil })
	if err != nil {
		t.Fatalf("query: %v", err)
	}
	return verdict
}

// newVictim writes a log: batches of events, each followed by a checkpoint in
// the archive; a batch of none is a rotation.
func newVictim(t testing.TB, origin string, batches ...int) *victim {
	t.Helper()
	v := &victim{fs: make(fstest.MapFS), keys: make(map[string][]*merkle.Signer)}
	clock := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	seed := byte(len(origin))
	dir, keys := filepath.Join(t.TempDir(), "log"), t.TempDir()
	o := Options{
		Host: origin,
		Now:  func() time.Time { clock = clock.Add(31 * time.Second); return clock },
		newKey: func(name string) (*merkle.Signer, error) {
			seed++
			k, err := merkle.KeyFromSeed(name, [32]byte{seed})
			v.keys[name] = append(v.keys[name], k)
			return k, err
		},
	}
	if _, err := Create(dir, origin, keys, o); err != nil {
		t.Fatal(err)
	}
	l, err := Open(dir, keys, o)
	if err != nil {
		t.Fatal(err)
	}
	l.archivedAt = time.Time{}
	var p event.Parser
	count := 0
	for _, n := range batches {
		if n == 0 {
			if err := l.RotateKey(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		b := &Batch{}
		for range n {
			count++
			d, err := p.Parse(fmt.Appendf(nil, `{"source":"demo","type":"note","message":"event %d"}`, count))
			if err != nil {
				t.Fatal(err)
			}
			b.Drafts = append(b.Drafts, d)
		}
		if err := l.Append(b); err != nil || b.Err != nil {
			t.Fatal(err, b.Err)
		}
		if err := l.checkpoint(true); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		data, err := os.ReadFile(path)
		v.set(filepath.ToSlash(name), data)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	v.now = clock
	return v
}

// smallVictim has the events 0, [1 2 3], epoch 1 as 4, [5 6], [7 8 9], epoch 2
// as 10, [11 12], [13], and checkpoints over 1, 4, 5, 7, 10, 11, 13 and 14.
func smallVictim(t testing.TB) *victim {
	return newVictim(t, victimOrigin, 3, 0, 2, 3, 0, 2, 1)
}

var bigVictim struct {
	sync.Once
	v *victim
}

// segmentsVictim has two full segments and some more events.
func segmentsVictim(t testing.TB) *victim {
	bigVictim.Do(func() {
		bigVictim.v = newVictim(t, victimOrigin, 1000, 0, layout.SegmentEvents, layout.SegmentEvents-900)
	})
	return bigVictim.v.clone()
}

func faultList(faults []Fault) string {
	var b strings.Builder
	for _, f := range faults {
		fmt.Fprintf(&b, "\n\t%s", f)
	}
	return b.String()
}

// brief is a fault without its explanation.
func brief(f Fault) string {
	f.Detail = ""
	return f.String()
}

// TestTamperMatrix is every way to change a log that is known to have been
// tried on logs of this kind, and what Verify must call it: kind and index of
// each fault, nothing more. query tells whether Query still says verified.
func TestTamperMatrix(t *testing.T) {
	const sealed = layout.SegmentEvents
	other := newVictim(t, "other.example/log", 3, 2)
	for _, row := range []struct {
		name   string
		of     func(testing.TB) *victim
		tamper func(v *victim, o *VerifyOptions)
		want   []string
		query  bool
	}{
		{name: "nothing", tamper: func(*victim, *VerifyOptions) {}, query: true},
		{name: "nothing, several segments", of: segmentsVictim, tamper: func(*victim, *VerifyOptions) {}, query: true},

		// Lines.
		{name: "a byte changed", want: []string{"changed #6"}, tamper: func(v *victim, _ *VerifyOptions) {
			l := v.lines(0)
			l[6][len(l[6])/2] ^= 1
			v.setLines(0, l)
		}},
		{name: "a byte changed, checksum made to fit", want: []string{"changed #5..#6"}, tamper: func(v *victim, _ *VerifyOptions) {
			v.alter(6, "event 5", "event 9")
		}},
		{name: "two lines swapped", want: []string{"reordered #7"}, tamper: func(v *victim, _ *VerifyOptions) {
			l := v.lines(0)
			l[6], l[7] = l[7], l[6]
			v.setLines(0, l)
		}},
		{name: "two lines swapped, indexes made to fit", want: []string{"changed #7..#9"}, tamper: func(v *victim, _ *VerifyOptions) {
			l := v.lines(0)
			l[7], l[8] = reseal(strings.Replace(string(l[8]), `"i":8`, `"i":7`, 1)), reseal(strings.Replace(string(l[7]), `"i":7`, `"i":8`, 1))
			v.setLines(0, l)
		}},
		{name: "a line deleted", want: []string{"deleted #6"}, tamper: func(v *victim, _ *VerifyOptions) {
			v.setLines(0, slices.Delete(v.lines(0), 6, 7))
		}},
		{name: "three lines deleted", want: []string{"deleted #5..#7"}, tamper: func(v *victim, _ *VerifyOptions) {
			v.setLines(0, slices.Delete(v.lines(0), 5, 8))
		}},
		{name: "a line deleted, the rest shifted up", want: []string{"changed #5..#6", "epoch #0", "epoch #11", "truncated #13"}, tamper: func(v *victim, _ *VerifyOptions) {
			l := slices.Delete(v.lines(0), 6, 7)
			for i := 6; i < len(l); i++ {
				l[i] = reseal(strings.Replace(string(l[i]), fmt.Sprintf(`"i":%d,`, i+1), fmt.Sprintf(`"i":%d,`, i), 1))
			}
			v.setLines(0, l)
		}},
		{name: "a line twice", want: []string{"duplicated #6"}, tamper: func(v *victim, _ *VerifyOptions) {
			l := v.lines(0)
			v.setLines(0, slices.Insert(l, 9, l[6]))
		}},
		{name: "a line inserted", want: []string{"inserted #6"}, tamper: func(v *victim, _ *VerifyOptions) {
			l := v.lines(0)
			v.setLines(0, slices.Insert(l, 7, reseal(strings.Replace(string(l[6]), "event 5", "event x", 1))))
		}},
		{name: "text that is no event inserted", want: []string{"inserted #7"}, tamper: func(v *victim, _ *VerifyOptions) {
			v.setLines(0, slices.Insert(v.lines(0), 7, []byte("hello")))
		}},
		{name: "checksum right, index shifted", want: []string{"inserted #8", "deleted #6"}, tamper: func(v *victim, _ *VerifyOptions) {
			l := v.lines(0)
			l[6] = reseal(strings.Replace(string(l[6]), `"i":6,`, `"i":8,`, 1))
			v.setLines(0, l)
		}},
		{name: "a line of 65,536 bytes", want: []string{"changed #6"}, tamper: func(v *victim, _ *VerifyOptions) {
			l := v.lines(0)
			l[6] = reseal(strings.Replace(string(l[6]), "event 5", strings.Repeat("x", event.MaxLine+1-len(l[6])+len("event 5")), 1))
			if len(l[6]) != event.MaxLine+1 {
				panic(len(l[6]))
			}
			v.setLines(0, l)
		}},
		{name: "a line of 1 MiB", want: []string{"changed #6"}, tamper: func(v *victim, _ *VerifyOptions) {
			l := v.lines(0)
			l[6] = bytes.Repeat([]byte("x"), 1<<20)
			v.setLines(0, l)
		}},
		{name: "NUL in a line, checksum made to fit", want: []string{"changed #5..#6"}, tamper: func(v *victim, _ *VerifyOptions) { v.alter(6, "event 5", "event\x005") }},
		{name: "not UTF-8, checksum made to fit", want: []string{"changed #5..#6"}, tamper: func(v *victim, _ *VerifyOptions) { v.alter(6, "event 5", "event\xff5") }},
		{name: "CRLF for LF", want: []string{"changed #0..#13"}, tamper: func(v *victim, _ *VerifyOptions) {
			v.set(layout.SegmentName(0), bytes.ReplaceAll(v.data(layout.SegmentName(0)), []byte("\n"), []byte("\r\n")))
		}},
		{name: "a segment of zeros", want: []string{"changed #0", "truncated #1..#13"}, tamper: func(v *victim, _ *VerifyOptions) {
			v.set(layout.SegmentName(0), append(make([]byte, 4096), '\n'))
		}},
		{name: "another log's line", want: []string{"inserted #3", "deleted #6"}, tamper: func(v *victim, _ *VerifyOptions) {
			l := v.lines(0)
			l[6] = other.lines(0)[3]
			v.setLines(0, l)
		}},

		// The end.
		{name: "truncated within a line", want: []string{"truncated #13"}, tamper: func(v *victim, _ *VerifyOptions) {
			v.set(layout.SegmentName(0), v.data(layout.SegmentName(0))[:len(v.data(layout.SegmentName(0)))-10])
		}},
		{name: "truncated at an archived checkpoint", want: []string{"truncated #10..#13"}, tamper: func(v *victim, _ *VerifyOptions) {
			v.setLines(0, v.lines(0)[:10])
		}},
		{name: "truncated, and the latest checkpoint put back", want: []string{"truncated #10..#13"}, tamper: func(v *victim, _ *VerifyOptions) {
			v.setLines(0, v.lines(0)[:10])
			v.set(layout.Checkpoint, v.notes()[4])
		}},
		{name: "the segment emptied", want: []string{"truncated #0..#13"}, tamper: func(v *victim, _ *VerifyOptions) { v.set(layout.SegmentName(0), nil) }},
		{name: "put back whole to an earlier state", want: nil, query: true, tamper: func(v *victim, _ *VerifyOptions) { putBack(v) }},
		{name: "put back whole, with a pin", want: []string{"rolled-back #13"}, query: true, tamper: func(v *victim, o *VerifyOptions) {
			o.Pins = []Pin{{Name: "witness", Note: bytes.Clone(v.data(layout.Checkpoint))}}
			putBack(v)
		}},
		{name: "events that no checkpoint covers", want: []string{"unsealed-tail #14"}, query: true, tamper: func(v *victim, _ *VerifyOptions) {
			v.setLines(0, append(v.lines(0), extraLine(v)))
		}},
		{name: "such events, younger than ten seconds, while a writer is there", want: nil, query: true, tamper: func(v *victim, o *VerifyOptions) {
			v.setLines(0, append(v.lines(0), extraLine(v)))
			o.Live, o.Now = true, v.now.Add(9*time.Second)
		}},
		{name: "such events, older", want: []string{"unsealed-tail #14"}, query: true, tamper: func(v *victim, o *VerifyOptions) {
			v.setLines(0, append(v.lines(0), extraLine(v)))
			o.Live, o.Now = true, v.now.Add(11*time.Second)
		}},
		{name: "a torn line at the end", want: []string{"torn #14"}, query: true, tamper: func(v *victim, _ *VerifyOptions) {
			v.set(layout.SegmentName(0), append(v.data(layout.SegmentName(0)), `{"i":14,"at`...))
		}},

		// Segments.
		{name: "a segment missing in the middle", of: segmentsVictim, want: []string{fmt.Sprintf("segment-missing #%d..#%d", sealed, 2*sealed-1)},
			tamper: func(v *victim, _ *VerifyOptions) { delete(v.fs, layout.SegmentName(1)) }},
		{name: "the first segment missing", of: segmentsVictim, want: []string{fmt.Sprintf("segment-missing #0..#%d", sealed-1)},
			tamper: func(v *victim, _ *VerifyOptions) { delete(v.fs, layout.SegmentName(0)) }},
		{name: "the last sealed segment and all behind it missing", of: segmentsVictim,
			want: []string{fmt.Sprintf("segment-missing #%d..#%d", sealed, 2*sealed-1)},
			tamper: func(v *victim, _ *VerifyOptions) {
				delete(v.fs, layout.SegmentName(1))
				delete(v.fs, layout.SegmentName(2))
			}},
		{name: "the active segment missing", of: segmentsVictim, want: []string{fmt.Sprintf("truncated #%d..#%d", 2*sealed, 2*sealed+101)},
			tamper: func(v *victim, _ *VerifyOptions) { delete(v.fs, layout.SegmentName(2)) }},
		{name: "two segments swapped", of: segmentsVictim, want: []string{fmt.Sprintf("reordered #0..#%d", sealed-1), fmt.Sprintf("reordered #%d..#%d", sealed, 2*sealed-1)},
			tamper: func(v *victim, _ *VerifyOptions) {
				v.fs[layout.SegmentName(0)], v.fs[layout.SegmentName(1)] = v.fs[layout.SegmentName(1)], v.fs[layout.SegmentName(0)]
			}},
		{name: "a sealed segment truncated", of: segmentsVictim, want: []string{fmt.Sprintf("truncated #%d..#%d", sealed+100, 2*sealed-1)},
			tamper: func(v *victim, _ *VerifyOptions) { v.setLines(1, v.lines(1)[:100]) }},
		{name: "an event in a sealed segment changed, checksum made to fit", of: segmentsVictim,
			want:   []string{fmt.Sprintf("changed #%d..#%d", sealed, sealed+1001)},
			tamper: func(v *victim, _ *VerifyOptions) { v.alter(sealed+500, "event", "Event") }},
		{name: "such an event, and its seal", of: segmentsVictim, want: []string{fmt.Sprintf("changed #%d..#%d", 1002, sealed+1001)},
			tamper: func(v *victim, _ *VerifyOptions) {
				v.alter(sealed+500, "event", "Event")
				var r merkle.Range
				var h merkle.Hasher
				for _, l := range v.lines(1) {
					r.Append(h.Leaf(l))
				}
				seals, _, _ := layout.ParseSeals(v.data(layout.Seals))
				seals[1].Root = r.Root()
				v.set(layout.Seals, append(seals[0].Line(), seals[1].Line()...))
			}},

		// Seals.
		{name: "no seals", of: segmentsVictim, want: []string{fmt.Sprintf("seal #0..#%d", sealed-1), fmt.Sprintf("seal #%d..#%d", sealed, 2*sealed-1)}, query: true,
			tamper: func(v *victim, _ *VerifyOptions) { delete(v.fs, layout.Seals) }},
		{name: "a seal's root changed", of: segmentsVictim, want: []string{fmt.Sprintf("seal #0..#%d", sealed-1)}, tamper: func(v *victim, _ *VerifyOptions) {
			seals, _, _ := layout.ParseSeals(v.data(layout.Seals))
			seals[0].Root[5] ^= 1
			v.set(layout.Seals, append(seals[0].Line(), seals[1].Line()...))
		}},
		{name: "a seal's times changed, so that a query would pass its segment over", of: segmentsVictim,
			want: []string{fmt.Sprintf("seal #%d..#%d", sealed, 2*sealed-1)}, query: true, tamper: func(v *victim, _ *VerifyOptions) {
				seals, _, _ := layout.ParseSeals(v.data(layout.Seals))
				seals[1].Time.Max = seals[1].Time.Min
				v.set(layout.Seals, append(seals[0].Line(), seals[1].Line()...))
			}},
		{name: "seals swapped", of: segmentsVictim, want: []string{"seal #0", fmt.Sprintf("seal #0..#%d", sealed-1), fmt.Sprintf("seal #%d..#%d", sealed, 2*sealed-1)},
			tamper: func(v *victim, _ *VerifyOptions) {
				seals, _, _ := layout.ParseSeals(v.data(layout.Seals))
				v.set(layout.Seals, append(seals[1].Line(), seals[0].Line()...))
			}},

		// Checkpoints and keys.
		{name: "no latest checkpoint", want: []string{"checkpoint #14"}, tamper: func(v *victim, _ *VerifyOptions) { delete(v.fs, layout.Checkpoint) }},
		{name: "no checkpoints at all", want: []string{"checkpoint #0", "unsealed-tail #0..#13"}, tamper: func(v *victim, _ *VerifyOptions) {
			delete(v.fs, layout.Checkpoint)
			delete(v.fs, layout.Checkpoints)
		}},
		{name: "the end of an epoch taken out of the archive", want: []string{"epoch #5"}, query: true, tamper: func(v *victim, _ *VerifyOptions) {
			v.setNotes(slices.Delete(v.notes(), 2, 3))
		}},
		{name: "archived checkpoints swapped", want: []string{"checkpoint #7"}, query: true, tamper: func(v *victim, _ *VerifyOptions) {
			n := v.notes()
			n[3], n[4] = n[4], n[3]
			v.setNotes(n)
		}},
		{name: "another key expected", want: []string{"wrong-key #0"}, query: true, tamper: func(v *victim, o *VerifyOptions) { o.Key = other.keys["other.example/log"][0].Verifier() }},
		{name: "another log's checkpoint", want: []string{"signature #6"}, tamper: func(v *victim, _ *VerifyOptions) {
			v.set(layout.Checkpoint, other.data(layout.Checkpoint))
		}},
		{name: "a checkpoint without the epoch's signature", want: []string{"epoch #14"}, tamper: func(v *victim, _ *VerifyOptions) {
			v.set(layout.Checkpoint, v.sign(14, v.logKey()))
		}},
		{name: "a checkpoint without the log key's signature", want: []string{"signature #14"}, tamper: func(v *victim, _ *VerifyOptions) {
			v.set(layout.Checkpoint, v.sign(14, v.epoch(2)))
		}},
		{name: "history rewritten and sealed with the current epoch's key (CVE-2023-31439)",
			want: []string{"epoch #1", "epoch #4", "epoch #5", "epoch #5", "epoch #7", "epoch #10", "epoch #11", "epoch #11"}, query: true,
			tamper: func(v *victim, _ *VerifyOptions) {
				v.alter(2, "event 2", "event 7")
				var notes [][]byte
				for _, n := range v.notes() {
					c, _ := merkle.ParseNote(n)
					notes = append(notes, v.sign(c.Size, v.logKey(), v.epoch(2)))
				}
				v.setNotes(notes)
				v.set(layout.Checkpoint, notes[len(notes)-1])
			}},
		{name: "history rewritten, earlier checkpoints dropped, sealed with the current epoch's key", want: []string{"epoch #5", "epoch #11"}, query: true,
			tamper: func(v *victim, _ *VerifyOptions) {
				v.alter(2, "event 2", "event 7")
				note := v.sign(14, v.logKey(), v.epoch(2))
				v.setNotes([][]byte{note})
				v.set(layout.Checkpoint, note)
			}},
		{name: "history rewritten, only the latest checkpoint made to fit", want: []string{"changed #1..#3", "forked #14"}, query: true,
			tamper: func(v *victim, _ *VerifyOptions) {
				v.alter(2, "event 2", "event 7")
				v.set(layout.Checkpoint, v.sign(14, v.logKey(), v.epoch(2)))
				v.setNotes(v.notes()[:7])
			}},
		{name: "truncated, and sealed with the current epoch's key", want: []string{"epoch #3", "epoch #0"}, tamper: func(v *victim, _ *VerifyOptions) {
			v.setLines(0, v.lines(0)[:3])
			note := v.sign(3, v.logKey(), v.epoch(2))
			v.setNotes([][]byte{v.notes()[0]})
			v.set(layout.Checkpoint, note)
		}},
		{name: "truncated, and gone on with empty epochs (CVE-2023-31438)", want: []string{"epoch #4", "epoch #5"}, query: true,
			tamper: func(v *victim, _ *VerifyOptions) {
				l := v.lines(0)
				kept := l[:3]
				for i, from := range []int{4, 10} {
					line := strings.Replace(string(l[from]), fmt.Sprintf(`"i":%d,`, from), fmt.Sprintf(`"i":%d,`, 3+i), 1)
					kept = append(kept, reseal(line))
				}
				kept = append(kept, reseal(strings.Replace(string(l[11]), `"i":11,`, `"i":5,`, 1)))
				v.setLines(0, kept)
				v.set(layout.Epochs, append(bytes.Join([][]byte{kept[0], kept[3], kept[4]}, []byte("\n")), '\n'))
				note := v.sign(6, v.logKey(), v.epoch(2))
				v.setNotes([][]byte{v.notes()[0], note})
				v.set(layout.Checkpoint, note)
			}},
		{name: "forked within the current epoch by who has its keys", want: nil, query: true, tamper: func(v *victim, _ *VerifyOptions) { fork(v) }},
		{name: "forked within the current epoch, with a pin", want: []string{"forked #0..#13"}, query: true, tamper: func(v *victim, o *VerifyOptions) {
			o.Pins = []Pin{{Name: "witness", Note: bytes.Clone(v.data(layout.Checkpoint))}}
			fork(v)
		}},
		{name: "a new log under the same log key", want: nil, query: true, tamper: func(v *victim, _ *VerifyOptions) { startOver(v) }},
		{name: "a new log under the same log key, its first epoch key known", want: []string{"wrong-key #0"}, query: true, tamper: func(v *victim, o *VerifyOptions) {
			o.FirstEpochKey = v.epoch(0).Verifier()
			startOver(v)
		}},

		// What can be made anew from the events.
		{name: "the file of epochs missing", want: []string{"epoch #0"}, query: true, tamper: func(v *victim, _ *VerifyOptions) { delete(v.fs, layout.Epochs) }},
		{name: "the file of epochs cut", want: []string{"epoch #0"}, tamper: func(v *victim, _ *VerifyOptions) {
			v.set(layout.Epochs, append(v.lines(0)[0], '\n'))
		}},
	} {
		if raceDetector && row.of != nil && len(row.want) > 0 {
			continue // a second each, ten with it; the untouched segments stay
		}
		t.Run(row.name, func(t *testing.T) {
			make := row.of
			if make == nil {
				make = smallVictim
			}
			v := make(t)
			var o VerifyOptions
			row.tamper(v, &o)
			r := v.verify(t, o)
			var have []string
			for _, f := range r.Faults {
				have = append(have, brief(f))
			}
			want := slices.Clone(row.want)
			slices.Sort(want)
			slices.Sort(have)
			if !slices.Equal(have, want) {
				t.Errorf("want %q, found:%s", row.want, faultList(r.Faults))
			}
			if r.OK != (len(row.want) == 0) {
				t.Errorf("ok is %v", r.OK)
			}
			if verdict := v.query(t); verdict.Verified != row.query {
				t.Errorf("query says verified %v, %s", verdict.Verified, verdict.Reason)
			}
		})
	}
}

// diagnose finds in a long list of lines what was done to it, whatever that
// was: it never names more events than were touched.
func TestDiagnosisIsTight(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		const n = 40
		var lines []seenLine
		for i := range int64(n) {
			lines = append(lines, seenLine{index: i, leaf: merkle.Hash{byte(i)}})
		}
		touched := make(map[int64]bool)
		for range rnd.IntN(4) {
			k := rnd.IntN(len(lines))
			touched[lines[k].index] = true
			switch rnd.IntN(3) {
			case 0:
				lines = slices.Delete(lines, k, k+1)
			case 1:
				lines = slices.Insert(lines, rnd.IntN(len(lines)), lines[k])
			case 2:
				moved := lines[k]
				lines = slices.Delete(lines, k, k+1)
				lines = slices.Insert(lines, rnd.IntN(len(lines)), moved)
			}
		}
		d := diagnosis{seen: lines}
		d.judge(0, n, 0)
		named := make(map[int64]bool)
		for _, f := range d.faults {
			for i := f.Index; i <= f.Last; i++ {
				named[i] = true
			}
		}
		if len(named) > len(touched) {
			t.Fatalf("touched %v, named:%s", slices.Sorted(maps.Keys(touched)), faultList(d.faults))
		}
		var order []int64
		for _, l := range lines {
			order = append(order, l.index)
		}
		if whole := len(lines) == n && len(slices.Compact(slices.Clone(order))) == n && slices.IsSorted(order); whole != (len(d.faults) == 0) {
			t.Fatalf("%v is named:%s", order, faultList(d.faults))
		}
	}
}

// putBack makes v what it was before its last event.
func putBack(v *victim) {
	v.setLines(0, v.lines(0)[:13])
	v.setNotes(v.notes()[:7])
	v.set(layout.Checkpoint, v.notes()[6])
}

// fork gives v another last event, and signs that.
func fork(v *victim) {
	v.alter(13, "event 11", "event 99")
	v.setNotes(append(v.notes()[:7], v.sign(14, v.logKey(), v.epoch(2))))
	v.set(layout.Checkpoint, v.sign(14, v.logKey(), v.epoch(2)))
}

// startOver makes a log of one event with new epoch keys and the old log key.
func startOver(v *victim) {
	mine, _ := merkle.KeyFromSeed(layout.EpochKeyName(victimOrigin), [32]byte{200})
	first := reseal(strings.Replace(string(v.lines(0)[0]), v.epoch(0).Verifier().String(), mine.Verifier().String(), 1))
	v.setLines(0, [][]byte{first})
	v.set(layout.Epochs, append(first, '\n'))
	note := v.sign(1, v.logKey(), mine)
	v.setNotes([][]byte{note})
	v.set(layout.Checkpoint, note)
}

// extraLine is an event that a crash left without a checkpoint.
func extraLine(v *victim) []byte {
	var p event.Parser
	d, err := p.Parse([]byte(`{"source":"a","type":"t","message":"no checkpoint"}`))
	if err != nil {
		panic(err)
	}
	line, err := d.Append(nil, event.Stamp{Index: 14, At: v.now, Host: "h"})
	if err != nil {
		panic(err)
	}
	return line
}

// Any changed byte of a log is found, and in a segment named at its line. All
// bits of all bytes with GB_TORTURE=1, else a bit of every seventh byte.
func TestTamperEveryByte(t *testing.T) {
	whole := smallVictim(t)
	for _, name := range slices.Sorted(maps.Keys(whole.fs)) {
		data := whole.data(name)
		index := int64(0)
		for pos := range data {
			var bits []byte
			if os.Getenv("GB_TORTURE") == "1" {
				bits = []byte{1, 2, 4, 8, 16, 32, 64, 128}
			} else if pos%7 == 0 && (!raceDetector || pos%5 == 0) || data[pos] == '\n' {
				bits = []byte{1 << (pos % 8)}
			}
			for _, bit := range bits {
				v := whole.clone()
				v.data(name)[pos] ^= bit
				r := v.verify(t, VerifyOptions{})
				if r.OK {
					t.Fatalf("%s: byte %d xor %d is not found", name, pos, bit)
				}
				if name == layout.SegmentName(0) {
					at := slices.ContainsFunc(r.Faults, func(f Fault) bool { return f.Index <= index && index <= f.Last+1 })
					if !at {
						t.Fatalf("event %d, byte %d xor %d is named:%s", index, pos, bit, faultList(r.Faults))
					}
				}
			}
			if data[pos] == '\n' {
				index++
			}
		}
	}
}

// A clock that is put back is no fault: order is by index.
func TestClockPutBack(t *testing.T) {
	dir, keys := filepath.Join(t.TempDir(), "log"), t.TempDir()
	clock := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	o := Options{Host: "h", Now: func() time.Time { return clock }}
	if _, err := Create(dir, "clock.example/log", keys, o); err != nil {
		t.Fatal(err)
	}
	l, err := Open(dir, keys, o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		if i == 3 {
			clock = clock.AddDate(0, 0, -1)
		}
		clock = clock.Add(time.Second)
		appendOne(t, l, fmt.Sprintf("event %d", i))
		if err := l.Checkpoint(); err != nil {
			t.Fatal(err)
		}
		if i == 4 {
			if err := l.RotateKey(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Verify(context.Background(), os.DirFS(dir), VerifyOptions{Now: clock})
	if err != nil || !r.OK {
		t.Fatalf("%v %+v", err, r)
	}
	var got int
	verdict, err := Query(context.Background(), os.DirFS(dir), QueryOptions{Filter: Filter{Until: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)}},
		func(*event.Event, []byte) error { got++; return nil })
	if err != nil || !verdict.Verified || got != 4 {
		t.Errorf("%d events of the day before, %+v, %v", got, verdict, err)
	}
}

// appendOne appends one event.
func appendOne(t testing.TB, l *Log, message string) {
	t.Helper()
	var p event.Parser
	d, err := p.Parse(fmt.Appendf(nil, `{"source":"demo","type":"note","message":%q}`, message))
	if err != nil {
		t.Fatal(err)
	}
	b := &Batch{Drafts: []event.Draft{d}}
	if err := l.Append(b); err != nil || b.Err != nil {
		t.Fatal(err, b.Err)
	}
}
