package chain

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

var update = flag.Bool("update", false, "write the vectors in testdata/log instead of comparing with them")

// vectorLines are what producers give; FORMATS.md shows them.
var vectorLines = []string{
	`{"source":"demo","type":"note","message":"hello"}`,
	`{"time":"2026-01-02T03:04:04.5+02:00","host":"h2","source":"ovs","type":"bridge.created","subject":"ovsbr0","severity":"notice","actor":"uid:1000","message":"bridge created","data":{"ports":["ens1"],"n":1e400}}`,
	` { "source" : "demo" , "type" : "note" , "message" : "as \u0077ritten" } `,
}

// TestVectors makes a log with known keys and a known clock, byte for byte
// what testdata/log holds: the log of FORMATS.md, for other implementations.
func TestVectors(t *testing.T) {
	dir, keys := t.TempDir(), t.TempDir()
	seed := byte(0)
	clock := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	o := Options{
		Host: "h1",
		Peer: event.Peer{UID: 0, Unit: "blockchain-log.service"},
		Now:  func() time.Time { clock = clock.Add(time.Second); return clock },
		// The keys' seeds are 32 bytes of 1, 2, 3, ... in the order of making.
		newKey: func(name string) (*merkle.Signer, error) {
			seed++
			return merkle.KeyFromSeed(name, [32]byte(bytes.Repeat([]byte{seed}, 32)))
		},
	}
	if _, err := Create(dir, "vectors.example/log", keys, o); err != nil {
		t.Fatal(err)
	}
	l, err := Open(dir, keys, o)
	if err != nil {
		t.Fatal(err)
	}
	// The archive's minute is counted from a file's time, which is not known.
	l.archivedAt = clock
	var p event.Parser
	appendLine := func(line string) {
		t.Helper()
		d, err := p.Parse([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		b := &Batch{Drafts: []event.Draft{d}, Peer: event.Peer{UID: 1000, Unit: "demo.service"}}
		if err := l.Append(b); err != nil || b.Err != nil {
			t.Fatal(err, b.Err)
		}
	}
	appendLine(vectorLines[0])
	appendLine(vectorLines[1])
	if err := l.RotateKey(); err != nil {
		t.Fatal(err)
	}
	appendLine(vectorLines[2])
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("..", "..", "testdata", "log")
	for _, name := range []string{layout.SegmentName(0), layout.Checkpoint, layout.Checkpoints, layout.Epochs} {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(golden, name)
		if *update {
			if err := os.MkdirAll(golden, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from %s:\n%s", name, path, got)
		}
	}
	r, err := Verify(context.Background(), os.DirFS(golden), VerifyOptions{})
	if err != nil || !r.OK {
		t.Errorf("the vectors do not verify: %v, %+v", err, r)
	}
	// The hashes that FORMATS.md shows.
	line, err := os.ReadFile(filepath.Join(golden, layout.SegmentName(0)))
	if err != nil {
		t.Fatal(err)
	}
	var h merkle.Hasher
	var tree merkle.Range
	var text bytes.Buffer
	for _, l := range bytes.Split(bytes.TrimSuffix(line, []byte("\n")), []byte("\n")) {
		leaf := h.Leaf(l)
		tree.Append(leaf)
		fmt.Fprintf(&text, "size %d  leaf %s  root %s\n", tree.Size(), leaf, tree.Root())
	}
	formats, err := os.ReadFile(filepath.Join("..", "..", "FORMATS.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{text.String(), string(line)} {
		for _, row := range bytes.Split([]byte(want), []byte("\n")) {
			if !bytes.Contains(formats, row) {
				t.Errorf("FORMATS.md does not show %q", row)
			}
		}
	}
}
