package chain

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// The line reader gives the lines that splitting gives, whatever the sizes of
// the reads, and their leaf hashes.
func FuzzLineReaderSplits(f *testing.F) {
	long := strings.Repeat("x", event.MaxLine)
	for _, s := range []string{"", "a", "a\n", "\n\n", "a\nb\nc", long + "\n", long + "\nb\n", long + "y\nb\n", "a\n" + long + long + long + "\nb", long + "y"} {
		f.Add([]byte(s), uint(1))
		f.Add([]byte(s), uint(70000))
	}
	f.Fuzz(func(t *testing.T, data []byte, chunk uint) {
		r := newLineReader(&chunks{data, int(chunk%100000) + 1})
		var h merkle.Hasher
		rest := data
		for {
			line, err := r.next()
			want, more, whole := bytes.Cut(rest, []byte("\n"))
			switch {
			case len(rest) == 0:
				if err != io.EOF {
					t.Fatalf("at the end: %v", err)
				}
				return
			case len(want) > event.MaxLine:
				if !errors.Is(err, errLongLine) || !bytes.HasPrefix(want, line[:64]) {
					t.Fatalf("a line of %d bytes: %v", len(want), err)
				}
			case !whole:
				if !errors.Is(err, errTornLine) || !bytes.Equal(line, want) {
					t.Fatalf("%.60q without an end: %.60q, %v", want, line, err)
				}
			case err != nil || !bytes.Equal(line, want):
				t.Fatalf("%.60q: %.60q, %v", want, line, err)
			default:
				if r.leaf() != h.Leaf(want) {
					t.Fatalf("%.60q: another leaf", want)
				}
				if !bytes.Equal(line, want) {
					t.Fatal("leaf changed the line")
				}
			}
			rest = more
			if r.off != int64(len(data)-len(rest)) {
				t.Fatalf("offset %d, want %d", r.off, len(data)-len(rest))
			}
		}
	})
}

// chunks reads at most n bytes at once.
type chunks struct {
	data []byte
	n    int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.n)], c.data)
	c.data = c.data[n:]
	return n, nil
}

func TestLineReaderPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	r := newLineReader(io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken)))
	if line, err := r.next(); string(line) != "a" || err != nil {
		t.Fatal(string(line), err)
	}
	if _, err := r.next(); !errors.Is(err, broken) {
		t.Fatal(err)
	}
}

// Whatever the bytes of a proof, what it proves is true: the event that it
// shows is the log's event of that index, and the old root that of the log.
func FuzzProofProvesTheTruth(f *testing.F) {
	dir, key := logOf(f, 700)
	tree, err := OpenTree(os.DirFS(dir))
	if err != nil {
		f.Fatal(err)
	}
	for _, i := range []int64{0, 1, 255, 256, 700} {
		p, err := tree.Prove(i)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
		// The same, of another event.
		f.Add(bytes.Replace(p, []byte("index "), []byte("index 1"), 1))
	}
	for _, old := range []int64{1, 2, 256, 700} {
		p, err := tree.ProveConsistency(old)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := CheckProof(in, key, nil)
		if err != nil {
			return
		}
		if p.Checkpoint != tree.Checkpoint {
			t.Fatalf("a checkpoint that was never signed: %+v", p.Checkpoint)
		}
		if p.Line != nil {
			if line, err := tree.Line(p.Index); err != nil || !bytes.Equal(line, p.Line) {
				t.Fatalf("event %d is proved to be %q", p.Index, p.Line)
			}
			return
		}
		if root, err := tree.RootAt(p.Old); err != nil || root != p.OldRoot {
			t.Fatalf("the root of the first %d events is proved to be %s", p.Old, p.OldRoot)
		}
	})
}

// Whatever is asked for, the handler answers with a tile of just the size that
// its name says, under its one name, or that there is none.
func FuzzTileHandlerServesTiles(f *testing.F) {
	dir, _ := logOf(f, 700)
	h := &TileHandler{FS: os.DirFS(dir)}
	for _, s := range []string{"checkpoint", "tile/0/000", "tile/0/002.p/189", "tile/1/000.p/2", "tile/entries/001", "tile/entries/002.p/5", "tile/2/000",
		"tile/0/x001/000", "tile/0/000.p/256", "tile/00/000", "tile/0/../0/000", "seals", "tile/8/000", "tile/entries/x999/x999/x999/x999/999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		w := httptest.NewRecorder()
		r := &http.Request{Method: http.MethodGet}
		r.URL = httptest.NewRequest(http.MethodGet, "/", nil).URL
		r.URL.Path = "/" + path
		h.ServeHTTP(w, r)
		level, n, width, ok := parseTilePath(strings.TrimPrefix(path, "/"))
		switch {
		case w.Code == http.StatusNotFound:
		case w.Code != http.StatusOK:
			t.Fatalf("%q: status %d: %s", path, w.Code, w.Body)
		case !ok:
			if p := strings.TrimPrefix(path, "/"); p != "checkpoint" {
				t.Fatalf("%q is served", path)
			}
		case tilePath(level, n, width) != strings.TrimPrefix(path, "/"):
			t.Fatalf("%q is served, the name is %q", path, tilePath(level, n, width))
		case level >= 0 && w.Body.Len() != 32*width:
			t.Fatalf("%q has %d bytes", path, w.Body.Len())
		}
	})
}
