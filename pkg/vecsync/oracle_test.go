package vecsync_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync/vecsynctest"
)

// oracleSeed is that of the first fault.
const oracleSeed = 20261125

// TestIndexEqualsLog injects seeded faults and holds the index to the log:
// nothing lost, nothing twice, nothing corrupt accepted.
func TestIndexEqualsLog(t *testing.T) { faults(t, oracleSeed, oracleFaults) }

// TestIndexEqualsLogTorture is the same with 12,000 faults, or
// GB_TORTURE_CASES, from the seed GB_TORTURE_SEED on.
func TestIndexEqualsLogTorture(t *testing.T) {
	require.Torture(t)
	faults(t, number(t, "GB_TORTURE_SEED", oracleSeed), int(number(t, "GB_TORTURE_CASES", 12000)))
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

// faultsPerHistory is how many faults one log serves for.
const faultsPerHistory = 100

func faults(t *testing.T, seed uint64, n int) {
	var mu sync.Mutex
	outcomes := make(map[string]int)
	t.Run("histories", func(t *testing.T) {
		for done := 0; done < n; done += faultsPerHistory {
			seed, n := seed+uint64(done), min(faultsPerHistory, n-done)
			t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
				t.Parallel()
				r := record(t, seed, 24)
				for i := range n {
					outcome, what, err := r.Fault(seed + uint64(i))
					if err != nil {
						t.Fatalf("seed %d, %s: %v\nrepeat: GB_TORTURE=1 GB_TORTURE_SEED=%d GB_TORTURE_CASES=%d go test -run TestIndexEqualsLogTorture ./pkg/vecsync",
							seed+uint64(i), what, err, seed, i+1)
					}
					mu.Lock()
					outcomes[outcome]++
					mu.Unlock()
				}
			})
		}
	})
	t.Logf("%d faults from seed %d: %v", n, seed, outcomes)
	if n < 500 {
		return
	}
	for _, o := range vecsynctest.FaultKinds { // or the generator does not do its work
		if outcomes[o+": kept out"] == 0 && outcomes[o+": applied"] == 0 {
			t.Errorf("no %s", o)
		}
	}
}

// record makes a log that is appended to while snapshots are taken: some
// between an append and its checkpoint, between the making of a file and its
// renaming, and in the middle of a write that a crash then takes back.
func record(t *testing.T, seed uint64, steps int) *vecsynctest.Recording {
	t.Helper()
	h := vecsynctest.New(t, seed)
	grow(t, h, rand.New(rand.NewPCG(seed, 1)), steps)
	forms := []vecsynctest.Form{{Version: 1}, {Version: 2}, {Version: 2, Compressed: true}}
	rec := &vecsynctest.Recording{Steps: h.Steps(), Stream: func(k, to int, r *rand.Rand) []byte {
		form := forms[r.IntN(len(forms))]
		form.Seed = r.Uint64()
		if k < 0 {
			return vecsynctest.Stream(nil, h.Step(to), form)
		}
		return vecsynctest.Stream(h.Step(k), h.Step(to), form)
	}}
	rec.Apply(t)
	return rec
}

func grow(t *testing.T, h *vecsynctest.History, r *rand.Rand, steps int) {
	t.Helper()
	for range steps {
		for range r.IntN(4) {
			size := 300
			if r.IntN(8) == 0 {
				size = 8000
			}
			h.Append(1+r.IntN(30), size)
			if r.IntN(3) > 0 {
				h.Checkpoint()
			}
		}
		switch r.IntN(12) {
		case 0:
			h.RotateKey()
		case 1:
			h.Append(1, 70000) // its data goes into a file of its own
		case 2:
			h.Crash([]byte(`{"i":12345,"at":"2026-01-02T03:04:05.000000000Z","source":"` + string(make([]byte, r.IntN(9000)))))
		case 3:
			tmp := filepath.Join(h.Dir, "checkpoint.tmp")
			if err := os.WriteFile(tmp, []byte("half of a no"), 0o644); err != nil {
				t.Fatal(err)
			}
		case 4:
			h.Append(3, 5000) // no checkpoint covers it
		}
		h.Snapshot()
	}
	h.Append(1, 10)
	h.Checkpoint()
	h.Snapshot()
}

// TestCutAtEachCommand cuts streams behind each header and command but the
// last: nothing of them is taken, and the whole one is then.
func TestCutAtEachCommand(t *testing.T) {
	h := vecsynctest.New(t, oracleSeed)
	grow(t, h, rand.New(rand.NewPCG(oracleSeed, 1)), 8)
	ix, cuts := vecsynctest.NewIndex(), 0
	var last *vecsynctest.Step
	for k, step := range h.Steps() {
		for _, form := range []vecsynctest.Form{{Version: 1}, {Version: 2, Compressed: true}} {
			form.Seed = uint64(k)
			stream := vecsynctest.Stream(last, step, form)
			r := sendstream.NewReader(bytes.NewReader(stream), sendstream.Options{})
			for c, err := range r.All() {
				if err != nil {
					t.Fatal(err)
				}
				if c.Kind() == sendstream.KindEnd {
					break
				}
				cuts++
				ix := ix.Clone()
				var bad *vecsync.StreamError
				if n, err := vecsync.Ingest(ix, bytes.NewReader(stream[:r.Offset()]), vecsync.Options{}); n != 0 || !errors.As(err, &bad) {
					t.Fatalf("snapshot %d, cut at %d: %d applied, %v", k, r.Offset(), n, err)
				}
				if last != nil && last.Diff(ix) != "" || last == nil && len(ix.Events())+len(ix.State()) > 0 {
					t.Fatalf("snapshot %d, cut at %d: something was taken", k, r.Offset())
				}
				if _, err := vecsync.Ingest(ix, bytes.NewReader(stream), vecsync.Options{}); err != nil || step.Diff(ix) != "" {
					t.Fatalf("snapshot %d, cut at %d and sent again: %v %s", k, r.Offset(), err, step.Diff(ix))
				}
			}
		}
		if err := ingest(ix, h, last, step, vecsync.Options{}); err != nil {
			t.Fatal(err)
		}
		last = step
	}
	t.Logf("%d cuts of %d streams", cuts, 2*len(h.Steps()))
}
