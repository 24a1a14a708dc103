package chain

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/ghostbridge/ghostbridge/pkg/durable"
	"github.com/ghostbridge/ghostbridge/pkg/layout"
	"github.com/ghostbridge/ghostbridge/pkg/merkle"
)

// The tiles are those of C2SP tlog-tiles (c2sp.org/tlog-tiles): 256 hashes of
// one level, or 256 entries, a file.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// tilePath returns the name of a tile; level is -1 for a bundle of entries.
// width is tileWidth for a full one.
func tilePath(level int, n int64, width int) string {
	kind := "entries"
	if level >= 0 {
		kind = strconv.Itoa(level)
	}
	digits := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		digits = fmt.Sprintf("x%03d/%s", n%1000, digits)
	}
	path := "tile/" + kind + "/" + digits
	if width < tileWidth {
		path += fmt.Sprintf(".p/%d", width)
	}
	return path
}

// parseTilePath is the reverse of tilePath.
func parseTilePath(path string) (level int, n int64, width int, ok bool) {
	parts := strings.Split(path, "/")
	if len(parts) < 3 || parts[0] != "tile" {
		return 0, 0, 0, false
	}
	level = -1
	if parts[1] != "entries" {
		l, err := strconv.Atoi(parts[1])
		if err != nil || l < 0 || l > 63/tileHeight {
			return 0, 0, 0, false
		}
		level = l
	}
	width = tileWidth
	last := len(parts) - 1
	if base, partial := strings.CutSuffix(parts[last-1], ".p"); partial {
		w, err := strconv.Atoi(parts[last])
		if err != nil || w < 1 || w >= tileWidth {
			return 0, 0, 0, false
		}
		width, parts[last-1] = w, base
		parts = parts[:last]
	}
	for _, p := range parts[2:] {
		d, err := strconv.Atoi(strings.TrimPrefix(p, "x"))
		if err != nil || d < 0 || d > 999 || n > 1<<50 {
			return 0, 0, 0, false
		}
		n = n*1000 + int64(d)
	}
	// One number has one name.
	return level, n, width, tilePath(level, n, width) == path
}

// Tile returns the hashes of a tile: width nodes of level 8*level, from
// n*256 on.
func (t *Tree) Tile(level int, n int64, width int) ([]byte, error) {
	if err := t.inTree(level, n, width); err != nil {
		return nil, err
	}
	out := make([]byte, 0, width*32)
	for k := range int64(width) {
		h, err := t.Node(level*tileHeight, n*tileWidth+k)
		if err != nil {
			return nil, err
		}
		out = append(out, h[:]...)
	}
	return out, nil
}

// Entries returns a bundle of entries: each its length as two bytes, big
// endian, and its line.
func (t *Tree) Entries(n int64, width int) ([]byte, error) {
	if err := t.inTree(0, n, width); err != nil {
		return nil, err
	}
	lines, err := t.lines(n*tileWidth, width)
	if err != nil {
		return nil, err
	}
	var out []byte
	for _, l := range lines {
		out = binary.BigEndian.AppendUint16(out, uint16(len(l)))
		out = append(out, l...)
	}
	return out, nil
}

func (t *Tree) inTree(level int, n int64, width int) error {
	if have := t.Checkpoint.Size >> (level * tileHeight); n < 0 || width < 1 || n*tileWidth+int64(width) > have {
		return fmt.Errorf("%w: tile %d of level %d with %d hashes, the level has %d", fs.ErrNotExist, n, level, width, have)
	}
	return nil
}

// tile returns the content of a tile or bundle.
func (t *Tree) tile(level int, n int64, width int) ([]byte, error) {
	if level < 0 {
		return t.Entries(n, width)
	}
	return t.Tile(level, n, width)
}

