package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"sort"
	"strconv"
	"strings"
	"sync"
)

//go:embed assets
var assetFiles embed.FS

// assets are the files that pages name, under a path that changes with them.
type assets struct {
	hash  string
	files map[string]asset
}

type asset struct {
	kind         string
	plain, gzips []byte
}

var assetKinds = map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

func newAssets() (*assets, error) {
	entries, err := fs.ReadDir(assetFiles, "assets")
	if err != nil {
		return nil, err
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name() < entries[j].Name() })
	a := &assets{files: map[string]asset{}}
	sum := sha256.New()
	for _, e := range entries {
		data, err := fs.ReadFile(assetFiles, "assets/"+e.Name())
		if err != nil {
			return nil, err
		}
		kind := assetKinds[path.Ext(e.Name())]
		if kind == "" {
			return nil, fmt.Errorf("asset %s: of no known kind", e.Name())
		}
		fmt.Fprintf(sum, "%s %d\n", e.Name(), len(data))
		sum.Write(data)
		var b bytes.Buffer
		z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
		z.Write(data)
		z.Close()
		a.files[e.Name()] = asset{kind, data, b.Bytes()}
	}
	a.hash = hex.EncodeToString(sum.Sum(nil)[:6])
	return a, nil
}

func (a *assets) path(name string) string { return "/static/" + a.hash + "/" + name }

func (a *assets) serve(w http.ResponseWriter, r *http.Request) {
	f, ok := a.files[r.PathValue("file")]
	if !ok || r.PathValue("hash") != a.hash {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("Vary", "Accept-Encoding")
	body := f.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = f.gzips
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method != http.MethodHead {
		w.Write(body)
	}
}

// counters count answers by their status' class.
type counters struct {
	mu sync.Mutex
	n  [6]int64
}

func (c *counters) add(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[min(max(status/100, 0), 5)]++
}

func (c *counters) get() [6]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}
