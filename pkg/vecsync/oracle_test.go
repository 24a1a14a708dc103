package vecsync_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ghostbridge/ghostbridge/integration/require"
	"github.com/ghostbridge/ghostbridge/pkg/sendstream"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync"
	"github.com/ghostbridge/ghostbridge/pkg/vecsync/vecsynctest"
)

// oracleSeed is that of the first fault.
const oracleSeed = 20261125

// TestIndexEqualsLog injects seeded faults and holds the index to the log:
// nothing lost, nothing twice, nothing corrupt accepted.
func TestIndexEqualsLog(t *testing.T) { faults(t, oracleSeed, 500) }

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
	outcomes := make(map[string]int)
	for done := 0; done < n; done += faultsPerHistory {
		r := newRecorded(t, seed+uint64(done), 24)
		for i := range min(faultsPerHistory, n-done) {
			c := &faultCase{recorded: r, rand: rand.New(rand.NewPCG(seed+uint64(done+i), 11))}
			outcome, err := c.run()
			if err != nil {
				t.Fatalf("seed %d, %s: %v\nrepeat: GB_TORTURE=1 GB_TORTURE_SEED=%d GB_TORTURE_CASES=%d go test -run TestIndexEqualsLogTorture ./pkg/vecsync",
					seed+uint64(done+i), c.what, err, seed+uint64(done), i+1)
			}
			outcomes[outcome]++
		}
	}
	t.Logf("%d faults from seed %d: %v", n, seed, outcomes)
	if n < 500 {
		return
	}
	for _, o := range faultKinds { // or the generator does not do its work
		if outcomes[o+": kept out"] == 0 && outcomes[o+": applied"] == 0 {
			t.Errorf("no %s", o)
		}
	}
}

// A recorded history, with the index as it is at each of its snapshots.
type recorded struct {
	steps []*vecsynctest.Step
	at    []*vecsynctest.Index
}

