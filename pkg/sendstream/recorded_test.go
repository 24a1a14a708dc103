package sendstream_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
)

// The streams in testdata were sent by a kernel from file systems that store
// data plain and in each compression. The .tree files are what find and
// sha256sum said of the subvolumes that btrfs receive made of them
// (integration/sendstream, TestRecord, built with the tag record).
func TestRecordedStreams(t *testing.T) {
	streams, err := filepath.Glob("testdata/*.stream")
	if err != nil || len(streams) != 5 {
		t.Fatalf("%d streams, %v", len(streams), err)
	}
	for _, name := range streams {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(strings.TrimSuffix(name, ".stream") + ".tree")
		if err != nil {
			t.Fatal(err)
		}
		m := new(sendstream.Memory)
		if err := sendstream.Replay(m, sendstream.NewReader(bytes.NewReader(raw), sendstream.Options{})); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := list(t, m)
		if got != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}

		encoded := map[sendstream.Compression]int{}
		var again bytes.Buffer
		w := sendstream.NewWriter(&again)
		r := sendstream.NewReader(bytes.NewReader(raw), sendstream.Options{})
		for c, err := range r.All() {
			if err != nil {
				t.Fatal(err)
			}
			if e, ok := c.(*sendstream.EncodedWrite); ok {
				encoded[e.Compression]++
			}
			if err := w.WriteCommand(c); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(again.Bytes(), raw) {
			t.Errorf("%s: written again, it differs", name)
		}
		kind := map[string]sendstream.Compression{"zlib": sendstream.CompressionZlib, "zstd": sendstream.CompressionZstd,
			"lzo": sendstream.CompressionLZO4K}[strings.TrimSuffix(filepath.Base(name), ".stream")]
		if kind != sendstream.CompressionNone && encoded[kind] < 4 {
			t.Errorf("%s: encoded writes %v", name, encoded)
		}
	}
}

// list describes the subvolumes of m in the words of a .tree file.
func list(t *testing.T, m *sendstream.Memory) string {
	t.Helper()
	letters := map[uint32]string{sendstream.ModeSocket: "s", sendstream.ModeSymlink: "l", sendstream.ModeRegular: "f",
		sendstream.ModeBlock: "b", sendstream.ModeDir: "d", sendstream.ModeChar: "c", sendstream.ModeFifo: "p"}
	var lines []string
	for s := range m.Subvolumes() {
		for f := range s.Names().Files() {
			size, hash := uint64(len(f.Dest)), "-"
			if f.IsRegular() {
				h := sha256.New()
				n, err := io.Copy(h, s.Open(f))
				if err != nil {
					t.Fatal(err)
				}
				size, hash = uint64(n), fmt.Sprintf("%x", h.Sum(nil))
			}
			for _, path := range f.Paths() {
				path = strings.TrimSuffix(s.Path+"/"+path, "/")
				lines = append(lines, fmt.Sprintf("%q %s %o %d %d %s\n", path, letters[f.Mode&sendstream.ModeType], f.Mode&0o7777, f.Nlink, size, hash))
			}
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "")
}

// A stream that is cut, or has a bit flipped, never passes for a whole one.
func TestRecordedStreamsDamaged(t *testing.T) {
	raw, err := os.ReadFile("testdata/zstd.stream")
	if err != nil {
		t.Fatal(err)
	}
	whole := func(b []byte) bool {
		r := sendstream.NewReader(bytes.NewReader(b), sendstream.Options{})
		ends := 0
		for {
			c, err := r.Next()
			if err == io.EOF {
				return ends == 2
			} else if err != nil {
				return false
			}
			if c.Kind() == sendstream.KindEnd {
				ends++
			}
		}
	}
	if !whole(raw) {
		t.Fatal("the undamaged stream is refused")
	}
	for cut := 0; cut < len(raw); cut += 37 {
		if whole(raw[:cut]) {
			t.Errorf("cut to %d bytes: accepted", cut)
		}
	}
	for at := 0; at < len(raw); at += 41 {
		for _, bit := range []byte{1, 16, 128} {
			b := bytes.Clone(raw)
			b[at] ^= bit
			if whole(b) {
				t.Errorf("bit %d of byte %d flipped: accepted", bit, at)
			}
		}
	}
}
