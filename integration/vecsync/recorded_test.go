//go:build linux

package vecsync_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ghostbridge/ghostbridge/integration/loopbtrfs"
	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/pkg/chain"
	"github.com/ghostbridge/ghostbridge/pkg/event"
	"github.com/ghostbridge/ghostbridge/pkg/index/local"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
	"github.com/ghostbridge/ghostbridge/pkg/subvol"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync/vecsynctest"
)

const firstSeed = 20261125

// TestRecordedStreams holds the index to the log with streams that a real btrfs
// has sent, and faults in them.
func TestRecordedStreams(t *testing.T) {
	oracle(t, firstSeed, "compress=zstd", 16, 150)
}

// TestRecordedStreamsTorture does so with 5,000 faults, or GB_TORTURE_CASES.
func TestRecordedStreamsTorture(t *testing.T) {
	require.Torture(t)
	n := int(number(t, "GB_TORTURE_CASES", 5000))
	seed := number(t, "GB_TORTURE_SEED", firstSeed)
	for i, options := range []string{"compress=no", "compress=zstd", "compress-force=zlib", "compress-force=lzo", "compress-force=zstd:9"} {
		t.Run(options, func(t *testing.T) { oracle(t, seed+uint64(i)*1000000, options, 40, n/5) })
	}
}

func number(t *testing.T, name string, value uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return value
	}
	v, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

func oracle(t *testing.T, seed uint64, options string, snapshots, n int) {
	r := record(t, seed, options, snapshots)
	r.Apply(t)
	outcomes := make(map[string]int)
	for i := range n {
		outcome, what, err := r.Fault(seed + uint64(i))
		if err != nil {
			t.Fatalf("seed %d, %s: %v", seed+uint64(i), what, err)
		}
		outcomes[outcome]++
	}
	last := r.Steps[len(r.Steps)-1]
	t.Logf("%d faults from seed %d, %s, %d snapshots, %d events: %v", n, seed, options, snapshots, last.Size, outcomes)
}

// record appends to a log on a btrfs without a pause, while snapshots are
// taken and sent in every version.
func record(t *testing.T, seed uint64, options string, snapshots int) *vecsynctest.Recording {
	t.Helper()
	fs := loopbtrfs.Mount(t, loopbtrfs.Options{MountOptions: "noatime," + options})
	src := filepath.Join(fs, "src")
	if err := sys.Create(src); err != nil {
		t.Fatal(err)
	}
	w := startWriter(t, seed, filepath.Join(src, "log"))
	r := rand.New(rand.NewPCG(seed, 3))
	rec := &vecsynctest.Recording{}
	streams := make(map[[2]int][][]byte)
	paths := make([]string, snapshots)
	infos := make([]subvol.Info, snapshots)
	for k := range snapshots {
		time.Sleep(time.Duration(r.IntN(40)) * time.Millisecond)
		paths[k] = filepath.Join(fs, fmt.Sprint("snap", k))
		err := sys.Snapshot(src, paths[k])
		if err == nil {
			infos[k], err = sys.Info(paths[k])
		}
		if err != nil {
			t.Fatal(err)
		}
		send := func(from int) {
			for _, version := range []int{1, 2} {
				stream, err := sent(fs, infos, paths, from, k, version)
				if err != nil {
					t.Fatal(err)
				}
				streams[[2]int{from, k}] = append(streams[[2]int{from, k}], stream)
			}
		}
		if k%5 == 0 { // the first, and as many as fit into memory
			send(-1)
		}
		for _, back := range []int{1, 3, 7} {
			if k-back >= 0 {
				send(k - back)
			}
		}
	}
	w.stop(t)
	for k, path := range paths {
		s, err := vecsynctest.ReadStep(path, sendstream.UUID(infos[k].UUID), infos[k].CTransID)
		if err != nil {
			t.Fatal(err)
		}
		rec.Steps = append(rec.Steps, s)
	}
	rec.Stream = func(k, to int, r *rand.Rand) []byte {
		list := streams[[2]int{max(k, -1), to}]
		if len(list) == 0 {
			return nil
		}
		return list[r.IntN(len(list))]
	}
	return rec
}

