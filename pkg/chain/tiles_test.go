package chain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// logOf makes a closed log of n events after its first one.
func logOf(t testing.TB, n int) (dir string, key merkle.Verifier) {
	t.Helper()
	return logIn(t, t.TempDir(), n)
}

// logIn is logOf in a directory of the caller's.
func logIn(t testing.TB, parent string, n int) (dir string, key merkle.Verifier) {
	t.Helper()
	dir, keys := filepath.Join(parent, "log"), filepath.Join(parent, "keys")
	made, err := Create(dir, "tiles.example/log", keys, Options{Host: "h"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(dir, keys, Options{Host: "h"})
	if err != nil {
		t.Fatal(err)
	}
	var p event.Parser
	b := &Batch{}
	for i := range n {
		d, err := p.Parse(fmt.Appendf(nil, `{"source":"t","type":"t","message":"event %d"}`, i))
		if err != nil {
			t.Fatal(err)
		}
		b.Drafts = append(b.Drafts, d)
	}
	if err := l.Append(b); err != nil || b.Err != nil {
		t.Fatal(err, b.Err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, made.LogKey
}

// tileReader reads tiles over HTTP as x/mod's own client code does.
type tileReader struct {
	t    *testing.T
	base string
}

func (r tileReader) Height() int                     { return tileHeight }
func (r tileReader) SaveTiles([]tlog.Tile, [][]byte) {}
func (r tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, tile := range tiles {
		// x/mod writes tile/8/L/N; C2SP leaves out the height.
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, status := fetch(r.t, r.base+"/"+path)
		if status != http.StatusOK {
			return nil, fmt.Errorf("%s: status %d", path, status)
		}
		out = append(out, data)
	}
	return out, nil
}

func fetch(t *testing.T, url string) ([]byte, int) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return data, resp.StatusCode
}

// x/mod's tile reader, which checks every tile against the root, reads all
// leaf hashes out of what the handler serves.
func TestTilesByIndependentReader(t *testing.T) {
	for _, n := range []int{0, 1, 255, 256, 700, 65535, 66000} {
		if raceDetector && n == 65535 {
			continue
		}
		dir, _ := logOf(t, n)
		server := httptest.NewServer(&TileHandler{FS: os.DirFS(dir)})
		tree, err := OpenTree(os.DirFS(dir))
		if err != nil {
			t.Fatal(err)
		}
		size := tree.Checkpoint.Size
		hr := tlog.TileHashReader(tlog.Tree{N: size, Hash: tlog.Hash(tree.Checkpoint.Root)}, tileReader{t, server.URL})
		var indexes []int64
		for i := int64(0); i < size; i += 1 + size/97 {
			indexes = append(indexes, tlog.StoredHashIndex(0, i))
		}
		hashes, err := hr.ReadHashes(indexes)
		if err != nil {
			t.Fatalf("size %d: %v", size, err)
		}
		for k, i := 0, int64(0); i < size; k, i = k+1, i+1+size/97 {
			line, err := tree.Line(i)
			if err != nil {
				t.Fatal(err)
			}
			if tlog.RecordHash(line) != hashes[k] {
				t.Fatalf("size %d: event %d has another hash in its tile", size, i)
			}
		}
		// The bundles hold the same lines.
		count := int(min(size, tileWidth))
		path := tilePath(-1, 0, count)
		data, status := fetch(t, server.URL+"/"+path)
		line, _ := tree.Line(0)
		if status != http.StatusOK || len(data) < 2 || !bytes.Equal(data[2:2+len(line)], line) {
			t.Errorf("size %d: %s: status %d", size, path, status)
		}
		for _, bad := range []string{"tile/0/999", "tile/0/0", "tile/9/000", "tile/entries/000.p/0", "tile/0/000.p/256", "tile/0/x000/000", "../log", "seals", ""} {
			if _, status := fetch(t, server.URL+"/"+bad); status != http.StatusNotFound {
				t.Errorf("%s: status %d", bad, status)
			}
		}
		server.Close()

		out := t.TempDir()
		if err := tree.ExportTiles(context.Background(), out, nil); err != nil {
			t.Fatal(err)
		}
		var files int
		filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				files++
			}
			return err
		})
		want := 1
		for _, l := range tileLevels(size) {
			want += int((size>>(max(l, 0)*tileHeight) + tileWidth - 1) / tileWidth)
		}
		if files != want {
			t.Errorf("size %d: %d files, want %d", size, files, want)
		}
	}
}

func TestProofs(t *testing.T) {
	flipEvery := 1
	if raceDetector {
		flipEvery = 23
	}
	dir, key := logOf(t, 66000)
	tree, err := OpenTree(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int64{0, 1, 255, 256, 65535, 65536, 66000} {
		proof, err := tree.Prove(i)
		if err != nil {
			t.Fatal(err)
		}
		p, err := CheckProof(proof, key, nil)
		if err != nil || p.Index != i {
			t.Fatalf("proof of %d: %v", i, err)
		}
		line, _ := tree.Line(i)
		if _, err := CheckProof(proof, key, line); err != nil {
			t.Error(err)
		}
		if _, err := CheckProof(proof, key, append(line, ' ')); !errors.Is(err, merkle.ErrProof) {
			t.Errorf("another line: %v", err)
		}
		other, err := merkle.KeyFromSeed("tiles.example/log", [32]byte{9})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := CheckProof(proof, other.Verifier(), nil); !errors.Is(err, merkle.ErrSignature) {
			t.Errorf("another key: %v", err)
		}
		// Any flipped bit of the proof is found, but those of the epoch key's
		// signature, which a proof does not rest on.
		epoch := bytes.Index(proof, []byte("\u2014 tiles.example/log/epoch"))
		for k := 0; k < epoch; k += flipEvery {
			bad := bytes.Clone(proof)
			bad[k] ^= 1
			if _, err := CheckProof(bad, key, nil); err == nil {
				t.Fatalf("proof of %d: byte %d changed and not found", i, k)
			}
		}
	}
	for _, old := range []int64{1, 2, 255, 256, 65536, 65537, 66001} {
		proof, err := tree.ProveConsistency(old)
		if err != nil {
			t.Fatal(err)
		}
		p, err := CheckProof(proof, key, nil)
		if err != nil || p.Old != old {
			t.Errorf("consistency with %d: %v", old, err)
		}
	}
	for _, bad := range []int64{-1, 66001} {
		if _, err := tree.Prove(bad); err == nil {
			t.Errorf("event %d was proved", bad)
		}
	}
	if _, err := tree.ProveConsistency(66002); err == nil {
		t.Error("consistency with a larger size")
	}
}
