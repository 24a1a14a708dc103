package snap

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/tools"
)

// A host is a rig with a log in the source, and an index.
type host struct {
	*rig
	log, keys, index, cursor string
}

func newHost(t *testing.T) *host {
	h := &host{rig: newRig(t, loopbtrfs.Options{})}
	h.log, h.keys = filepath.Join(h.src, "log"), filepath.Join(h.state, "keys")
	h.index, h.cursor = filepath.Join(h.state, "index.db"), filepath.Join(h.state, "cursor")
	h.ok("gb-chain", "init", "--log", h.log, "--keys", h.keys, "--origin", "host.example/log")
	return h
}

func (h *host) append(message string) {
	h.Helper()
	line, err := json.Marshal(map[string]string{"source": "demo", "type": "note", "message": message})
	h.must(err)
	cmd := exec.Command(tools.Path(h, "gb-chain"), "append", "--log", h.log, "--keys", h.keys, "-")
	cmd.Stdin = bytes.NewReader(append(line, '\n'))
	if out, err := cmd.CombinedOutput(); err != nil {
		h.Fatalf("append: %v: %s", err, out)
	}
}

// found says whether a search finds message, and how many events the index has
// verified.
func (h *host) found(message string) bool {
	h.Helper()
	code, out, _ := h.run("gb-vecsync", "search", "--index", h.index, "--json", message)
	return code == 0 && strings.Contains(out, message)
}

// The way that systemd goes: gb-snap send --to a socket of which each
// connection is the standard input of a gb-vecsync. Events are found; where
// the receiver fails, gb-snap says so and the next attempt brings them.
func TestDeliverToVecsync(t *testing.T) {
	h := newHost(t)
	socket := filepath.Join(h.state, "vecsync.sock")
	l, err := net.Listen("unix", socket)
	h.must(err)
	defer l.Close()
	broken := make(chan bool, 1)
	go func() { // gb-vecsync.socket with Accept=yes
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			in, err := conn.(*net.UnixConn).File()
			conn.Close()
			if err != nil {
				return
			}
			index := h.index
			select {
			case <-broken:
				index = "/dev/null/none"
			default:
			}
			ingest := exec.Command(tools.Path(t, "gb-vecsync"), "ingest", "--index", index, "--cursor", h.cursor)
			ingest.Stdin = in
			ingest.Run()
			in.Close()
		}
	}()
	send := []string{"send", "--cursor", h.cursor, "--to", "unix:" + socket, h.src}
	h.append("alpha one")
	h.ok("gb-snap", "take", h.src)
	h.ok("gb-snap", send...)
	if !h.found("alpha") {
		t.Error("the first event is not found")
	}
	h.ok("gb-snap", send...) // nothing new
	h.append("beta two")
	h.ok("gb-snap", "take", h.src)
	broken <- true
	if code, _, words := h.snap(send...); code != 75 {
		t.Errorf("a broken receiver: exit code %d: %s", code, words)
	}
	h.append("gamma three")
	h.ok("gb-snap", "take", h.src)
	h.ok("gb-snap", "prune", "--keep", "1")
	h.ok("gb-snap", send...)
	for _, word := range []string{"alpha", "beta", "gamma"} {
		if !h.found(word) {
			t.Errorf("%s is not found", word)
		}
	}
	// --follow over the socket, with the loop beside it.
	take := h.take(200 * time.Millisecond)
	follow := h.start("gb-snap", nil, append([]string{send[0], "--follow"}, send[1:]...)...)
	h.append("delta four")
	h.await("delta", func() bool { return h.found("delta") })
	follow.stop()
	take.stop()
}

// gb-snap send --follow | gb-vecsync ingest: one pipe, a stream for each
// snapshot; the live tail is no more than 5 s behind, which is one of the three
// things that time decides.
func TestFollowIntoVecsync(t *testing.T) {
	h := newHost(t)
	h.append("alpha one")
	take := h.take(200 * time.Millisecond)
	pr, pw, err := os.Pipe()
	h.must(err)
	send := exec.Command(tools.Path(t, "gb-snap"), "send", "--follow", "--cursor", h.cursor, h.src)
	ingest := exec.Command(tools.Path(t, "gb-vecsync"), "ingest", "--index", h.index, "--cursor", h.cursor)
	var sendWords, ingestWords bytes.Buffer
	send.Env, send.Stdout, send.Stderr = h.env(), pw, &sendWords
	ingest.Stdin, ingest.Stderr = pr, &ingestWords
	h.must(send.Start())
	h.must(ingest.Start())
	pr.Close()
	pw.Close()
	for _, word := range []string{"alpha", "beta", "gamma"} {
		if word != "alpha" {
			h.append(word + " more")
		}
		begin := time.Now()
		h.await(word, func() bool { return h.found(word) })
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("%s was found after %v", word, d)
		}
	}
	h.must(send.Process.Signal(os.Interrupt))
	if err := send.Wait(); err != nil {
		t.Errorf("send: %v: %s", err, sendWords.String())
	}
	if err := ingest.Wait(); err != nil {
		t.Errorf("ingest: %v: %s", err, ingestWords.String())
	}
	take.stop()
}