// sent returns the stream from one snapshot to another.
func sent(dir string, infos []subvol.Info, paths []string, from, to, version int) ([]byte, error) {
	job := subvol.SendJob{Path: paths[to], UUID: infos[to].UUID, Version: version}
	if from >= 0 {
		job.ParentPath, job.ParentUUID = paths[from], infos[from].UUID
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	job.Out = w
	done := make(chan error, 1)
	go func() { done <- errors.Join(sys.Send(context.Background(), job), w.Close()) }()
	stream, err := io.ReadAll(r)
	return stream, errors.Join(err, <-done)
}

// A writer appends to a log until it is stopped.
type writer struct {
	quit chan struct{}
	done chan error
}

func startWriter(t *testing.T, seed uint64, dir string) *writer {
	t.Helper()
	keys := t.TempDir()
	if _, err := chain.Create(dir, "recorded.example/log", keys, chain.Options{}); err != nil {
		t.Fatal(err)
	}
	log, err := chain.Open(dir, keys, chain.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := &writer{make(chan struct{}), make(chan error, 1)}
	go func() { w.done <- w.write(log, rand.New(rand.NewPCG(seed, 4))) }()
	return w
}

func (w *writer) write(log *chain.Log, r *rand.Rand) error {
	var p event.Parser
	for n := 0; ; {
		select {
		case <-w.quit:
			return log.Close()
		default:
		}
		b := &chain.Batch{}
		for range 1 + r.IntN(20) {
			size := 300
			switch r.IntN(40) {
			case 0:
				size = 20000
			case 1:
				size = 90000 // a file of its own
			}
			n++
			d, err := p.Parse(fmt.Appendf(nil, `{"source":"test","type":"test.event","message":"event number %d","data":{"text":"%x"}}`, n, make([]byte, r.IntN(size)/2)))
			if err != nil {
				return err
			}
			b.Drafts = append(b.Drafts, d)
		}
		err := log.Append(b)
		if err == nil && r.IntN(3) > 0 {
			err = log.Checkpoint()
		}
		if err == nil && r.IntN(30) == 0 {
			err = log.RotateKey()
		}
		if err != nil {
			return err
		}
		// Now and then several batches without a pause, in all not so many that
		// the streams of a long recording would not fit into memory.
		if r.IntN(4) > 0 {
			time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
		}
	}
}

func (w *writer) stop(t *testing.T) {
	t.Helper()
	close(w.quit)
	if err := <-w.done; err != nil {
		t.Fatal(err)
	}
}

// TestKilled kills the real gb-vecsync, again and again, at random moments
// while it ingests; after each it goes on from where its cursor file says.
func TestKilled(t *testing.T) { killed(t, firstSeed, 12, 40) }

// TestKilledTorture does so 600 times.
func TestKilledTorture(t *testing.T) {
	require.Torture(t)
	killed(t, number(t, "GB_TORTURE_SEED", firstSeed), 60, int(number(t, "GB_TORTURE_CASES", 600)))
}

func killed(t *testing.T, seed uint64, snapshots, kills int) {
	rec := record(t, seed+77, "compress=zstd", snapshots)
	dir := t.TempDir()
	h := &host{TB: t, keys: filepath.Join(dir, "keys"), index: filepath.Join(dir, "index.db"), cursor: filepath.Join(dir, "cursor")}
	r := rand.New(rand.NewPCG(seed, 5))
	// position returns the snapshot that a cursor names, -1 for none.
	position := func(c *vecsync.Cursor) int {
		for k, s := range rec.Steps {
			if c != nil && s.UUID == c.SnapshotUUID {
				return k
			}
		}
		return -1
	}
	outcomes, streams := make(map[string]int), 0
	var usual time.Duration // that a stream takes to be ingested, on this machine now
	for n := 0; ; n++ {
		at := position(fileCursor(t, h.cursor))
		if at == len(rec.Steps)-1 {
			if outcomes["killed"] >= kills {
				break
			}
			for _, suffix := range []string{"", "-wal", "-shm"} { // from the beginning
				os.Remove(h.index + suffix)
			}
			os.Remove(h.cursor)
			at = -1
		}
		stream := rec.Stream(at, at+1, r)
		if back := rec.Stream(at, min(at+3, len(rec.Steps)-1), r); back != nil && r.IntN(3) == 0 {
			stream = back
		}
		streams++
		var within time.Duration
		if n%10 > 0 && outcomes["killed"] < kills {
			within = usual + usual/8
		}
		start := time.Now()
		code, words := h.feed(stream, r, within)
		switch code {
		case -1:
			outcomes["killed"]++
		case 0:
			outcomes["done"]++
			if within == 0 {
				usual = time.Since(start)
			}
		case 75: // it was killed between the commit and the cursor file, which is there now
			outcomes["to be sent again"]++
		default:
			t.Fatalf("exit code %d: %s", code, words)
		}
		// What the file says is in the index.
		file := position(fileCursor(t, h.cursor))
		in := h.verify(rec, position)
		if file > in {
			t.Fatalf("the cursor file stands at %d, the index at %d", file, in)
		}
		if code == -1 && in > at {
			outcomes["of these after the commit"]++
		}
	}
	t.Logf("%d streams from seed %d: %v", streams, seed, outcomes)
	if outcomes["of these after the commit"] == 0 || outcomes["done"] == 0 {
		t.Errorf("outcomes %v", outcomes)
	}
}

// feed gives gb-vecsync ingest a stream, in pieces, and kills it at a random
// moment within a time, if that is not 0; the exit code is -1 then.
func (h *host) feed(stream []byte, r *rand.Rand, within time.Duration) (code int, words string) {
	h.Helper()
	cmd := h.command("gb-vecsync", "ingest")
	in, err := cmd.StdinPipe()
	h.must(err)
	var said bytes.Buffer
	cmd.Stderr = &said
	h.must(cmd.Start())
	if within > 0 {
		timer := time.AfterFunc(time.Duration(r.Int64N(int64(within))), func() { cmd.Process.Kill() })
		defer timer.Stop()
	}
	for rest := stream; len(rest) > 0; {
		n := min(len(rest), 1+r.IntN(100000))
		if _, err := in.Write(rest[:n]); err != nil {
			break // it was killed
		}
		rest = rest[n:]
		time.Sleep(time.Duration(r.IntN(300)) * time.Microsecond)
	}
	in.Close()
	cmd.Wait()
	return cmd.ProcessState.ExitCode(), said.String()
}

func fileCursor(t *testing.T, path string) *vecsync.Cursor {
	t.Helper()
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	c := new(vecsync.Cursor)
	if err := json.Unmarshal(data, c); err != nil {
		t.Fatalf("cursor file %q: %v", data, err)
	}
	return c
}

// verify compares the index with the log at the snapshot where it stands, and
// returns which that is.
func (h *host) verify(rec *vecsynctest.Recording, position func(*vecsync.Cursor) int) int {
	h.Helper()
	db, err := local.OpenReader(h.index)
	if errors.Is(err, os.ErrNotExist) {
		return -1
	}
	var version *local.VersionError
	if errors.As(err, &version) && version.Have == 0 { // killed before it was made
		return -1
	}
	h.must(err)
	defer db.Close()
	c, err := vecsync.ReadCursor(db)
	h.must(err)
	k := position(c)
	matches, err := db.Events(h.Context(), 0, 1<<62)
	h.must(err)
	if k < 0 {
		if len(matches) != 0 {
			h.Fatalf("%d events and no cursor", len(matches))
		}
		return k
	}
	want, err := rec.Steps[k].Events()
	h.must(err)
	if len(matches) != len(want) || int64(len(want)) != c.TreeSize {
		h.Fatalf("at snapshot %d: %d events, want %d, the cursor says %d", k, len(matches), len(want), c.TreeSize)
	}
	for i, m := range matches {
		e := want[i]
		data := e.Data[:min(len(e.Data), 4096)]
		if m.Index != e.Index || m.Time.UnixNano() != e.Time || m.Host != e.Host || m.Source != e.Source || m.Type != e.Type || m.Subject != e.Subject ||
			m.Severity != e.Severity || m.Actor != e.Actor || m.Message != e.Message || !strings.HasPrefix(string(m.Data), data) {
			h.Fatalf("at snapshot %d: event %+v, want %+v", k, m, e)
		}
	}
	return k
}