// newRecorded makes a log that is appended to while snapshots are taken: some
// between an append and its checkpoint, between the making of a file and its
// renaming, and in the middle of a write that a crash then takes back.
func newRecorded(t *testing.T, seed uint64, steps int) *recorded {
	t.Helper()
	h := vecsynctest.New(t, seed)
	grow(t, h, rand.New(rand.NewPCG(seed, 1)), steps)
	return index(t, h)
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

// index applies each snapshot to a copy of the index before it.
func index(t *testing.T, h *vecsynctest.History) *recorded {
	t.Helper()
	r := &recorded{steps: h.Steps()}
	ix := vecsynctest.NewIndex()
	for k, s := range r.steps {
		ix = ix.Clone()
		if n, err := vecsync.Ingest(ix, bytes.NewReader(r.stream(k-1, k, forms[k%len(forms)])), vecsync.Options{}); n != 1 || err != nil {
			t.Fatalf("snapshot %d: %d applied, %v", k, n, err)
		}
		if d := s.Diff(ix); d != "" {
			t.Fatalf("snapshot %d: %s", k, d)
		}
		r.at = append(r.at, ix)
	}
	return r
}

var forms = []vecsynctest.Form{{Version: 1}, {Version: 2}, {Version: 2, Compressed: true}}

// stream returns the stream from snapshot k to snapshot to, in full for k < 0.
func (r *recorded) stream(k, to int, form vecsynctest.Form) []byte {
	var from *vecsynctest.Step
	if k >= 0 {
		from = r.steps[k]
	}
	return vecsynctest.Stream(from, r.steps[to], form)
}

// A faultCase is one fault.
type faultCase struct {
	*recorded
	rand *rand.Rand
	what string
}

var errKilled = errors.New("killed")

// faultKinds are the kinds of fault, and one without any.
var faultKinds = []string{"cut at a command", "cut at a byte", "flipped bit", "one-byte reads", "reader killed", "index killed", "killed after the commit",
	"cursor not published", "replayed", "wrong parent"}

// run brings an index to some snapshot, sends it what leads on, with a fault,
// looks at it, and sends it again without.
func (c *faultCase) run() (outcome string, err error) {
	k := c.rand.IntN(len(c.steps) - 1)
	to := min(len(c.steps)-1, k+1)
	if c.rand.IntN(3) == 0 {
		to = k + 1 + c.rand.IntN(len(c.steps)-1-k)
	}
	full := c.rand.IntN(8) == 0
	form := forms[c.rand.IntN(len(forms))]
	form.Seed = c.rand.Uint64()
	kind := faultKinds[c.rand.IntN(len(faultKinds))]
	c.what = fmt.Sprintf("%s, from %d to %d, full %t, %+v", kind, k, to, full, form)

	// What is sent: one stream, or several that lead there step by step.
	var input []byte
	several := false
	switch {
	case full:
		input = c.stream(-1, to, form)
	case c.rand.IntN(4) == 0:
		several = true
		for at := k; at < to; at++ {
			input = append(input, c.stream(at, at+1, form)...)
		}
	default:
		input = c.stream(k, to, form)
	}
	ix := c.at[k].Clone()
	o := vecsync.Options{TempDir: os.TempDir()}
	reader, flipped := c.fault(kind, input, ix, &o, k)
	_, err = vecsync.Ingest(ix, reader, o)
	ix.Fail = nil

	// It stands at a snapshot that leads there, and holds just that.
	at, werr := c.whole(ix)
	if werr != nil {
		return "", fmt.Errorf("after the fault (%v): %w", err, werr)
	}
	if at < k && !full || at > to {
		return "", fmt.Errorf("after the fault (%v) it stands at %d", err, at)
	}
	// A cut between two streams can't be told from the end.
	if err == nil && at != to && !(several && strings.HasPrefix(kind, "cut")) {
		return "", fmt.Errorf("it stands at %d without an error", at)
	}
	outcome = kind + ": applied"
	if err != nil {
		outcome = kind + ": kept out"
		if werr := c.expected(kind, flipped, err); werr != nil {
			return "", werr
		}
		if finding, _ := vecsync.Standing(ix); finding != nil {
			return outcome, nil // the version was flipped: see expected
		}
	}
	// Again, without a fault, from where the cursor stands.
	if at == to {
		return outcome, nil
	}
	again := c.stream(at, to, forms[c.rand.IntN(len(forms))])
	if _, err := vecsync.Ingest(ix, bytes.NewReader(again), vecsync.Options{}); err != nil {
		return "", fmt.Errorf("sent again: %w", err)
	}
	if at, err = c.whole(ix); err != nil || at != to {
		return "", fmt.Errorf("sent again, it stands at %d: %w", at, err)
	}
	return outcome, nil
}

// fault prepares the fault. flipped is which byte it has changed, -1 if none.
func (c *faultCase) fault(kind string, input []byte, ix *vecsynctest.Index, o *vecsync.Options, k int) (r io.Reader, flipped int) {
	flipped = -1
	switch kind {
	case "cut at a command":
		ends := commandEnds(input)
		input = input[:ends[c.rand.IntN(len(ends)-1)]]
	case "cut at a byte":
		input = input[:c.rand.IntN(len(input))]
	case "flipped bit":
		flipped = c.rand.IntN(len(input))
		input = bytes.Clone(input)
		input[flipped] ^= 1 << c.rand.IntN(8)
	case "one-byte reads":
		return iotest.OneByteReader(bytes.NewReader(input)), -1
	case "reader killed":
		return io.MultiReader(bytes.NewReader(input[:c.rand.IntN(len(input))]), iotest.ErrReader(errKilled)), -1
	case "index killed", "killed after the commit":
		left := c.rand.IntN(60)
		ix.Fail = func(op string) error {
			if kind == "killed after the commit" {
				if op == "commit" {
					return errors.Join(errKilled, vecsynctest.ErrCommitted)
				}
				return nil
			}
			if left--; left < 0 {
				return errKilled
			}
			return nil
		}
	case "cursor not published":
		o.Cursor = filepath.Join(os.TempDir(), "there is no such directory", "cursor")
	case "replayed":
		// What was applied already comes once more.
		input = append(c.stream(k-1, k, forms[0]), input...)
	case "wrong parent":
		input = bytes.Clone(input)
		if at := bytes.Index(input, c.steps[k].UUID[:]); at >= 0 && k > 0 {
			s := vecsynctest.Stream(c.steps[k-1], c.steps[len(c.steps)-1], forms[0])
			return bytes.NewReader(s), -1
		}
		return iotest.DataErrReader(bytes.NewReader(input)), -1
	}
	return bytes.NewReader(input), flipped
}

// expected says whether an error fits the fault.
func (c *faultCase) expected(kind string, flipped int, err error) error {
	var stream *vecsync.StreamError
	var lost *vecsync.LostParentError
	var finding *vecsync.Finding
	ok := false
	switch kind {
	case "cut at a command", "cut at a byte":
		ok = errors.As(err, &stream)
	case "flipped bit":
		// No checksum covers the version in a stream's header: read as another
		// one, a stream can bring other bytes than it should, which the log's
		// own checksums find.
		ok = errors.As(err, &stream) || errors.As(err, &finding) && flipped >= 0
	case "reader killed", "index killed", "killed after the commit":
		ok = errors.Is(err, errKilled)
	case "cursor not published":
		ok = errors.Is(err, os.ErrNotExist)
	case "wrong parent":
		ok = errors.As(err, &lost)
	}
	if errors.As(err, &finding) && kind != "flipped bit" {
		ok = false
	}
	if !ok {
		return fmt.Errorf("error %T: %w", err, err)
	}
	return nil
}

// whole returns the snapshot that an index stands at, of which it holds
// everything and nothing else.
func (r *recorded) whole(ix *vecsynctest.Index) (k int, err error) {
	cursor, err := vecsync.ReadCursor(ix)
	if err != nil {
		return 0, err
	}
	for k, s := range r.steps {
		if s.UUID != cursor.SnapshotUUID {
			continue
		}
		if cursor.TreeSize != s.Size || cursor.Ctransid != s.Ctransid {
			return 0, fmt.Errorf("the cursor at snapshot %d is %+v, want size %d", k, cursor, s.Size)
		}
		if d := s.Diff(ix); d != "" {
			return 0, fmt.Errorf("at snapshot %d: %s", k, d)
		}
		return k, nil
	}
	return 0, fmt.Errorf("the cursor stands at %s", cursor.SnapshotUUID)
}

// commandEnds returns where each header and command of a stream ends.
func commandEnds(stream []byte) []int {
	var ends []int
	r := sendstream.NewReader(bytes.NewReader(stream), sendstream.Options{})
	for _, err := range r.All() {
		if err != nil {
			panic(err)
		}
		ends = append(ends, int(r.Offset()))
	}
	return ends
}