// ExportTiles writes the log as C2SP tlog-tiles into dir, up to its latest
// checkpoint, which is written last, when all tiles are durable. A full tile
// that is there already is left as it is, since it never changes. A dir that
// holds tiles of another log, or of a later or another state of this one, is
// refused.
func (t *Tree) ExportTiles(ctx context.Context, dir string, progress func(done, size int64)) error {
	if err := t.continues(dir); err != nil {
		return fmt.Errorf("tiles in %s: %w", dir, err)
	}
	pruned, err := readPruned(t.fsys)
	if err != nil {
		return err
	}
	size := t.Checkpoint.Size
	for _, level := range tileLevels(size) {
		count := size >> (max(level, 0) * tileHeight)
		for n := int64(0); n*tileWidth < count; n++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			width := int(min(tileWidth, count-n*tileWidth))
			path := filepath.Join(dir, filepath.FromSlash(tilePath(level, n, width)))
			if _, err := os.Stat(path); err == nil && width == tileWidth {
				continue
			}
			data, err := t.tile(level, n, width)
			if errors.Is(err, fs.ErrNotExist) && (n*tileWidth+int64(width))<<(max(level, 0)*tileHeight) <= pruned.end() {
				continue
			}
			if err != nil {
				return err
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			if err := writeTile(path, data); err != nil {
				return err
			}
			if level < 0 && progress != nil {
				progress(min((n+1)*tileWidth, size), size)
			}
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := durable.SyncFS(dir); err != nil {
		return err
	}
	return durable.Replace(filepath.Join(dir, layout.Checkpoint), t.Note, 0o644)
}

// continues says whether the tiles in dir, if there are any, are of an earlier
// state of this log.
func (t *Tree) continues(dir string) error {
	note, err := os.ReadFile(filepath.Join(dir, layout.Checkpoint))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	old, err := merkle.Open(note, t.ring.Created.LogKey)
	if err != nil {
		return &configError{fmt.Errorf("they are of another log: %w", err), "name an empty directory"}
	}
	if old.Size > t.Checkpoint.Size {
		return &unverifiedError{fmt.Errorf("they are of %d events, the log has %d", old.Size, t.Checkpoint.Size)}
	}
	if root, err := t.RootAt(old.Size); err != nil {
		return err
	} else if root != old.Root {
		return &unverifiedError{fmt.Errorf("their %d events are others than the log's", old.Size)}
	}
	return nil
}

// writeTile gives a tile its content at once, so that one that was cut by a
// crash of the process is not taken for a full one later.
func writeTile(path string, data []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// tileLevels returns the levels of a tree of the given size, -1 for the
// bundles of entries.
func tileLevels(size int64) []int {
	levels := []int{-1}
	for l := 0; size>>(l*tileHeight) > 0; l++ {
		levels = append(levels, l)
	}
	return levels
}

// A TileHandler serves a log as C2SP tlog-tiles over HTTP, synthesised from
// its segments: GET /checkpoint, /tile/L/N[.p/W], /tile/entries/N[.p/W].
type TileHandler struct {
	FS fs.FS // the log directory

	mu    sync.Mutex // covers trees
	trees treeCache
}

// ServeHTTP implements http.Handler.
func (h *TileHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "only GET", http.StatusMethodNotAllowed)
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	data, immutable, err := h.get(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.Error(w, "no such tile", http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, "the log cannot be read", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if immutable {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	if r.Method == http.MethodGet {
		w.Write(data)
	}
}

func (h *TileHandler) get(path string) (data []byte, immutable bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trees.fsys = h.FS
	if path == layout.Checkpoint {
		t, err := h.trees.latest()
		if err != nil {
			return nil, false, err
		}
		return t.Note, false, nil
	}
	level, n, width, ok := parseTilePath(path)
	if !ok {
		return nil, false, fs.ErrNotExist
	}
	t := h.trees.tree // the newest that was asked for
	if t == nil || t.inTree(max(level, 0), n, width) != nil {
		if t, err = h.trees.latest(); err != nil {
			return nil, false, err
		}
	}
	data, err = t.tile(level, n, width)
	return data, true, err
}

// A treeCache is the tree of a log's latest checkpoint. Leaves that were read
// stay: a checkpointed event never changes, and if one does, no proof holds.
// It is for one goroutine.
type treeCache struct {
	fsys fs.FS
	tree *Tree // nil before the first call of latest
}

// latest returns the tree of the latest checkpoint.
func (c *treeCache) latest() (*Tree, error) {
	t, err := openTree(c.fsys, c.tree)
	if err != nil {
		return nil, err
	}
	if old := c.tree; old != nil {
		if bytes.Equal(old.Note, t.Note) {
			return old, nil
		}
		if old.Checkpoint.Size <= t.Checkpoint.Size {
			t.cache = old.cache
		}
	}
	c.tree = t
	return t, nil
}
