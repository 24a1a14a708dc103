package peers

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/torchwood"
	formats "github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/formats/proof"
	merkle "github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// policy is torchwood's for a log with one key.
func (l *log) policy(v note.Verifier) torchwood.Policy {
	return torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(l.origin), torchwood.SingleVerifierPolicy(v))
}

// checkNote has three parsers open a checkpoint, and both its signatures.
func checkNote(t *testing.T, l *log, msg []byte, size int64, root string) {
	t.Helper()
	v, err := note.NewVerifier(l.vkey)
	if err != nil {
		t.Fatal(err)
	}
	c, rest, n, err := formats.ParseCheckpoint(msg, l.origin, v)
	if err != nil || len(rest) > 0 || int64(c.Size) != size || base64.StdEncoding.EncodeToString(c.Hash) != root || len(n.Sigs) != 1 {
		t.Errorf("formats, size %d: %+v %v", size, c, err)
	}
	tc, _, err := torchwood.VerifyCheckpoint(msg, l.policy(v))
	if err != nil || tc.Origin != l.origin || tc.N != size || tc.Hash.String() != root {
		t.Errorf("torchwood, size %d: %+v %v", size, tc, err)
	}
	opened, err := note.Open(msg, note.VerifierList(v))
	if err != nil || len(opened.UnverifiedSigs) != 1 {
		t.Fatalf("x/mod, size %d: %v", size, err)
	}
	tree, err := tlog.ParseTree([]byte(strings.Replace(opened.Text, l.origin+"\n", "go.sum database tree\n", 1)))
	if err != nil || tree.N != size || tree.Hash.String() != root {
		t.Errorf("x/mod, size %d: %+v %v", size, tree, err)
	}
}

// checkInclusion has three verifiers check a tlog-proof, and refuse it for
// another event.
func checkInclusion(t *testing.T, l *log, index int64) {
	t.Helper()
	file := []byte(l.chain("prove", fmt.Sprint(index)))
	var p proof.TLogProof
	if err := p.Unmarshal(file); err != nil || int64(p.Index) != index {
		t.Fatalf("formats, event %d: %v", index, err)
	}
	if !bytes.Equal(p.Marshal(), file) {
		t.Errorf("formats writes the proof of %d otherwise", index)
	}
	v, err := note.NewVerifier(l.vkey)
	if err != nil {
		t.Fatal(err)
	}
	c, _, _, err := formats.ParseCheckpoint(p.Checkpoint, l.origin, v)
	if err != nil {
		t.Fatal(err)
	}
	var path [][]byte
	var record tlog.RecordProof
	for _, h := range p.Hashes {
		path = append(path, h[:])
		record = append(record, h)
	}
	for _, line := range [][]byte{p.ExtraData, append(bytes.Clone(p.ExtraData), ' ')} {
		good := len(line) == len(p.ExtraData)
		if err := merkle.VerifyInclusion(rfc6962.DefaultHasher, p.Index, c.Size, rfc6962.DefaultHasher.HashLeaf(line), path, c.Hash); (err == nil) != good {
			t.Errorf("transparency-dev/merkle, event %d: %v", index, err)
		}
		if err := tlog.CheckRecord(record, int64(c.Size), tlog.Hash(c.Hash), index, tlog.RecordHash(line)); (err == nil) != good {
			t.Errorf("x/mod, event %d: %v", index, err)
		}
		if err := torchwood.VerifyProof(l.policy(v), tlog.RecordHash(line), file); (err == nil) != good {
			t.Errorf("torchwood, event %d: %v", index, err)
		}
	}
}

// checkConsistency has two verifiers check what prove --consistency prints.
func checkConsistency(t *testing.T, l *log, old int64, oldRoot string) {
	t.Helper()
	head, msg, ok := strings.Cut(l.chain("prove", "--consistency", fmt.Sprint(old)), "\n\n")
	rows := strings.Split(head, "\n")
	if !ok || len(rows) < 2 || rows[1] != fmt.Sprintf("old %d %s", old, oldRoot) {
		t.Fatalf("consistency with %d: %q", old, head)
	}
	v, err := note.NewVerifier(l.vkey)
	if err != nil {
		t.Fatal(err)
	}
	c, _, _, err := formats.ParseCheckpoint([]byte(msg), l.origin, v)
	if err != nil {
		t.Fatal(err)
	}
	var path [][]byte
	var tree tlog.TreeProof
	for _, r := range rows[2:] {
		h, err := tlog.ParseHash(r)
		if err != nil {
			t.Fatal(err)
		}
		path = append(path, h[:])
		tree = append(tree, h)
	}
	root, err := tlog.ParseHash(oldRoot)
	if err != nil {
		t.Fatal(err)
	}
	if err := merkle.VerifyConsistency(rfc6962.DefaultHasher, uint64(old), c.Size, path, root[:], c.Hash); err != nil {
		t.Errorf("transparency-dev/merkle, %d to %d: %v", old, c.Size, err)
	}
	if old < int64(c.Size) {
		if err := tlog.CheckTree(tree, int64(c.Size), tlog.Hash(c.Hash), old, root); err != nil {
			t.Errorf("x/mod, %d to %d: %v", old, c.Size, err)
		}
	}
}

