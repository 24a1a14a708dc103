//go:build linux

package e2e

import (
	"fmt"
	"os"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/vswitch"
	"github.com/ghostbridge/ghostbridge/pkg/index"
	"github.com/ghostbridge/ghostbridge/pkg/index/qdrant/qdranttest"
	"github.com/ghostbridge/ghostbridge/pkg/names"
	"github.com/ghostbridge/ghostbridge/pkg/search"
)

// qdrantIndex turns the package's drop-in on: the units keep the index in a
// Qdrant on the host's loopback, which wants a key that only root can read, and
// questions are answered from there. Without it the index that is built in goes
// on where it stood. Qdrant is a double.
func qdrantIndex(t *testing.T, h *host) {
	const key = "a key that only root has"
	server := qdranttest.New(t)
	server.Stop()
	server.Key = key
	if err := vswitch.Enter(h.o.NS, func() error { return server.Serve(fmt.Sprintf("127.0.0.1:%d", names.QdrantGRPCPort)) }); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.path(names.ConfigDir+"/qdrant-key"), []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.run("cp", "-r", "/usr/share/ghostbridge/drop-ins/qdrant/.", "/etc/systemd/system/")
	reload := func() {
		h.run("systemctl", "daemon-reload")
		h.run("systemctl", "try-restart", "blockchain-search.service")
	}
	reload()
	finds := func(word string) {
		t.Helper()
		h.run("logger", "--tag", "e2e", word)
		h.eventually("an event in the index", func() string {
			hits, stand, err := search.AskSocket(t.Context(), h.path(names.SearchSocket), search.Request{Question: fmt.Sprintf("%q", word), Limit: 10})
			if err != nil || len(hits) == 0 {
				return fmt.Sprintf("no %s: %v, %+v", word, err, stand)
			}
			return ""
		})
	}
	finds("qdrantmarker")
	if n := server.Calls("Upsert"); n == 0 {
		t.Error("nothing was written to Qdrant")
	}
	alias := server.Aliased(names.QdrantAlias)
	if alias == "" {
		t.Fatalf("Qdrant has no %s", names.QdrantAlias)
	}
	before := h.state()
	finds("anothermarker")
	if s := h.state(); s.cursor == "" || s.events != before.events {
		t.Errorf("the file's index has changed as well: %+v, before %+v", s, before)
	}
	reads := server.Calls("Query") + server.Calls("Scroll") + server.Calls("Get") + server.Calls("Count")
	t.Logf("%d upserts, %d reads", server.Calls("Upsert"), reads)
	if reads == 0 {
		t.Error("the answer did not come from Qdrant")
	}
	if points := server.Points(alias, index.KindPoint); points == 0 {
		t.Error("Qdrant holds nothing")
	}
	h.run("rm", "-r", "/etc/systemd/system/gb-vecsync@.service.d", "/etc/systemd/system/blockchain-search.service.d")
	reload()
	finds("filemarker")
	h.converge()
	h.healthy()
}