type state struct {
	size int64
	root string
}

// archived returns the checkpoints of the archive, as a reader would who only
// knows that an empty line stands behind each.
func (l *log) archived(t *testing.T) (notes [][]byte, states []state) {
	t.Helper()
	data, err := os.ReadFile(l.path("log/checkpoints"))
	if err != nil {
		t.Fatal(err)
	}
	parts := bytes.Split(data, []byte("\n\n"))
	for i := 0; i+1 < len(parts); i += 2 {
		msg := append(append(append(bytes.Clone(parts[i]), '\n', '\n'), parts[i+1]...), '\n')
		var s state
		fmt.Sscan(strings.Split(string(parts[i]), "\n")[1], &s.size)
		s.root = strings.Split(string(parts[i]), "\n")[2]
		notes, states = append(notes, msg), append(states, s)
	}
	return notes, states
}

// Every log that the tests make, every checkpoint of it, and proofs.
func TestAcceptedByOthers(t *testing.T) {
	for _, to := range [][]int{{0}, {1}, {254, -1}, {255}, {256, -1, 1}, {700, -1, 3, -1, -1, 65000}, {65535}, {65536, -1, 70000}} {
		t.Run(fmt.Sprint(to), func(t *testing.T) {
			t.Parallel()
			l := newLog(t, "peers.example/log")
			for _, n := range to {
				if n < 0 {
					l.chain("rotate-key")
				} else if n > 0 {
					l.append(n)
				}
			}
			msg, size, root := l.checkpoint()
			checkNote(t, l, msg, size, root)
			notes, states := l.archived(t)
			for i, s := range states {
				checkNote(t, l, notes[i], s.size, s.root)
				checkConsistency(t, l, s.size, s.root)
			}
			if len(notes) == 0 {
				t.Error("no archived checkpoint")
			}
			checkConsistency(t, l, size, root)
			for _, i := range []int64{0, 1, 255, 256, 700, 65535, 65536, size / 2, size - 1} {
				if i < size {
					checkInclusion(t, l, i)
				}
			}
			tiles := l.path("tiles")
			l.chain("export", "--tiles", tiles)
			if err := l.fsck("file://"+tiles, size, root); err != nil {
				t.Error(err)
			}
			if err := l.fsck(l.serveTiles(), size, root); err != nil {
				t.Errorf("over HTTP: %v", err)
			}
		})
	}
}

// serveTiles serves the log's tiles, synthesised from its segments, and returns
// their URL.
func (l *log) serveTiles() string {
	l.t.Helper()
	cmd := exec.Command(filepath.Join(tools, "servetiles"), l.path("log"))
	in, err := cmd.StdinPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	var url string
	if _, err := fmt.Fscanln(out, &url); err != nil {
		l.t.Fatal(err)
	}
	return url
}

// The wrapper finds what fsck finds: one byte of a bundle, one of a tile, a
// checkpoint of another key.
func TestFsckFindsTampering(t *testing.T) {
	l := newLog(t, "peers.example/log")
	l.append(600)
	_, size, root := l.checkpoint()
	l.chain("export", "--tiles", l.path("tiles"))
	if err := l.fsck("file://"+l.path("tiles"), size, root); err != nil {
		t.Fatal(err)
	}
	if err := l.fsck("file://"+l.path("tiles"), size-1, root); err == nil {
		t.Error("another size was accepted")
	}
	for _, name := range []string{"tile/entries/001", "tile/0/000", "tile/1/000.p/2", "checkpoint"} {
		path := filepath.Join(l.path("tiles"), filepath.FromSlash(name))
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(data)
		bad[len(bad)/2] ^= 1
		if err := os.WriteFile(path, bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if l.fsck("file://"+l.path("tiles"), size, root) == nil {
			t.Errorf("%s: not found", name)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// What a pruned log can prove is accepted like anything else.
func TestPrunedLogIsAccepted(t *testing.T) {
	l := newLog(t, "pruned.example/log")
	l.append(70000)
	_, kept, keptRoot := l.checkpoint()
	l.append(70000)
	l.chain("prune", "--keep-bytes", "25000000", "--reason", "a test")
	if _, err := os.Stat(l.path("log/000000.jsonl")); !os.IsNotExist(err) {
		t.Fatalf("segment 0: %v", err)
	}
	msg, size, root := l.checkpoint()
	checkNote(t, l, msg, size, root)
	for _, i := range []int64{65536, 131071, 131072, size - 1} {
		checkInclusion(t, l, i)
	}
	checkConsistency(t, l, kept, keptRoot)
	// Tiles above the segments are whole, so that who has older ones goes on.
	tiles := l.path("tiles")
	l.chain("export", "--tiles", tiles)
	if _, err := os.Stat(filepath.Join(tiles, "tile", "2", "000.p", "2")); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(tiles, "tile", "0", "000")); !os.IsNotExist(err) {
		t.Errorf("a tile of what was pruned: %v", err)
	}
	files := 0
	filepath.WalkDir(tiles, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files++
		}
		return err
	})
	if files < 100 {
		t.Errorf("%d tiles", files)
	}
}
